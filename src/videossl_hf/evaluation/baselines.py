"""Hand-made features to hold learned ones against: they see the same clips through the same processor.

On Sounding Shapes the absolute frame difference reaches about 70 % top-1 by kNN without learning anything: a
table of learned features that leaves it out says less than it seems to.
"""

from __future__ import annotations

from torch import Tensor, nn
from transformers.utils import ModelOutput

from ..errors import InputError

__all__ = ["BASELINES", "FrameDifference", "RawPixels", "make_baseline"]


class FrameDifference(nn.Module):
    """Absolute difference of consecutive frames, flattened: where something moves, not what."""

    def forward(self, pixel_values_videos: Tensor) -> ModelOutput:
        """(clips, frames, channels, height, width) -> pooler_output (clips, everything else)."""
        if pixel_values_videos.shape[1] < 2:
            raise InputError("frame differences need clips of at least two frames")
        return ModelOutput(pooler_output=pixel_values_videos.diff(dim=1).abs().flatten(1))


class RawPixels(nn.Module):
    """All pixels of all frames, flattened."""

    def forward(self, pixel_values_videos: Tensor) -> ModelOutput:
        """(clips, frames, channels, height, width) -> pooler_output (clips, everything else)."""
        return ModelOutput(pooler_output=pixel_values_videos.flatten(1))


BASELINES: dict[str, type[nn.Module]] = {"frame-difference": FrameDifference, "raw-pixels": RawPixels}
"""Names that `videossl evaluate` takes in place of a model."""


def make_baseline(name: str) -> nn.Module:
    """A baseline by its name.

    Raises:
        InputError: no baseline of that name.
    """
    if name not in BASELINES:
        raise InputError(f"there is no baseline {name!r}; there are {', '.join(BASELINES)}")
    return BASELINES[name]()
