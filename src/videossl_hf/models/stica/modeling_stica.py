"""STiCA: Space-Time Crop & Attend (Patrick et al., ICCV 2021, arXiv:2103.10211).

A video network and a sound network are trained without labels: a clip must find its own sound among those of
a batch (the cross-modal loss of GDT, arXiv:2003.04298), and a crop of its feature map must find another crop
of the same clip. Because crops are taken from the map of the last layer, many of them cost one pass through
the network; a light transformer turns each into one vector. Official code: github.com/facebookresearch/GDT,
main_stica.py and model.py.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init
from transformers.utils import ModelOutput, can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from ...errors import ConfigurationError, InputError
from ...nn.audio_resnet import AudioResNet
from ...nn.base import VideoSSLPreTrainedModel
from ...nn.batch_norm import GroupedBatchNorm1d
from ...nn.classification import classification_loss
from ...nn.clip_input import check_clips
from ...nn.feature_crop import counter_bits, pool_boxes
from ...nn.outputs import VideoClassifierOutput
from ...nn.r2plus1d import R2Plus1dStem, VideoResNet, VideoResNetStage
from .configuration_stica import STiCAConfig
from .objective_stica import (
    FULL,
    INPUT_CROP,
    FeatureCrops,
    Group,
    bits_needed,
    contrastive_losses,
    crop_boxes,
    crop_comparisons,
    draw_crops,
    groups_of_view,
    map_size,
)
from .pooling_stica import STiCAPooling, STiCAPoolingAttention


@dataclass
class STiCAModelOutput(ModelOutput):
    """Output of `STiCAModel` and `STiCAVideoModel`; fields of a modality that was not given are None.

    Attributes:
        last_hidden_state: `(batch, frames' * height' * width', hidden)`, the video's feature map, time first.
        pooler_output: `(batch, hidden)`, the pooled map: what the method is evaluated with.
        audio_last_hidden_state: `(batch, mel' * time', audio_hidden)`, the sound's feature map.
        audio_pooler_output: `(batch, audio_hidden)`, its mean.
        hidden_states: on request, the maps after the video stem and after each stage,
            `(batch, channels, frames, height, width)`.
        attentions: on request, of each pooling layer, `(batch, heads, tokens, tokens)`.
    """

    last_hidden_state: Tensor | None = None
    pooler_output: Tensor | None = None
    audio_last_hidden_state: Tensor | None = None
    audio_pooler_output: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class STiCAForPreTrainingOutput(ModelOutput):
    """Output of `STiCAForPreTraining`. Losses and accuracies are scalars and unweighted; absent ones are
    None.

    Attributes:
        loss: (1 - alpha) * loss_crops + alpha * loss_cross_modal.
        loss_cross_modal: mean over views and directions.
        loss_crops: mean over all comparisons of crops, of which the next four are the parts.
        loss_space_large, loss_space_small, loss_time_large, loss_time_small: mean of each kind.
        accuracy_video_to_audio, accuracy_audio_to_video: share of clips that find their own sound among those
            of all processes, and the reverse.
        accuracy_crops: share of crops that find the other crop of their clip.
        video_embeds: `(views, batch, projection_dim)`, of the full maps, unit length.
        audio_embeds: `(views, batch, projection_dim)`, unit length.
    """

    loss: Tensor | None = None
    loss_cross_modal: Tensor | None = None
    loss_crops: Tensor | None = None
    loss_space_large: Tensor | None = None
    loss_space_small: Tensor | None = None
    loss_time_large: Tensor | None = None
    loss_time_small: Tensor | None = None
    accuracy_video_to_audio: Tensor | None = None
    accuracy_audio_to_video: Tensor | None = None
    accuracy_crops: Tensor | None = None
    video_embeds: Tensor | None = None
    audio_embeds: Tensor | None = None


class STiCAVideoEncoder(nn.Module):
    """R(2+1)D network and pooling."""

    def __init__(self, config: STiCAConfig) -> None:
        super().__init__()
        synchronized = config.synchronize_batch_norm
        stem = R2Plus1dStem(
            config.num_channels, config.video_widths[0], config.video_stem_width, synchronized
        )
        self.backbone = VideoResNet(
            stem, config.video_widths, config.video_depths or (), synchronized=synchronized
        )
        self.pooling = STiCAPooling(config)
        self.num_channels = config.num_channels

    def feature_map(self, pixel_values_videos: Tensor) -> Tensor:
        """`(batch, frames, channels, height, width)` to `(batch, hidden, frames', height', width')`."""
        check_clips(pixel_values_videos, self.num_channels)
        dtype = next(self.backbone.parameters()).dtype
        return self.backbone(pixel_values_videos.transpose(1, 2).to(dtype))

    def forward(self, pixel_values_videos: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens of the map `(batch, frames' * height' * width', hidden)` and pooled `(batch, hidden)`."""
        feature_map = self.feature_map(pixel_values_videos)
        return feature_map.flatten(2).transpose(1, 2), self.pooling(feature_map)


class STiCAAudioEncoder(nn.Module):
    """2-D ResNet on log-mel spectrograms and the mean of its last map."""

    def __init__(self, config: STiCAConfig) -> None:
        super().__init__()
        self.backbone = AudioResNet(config.audio_widths, config.audio_depths, config.synchronize_batch_norm)

    def forward(self, input_features: Tensor) -> tuple[Tensor, Tensor]:
        """`(batch, 1, mel, time)` to tokens `(batch, mel' * time', hidden)` and their mean
        `(batch, hidden)`."""
        shape = tuple(input_features.shape)
        if len(shape) != 4 or shape[1] != 1 or 0 in shape:
            raise InputError(f"input_features has shape {shape}; give (batch, 1, mel, time)")
        feature_map = self.backbone(input_features.to(next(self.backbone.parameters()).dtype))
        tokens = feature_map.flatten(2).transpose(1, 2)
        return tokens, tokens.mean(1)


class STiCAProjection(nn.Module):
    """Head that maps features to the unit sphere on which they are compared.

    Dropout, linear layer, BatchNorm, ReLU, dropout, linear layer; every group of embeddings is a batch of its
    own for the BatchNorm.
    """

    def __init__(self, config: STiCAConfig, in_features: int) -> None:
        super().__init__()
        hidden = config.projection_hidden
        self.normalize = config.projection_normalize
        self.dropout = nn.Dropout(config.projection_dropout)
        self.fc1: nn.Linear | None = None
        if hidden is not None:
            self.fc1 = nn.Linear(in_features, hidden, bias=False)
            self.norm = GroupedBatchNorm1d(hidden, synchronized=config.synchronize_batch_norm)
        self.fc2 = nn.Linear(hidden or in_features, config.projection_dim)

    def forward(self, features: Tensor) -> Tensor:
        """`(groups, batch, in_features)` to `(groups, batch, projection_dim)`, unit length, float32 or
        better."""
        x = features.to(self.fc2.weight.dtype)
        if self.fc1 is not None:
            x = self.fc1(self.dropout(x))
            x = self.dropout(F.relu(self.norm(x)))
        x = self.fc2(x)
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        return F.normalize(x, dim=-1) if self.normalize else x


class STiCAPreTrainedModel(VideoSSLPreTrainedModel):
    """Base class: initialisation, names, and what can be recorded."""

    config_class = STiCAConfig
    base_model_prefix = "stica"
    input_modalities: tuple[str, ...] = ("video", "audio")
    _no_split_modules: ClassVar[list[str]] = [
        "R2Plus1dStem",
        "VideoResNetBlock",
        "AudioResNetBlock",
        "STiCAPoolingLayer",
    ]
    _can_record_outputs: ClassVar[dict[str, OutputRecorder]] = {
        "hidden_states": OutputRecorder(VideoResNetStage, index=0),
        "attentions": OutputRecorder(STiCAPoolingAttention, index=1),
    }

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight)
        else:
            super()._init_weights(module)


def _init_as_torch_does(layer: nn.Linear | nn.Conv2d) -> None:
    """torch's own initialisation, which the official code leaves in a few places."""
    init.kaiming_uniform_(layer.weight, a=5**0.5)
    if layer.bias is not None:
        bound = layer.weight[0].numel() ** -0.5
        init.uniform_(layer.bias, -bound, bound)


class STiCAVideoModel(STiCAPreTrainedModel):
    """The video tower alone."""

    input_modalities = ("video",)
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [r"audio_model\."]

    def __init__(self, config: STiCAConfig) -> None:
        super().__init__(config)
        self.video_model = STiCAVideoEncoder(config)
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(self, pixel_values_videos: Tensor, **kwargs: Any) -> STiCAModelOutput:
        """Features of normalised clips `(batch, frames, channels, height, width)`."""
        last_hidden_state, pooled = self.video_model(pixel_values_videos)
        return STiCAModelOutput(last_hidden_state=last_hidden_state, pooler_output=pooled)

    def get_video_features(self, pixel_values_videos: Tensor) -> Tensor:
        """Pooled features `(batch, hidden)` of clips `(batch, frames, channels, height, width)`."""
        return self(pixel_values_videos=pixel_values_videos).pooler_output


class STiCAModel(STiCAPreTrainedModel):
    """Video and sound tower; takes either modality or both."""

    def __init__(self, config: STiCAConfig) -> None:
        super().__init__(config)
        self.video_model = STiCAVideoEncoder(config)
        self.audio_model = STiCAAudioEncoder(config) if config.use_audio else None
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if self.audio_model is not None and module is self.audio_model.backbone.stem.conv:
            _init_as_torch_does(self.audio_model.backbone.stem.conv)
        else:
            super()._init_weights(module)

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self, pixel_values_videos: Tensor | None = None, input_features: Tensor | None = None, **kwargs: Any
    ) -> STiCAModelOutput:
        """Features of what is given.

        Args:
            pixel_values_videos: normalised clips `(batch, frames, channels, height, width)`.
            input_features: log-mel spectrograms `(batch, 1, mel, time)`.

        Raises:
            InputError: if neither is given, if shapes do not fit, or for sound without a sound tower.
        """
        if pixel_values_videos is None and input_features is None:
            raise InputError("give pixel_values_videos, input_features or both")
        output = STiCAModelOutput()
        if pixel_values_videos is not None:
            output["last_hidden_state"], output["pooler_output"] = self.video_model(pixel_values_videos)
        if input_features is not None:
            if self.audio_model is None:
                raise InputError("input_features given, but this model has no sound tower (use_audio=False)")
            audio_tokens, audio_pooled = self.audio_model(input_features)
            output["audio_last_hidden_state"], output["audio_pooler_output"] = audio_tokens, audio_pooled
        return output

    def get_video_features(self, pixel_values_videos: Tensor) -> Tensor:
        """Pooled features `(batch, hidden)` of clips `(batch, frames, channels, height, width)`."""
        return self(pixel_values_videos=pixel_values_videos).pooler_output

    def get_audio_features(self, input_features: Tensor) -> Tensor:
        """Pooled features `(batch, audio_hidden)` of spectrograms `(batch, 1, mel, time)`."""
        return self(input_features=input_features).audio_pooler_output


class STiCAForPreTraining(STiCAPreTrainedModel):
    """Both towers, a projection head each, and the objective.

    The places of the feature crops are a function of `config.crop_seed` and of the buffer `crop_step`, which
    counts the training forward passes and is saved with the weights: all processes draw the same crops, and a
    resumed run draws those that the unbroken one would have.

    With several processes, wrap it in DistributedDataParallel: BatchNorm and negatives span all processes,
    whose batches must have equal size. Negatives are those of one forward pass; gradient accumulation adds
    none.
    """

    def __init__(self, config: STiCAConfig) -> None:
        super().__init__(config)
        if not config.use_audio and (config.objective == "gdt" or config.alpha > 0):
            raise ConfigurationError(
                "use_audio=False leaves the cross-modal loss without sound: set use_audio=True or alpha=0"
            )
        self.stica = STiCAModel(config)
        self.video_projection = STiCAProjection(config, config.hidden_size)
        self.audio_projection: STiCAProjection | None = None
        if config.use_audio:
            self.audio_projection = STiCAProjection(config, config.audio_hidden_size)
        self.register_buffer("crop_step", torch.zeros((), dtype=torch.int64))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        heads = [self.video_projection, self.audio_projection]
        if module is self:
            init.zeros_(self.crop_step)
        elif isinstance(module, nn.Linear) and any(module in (head.fc1, head.fc2) for head in heads if head):
            _init_as_torch_does(module)
        else:
            super()._init_weights(module)

    @can_return_tuple
    def forward(
        self,
        pixel_values_videos: Tensor,
        second_pixel_values_videos: Tensor | None = None,
        input_features: Tensor | None = None,
        small_pixel_values_videos: Tensor | None = None,
        crops: Sequence[FeatureCrops] | None = None,
        generator: torch.Generator | None = None,
        **kwargs: Any,
    ) -> STiCAForPreTrainingOutput:
        """The loss of a batch.

        Args:
            pixel_values_videos: first view, `(batch, frames, channels, height, width)`.
            second_pixel_values_videos: second view, same shape; not used by GDT.
            input_features: log-mel spectrograms `(batch, 1, mel, time)`.
            small_pixel_values_videos: with `crop_space="input"`, the small crops of the video,
                `(batch, crops, frames, channels, height, width)`.
            crops: boxes on the feature maps of both views; drawn when None.
            generator: draws the crops (and GDT's negatives) instead of the step counter. It must be in the
                same state on all processes.
        """
        views = self._views(pixel_values_videos, second_pixel_values_videos)
        comparisons = crop_comparisons(self.config)
        maps = self._feature_maps(views)
        size = map_size(maps[0])
        groups = [groups_of_view(comparisons, view) for view in range(len(views))]
        if crops is None and any(len(own) > 1 for own in groups):
            crops = self._draw_crops(size, generator)
        pooling = self.stica.video_model.pooling
        tokens = [
            pool_boxes(
                feature_map,
                crop_boxes(own, crops[view] if crops is not None else None, size, feature_map),
                pooling.token_count(feature_map),
            )
            for view, (feature_map, own) in enumerate(zip(maps, groups, strict=True))
        ]
        names = [group for own in groups for group in own]
        small = sorted({entry.query for entry in comparisons if entry.query[1] == INPUT_CROP})
        if small:
            tokens.append(self._small_view_tokens(small_pixel_values_videos, len(small), tokens[0].shape[2]))
            names += small
        embeddings = self.video_projection(pooling.attend(torch.cat(tokens)))
        video: dict[Group, Tensor] = dict(zip(names, embeddings, strict=True))
        audio = self._embed_audio(input_features, len(views))
        losses = contrastive_losses(self.config, video, audio, generator)
        return STiCAForPreTrainingOutput(
            loss=losses.loss,
            loss_cross_modal=losses.loss_cross_modal,
            loss_crops=losses.loss_crops,
            **{f"loss_{part}": value for part, value in losses.parts.items()},
            accuracy_video_to_audio=losses.accuracy_video_to_audio,
            accuracy_audio_to_video=losses.accuracy_audio_to_video,
            accuracy_crops=losses.accuracy_crops,
            video_embeds=torch.stack([video[view, FULL, 0] for view in range(len(views))]),
            audio_embeds=audio,
        )

    def get_video_embeddings(self, pixel_values_videos: Tensor) -> Tensor:
        """Clips `(batch, frames, channels, height, width)` on the common sphere:
        `(batch, projection_dim)`."""
        pooled = self.stica.get_video_features(pixel_values_videos)
        return self.video_projection(pooled[None])[0]

    def get_audio_embeddings(self, input_features: Tensor) -> Tensor:
        """Spectrograms `(batch, 1, mel, time)` on the common sphere: `(batch, projection_dim)`."""
        if self.audio_projection is None:
            raise InputError("this model has no sound tower (use_audio=False)")
        return self.audio_projection(self.stica.get_audio_features(input_features)[None])[0]

    def _views(self, first: Tensor, second: Tensor | None) -> list[Tensor]:
        if self.config.objective == "gdt":
            return [first]
        if second is None:
            raise InputError(
                "STiCA compares two views: give second_pixel_values_videos (or set objective='gdt')"
            )
        if first.shape != second.shape:
            raise InputError(f"the views differ in shape: {tuple(first.shape)} and {tuple(second.shape)}")
        return [first, second]

    def _feature_maps(self, views: list[Tensor]) -> Sequence[Tensor]:
        encoder = self.stica.video_model
        if self.config.concat_views:
            return encoder.feature_map(torch.cat(views)).chunk(len(views))
        return [encoder.feature_map(view) for view in views]

    def _draw_crops(
        self, size: tuple[int, int, int], generator: torch.Generator | None
    ) -> list[FeatureCrops]:
        count = bits_needed(self.config)
        if generator is not None:
            bits = torch.randint(2**32, (2 * count,), generator=generator, device=generator.device)
            bits = bits.to(self.crop_step.device, non_blocking=True)
        else:
            bits = counter_bits(self.config.crop_seed, self.crop_step, 2 * count)
            if self.training:
                self.crop_step.add_(1)
        return [draw_crops(self.config, size, own) for own in bits.split(count)]

    def _small_view_tokens(self, small: Tensor | None, count: int, tokens: int) -> Tensor:
        """Tokens of the input crops, `(crops, batch, tokens, hidden)`; all crops are one batch."""
        if small is None or small.dim() != 6 or small.shape[1] != count:
            found = None if small is None else tuple(small.shape)
            raise InputError(
                f"small_pixel_values_videos has shape {found}; with crop_space='input' give (batch, {count},"
                " frames, channels, height, width)"
            )
        feature_map = self.stica.video_model.feature_map(small.flatten(0, 1))
        box = crop_boxes([(0, FULL, 0)], None, map_size(feature_map), feature_map)
        pooled = pool_boxes(feature_map, box, tokens)[0]
        return pooled.unflatten(0, (-1, count)).transpose(0, 1)

    def _embed_audio(self, input_features: Tensor | None, views: int) -> Tensor | None:
        """One pass through the sound tower, and one through the head for each view (their dropout
        differs)."""
        if self.audio_projection is None or (input_features is None and self.config.alpha == 0):
            return None
        if input_features is None:
            raise InputError("the cross-modal loss needs sound: give input_features (or set alpha=0)")
        pooled = self.stica.get_audio_features(input_features)
        return self.audio_projection(pooled.expand(views, *pooled.shape))


class STiCAForVideoClassification(STiCAPreTrainedModel):
    """Video tower and a linear classifier of its pooled features.

    There is no sound tower: `config` is copied with `use_audio=False`, so that a saved classifier loads
    whole.
    """

    input_modalities = ("video",)
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [r"audio_model\."]

    def __init__(self, config: STiCAConfig) -> None:
        config = copy.deepcopy(config)
        config.use_audio = False
        super().__init__(config)
        self.num_labels = config.num_labels
        self.stica = STiCAModel(config)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier_norm = (
            nn.BatchNorm1d(config.hidden_size) if config.classifier_batch_norm else nn.Identity()
        )
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if module is self.classifier:
            init.orthogonal_(self.classifier.weight)
            init.zeros_(self.classifier.bias)
        else:
            super()._init_weights(module)

    @can_return_tuple
    def forward(
        self, pixel_values_videos: Tensor, labels: Tensor | None = None, **kwargs: Any
    ) -> VideoClassifierOutput:
        """Logits, and with labels the cross-entropy.

        Args:
            pixel_values_videos: normalised clips `(batch, frames, channels, height, width)`.
            labels: classes `(batch,)` int64, or their probabilities `(batch, num_labels)`.
        """
        output = self.stica(pixel_values_videos=pixel_values_videos, **kwargs)
        features = output.pooler_output
        if self.config.classifier_normalize:
            features = F.normalize(features, dim=-1)
        features = features.to(self.classifier.weight.dtype)
        logits = self.classifier(self.classifier_norm(self.dropout(features)))
        loss = None if labels is None else classification_loss(logits, labels)
        return VideoClassifierOutput(
            loss=loss,
            logits=logits,
            pooler_output=output.pooler_output,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )

    def parameter_groups(self, optimizer_config: Any) -> list[dict[str, Any]]:
        """Classifier, backbone and pooling; the last two learn at a tenth of the classifier's rate, as
        published.

        Args:
            optimizer_config: its `lr` is the classifier's.
        """
        encoder = self.stica.video_model
        head = [*self.classifier_norm.parameters(), *self.classifier.parameters()]
        groups = [
            {"name": "classifier", "params": head, "lr": optimizer_config.lr},
            {"name": "backbone", "params": encoder.backbone.parameters(), "lr": 0.1 * optimizer_config.lr},
            {"name": "pooling", "params": encoder.pooling.parameters(), "lr": 0.1 * optimizer_config.lr},
        ]
        for group in groups:
            group["params"] = [parameter for parameter in group["params"] if parameter.requires_grad]
        return [group for group in groups if group["params"]]


__all__ = [
    "STiCAForPreTraining",
    "STiCAForPreTrainingOutput",
    "STiCAForVideoClassification",
    "STiCAModel",
    "STiCAModelOutput",
    "STiCAPreTrainedModel",
    "STiCAVideoModel",
]
