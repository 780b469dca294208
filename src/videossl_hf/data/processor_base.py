"""Base of every method's processor: one object that turns a method's inputs into the arguments of its
models."""

from __future__ import annotations

from typing import Any

from transformers.feature_extraction_utils import BatchFeature

from ..remote_code import SavesItsCode
from .torchvision_free import ProcessorMixin

__all__ = ["VideoSSLProcessor"]


class VideoSSLProcessor(SavesItsCode, ProcessorMixin):
    """Processor of a method that takes videos alone; methods with sound or text extend it.

    Args:
        video_processor: a `VideoSSLVideoProcessor`.
    """

    def __init__(self, video_processor: Any = None, **kwargs: Any) -> None:
        super().__init__(video_processor=video_processor, **kwargs)

    def __call__(self, videos: Any, **kwargs: Any) -> BatchFeature:
        """`pixel_values_videos` of one video or a list; see the video processor for forms and settings."""
        return self.video_processor(videos, **kwargs)
