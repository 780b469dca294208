"""Training batches of labelled videos for a classifier of any method: one random view of each video.

A view is taken as the method's own processor would in a test with several clips, so that rate, length and
spread of the frames are those that the model knows; which of the clips, and the crop, are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigurationError, DataError
from .blending import blend_batch
from .loading import SampleLoader
from .spatial_crop import draw_resized_crop_box, resized_crop

__all__ = ["LabelledClipAugmentation", "LabelledClipCollator"]


@dataclass(frozen=True)
class LabelledClipAugmentation:
    """What may happen to a clip that a classifier learns from."""

    decode_short_side: int | None = 256
    """Frames are scaled to this short side while they are decoded; None keeps the file's own size."""
    temporal_views: int = 10
    """Clips, evenly spread over the video, of which one is drawn; 1 takes the middle one."""
    crop_area: tuple[float, float] = (0.35, 1.0)
    """Share of the frame's area that is cut out."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Width over height of what is cut out, log-uniform."""
    flip_probability: float = 0.0
    """Of a mirrored clip; 0.5 is usual where left and right mean nothing."""
    blend_probability: float = 0.0
    """Of blending the clips of a batch with each other, by Mixup or CutMix."""
    cutmix_probability: float = 0.5
    """Share of blended batches that CutMix blends."""
    mixup_alpha: float = 0.8
    cutmix_alpha: float = 1.0
    label_smoothing: float = 0.0
    """Share of each label that is spread over all classes."""

    def __post_init__(self) -> None:
        for name, high in (("crop_area", 1.0), ("crop_ratio", float("inf"))):
            value = tuple(getattr(self, name))
            object.__setattr__(self, name, value)
            if len(value) != 2 or not 0 < value[0] <= value[1] <= high:
                raise ConfigurationError(
                    f"{name} must be two numbers (low, high) above 0 and at most {high}, got {value}"
                )
        for name in ("flip_probability", "blend_probability", "cutmix_probability", "label_smoothing"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigurationError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        if self.mixup_alpha <= 0 or self.cutmix_alpha <= 0:
            raise ConfigurationError("mixup_alpha and cutmix_alpha must be positive")
        if self.temporal_views < 1 or (self.decode_short_side or 1) < 1:
            raise ConfigurationError("temporal_views and decode_short_side must be at least 1")

    @property
    def softens_labels(self) -> bool:
        """Whether labels become probabilities."""
        return self.blend_probability > 0 or self.label_smoothing > 0


class LabelledClipCollator:
    """Undecoded samples to the arguments of a `ForVideoClassification`: its inputs, and `labels` (batch,), or
    probabilities (batch, classes) where clips are blended or labels smoothed.

    What happens to a clip depends on its sample's seed alone; how a batch is blended, on that of its first.

    Args:
        config: of the model; says how many classes there are.
        processor: of the model; says which frames make a clip, and how large and in what form it goes in.
        augmentation: what may happen to a clip.
        loader: decodes, and deals with what cannot be decoded.
    """

    def __init__(
        self,
        config: Any,
        processor: Any,
        augmentation: LabelledClipAugmentation | None = None,
        loader: SampleLoader | None = None,
    ) -> None:
        self.num_labels = config.num_labels
        self.video_processor = getattr(processor, "video_processor", processor)
        self.augmentation = augmentation or LabelledClipAugmentation()
        self.loader = loader or SampleLoader()

    def __call__(self, samples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Decode and augment a batch.

        Raises:
            DataError: a sample without a label of the model's classes, or too many bad samples.
            DecodeError, InputError: a bad sample, where the loader's policy is to raise.
        """
        decoded = self.loader.load_batch(samples, self._decode)
        clips = [clip for clip, _, _ in decoded]
        labels = torch.tensor([label for _, label, _ in decoded])
        if self.augmentation.softens_labels:
            videos, labels = blend_batch(
                torch.stack(clips), labels, self.num_labels, self.augmentation, decoded[0][2]
            )
            clips = list(videos)
        inputs = self.video_processor(
            clips,
            do_sample_frames=False,
            do_resize=False,
            do_center_crop=False,
            input_data_format="channels_first",
            return_tensors="pt",
        )
        return {**inputs, "labels": labels}

    def _decode(
        self, sample: dict[str, Any], generator: torch.Generator
    ) -> tuple[Tensor, int, torch.Generator]:
        """The augmented clip (frames, channels, height, width) in [0, 1], its class, and what draws go on
        from."""
        label = sample.get("label")
        if label is None or not 0 <= label < self.num_labels:
            raise DataError(f"a label from 0 to {self.num_labels - 1} is needed, got {label!r}")
        augmentation = self.augmentation
        view, flip = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        with self.loader.open(sample, augmentation.decode_short_side) as video:
            info = video.info
            views = self.video_processor.clip_indices(
                info.num_frames, info.fps, num_clips=augmentation.temporal_views
            )
            indices = views[int(view * len(views))]
            clip = torch.from_numpy(video.frames(indices)).permute(0, 3, 1, 2)
        height, width = clip.shape[-2:]
        area, ratio = augmentation.crop_area, augmentation.crop_ratio
        box = draw_resized_crop_box(height, width, area, ratio, generator)
        size = self.video_processor.crop_size
        clip = resized_crop([clip], [box], (size["height"], size["width"]))[0] / 255
        return (clip.flip(-1) if flip < augmentation.flip_probability else clip), int(label), generator
