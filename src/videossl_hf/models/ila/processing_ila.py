"""Videos and class names to what ILA takes: frames spread over the whole video, and CLIP's tokens."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from transformers.feature_extraction_utils import BatchFeature

from ...data.processor_base import VideoSSLProcessor
from ...data.rounded_segments import rounded_clips, step_crop_positions
from ...data.video_processing import VideoSSLVideoProcessor
from ...errors import ConfigurationError, InputError
from .configuration_ila import ILAConfig
from .text_ila import saved_tokenizer

__all__ = ["ILAProcessor", "ILAVideoProcessor"]


class ILAVideoProcessor(VideoSSLVideoProcessor):
    """The middle frame of each of 8 equal parts of the video, short side 256, centre 224 x 224.

    With `num_clips=4, num_crops=3` come the twelve views of the published test: the short side is then that
    of the crops, 224, unless a `size` is given with `num_crops`, so that the crops (first, last, middle) show
    all of the frame. Its clips take random frames of each part, these the same ones each time.

    Differs from the base class in "uniform" sampling: the bounds of the parts are rounded as in the official
    code, and a video with too few frames repeats them where they fall, not at its end. Values are
    standardised as for ImageNet, not as for CLIP: that is how the published models were trained.
    """

    num_frames = 8
    sampling = "uniform"
    size = {"shortest_edge": 256}  # noqa: RUF012
    crop_size = {"height": 224, "width": 224}  # noqa: RUF012
    image_mean = [0.485, 0.456, 0.406]  # noqa: RUF012
    image_std = [0.229, 0.224, 0.225]  # noqa: RUF012

    def __init__(self, **kwargs: Any) -> None:
        if kwargs.get("num_crops") == 3 and kwargs.get("size") is None:
            crop = kwargs.get("crop_size") or self.crop_size
            kwargs["size"] = {"shortest_edge": crop if isinstance(crop, int) else crop["height"]}
        super().__init__(**kwargs)

    def _settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        settings = super()._settings(given)
        if settings["num_crops"] != 3 or self.num_crops == 3 or given.get("size") is not None:
            return settings
        return super()._settings({**given, "size": {"shortest_edge": settings["crop_size"].height}})

    def _crop_corners(self, height: int, width: int, settings: Mapping[str, Any]) -> list[list[int]]:
        side = settings["crop_size"].height
        if settings["num_crops"] != 3 or min(height, width) != side:
            return super()._crop_corners(height, width, settings)
        return step_crop_positions(height, width, side).tolist()

    def _clip_indices(self, num_frames: int, fps: float | None, settings: Mapping[str, Any]) -> np.ndarray:
        if not settings["do_sample_frames"] or settings["sampling"] != "uniform":
            return super()._clip_indices(num_frames, fps, settings)
        return rounded_clips(num_frames, settings["num_frames"], settings["num_clips"])


class ILAProcessor(VideoSSLProcessor):
    """Video processor and, for a model with the text head, CLIP's tokenizer.

    Args:
        video_processor: an `ILAVideoProcessor`.
        tokenizer: of the CLIP checkpoint; None for a model with a linear head.
    """

    def __init__(self, video_processor: Any = None, tokenizer: Any = None, **kwargs: Any) -> None:
        super().__init__(video_processor=video_processor, **kwargs)
        self.tokenizer = tokenizer

    @classmethod
    def get_attributes(cls) -> list[str]:
        """The parts that transformers takes care of, which would not let the tokenizer be absent."""
        return ["video_processor"]

    def to_dict(self) -> dict[str, Any]:
        """Without the tokenizer, which has files of its own."""
        bare = copy.copy(self)
        del bare.tokenizer
        return super(ILAProcessor, bare).to_dict()

    def save_pretrained(self, save_directory: str | Path, push_to_hub: bool = False, **kwargs: Any) -> Any:
        """Write all parts; see transformers."""
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(save_directory)
        return super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> ILAProcessor:
        """Load all parts that a folder or repository has; see transformers."""
        processor = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        processor.tokenizer = saved_tokenizer(pretrained_model_name_or_path, kwargs)
        return processor

    @classmethod
    def from_config(cls, config: ILAConfig, tokenizer: Any = None, **settings: Any) -> ILAProcessor:
        """The processor for a model: clips of its frames and size.

        Args:
            config: of the model.
            tokenizer: a tokenizer, or its folder or Hub id.
            settings: of the video processor.

        Raises:
            ConfigurationError: an unknown setting, or a folder without a tokenizer.
        """
        side = config.image_size
        video: dict[str, Any] = {
            "num_frames": config.num_frames,
            "size": {"shortest_edge": side if settings.get("num_crops") == 3 else side * 8 // 7},
            "crop_size": {"height": side, "width": side},
        }
        known = ILAVideoProcessor.valid_kwargs.__annotations__.keys()
        if unknown := settings.keys() - known:
            raise ConfigurationError(
                f"unknown processor setting {', '.join(sorted(unknown))}; known are "
                + ", ".join(sorted(known))
            )
        if isinstance(tokenizer, (str, Path)):
            source, tokenizer = tokenizer, saved_tokenizer(tokenizer, {})
            if tokenizer is None:
                raise ConfigurationError(f"there is no tokenizer in {source}")
        return cls(ILAVideoProcessor(**(video | settings)), tokenizer)

    def __call__(
        self, videos: Any = None, text: Any = None, return_tensors: str | None = "pt", **kwargs: Any
    ) -> BatchFeature:
        """Turn videos, texts, or both into model inputs.

        Args:
            videos: one video or a list; see `VideoSSLVideoProcessor`.
            text: one text or a list, such as names of classes; padded to the longest of them.
            return_tensors: "pt" or "np".
            kwargs: settings of the video processor for this call.

        Raises:
            InputError: neither is given, or text without a tokenizer.
        """
        if videos is None and text is None:
            raise InputError("give videos, text, or both")
        features: dict[str, Any] = {}
        if videos is not None:
            features.update(self.video_processor(videos, return_tensors=return_tensors, **kwargs))
        if text is not None:
            if self.tokenizer is None:
                raise InputError("text needs a tokenizer: this processor has none (linear head)")
            texts = [text] if isinstance(text, str) else list(text)
            features.update(self.tokenizer(texts, padding=True, return_tensors=return_tensors))
        return BatchFeature(features)
