"""Clips and scripts as TVTS takes them."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from transformers.feature_extraction_utils import BatchFeature

from ...data.processor_base import VideoSSLProcessor
from ...data.sampling import uniform_clip
from ...data.torchvision_free import AutoVideoProcessor
from ...data.video_processing import VideoSSLVideoProcessor, VideoSSLVideosKwargs
from ...errors import ConfigurationError, InputError
from .configuration_tvts import TVTSConfig
from .sampling_tvts import segment_frames, test_view_frames

__all__ = ["TVTSProcessor", "TVTSVideoProcessor"]


class TVTSVideosKwargs(VideoSSLVideosKwargs, total=False):  # type: ignore[call-arg]
    """Settings beyond those of all video processors."""

    include_ends: bool | None


class TVTSVideoProcessor(VideoSSLVideoProcessor):
    """16 frames spread over the whole video, short side 224, centre 224 x 224, as the official tests have it.

    With `num_clips=2, num_crops=3` come the six views of the official test on Something-Something V2: the
    starts and the middles of 16 equal parts, dealt out to two clips in turn, three crops each.

    Settings beyond those of `VideoSSLVideoProcessor`:
        include_ends: one clip: spread the frames from the first to the last of the video (TVTSv2) instead of
            taking the middle of each part.
    """

    valid_kwargs = TVTSVideosKwargs

    num_frames = 16
    sampling = "uniform"
    include_ends = False
    size = {"shortest_edge": 224}  # noqa: RUF012
    crop_size = {"height": 224, "width": 224}  # noqa: RUF012
    antialias = False
    image_mean = [0.485, 0.456, 0.406]  # noqa: RUF012
    image_std = [0.229, 0.224, 0.225]  # noqa: RUF012

    def _clip_indices(self, num_frames: int, fps: float | None, settings: Mapping[str, Any]) -> np.ndarray:
        if not settings["do_sample_frames"] or settings["sampling"] != "uniform":
            return super()._clip_indices(num_frames, fps, settings)
        length, clips = settings["num_frames"], settings["num_clips"]
        if clips == 2:
            return test_view_frames(num_frames, length)
        if clips == 1 and settings["include_ends"]:
            return uniform_clip(num_frames, length)[None]
        spread = segment_frames(num_frames, length * clips)
        spread = np.pad(spread, (0, length * clips - len(spread)), mode="edge")
        return spread.reshape(length, clips).T.copy()

    def _crop_corners(self, height: int, width: int, settings: Mapping[str, Any]) -> list[list[int]]:
        """One crop: halves are rounded to the even number, as the official transforms have it; three:
        down."""
        down, across = height - settings["crop_size"].height, width - settings["crop_size"].width
        top, left = round(down / 2), round(across / 2)
        if settings["num_crops"] == 1:
            return [[top, left]]
        if height > width:
            return [[place * down // 2, left] for place in range(3)]
        return [[top, place * across // 2] for place in range(3)]


class TVTSProcessor(VideoSSLProcessor):
    """Videos to `pixel_values_videos`, texts to `input_ids` and `attention_mask`.

    Args:
        video_processor: default `TVTSVideoProcessor()`.
        tokenizer: of the text tower; its `model_max_length` cuts texts. Without one the processor takes
            videos alone, and a folder that it is saved to holds the video processor alone.
    """

    def __init__(self, video_processor: Any = None, tokenizer: Any = None, **kwargs: Any) -> None:
        super().__init__(
            video_processor=video_processor or TVTSVideoProcessor(), tokenizer=tokenizer, **kwargs
        )

    def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
        """As transformers has it; the tokenizer may be absent."""
        if argument_name == "tokenizer" and argument is None:
            return None
        return super().check_argument_for_proper_class(argument_name, argument)

    @classmethod
    def from_config(cls, config: TVTSConfig, tokenizer: Any = None, **settings: Any) -> "TVTSProcessor":
        """A processor that feeds models of this configuration.

        Args:
            config: gives frames, image size and the longest text.
            tokenizer: a tokenizer, or its folder or Hub id.
            settings: any setting of the video processor.

        Raises:
            ConfigurationError: a setting that it does not have, or no such tokenizer.
        """
        side = {"height": config.image_size, "width": config.image_size}
        video: dict[str, Any] = {"num_frames": config.num_frames, "crop_size": side}
        video["size"] = {"shortest_edge": config.image_size}
        if config.attention_type == "divided":
            video |= {"size": side, "include_ends": True}
        known = TVTSVideoProcessor.valid_kwargs.__annotations__.keys()
        if unknown := settings.keys() - known:
            names = ", ".join(sorted(unknown))
            raise ConfigurationError(
                f"unknown processor setting {names}; known are {', '.join(sorted(known))}"
            )
        if isinstance(tokenizer, (str, os.PathLike)):
            tokenizer = _load_tokenizer(tokenizer)
        if tokenizer is not None:
            tokenizer.model_max_length = config.max_text_length
        return cls(TVTSVideoProcessor(**(video | settings)), tokenizer)

    def __call__(
        self, videos: Any = None, text: Any = None, return_tensors: str | None = "pt", **kwargs: Any
    ) -> BatchFeature:
        """Turn videos, texts, or both into model inputs.

        Args:
            videos: one video or a list; see `VideoSSLVideoProcessor`.
            text: one text or a list of them: `input_ids` (texts, tokens); or a list of lists, the scripts of
                each clip in any order: (clips, scripts, tokens). Padded to the longest, cut at the
                    tokenizer's
                `model_max_length`.
            return_tensors: "pt" or "np".
            kwargs: settings of the video processor for this call.

        Raises:
            InputError: what does not fit, or neither videos nor text.
        """
        if videos is None and text is None:
            raise InputError("give videos, text, or both")
        features: dict[str, Any] = {}
        if videos is not None:
            features.update(self.video_processor(videos, return_tensors=return_tensors, **kwargs))
        if text is not None:
            features.update(self._tokens(text, return_tensors or "pt"))
        return BatchFeature(features)

    def _tokens(self, text: Any, return_tensors: str) -> dict[str, Any]:
        if self.tokenizer is None:
            raise InputError(
                "this processor has no tokenizer: make it with from_config(config, tokenizer=...)"
            )
        rows = [text] if isinstance(text, str) else list(text)
        counts = {len(row) for row in rows if isinstance(row, (list, tuple))}
        if not rows or 0 in counts:
            raise InputError("no text: an empty list was given")
        is_mixed = bool(counts) and any(isinstance(row, str) for row in rows)
        flat = [script for row in rows for script in row] if counts and not is_mixed else rows
        if len(counts) > 1 or not all(isinstance(script, str) for script in flat):
            raise InputError("text must be texts, or for each clip a list of equally many scripts")
        tokens = self.tokenizer(
            flat,
            padding="longest",
            truncation=True,
            max_length=self.tokenizer.model_max_length,
            return_tensors=return_tensors,
        )
        found = {name: tokens[name] for name in ("input_ids", "attention_mask")}
        if counts:
            shape = (len(rows), counts.pop(), -1)
            found = {name: value.reshape(shape) for name, value in found.items()}
        return found

    def save_pretrained(self, save_directory: Any, push_to_hub: bool = False, **kwargs: Any) -> Any:
        """Write the processor's files, and the method's code, into a folder."""
        if self.tokenizer is None:
            return self.video_processor.save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)
        return super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)

    @classmethod
    def _get_arguments_from_pretrained(
        cls, pretrained_model_name_or_path: Any, processor_dict: Any = None, **kwargs: Any
    ) -> Any:
        """A folder without `processor_config.json` was saved without a tokenizer."""
        if not processor_dict:
            return [AutoVideoProcessor.from_pretrained(pretrained_model_name_or_path, **kwargs), None]
        arguments = super()._get_arguments_from_pretrained(
            pretrained_model_name_or_path, processor_dict, **kwargs
        )
        return [*arguments[:1], _without_its_place(arguments[1])]


def _without_its_place(tokenizer: Any) -> Any:
    """The tokenizer, without what transformers notes of how it was read: that is none of its settings."""
    for name in ("is_local", "local_files_only"):
        tokenizer.init_kwargs.pop(name, None)
    return tokenizer


def _load_tokenizer(source: str | os.PathLike[str]) -> Any:
    from transformers import AutoTokenizer

    try:
        return _without_its_place(AutoTokenizer.from_pretrained(source))
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"cannot load a tokenizer from {source}: {str(error).partition(chr(10))[0]}. Give its folder or"
            " Hub id"
        ) from error
