"""VideoMoCo: contrastive video representation learning with temporally adversarial examples (Pan et al.,
CVPR 2021, arXiv:2103.05905).

A query encoder must recognise a clip of which a generator has dropped frames among a queue of keys, made by a
slowly moving copy of the encoder (MoCo); the generator learns to drop those frames whose loss changes the
embedding most. Keys in the queue count less the older they are. Official code:
github.com/tinapan-pt/VideoMoCo, moco/builder.py and train.py.
"""

from __future__ import annotations

import math
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
from ...nn.base import VideoSSLPreTrainedModel
from ...nn.classification import classification_loss
from ...nn.clip_input import check_clips
from ...nn.distributed import all_reduce_sum, gather, process_count
from ...nn.outputs import VideoClassifierOutput
from ...nn.r2plus1d import VideoResNetStage
from ...nn.r3d import make_video_resnet
from .configuration_videomoco import VideoMoCoConfig, generator_map_side
from .generator_videomoco import HiddenLinear, VideoMoCoGenerator, drop_frames, lowest_frames
from .objective_videomoco import (
    KeyQueue,
    attach_gradient,
    contrast,
    draw_shuffle,
    encode_shuffled,
    shuffle_of,
)


@dataclass
class VideoMoCoModelOutput(ModelOutput):
    """Output of `VideoMoCoModel`.

    Attributes:
        last_hidden_state: `(batch, frames' * height' * width', hidden)`, the feature map, time first.
        pooler_output: `(batch, hidden)`, its mean: what the method is evaluated with.
        hidden_states: on request, the maps after the stem and after each stage,
            `(batch, channels, frames, height, width)`.
    """

    last_hidden_state: Tensor | None = None
    pooler_output: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


@dataclass
class VideoMoCoForPreTrainingOutput(ModelOutput):
    """Output of `VideoMoCoForPreTraining`. Losses and accuracies are scalars; what a stage lacks is None.

    Attributes:
        loss: what to call `backward` on. Its value is the sum of the next two; its gradient is that of loss_d
            for the encoder, and for the generator that of loss_g (and of loss_d, by configuration).
        loss_d: cross-entropy of finding the key of each query.
        loss_g: -generator_loss_weight * embedding_distance.
        embedding_distance: mean absolute difference between embeddings of whole clips and of those with
            dropped frames.
        accuracy_top1, accuracy_top5: share of queries whose key scores highest, or among the five highest, of
            all keys.
        logits: `(batch, 1 + queue_size)`, the positive first; detached.
        scores: `(batch, frames)` of the generator; the lowest are dropped.
        dropped_frames: `(batch, count)` indices, ascending.
        query_embeds: `(batch, dim)`, unit length, of the clips that are compared with the keys.
        whole_query_embeds: the same of whole clips, where frames were dropped for the former.
        key_embeds: `(batch, dim)`, unit length.
    """

    loss: Tensor | None = None
    loss_d: Tensor | None = None
    loss_g: Tensor | None = None
    embedding_distance: Tensor | None = None
    accuracy_top1: Tensor | None = None
    accuracy_top5: Tensor | None = None
    logits: Tensor | None = None
    scores: Tensor | None = None
    dropped_frames: Tensor | None = None
    query_embeds: Tensor | None = None
    whole_query_embeds: Tensor | None = None
    key_embeds: Tensor | None = None


class VideoMoCoEncoder(nn.Module):
    """Video ResNet and the mean of its map."""

    def __init__(self, config: VideoMoCoConfig) -> None:
        super().__init__()
        self.num_channels = config.num_channels
        self.backbone = make_video_resnet(
            config.arch,
            config.num_channels,
            config.widths,
            config.depths,
            config.stem_width,
            config.synchronize_batch_norm,
        )

    def forward(self, pixel_values_videos: Tensor) -> tuple[Tensor, Tensor]:
        """`(batch, frames, channels, height, width)` to tokens `(batch, frames' * height' * width', hidden)`
        and their mean `(batch, hidden)`."""
        check_clips(pixel_values_videos, self.num_channels)
        dtype = next(self.backbone.parameters()).dtype
        tokens = self.backbone(pixel_values_videos.transpose(1, 2).to(dtype)).flatten(2).transpose(1, 2)
        return tokens, tokens.mean(1)


class VideoMoCoProjection(nn.Module):
    """From features to the unit sphere on which they are compared: one linear layer, or two."""

    def __init__(self, config: VideoMoCoConfig) -> None:
        super().__init__()
        self.fc1 = HiddenLinear(config.hidden_size, config.hidden_size) if config.mlp else None
        self.fc2 = nn.Linear(config.hidden_size, config.dim)

    def forward(self, pooled: Tensor) -> Tensor:
        """`(batch, hidden)` to `(batch, dim)`, unit length, float32 or better."""
        x = pooled.to(self.fc2.weight.dtype)
        if self.fc1 is not None:
            x = F.relu(self.fc1(x))
        x = self.fc2(x)
        return F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=1)


class VideoMoCoPreTrainedModel(VideoSSLPreTrainedModel):
    """Base class: initialisation, names, and what can be recorded."""

    config_class = VideoMoCoConfig
    base_model_prefix = "videomoco"
    _no_split_modules: ClassVar[list[str]] = ["R2Plus1dStem", "R3dStem", "VideoResNetBlock"]
    _can_record_outputs: ClassVar[dict[str, OutputRecorder]] = {
        "hidden_states": OutputRecorder(VideoResNetStage, index=0)
    }

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv3d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, (nn.Conv2d, HiddenLinear)):  # torch's own, as the official code leaves it
            init.kaiming_uniform_(module.weight, a=5**0.5)
            if module.bias is not None:
                bound = module.weight[0].numel() ** -0.5
                init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, nn.LSTM):
            for weight in module.parameters():
                init.uniform_(weight, -(module.hidden_size**-0.5), module.hidden_size**-0.5)
        elif isinstance(module, nn.Linear):  # as torchvision's video ResNets begin, and the classifiers
            init.normal_(module.weight, std=0.01)
            init.zeros_(module.bias)
        elif isinstance(module, KeyQueue):
            init.copy_(module.keys, F.normalize(torch.randn_like(module.keys), dim=0))
            init.zeros_(module.ages)
            init.zeros_(module.pointer)
        else:
            super()._init_weights(module)


class VideoMoCoModel(VideoMoCoPreTrainedModel):
    """The (query) encoder."""

    def __init__(self, config: VideoMoCoConfig) -> None:
        super().__init__(config)
        self.encoder = VideoMoCoEncoder(config)
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(self, pixel_values_videos: Tensor, **kwargs: Any) -> VideoMoCoModelOutput:
        """Features of normalised clips `(batch, frames, channels, height, width)`, of any length and size."""
        last_hidden_state, pooled = self.encoder(pixel_values_videos)
        return VideoMoCoModelOutput(last_hidden_state=last_hidden_state, pooler_output=pooled)

    def get_video_features(self, pixel_values_videos: Tensor) -> Tensor:
        """Pooled features `(batch, hidden)` of clips `(batch, frames, channels, height, width)`."""
        return self(pixel_values_videos=pixel_values_videos).pooler_output


class VideoMoCoForPreTraining(VideoMoCoPreTrainedModel):
    """Query and key encoder, the queue, the generator, and the objective.

    Training has two stages: before `config.adversarial_start_epoch` the encoder learns from whole clips, from
    then on from clips with dropped frames. The attribute `adversarial` says which one holds; the hooks set
    it: `before_epoch` and `after_optimizer_step`, which also moves the key encoder. A training loop must call
    both (ours does). In the first stage the generator gets no gradient, so DistributedDataParallel needs
    `find_unused_parameters=True`.

    A forward pass in training mode enqueues its keys and lets all others age, also those that are part of one
    accumulated step. Queue, ages and all else that the next step depends on are saved with the model. With
    several processes the queue is the same in all of them; their batches must have equal size.
    """

    current_epoch: Tensor
    completed_steps: Tensor
    previous_loss_g: Tensor

    def __init__(self, config: VideoMoCoConfig) -> None:
        super().__init__(config)
        self.videomoco = VideoMoCoModel(config)
        self.projection = VideoMoCoProjection(config)
        self.key_encoder = VideoMoCoEncoder(config)
        self.key_projection = VideoMoCoProjection(config)
        self.queue = KeyQueue(config.dim, config.queue_size)
        self.generator: VideoMoCoGenerator | None = None
        if config.dropped_frames == "generator":
            _check_generator(config)
            self.generator = VideoMoCoGenerator(config)
        self.register_buffer("current_epoch", torch.zeros((), dtype=torch.int64))
        self.register_buffer("completed_steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("previous_loss_g", torch.zeros(()))
        self._set_stage(0, 0)
        self.post_init()
        self.train(self.training)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if module is self:
            for buffer in (self.current_epoch, self.completed_steps, self.previous_loss_g):
                init.zeros_(buffer)
        elif (query := self._query_part(module)) is not None:  # called after the query's own turn
            for name, tensor in [
                *module.named_parameters(recurse=False),
                *module.named_buffers(recurse=False),
            ]:
                init.copy_(tensor, getattr(query, name))
        else:
            super()._init_weights(module)

    def _query_part(self, module: nn.Module) -> nn.Module | None:
        """For a module of the key encoder, the one that it is a copy of."""
        parts = ((self.videomoco.encoder, self.key_encoder), (self.projection, self.key_projection))
        pairs = (
            pair for queries, keys in parts for pair in zip(queries.modules(), keys.modules(), strict=True)
        )
        return next((query for query, key in pairs if key is module), None)

    def train(self, mode: bool = True) -> VideoMoCoForPreTraining:
        """As usual; the key encoder stays without gradient (loading a model would give it one)."""
        super().train(mode)
        self.key_encoder.requires_grad_(False)
        self.key_projection.requires_grad_(False)
        return self

    def before_epoch(self, epoch: int) -> None:
        """Begin, or resume, an epoch: set the stage; a new epoch's first keys do not decay in the "plus"
        variant."""
        if int(self.current_epoch) != epoch:
            self.previous_loss_g.zero_()
            self.current_epoch.fill_(epoch)
        self._set_stage(epoch, int(self.completed_steps))

    @torch.no_grad()
    def after_optimizer_step(self, step: int, max_steps: int) -> None:
        """Move the key encoder a little towards the query encoder.

        The official code does so before the next forward pass, which is the same: both begin equal.
        """
        queries, keys = zip(*self._parameter_pairs(), strict=True)
        torch._foreach_lerp_(keys, queries, 1 - self.config.momentum)
        self.completed_steps.fill_(step)
        if self.config.adversarial_start_step is not None:
            self._set_stage(0, step)

    def _set_stage(self, epoch: int, step: int) -> None:
        start = self.config.adversarial_start_step
        self.adversarial = (
            step >= start if start is not None else epoch >= self.config.adversarial_start_epoch
        )

    def _parameter_pairs(self) -> list[tuple[Tensor, Tensor]]:
        """Query and key encoder's parameters."""
        queries = [*self.videomoco.encoder.parameters(), *self.projection.parameters()]
        keys = [*self.key_encoder.parameters(), *self.key_projection.parameters()]
        return list(zip(queries, keys, strict=True))

    @can_return_tuple
    def forward(
        self,
        pixel_values_videos: Tensor,
        second_pixel_values_videos: Tensor | None = None,
        dropped_frames: Tensor | None = None,
        permutation: Tensor | None = None,
        generator: torch.Generator | None = None,
        **kwargs: Any,
    ) -> VideoMoCoForPreTrainingOutput:
        """The loss of a batch.

        Args:
            pixel_values_videos: the queries, `(batch, frames, channels, height, width)`.
            second_pixel_values_videos: another view of the same clips, for the keys.
            dropped_frames: `(batch, count)` int64, frames to drop instead of those with the lowest scores, or
                of random ones.
            permutation: order in which the processes encode keys, see `shuffle_of`; drawn when None.
            generator: draws random frames and the shuffled order, instead of torch's default.
        """
        if second_pixel_values_videos is None:
            raise InputError("VideoMoCo compares two views: give second_pixel_values_videos")
        for name, clips in (
            ("pixel_values_videos", pixel_values_videos),
            ("second_pixel_values_videos", second_pixel_values_videos),
        ):
            check_clips(clips, self.config.num_channels, name)
        if len(pixel_values_videos) != len(second_pixel_values_videos):
            raise InputError(
                f"the views differ: {len(pixel_values_videos)} and {len(second_pixel_values_videos)} clips"
            )
        if not self.adversarial or self.config.dropped_frames == "none":
            if dropped_frames is not None:
                raise InputError(
                    "dropped_frames given, but this stage trains on whole clips (adversarial=False)"
                )
            scores = given = None
            whole, queries = None, pixel_values_videos
        else:
            scores, given, dropped_frames = self._score(pixel_values_videos, dropped_frames, generator)
            whole = None if self.generator is None else pixel_values_videos
            queries = drop_frames(pixel_values_videos, given, dropped_frames)
        output = self.compare(queries, second_pixel_values_videos, whole, permutation, generator)
        losses = _joined_loss(output.loss_d, output.loss_g, scores, given)
        parts = {name: value.detach() for name, value in output.items()}
        if scores is not None:
            parts["scores"] = scores.detach()
        return VideoMoCoForPreTrainingOutput(loss=losses, dropped_frames=dropped_frames, **parts)

    def compare(
        self,
        queries: Tensor,
        keys: Tensor,
        whole: Tensor | None = None,
        permutation: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> VideoMoCoForPreTrainingOutput:
        """Losses of given clips, `(batch, frames, channels, height, width)` each; in training mode their keys
        are enqueued.

        Args:
            queries: clips of which frames may have been dropped.
            keys: the other views.
            whole: the queries with all their frames; without them there is no `loss_g`.
            permutation, generator: as in `forward`.

        Returns:
            all but `loss`; both losses with their graphs.
        """
        if self.training:
            self.queue.check_batch(process_count() * len(keys))
        whole_embeds = distance = loss_g = None
        if whole is not None:  # first, as BatchNorm's running statistics take note of both
            with torch.no_grad():
                whole_embeds = self._embed_queries(whole)
        query_embeds = self._embed_queries(queries)
        key_embeds = self._embed_keys(keys, permutation, generator)
        config = self.config
        found = contrast(
            query_embeds, key_embeds, self.queue, config.temperature, self._log_decay(), config.decay_mode
        )
        if whole_embeds is not None:
            distance = F.l1_loss(query_embeds, whole_embeds)
            loss_g = -config.generator_loss_weight * distance
        if self.training:
            self.queue.enqueue(gather(key_embeds).flatten(0, 1))
            if loss_g is not None:
                self.previous_loss_g.copy_(all_reduce_sum(loss_g.detach()) / process_count())
        return VideoMoCoForPreTrainingOutput(
            loss_d=found.loss,
            loss_g=loss_g,
            embedding_distance=distance,
            accuracy_top1=found.accuracy_top1,
            accuracy_top5=found.accuracy_top5,
            logits=found.logits,
            query_embeds=query_embeds,
            whole_query_embeds=whole_embeds,
            key_embeds=key_embeds,
        )

    def _embed_queries(self, clips: Tensor) -> Tensor:
        return self.projection(self.videomoco.encoder(clips)[1])

    def _score(
        self, clips: Tensor, dropped_frames: Tensor | None, generator: torch.Generator | None
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        """Scores, what their gradient is collected at, and the frames to drop."""
        batch, frames = clips.shape[:2]
        count = self.config.dropped_frame_count(frames)
        if not count < frames:
            raise InputError(f"{count} frames cannot be dropped from clips of {frames}; give longer clips")
        if self.generator is not None:
            scores = self.generator(clips)
            given = scores
            if not self.config.generator_contrastive_grad:
                given = scores.detach().requires_grad_(scores.requires_grad)
            order = scores.detach()
        else:
            scores, given = None, clips.new_zeros(batch, frames)
            source = clips.device if generator is None else generator.device
            order = torch.rand(batch, frames, generator=generator, device=source).to(clips.device)
        if dropped_frames is None:
            dropped_frames = lowest_frames(order, count)
        elif dropped_frames.ndim != 2 or len(dropped_frames) != batch:
            raise InputError(
                f"dropped_frames has shape {tuple(dropped_frames.shape)}; give ({batch}, frames to drop)"
            )
        return scores, given, dropped_frames

    @torch.no_grad()
    def _embed_keys(
        self, clips: Tensor, permutation: Tensor | None, generator: torch.Generator | None
    ) -> Tensor:
        """Keys `(batch, dim)` of this process's clips."""

        def encode(part: Tensor) -> Tensor:
            return self.key_projection(self.key_encoder(part)[1])

        config = self.config
        among_others = process_count() > 1 and config.shuffle_batch_norm and not config.synchronize_batch_norm
        if permutation is not None:
            shuffle = shuffle_of(permutation, clips.device)
        elif self.training and (among_others or config.key_batch_splits > 1):
            shuffle = draw_shuffle(len(clips), clips.device, generator)
        else:
            return encode(clips)
        return encode_shuffled(encode, clips, shuffle, config.key_batch_splits)

    def _log_decay(self) -> float | Tensor:
        """Logarithm of what a key's weight is multiplied with at every batch."""
        decay = self.config.temporal_decay
        return self.previous_loss_g if decay == "adversarial" else math.log(decay)


def _joined_loss(
    loss_d: Tensor | None, loss_g: Tensor | None, scores: Tensor | None, given: Tensor | None
) -> Tensor | None:
    """A loss whose one backward pass gives the encoder the gradient of `loss_d` alone, and the scores that of
    `loss_g` (beside what flows to `given` from `loss_d`).

    The official code takes two backward passes, of which the second discards the encoder's gradients of the
    first.
    """
    if loss_d is None or loss_g is None or scores is None or given is None:
        return loss_d
    loss = loss_d + loss_g.detach()
    if not (loss_g.requires_grad and given.requires_grad):
        return loss
    (gradient,) = torch.autograd.grad(loss_g, given, retain_graph=True)
    return attach_gradient(loss, scores, gradient)


def _check_generator(config: VideoMoCoConfig) -> None:
    """Refuse clips that the generator's weights cannot fit."""
    side = generator_map_side(config.image_size)
    if side < 1:
        raise ConfigurationError(
            f"image_size={config.image_size} is too small for the generator; give 11 or more"
        )
    if config.generator_features != side**2:
        raise ConfigurationError(
            f"generator_features={config.generator_features} does not fit image_size={config.image_size}, for"
            f" which it is {side**2}: train another generator (generator_features=None), or keep the size"
        )
    dropped = config.dropped_frame_count(config.num_frames)
    if not dropped < config.num_frames:
        raise ConfigurationError(f"num_frames={config.num_frames} leaves nothing when {dropped} are dropped")


class VideoMoCoForVideoClassification(VideoMoCoPreTrainedModel):
    """(Query) encoder and a linear classifier of its pooled features.

    With `config.freeze_norm_stats`, BatchNorm uses the running statistics of pre-training in training mode,
    too, and leaves them as they are.
    """

    def __init__(self, config: VideoMoCoConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.videomoco = VideoMoCoModel(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()
        self.train(self.training)

    def train(self, mode: bool = True) -> VideoMoCoForVideoClassification:
        """As usual, but for frozen BatchNorm statistics."""
        super().train(mode)
        if self.config.freeze_norm_stats:
            for module in self.videomoco.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    @can_return_tuple
    def forward(
        self, pixel_values_videos: Tensor, labels: Tensor | None = None, **kwargs: Any
    ) -> VideoClassifierOutput:
        """Logits, and with labels the cross-entropy.

        Args:
            pixel_values_videos: normalised clips `(batch, frames, channels, height, width)`.
            labels: classes `(batch,)` int64, or their probabilities `(batch, num_labels)`.
        """
        output = self.videomoco(pixel_values_videos=pixel_values_videos, **kwargs)
        logits = self.classifier(output.pooler_output.to(self.classifier.weight.dtype))
        loss = None if labels is None else classification_loss(logits, labels)
        return VideoClassifierOutput(
            loss=loss, logits=logits, pooler_output=output.pooler_output, hidden_states=output.hidden_states
        )


__all__ = [
    "VideoMoCoForPreTraining",
    "VideoMoCoForPreTrainingOutput",
    "VideoMoCoForVideoClassification",
    "VideoMoCoModel",
    "VideoMoCoModelOutput",
    "VideoMoCoPreTrainedModel",
]
