"""Videos as VIMPAC takes them: frames at two a second, and with a tokeniser their codes."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.feature_extraction_utils import BatchFeature

from ...data.processor_base import VideoSSLProcessor
from ...data.sampling import source_stride
from ...data.stored_codes import CROPS, CodesManifest, CodeView
from ...data.video_processing import VideoSSLVideoProcessor, VideoSSLVideosKwargs
from ...errors import ConfigurationError, InputError
from .clips_vimpac import frame_step, take_clips, uniform_clips
from .configuration_vimpac import VIMPACConfig
from .modeling_dvae import DVAEModel
from .tokenizer_file_vimpac import HUB_ARGUMENTS, read_tokenizer, write_tokenizer

__all__ = ["VIMPACProcessor", "VIMPACVideoProcessor", "VIMPACVideosKwargs", "checked_codes"]


class VIMPACVideosKwargs(VideoSSLVideosKwargs, total=False):  # type: ignore[call-arg]
    """Settings beyond those of all our video processors."""

    num_codes: int | None
    pad_code: int | None


class _Tokenizer:
    """Holds a tokeniser; copies of a processor, such as those made to list its settings, share it."""

    def __init__(self, model: DVAEModel | None) -> None:
        self.model = model

    def __deepcopy__(self, memo: Any) -> "_Tokenizer":
        return self


class VIMPACVideoProcessor(VideoSSLVideoProcessor):
    """2.5 seconds of the middle: 5 frames at 2 a second, short side 128, centre 128 x 128.

    Pixels are mapped to [0.1, 0.9], which is what the tokeniser takes. With a tokeniser the result is
    `input_codes` (videos, frames, rows, columns) int64, or (videos, views, frames, rows, columns) for more
    than one view, and a video that is shorter than the clip is padded with `pad_code`. Without one it is
    `pixel_values_videos`, where such a video repeats its last frame, and `frame_mask` (videos, frames) or
    (videos, views, frames), False at the repeated ones.

    Args:
        tokenizer_model: saved with the processor (`dvae.safetensors`) and loaded with it.
        kwargs: settings, see `VideoSSLVideoProcessor`; further `num_codes`, of the tokeniser, and `pad_code`.
    """

    valid_kwargs = VIMPACVideosKwargs

    num_frames = 5
    fps = 2.0
    size = {"shortest_edge": 128}  # noqa: RUF012
    crop_size = {"height": 128, "width": 128}  # noqa: RUF012
    resample = 3
    image_mean = [-0.125, -0.125, -0.125]  # noqa: RUF012
    image_std = [1.25, 1.25, 1.25]  # noqa: RUF012
    num_codes = 8192
    pad_code = 8193

    def __init__(self, tokenizer_model: DVAEModel | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.set_tokenizer_model(tokenizer_model)

    @property
    def tokenizer_model(self) -> DVAEModel | None:
        """The tokeniser, if there is one."""
        return self._tokenizer.model

    def set_tokenizer_model(self, tokenizer_model: DVAEModel | None) -> None:
        """Give or take away the tokeniser.

        Raises:
            ConfigurationError: it has another number of codes.
        """
        if tokenizer_model is not None and tokenizer_model.config.vocab_size != self.num_codes:
            raise ConfigurationError(
                f"the tokeniser has {tokenizer_model.config.vocab_size} codes, this processor"
                f" {self.num_codes} (num_codes): they were not made for each other"
            )
        self._tokenizer = _Tokenizer(tokenizer_model)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load the settings, and the tokeniser that lies beside them unless `tokenizer_model` gives another.

        Raises:
            CheckpointError: the tokeniser's file is damaged.
        """
        tokenizer_model = kwargs.pop("tokenizer_model", None)
        hub = {name: kwargs[name] for name in HUB_ARGUMENTS if kwargs.get(name) is not None}
        processor = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        if tokenizer_model is None:
            tokenizer_model = read_tokenizer(pretrained_model_name_or_path, hub)
        processor.set_tokenizer_model(tokenizer_model)
        return processor

    def to_dict(self) -> dict[str, Any]:
        """The settings, without the tokeniser."""
        output = super().to_dict()
        output.pop("_tokenizer", None)
        return output

    def to_json_file(self, json_file_path: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """Write the settings, and beside them code and tokeniser."""
        super().to_json_file(json_file_path, *args, **kwargs)
        write_tokenizer(self.tokenizer_model, Path(json_file_path).parent)

    def preprocess(self, videos: Any, **kwargs: Any) -> BatchFeature:
        """Turn videos into codes, or into pixels without a tokeniser; see the class and its base."""
        wants_metadata = kwargs.pop("return_metadata", None)
        return_tensors = kwargs.pop("return_tensors", None)
        settings = self._settings(kwargs)
        features = super().preprocess(videos, **kwargs, return_metadata=True)
        metadata = features.pop("video_metadata")
        pixels = features["pixel_values_videos"]
        # Crops of a clip follow each other.
        masks = [_frame_mask(entry, pixels.shape[-4], settings) for entry in metadata]
        views = pixels.shape[1] if pixels.ndim == 6 else 1
        frame_mask = torch.stack([mask.repeat_interleave(views // len(mask), 0) for mask in masks])
        frame_mask = frame_mask.view(*pixels.shape[:-3]).to(pixels.device)
        data: dict[str, Any] = {"pixel_values_videos": pixels, "frame_mask": frame_mask}
        if self.tokenizer_model is not None:
            codes = self.tokenizer_model.encode(pixels).to(pixels.device)
            data = {"input_codes": torch.where(frame_mask[..., None, None], codes, settings["pad_code"])}
        output = BatchFeature(data, tensor_type=return_tensors or "pt")
        if wants_metadata:
            output["video_metadata"] = metadata
        return output


def _frame_mask(metadata: Any, length: int, settings: dict[str, Any]) -> Tensor:
    """(clips, frames) bool: False at frames beyond the end of the video, which repeat its last one."""
    clips = np.atleast_2d(metadata.frames_indices)
    if not settings["do_sample_frames"] or settings["sampling"] != "dense":
        return torch.ones(clips.shape, dtype=torch.bool)
    stride = float(settings["frame_stride"])
    if settings["fps"] is not None and metadata.fps is not None:
        stride = source_stride(metadata.fps, settings["fps"], stride)
    offsets = np.floor(np.arange(length) * stride + 1e-6)
    inside = offsets < metadata.total_num_frames
    return torch.from_numpy(np.broadcast_to(inside, clips.shape).copy())


class VIMPACProcessor(VideoSSLProcessor):
    """Videos, or codes that were made before, to the inputs of VIMPAC.

    Args:
        video_processor: default `VIMPACVideoProcessor()`.
    """

    def __init__(self, video_processor: Any = None, **kwargs: Any) -> None:
        super().__init__(video_processor=video_processor or VIMPACVideoProcessor(), **kwargs)

    @classmethod
    def from_config(
        cls, config: VIMPACConfig, tokenizer_model: DVAEModel | str | None = None, **settings: Any
    ) -> "VIMPACProcessor":
        """A processor that feeds models of this configuration.

        Args:
            config: gives frames, rate, image size and codes.
            tokenizer_model: makes codes of pixels; a model, or the folder or Hub id of one.
            settings: any setting of the video processor.

        Raises:
            ConfigurationError: a setting that it does not have, or a tokeniser with other codes.
        """
        known = VIMPACVideoProcessor.valid_kwargs.__annotations__.keys()
        if unknown := settings.keys() - known:
            raise ConfigurationError(
                f"unknown processor setting {', '.join(sorted(unknown))}; known are "
                + ", ".join(sorted(known))
            )
        height, width = config.frame_size
        of_config: dict[str, Any] = {
            "num_frames": config.num_frames,
            "fps": config.fps,
            "size": {"shortest_edge": height} if height == width else {"height": height, "width": width},
            "crop_size": {"height": height, "width": width},
            "num_codes": config.num_codes,
            "pad_code": config.pad_code,
        }
        tokenizer = tokenizer_model
        if isinstance(tokenizer, str):
            tokenizer = DVAEModel.from_pretrained(tokenizer)
        return cls(VIMPACVideoProcessor(tokenizer, **(of_config | settings)))

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load the processor, and the tokeniser beside it unless `tokenizer_model` gives another."""
        tokenizer_model = kwargs.pop("tokenizer_model", None)
        processor = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        if tokenizer_model is not None:
            processor.video_processor.set_tokenizer_model(tokenizer_model)
        return processor

    @property
    def tokenizer_model(self) -> DVAEModel | None:
        """The tokeniser, if there is one."""
        return self.video_processor.tokenizer_model

    def to_json_file(self, json_file_path: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """Write the settings, and beside them code and tokeniser."""
        super().to_json_file(json_file_path, *args, **kwargs)
        write_tokenizer(self.tokenizer_model, Path(json_file_path).parent)

    def check_codes(self, manifest: CodesManifest, num_crops: int = 1) -> None:
        """Refuse stored codes that are not those that `stored_views` takes.

        Raises:
            ConfigurationError: the message says in what they differ.
        """
        settings, tokenizer = self.video_processor, self.tokenizer_model
        differences = manifest.differences(
            frame_size=(settings.crop_size["height"], settings.crop_size["width"]),
            num_codes=settings.num_codes,
            views=_test_views(manifest.image_size, num_crops),
            fingerprint=tokenizer and tokenizer.fingerprint(),
        )
        if differences:
            raise ConfigurationError(
                f"the stored codes are not those of this model: {'; '.join(differences)}. Make them again"
                " (videossl prepare --codes), or give the videos without codes"
            )

    def stored_views(
        self, sample: Mapping[str, Any], manifest: CodesManifest, num_clips: int = 1, num_crops: int = 1
    ) -> Tensor:
        """The views of a test from a sample's stored codes, as the official evaluation takes them.

        Args:
            sample: with the columns of the manifest.
            num_clips: the first starts with the video, the last one ends with it.
            num_crops: 1 is the centre, 3 are `stored_codes.CROPS`, of frames at the model's own size.

        Returns:
            `(num_clips * num_crops, frames, rows, columns)` int64; crops of a clip follow each other.
        """
        views = _test_views(manifest.image_size, num_crops)
        crops = [
            self(codes=sample[view.column(manifest.image_size)], codes_fps=manifest.fps, num_clips=num_clips)
            for view in views
        ]
        return torch.stack(
            [crop["input_codes"].view(num_clips, *crop["input_codes"].shape[-3:]) for crop in crops], 1
        ).flatten(0, 1)

    def __call__(
        self,
        videos: Any = None,
        codes: Any = None,
        codes_fps: float | None = None,
        return_tensors: str | None = "pt",
        **kwargs: Any,
    ) -> BatchFeature:
        """Turn videos or stored codes into model inputs.

        Args:
            videos: one video or a list; see `VIMPACVideoProcessor` for what comes out.
            codes: instead, the codes of all frames of a video, (frames, rows, columns) integers, or a list of
                such. The clip starts with the video; more clips (`num_clips`) are spread evenly over it, and
                what runs over its end is padded, as the official evaluation has it.
            codes_fps: frames a second of stored codes; by default that of the clip.
            return_tensors: "pt" or "np".
            kwargs: settings of the video processor for this call.

        Raises:
            InputError: neither or both, or a shape, type or value that does not fit.
        """
        if (videos is None) == (codes is None):
            raise InputError("give either videos or codes")
        if codes is None:
            return self.video_processor(videos, return_tensors=return_tensors, **kwargs)
        settings = self.video_processor._settings(kwargs)
        step = frame_step(codes_fps, settings["fps"]) if codes_fps and settings["fps"] else 1
        clips = []
        for stored in _list_of_codes(codes):
            checked = checked_codes(stored, settings["num_codes"])
            frames = uniform_clips(len(checked), settings["num_frames"], step, settings["num_clips"])
            clips.append(torch.from_numpy(take_clips(checked, frames, settings["pad_code"])))
        if len({clip.shape for clip in clips}) > 1:
            raise InputError(
                f"codes of one call differ in their grids: {sorted({c.shape[2:] for c in clips})}"
            )
        batch = torch.stack(clips)
        data = {"input_codes": batch.squeeze(1) if batch.shape[1] == 1 else batch}
        return BatchFeature(data, tensor_type=return_tensors or "pt")


def _test_views(image_size: int, num_crops: int) -> list[CodeView]:
    return [CodeView(image_size, crop) for crop in (CROPS if num_crops > 1 else ("center",))]


def checked_codes(codes: Any, num_codes: int) -> np.ndarray:
    """Stored codes (frames, rows, columns) as an array, every one within the vocabulary.

    Raises:
        InputError: another shape or type, or a code that the tokeniser does not have.
    """
    array = codes.cpu().numpy() if isinstance(codes, Tensor) else np.asarray(codes)
    if array.ndim != 3 or 0 in array.shape or not np.issubdtype(array.dtype, np.integer):
        raise InputError(
            f"codes have shape {array.shape} and type {array.dtype}; give (frames, rows, columns) integers"
        )
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= num_codes:
        raise InputError(
            f"codes lie in {low} .. {high}, but the tokeniser has 0 .. {num_codes - 1}: were they made by"
            " another one?"
        )
    return array


def _list_of_codes(codes: Any) -> list[Any]:
    """One video's codes or several, as a list."""
    if isinstance(codes, (list, tuple)) and len(codes) and np.ndim(codes[0]) == 3:
        return list(codes)
    if isinstance(codes, (np.ndarray, Tensor)) and codes.ndim == 4:
        return list(codes)
    return [codes]
