from dataclasses import dataclass

import torch
from torch import nn
from transformers.utils import ModelOutput, can_return_tuple

from ...nn.base import VideoSSLPreTrainedModel
from ...nn.outputs import VideoClassifierOutput
from .configuration_hum import HUMConfig

__all__ = ["HUMForVideoClassification", "HUMModel"]


@dataclass
class HUMModelOutput(ModelOutput):
    last_hidden_state: torch.Tensor | None = None
    pooler_output: torch.Tensor | None = None


class HUMPreTrainedModel(VideoSSLPreTrainedModel):
    config_class = HUMConfig
    base_model_prefix = "hum"


class HUMModel(HUMPreTrainedModel):
    def __init__(self, config: HUMConfig) -> None:
        super().__init__(config)
        self.embed = nn.Linear(3, config.hidden_size)
        self.post_init()

    @can_return_tuple
    def forward(self, pixel_values_videos: torch.Tensor, **kwargs: object) -> HUMModelOutput:
        tokens = self.embed(pixel_values_videos.mean((-2, -1)))
        return HUMModelOutput(last_hidden_state=tokens, pooler_output=tokens.mean(1))


class HUMForVideoClassification(HUMPreTrainedModel):
    def __init__(self, config: HUMConfig) -> None:
        super().__init__(config)
        self.hum = HUMModel(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(self, pixel_values_videos: torch.Tensor, **kwargs: object) -> VideoClassifierOutput:
        features = self.hum(pixel_values_videos).pooler_output
        return VideoClassifierOutput(logits=self.classifier(features), pooler_output=features)
