"""The forms a video may be given in, brought to one: a list of videos, and frames (frames, height, width,
3)."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError

__all__ = ["decoded_frames", "list_of_videos"]


def list_of_videos(videos: Any) -> list[Any]:
    """One video or several, as a list of videos; a list of PIL images or of single frames is one video."""
    if isinstance(videos, (np.ndarray, Tensor)):
        return list(videos) if videos.ndim == 5 else [videos]
    if not isinstance(videos, (list, tuple)):
        return [videos]
    if not videos:
        raise InputError("no video: an empty list was given")
    return [videos] if _is_frame(videos[0]) else list(videos)


def _is_frame(value: Any) -> bool:
    if isinstance(value, (np.ndarray, Tensor)):
        return value.ndim == 3
    return hasattr(value, "convert") and hasattr(value, "getbands")  # a PIL image, without importing PIL


def decoded_frames(source: Any, layout: Any) -> Tensor | None:
    """Frames (frames, height, width, 3), uint8 or float32 in [0, 1], of a decoded source; None of a file."""
    if isinstance(source, (str, bytes, bytearray, memoryview, os.PathLike, Mapping)) or hasattr(
        source, "read"
    ):
        return None
    if isinstance(source, (list, tuple)):
        if not source or not _is_frame(source[0]):
            raise InputError(
                "a video given as a list must hold frames: PIL images or arrays (height, width, 3)"
            )
        pictures = [frame.convert("RGB") if hasattr(frame, "convert") else frame for frame in source]
        sizes = {np.shape(picture) for picture in pictures}
        if len(sizes) > 1:
            raise InputError(f"the frames of a video differ in shape: {sorted(sizes)}")
        source = np.stack([np.asarray(picture) for picture in pictures])
    if not isinstance(source, (np.ndarray, Tensor)):
        raise InputError(
            f"cannot take a {type(source).__name__} as a video: give a path, URL, bytes, file object, "
            '{"bytes", "path"} cell, array, tensor or list of PIL images'
        )
    frames = torch.as_tensor(source)
    shape = tuple(frames.shape)
    if frames.ndim != 4 or 0 in shape:
        raise InputError(
            f"a video has shape {shape}, expected (frames, height, width, 3) or (frames, 3, height, width)"
        )
    layout = getattr(layout, "value", layout)
    fits = {"channels_last": shape[-1] == 3, "channels_first": shape[1] == 3}
    if layout is None and all(fits.values()):
        raise InputError(
            f'a video of shape {shape} fits two layouts: pass input_data_format="channels_last"'
            ' or "channels_first"'
        )
    if not fits.get(layout, False) if layout else not any(fits.values()):
        raise InputError(
            f"a video has shape {shape}, expected three channels: (frames, height, width, 3) or "
            "(frames, 3, height, width)"
        )
    if (layout or "channels_first") == "channels_first" and fits["channels_first"]:
        frames = frames.permute(0, 2, 3, 1)
    if frames.dtype == torch.uint8:
        return frames
    if not frames.is_floating_point():
        raise InputError(f"a video has type {frames.dtype}, expected uint8 or floating point in [0, 1]")
    low, high = float(frames.amin()), float(frames.amax())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError("a video has values that are NaN or infinite, expected numbers in [0, 1]")
    if low < -1e-3 or high > 1 + 1e-3:
        raise InputError(
            f"a floating-point video has values from {low:g} to {high:g}, expected [0, 1]: pass uint8, "
            "divide by 255, or undo its normalisation"
        )
    return frames.float()
