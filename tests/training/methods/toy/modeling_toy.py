from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from transformers.utils import ModelOutput

from ...nn.base import VideoSSLPreTrainedModel
from .configuration_toy import ToyConfig

__all__ = ["ToyForPreTraining", "ToyModel"]


@dataclass
class ToyOutput(ModelOutput):
    last_hidden_state: torch.Tensor | None = None
    pooler_output: torch.Tensor | None = None


@dataclass
class ToyForPreTrainingOutput(ModelOutput):
    loss: torch.Tensor | None = None
    loss_even: torch.Tensor | None = None
    loss_odd: torch.Tensor | None = None


class ToyPreTrainedModel(VideoSSLPreTrainedModel):
    config_class = ToyConfig
    base_model_prefix = "toy"


class ToyModel(ToyPreTrainedModel):
    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        self.convolution = nn.Conv3d(config.num_channels, config.hidden_size, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm3d(config.hidden_size)
        self.post_init()

    def forward(self, pixel_values_videos: torch.Tensor, **kwargs: object) -> ToyOutput:
        features = F.relu(self.norm(self.convolution(pixel_values_videos.transpose(1, 2))))
        return ToyOutput(features.flatten(2).transpose(1, 2), features.mean(dim=(2, 3, 4)))


class ToyForPreTraining(ToyPreTrainedModel):
    """Predicts a reversed clip's features from the clip's; counts its updates, as a queue would."""

    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        self.toy = ToyModel(config)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.hidden_size, config.hidden_size)
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.register_buffer("last_epoch", torch.zeros((), dtype=torch.int64))
        self.post_init()

    def forward(self, pixel_values_videos: torch.Tensor, **kwargs: object) -> ToyForPreTrainingOutput:
        features = self.toy(pixel_values_videos).pooler_output
        target = self.toy(pixel_values_videos.flip(1)).pooler_output.detach() + 0.1
        error = (self.head(self.dropout(features)) - target).square()
        even, odd = error[:, ::2].mean(), error[:, 1::2].mean()
        loss = even + odd
        if self.config.diverge_at is not None:
            loss = loss * torch.where(self.updates + 1 >= self.config.diverge_at, torch.nan, 1.0)
        return ToyForPreTrainingOutput(loss=loss, loss_even=even, loss_odd=odd)

    def before_epoch(self, epoch: int) -> None:
        self.last_epoch.fill_(epoch)

    def after_optimizer_step(self, step: int, max_steps: int) -> None:
        self.updates.fill_(step)
