"""Labelled batches of VIMPAC: one random clip of each video, in one of the views of the official fine-tuning.

A view is a way of cutting frames: at the model's size or 1.25 times larger, at one of three places, mirrored
or not. `videossl prepare --codes --scales 1 1.25 --crops top center bottom --flips` stores the codes of all
twelve; files are cut as that would have done it. Nothing else happens to a clip (vimpac/finetune.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ...data.loading import SampleLoader
from ...data.stored_codes import CROPS, CodeView
from ...errors import ConfigurationError, DataError
from .collation_vimpac import VIMPACAugmentation, VIMPACCollator, VIMPACSample
from .configuration_vimpac import VIMPACConfig
from .processing_vimpac import VIMPACProcessor

__all__ = ["VIMPACLabelledClipAugmentation", "VIMPACLabelledClipCollator"]


@dataclass(frozen=True)
class VIMPACLabelledClipAugmentation:
    """The views of which one is drawn for each clip; the defaults are the paper's."""

    scales: tuple[float, ...] = (1.0, 1.25)
    """Short sides of the frames before they are cut, in sizes of the model's frames."""
    crops: tuple[str, ...] = CROPS
    """Which squares are cut out."""
    flips: bool = True
    """Each of them mirrored too; false where left and right mean something."""
    codes_fps: float | None = None
    """Frames a second of the stored codes, or of the frames that files are taken as; None: the rate of the
    clips. At a higher one, clips start at more places and take every n-th frame."""
    use_codes: bool = True
    """Take the columns of codes where there are some, instead of the file."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "scales", tuple(self.scales))
        object.__setattr__(self, "crops", tuple(self.crops))
        if not self.scales or not self.crops:
            raise ConfigurationError("scales and crops must name at least one each")
        if min(self.scales) < 1:
            raise ConfigurationError(f"scales must be at least 1, got {self.scales}")
        if unknown := set(self.crops) - set(CROPS):
            raise ConfigurationError(f"crops are {', '.join(CROPS)}, got {', '.join(sorted(unknown))}")
        if self.codes_fps is not None and not self.codes_fps > 0:
            raise ConfigurationError(f"codes_fps must be positive, got {self.codes_fps}")


class VIMPACLabelledClipCollator(VIMPACCollator):
    """Undecoded samples to the arguments of `VIMPACForVideoClassification.forward`.

    View and clip of a sample depend on its seed alone, not on whether its codes were stored before.

    Args:
        config: of the model.
        processor: of the model. With a tokeniser it makes the codes of files here; without one, files come
            out as pixels, for a model that has its own.
        augmentation: which views there are.
        loader: decodes, and deals with what cannot be decoded.

    Raises:
        ConfigurationError: processor and configuration disagree, or frames are not square.
    """

    def __init__(
        self,
        config: VIMPACConfig,
        processor: VIMPACProcessor,
        augmentation: VIMPACLabelledClipAugmentation | None = None,
        loader: SampleLoader | None = None,
    ) -> None:
        self.cuts = augmentation or VIMPACLabelledClipAugmentation()
        clips = VIMPACAugmentation(codes_fps=self.cuts.codes_fps, use_codes=self.cuts.use_codes)
        super().__init__(config, processor, clips, loader)
        height, width = config.frame_size
        if height != width:
            raise ConfigurationError(f"views are squares; the model takes frames of {height} x {width}")

    @property
    def num_clips(self) -> int:
        """Clips of a video."""
        return 1

    @property
    def views(self) -> list[CodeView]:
        """All views, of which one is drawn."""
        size = min(self.config.frame_size)
        return [
            CodeView(round(scale * size), crop, flip)
            for scale in self.cuts.scales
            for crop in self.cuts.crops
            for flip in ([False, True] if self.cuts.flips else [False])
        ]

    def __call__(self, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Load a batch.

        Returns:
            - input_codes (batch, frames, rows, columns) int64; or, from files without a tokeniser,
              pixel_values_videos (batch, frames, channels, height, width) and frame_mask (batch, frames).
            - has_padding: bool.
            - labels: (batch,) int64.

        Raises:
            DataError: a sample without a label of the model's classes, or too many bad samples.
            DecodeError, InputError, DataError: a bad sample, where the loader's policy is to raise.
        """
        loaded = self.loader.load_batch(samples, self._load)
        return {**self._inputs(loaded), "labels": torch.tensor([sample.label for sample in loaded])}

    def _load(self, sample: dict[str, Any], generator: torch.Generator) -> VIMPACSample:
        label, classes = sample.get("label"), self.config.num_labels
        if label is None or not 0 <= label < classes:
            raise DataError(f"a label from 0 to {classes - 1} is needed, got {label!r}")
        views = self.views
        view = views[int(torch.randint(len(views), (), generator=generator))]
        return self._clips_of(sample, view, generator)._replace(label=int(label))
