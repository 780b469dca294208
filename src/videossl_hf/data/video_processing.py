"""Videos to `pixel_values_videos`: decode, sample frames, resize, crop, normalise, in PyAV and plain torch.

`VideoSSLVideoProcessor` is the base of every method's video processor; a method sets the class attributes
that its paper evaluates with. It is deterministic; what training draws at random lies in the collators.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from huggingface_hub.dataclasses import validate_typed_dict
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from torch.nn import functional as F
from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import VideosKwargs
from transformers.video_utils import VideoMetadata

from ..errors import InputError
from ..remote_code import SavesItsCode
from .reader import VideoReader
from .sampling import (
    evenly_spaced_clips,
    segment_middle_clip,
    sliding_windows,
    source_stride,
    three_crop_positions,
)
from .torchvision_free import BaseVideoProcessor
from .video_input import decoded_frames, list_of_videos

__all__ = ["SampledVideo", "VideoSSLVideoProcessor", "VideoSSLVideosKwargs", "VideoWindow"]

# A processor may come from a stranger's repository: what it asks for must fit into memory.
_LARGEST = {"num_frames": 4096, "num_clips": 4096, "frame_stride": 1e6, "fps": 1e4}
_LARGEST_SIDE = 8192
_INTERPOLATION = {0: "nearest-exact", 2: "bilinear", 3: "bicubic"}


class VideoSSLVideosKwargs(VideosKwargs, total=False):  # type: ignore[call-arg]
    """Settings beyond those of transformers' video processors."""

    sampling: Literal["dense", "uniform"] | None
    frame_stride: int | float | None
    num_clips: int | None
    num_crops: int | None
    resize_while_decoding: bool | None
    antialias: bool | None


@dataclass(frozen=True)
class SampledVideo:
    """Clips of one video, before resizing (or after the decoder resized them).

    Attributes:
        clips: tensors (frames, height, width, 3) uint8, or float in [0, 1].
        metadata: what was read: number of frames, frames a second, size, frame numbers of the clips.
        starts: time of each clip's first frame in seconds since the video's first frame.
        waveforms: (clips, samples) int16 mono, the sound that goes with each clip, when it was asked for.
    """

    clips: list[Tensor]
    metadata: VideoMetadata
    starts: list[float]
    waveforms: Tensor | None = None


@dataclass(frozen=True)
class VideoWindow:
    """A part of a video, sampled as if it were all of it.

    Attributes:
        start: seconds since the video's first frame.
        end: likewise, when its last frame ends.
        is_last: whether the video ends with it.
        video: its clips; their `starts` count from the video's first frame.
    """

    start: float
    end: float
    is_last: bool
    video: SampledVideo


class VideoSSLVideoProcessor(SavesItsCode, BaseVideoProcessor):
    """Torch-only video processor.

    Takes a path, URL, bytes, a binary file object, a `{"bytes", "path"}` cell, a decoded array or tensor, a
    list of PIL frames, or a list of those. Arrays are (frames, height, width, 3) or (frames, 3, height,
    width), uint8 or float in [0, 1]. Returns `pixel_values_videos` (videos, frames, 3, height, width)
    float32, or (videos, views, frames, 3, height, width) when more than one view is asked for.

    Settings (class attributes, keyword arguments of the constructor and of each call; kept in the JSON):
        num_frames: frames of a clip.
        sampling: "dense" takes frames at a fixed distance, the clip in the middle of the video; "uniform"
            takes the middle frames of `num_frames` equal parts of the video.
        fps: dense: frames a second that `frame_stride` counts in, by time where frames are not evenly spaced;
            None counts the video's own frames. A decoded array is taken to be at this rate already, unless
            `video_metadata` gives its own.
        frame_stride: dense: distance of two frames of the clip.
        num_clips: clips of a video, starts evenly spread (dense) or parts shifted against each other
            (uniform).
        num_crops: 1 (the centre) or 3 (along the longer side). Views are counted clip by clip, crops within.
        size: `{"shortest_edge": n}` or `{"height": h, "width": w}`; an integer is the shorter edge.
        crop_size: `{"height": h, "width": w}`; an integer is both.
        resample: 0 nearest, 2 bilinear, 3 bicubic.
        antialias: smooth before shrinking, when torch resizes; not for "nearest".
        image_mean, image_std: per channel, after scaling by `rescale_factor`; float input is not rescaled.
        resize_while_decoding: let the decoder scale frames, several times faster on large videos; differs
            from torch's resize by a few grey levels at edges. Arrays are always resized by torch.
        do_sample_frames, do_resize, do_center_crop, do_rescale, do_normalize: False leaves a step out.
    """

    model_input_names = ["pixel_values_videos"]  # noqa: RUF012
    valid_kwargs = VideoSSLVideosKwargs

    do_sample_frames = True
    num_frames = 16
    sampling = "dense"
    fps: float | None = None
    frame_stride: float = 1
    num_clips = 1
    num_crops = 1
    resize_while_decoding = True
    do_resize = True
    size = {"shortest_edge": 128}  # noqa: RUF012
    default_to_square = False
    resample = 2
    antialias = True
    do_center_crop = True
    crop_size = {"height": 112, "width": 112}  # noqa: RUF012
    do_rescale = True
    rescale_factor = 1 / 255
    do_normalize = True
    image_mean = [0.5, 0.5, 0.5]  # noqa: RUF012
    image_std = [0.5, 0.5, 0.5]  # noqa: RUF012

    def __init__(self, **kwargs: Any) -> None:
        try:
            super().__init__(**kwargs)
        except (AttributeError, IndexError, TypeError, ValueError) as error:  # of a value's type or its name
            raise InputError(f"{type(self).__name__} with a setting that does not fit: {error}") from error
        if kwargs.get("fps", 0) is None:
            self.fps = None  # transformers takes None for "not given"
        known = self.valid_kwargs.__annotations__
        self._check(self._settings({name: value for name, value in kwargs.items() if name in known}))

    def preprocess(self, videos: Any, **kwargs: Any) -> BatchFeature:
        """Turn videos into model inputs; see the class for what is accepted and for the settings.

        Args:
            videos: one video or a list of them; the clips of a `SampledVideo` are taken as they are.
            kwargs: settings for this call, and `return_tensors` ("pt" or "np"), `device`, `return_metadata`,
                `input_data_format` ("channels_first" or "channels_last", needed where a shape fits both) and
                `video_metadata` (one a video, with the `fps` of decoded arrays).

        Raises:
            InputError: a shape, type or value that does not fit, or an unknown setting.
            DecodeError: a file that cannot be decoded.
        """
        settings = self._settings(kwargs)
        self._check(settings)
        sources = list_of_videos(videos)
        metadata = settings["video_metadata"]
        if metadata is None or isinstance(metadata, (VideoMetadata, Mapping)):
            metadata = [metadata] * len(sources)
        if len(metadata) != len(sources):
            raise InputError(f"video_metadata has {len(metadata)} entries for {len(sources)} videos")
        sampled = [
            source if isinstance(source, SampledVideo) else self._sample(source, known, settings)
            for source, known in zip(sources, metadata, strict=True)
        ]
        pixels = [torch.cat([self._pixels(clip, settings) for clip in video.clips]) for video in sampled]
        shapes = {tuple(views.shape) for views in pixels}
        if len(shapes) > 1:
            raise InputError(
                f"videos of one call come out in several shapes (views, frames, channels, height, width): "
                f"{sorted(shapes)}; keep do_sample_frames and do_center_crop on, or pass one video at a time"
            )
        batch = torch.stack(pixels)
        data: dict[str, Any] = {"pixel_values_videos": batch.squeeze(1) if batch.shape[1] == 1 else batch}
        features = BatchFeature(data, tensor_type=settings["return_tensors"])
        if settings["return_metadata"]:
            features["video_metadata"] = [video.metadata for video in sampled]
        return features

    def pixels(self, videos: Any, **kwargs: Any) -> Tensor:
        """`pixel_values_videos` alone, also where the method makes codes of them; arguments as of a call."""
        return VideoSSLVideoProcessor.preprocess(self, videos, **kwargs)["pixel_values_videos"]

    def sample(
        self,
        source: Any,
        *,
        audio_seconds: float | None = None,
        audio_sampling_rate: int = 24000,
        **kwargs: Any,
    ) -> SampledVideo:
        """Decode the clips of one file, and with `audio_seconds` the sound from the start of each clip on.

        Args:
            source: a path, URL, bytes, file object or cell: something with a sound track.
            audio_seconds: length of the sound; padded with zeros past its end.
            audio_sampling_rate: samples per second of the sound.
            kwargs: settings for this call.

        Raises:
            NoAudioError: sound is asked for and the file has none.
            DecodeError: the file cannot be decoded.
        """
        settings = self._settings(kwargs)
        self._check(settings)
        with VideoReader(source) as reader:
            return _with_sound(self._read(reader, settings), reader, audio_seconds, audio_sampling_rate)

    def windows(
        self,
        source: Any,
        seconds: float,
        stride: float | None = None,
        *,
        audio_seconds: float | None = None,
        audio_sampling_rate: int = 24000,
        **kwargs: Any,
    ) -> Iterator[VideoWindow]:
        """Slide a window over a long video; each is sampled as if it were a video of its own.

        The file is opened once, and no more than one window is held. The last window ends with the video; one
        that is shorter than a window is a window.

        Args:
            source: as of `sample`.
            seconds: length of a window.
            stride: seconds from one window to the next; None: one follows the other.
            audio_seconds, audio_sampling_rate: as of `sample`.
            kwargs: settings for this call.

        Raises:
            InputError: the length or the stride is not a positive number.
            NoAudioError, DecodeError: as of `sample`.
        """
        settings = self._settings(kwargs)
        self._check(settings)
        with VideoReader(source) as reader:
            fps = reader.info.fps
            spans = sliding_windows(len(reader), fps, seconds, stride)
            for number, (first, stop) in enumerate(spans.tolist(), 1):
                sampled = self._read(reader, settings, first, stop)
                video = _with_sound(sampled, reader, audio_seconds, audio_sampling_rate)
                yield VideoWindow(first / fps, stop / fps, number == len(spans), video)

    def clip_indices(self, num_frames: int, fps: float | None = None, **kwargs: Any) -> np.ndarray:
        """Frame numbers of the clips of a video.

        Args:
            num_frames: frames of the video.
            fps: its frames a second; None: it is at the rate of the `fps` setting.
            kwargs: settings for this call.

        Returns:
            int64 array (clips, frames).
        """
        return self._clip_indices(num_frames, fps, self._settings(kwargs))

    def _clip_indices(self, num_frames: int, fps: float | None, settings: Mapping[str, Any]) -> np.ndarray:
        """Frame numbers (clips, frames) under the settings; a method may have a rule of its own."""
        return _clip_indices(num_frames, fps, settings)

    def _crop_corners(self, height: int, width: int, settings: Mapping[str, Any]) -> list[list[int]]:
        """Top-left corners of the crops under the settings; a method may have a rule of its own."""
        crop_height, crop_width = settings["crop_size"].height, settings["crop_size"].width
        if settings["num_crops"] == 3:
            return three_crop_positions(height, width, crop_height).tolist()
        return [[(height - crop_height + 1) // 2, (width - crop_width + 1) // 2]]

    def _settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Settings of one call: what was given, else the attributes; sizes as `SizeDict`."""
        given = dict(given)
        unknown = set(given) - set(self.valid_kwargs.__annotations__)
        if unknown:
            raise InputError(
                f"unknown setting {', '.join(sorted(unknown))}; known are "
                + ", ".join(sorted(self.valid_kwargs.__annotations__))
            )
        return_tensors = given.pop("return_tensors", "pt")
        if isinstance(given.get("video_metadata"), Sequence):
            metadata = list(given.pop("video_metadata"))
        else:
            metadata = given.pop("video_metadata", None)
        try:
            validate_typed_dict(self.valid_kwargs, given)
            settings = {name: getattr(self, name, None) for name in self.valid_kwargs.__annotations__}
            settings.update(
                (name, value) for name, value in given.items() if value is not None or name == "fps"
            )
            settings = self._standardize_kwargs(**settings)
        except (StrictDataclassError, IndexError, TypeError, ValueError) as error:
            raise InputError(f"{type(self).__name__}: {error.__cause__ or error}") from error
        settings["return_tensors"] = return_tensors or "pt"
        settings["video_metadata"] = metadata
        return settings

    def _check(self, settings: Mapping[str, Any]) -> None:
        for name, largest in _LARGEST.items():
            if settings[name] is not None and not 0 < settings[name] <= largest:
                raise InputError(f"{name} must be positive and at most {largest}, got {settings[name]}")
        for name in ("size", "crop_size"):
            if any(
                side is not None and not 0 < side <= _LARGEST_SIDE for side in dict(settings[name]).values()
            ):
                raise InputError(f"{name} must be positive and at most {_LARGEST_SIDE}, got {settings[name]}")
        if settings["num_crops"] not in (1, 3):
            raise InputError(f"num_crops must be 1 or 3, got {settings['num_crops']}")
        if settings["resample"] not in list(_INTERPOLATION):
            raise InputError(f"resample must be 0, 2 or 3, got {settings['resample']}")
        for name in ("image_mean", "image_std"):
            value = settings[name]
            if not isinstance(value, (int, float)) and len(value) != 3:
                raise InputError(f"{name} needs one value or one a channel, got {value}")

    def _sample(self, source: Any, known: Any, settings: Mapping[str, Any]) -> SampledVideo:
        """Clips of one source of any accepted kind."""
        frames = decoded_frames(source, settings["input_data_format"])
        if frames is None:
            with VideoReader(source) as reader:
                return self._read(reader, settings)
        fps = _metadata_fps(known)
        indices = self._clip_indices(len(frames), fps, settings)
        rate = fps or settings["fps"] or 1.0
        metadata = _metadata(len(frames), fps or settings["fps"], frames.shape[1:3], indices)
        return SampledVideo(
            [frames[clip] for clip in indices], metadata, [clip[0] / rate for clip in indices]
        )

    def _read(
        self, reader: VideoReader, settings: Mapping[str, Any], first: int = 0, stop: int | None = None
    ) -> SampledVideo:
        """Clips of an open file, or of its frames from `first` to before `stop`, scaled by the decoder where
        the settings allow it."""
        info = reader.info
        length = (len(reader) if stop is None else stop) - first
        indices = first + self._clip_indices(length, info.fps, settings)
        if settings["do_sample_frames"] and settings["fps"] is not None:
            indices = _shown_instead(indices, reader.frame_times, info.fps)
        size = None
        if settings["do_resize"] and settings["resize_while_decoding"]:
            size = _resized(info.height, info.width, settings["size"])
        clips = [torch.from_numpy(clip) for clip in reader.clips(list(indices), size)]
        metadata = _metadata(length, info.fps, (info.height, info.width), indices - first)
        return SampledVideo(clips, metadata, [float(reader.frame_times[clip[0]]) for clip in indices])

    def _pixels(self, clip: Tensor, settings: Mapping[str, Any]) -> Tensor:
        """Resize, crop and normalise one clip: (frames, height, width, 3) to (crops, frames, 3, height,
        width)."""
        if settings["device"] is not None:
            clip = clip.to(settings["device"])
        pixels = clip.permute(0, 3, 1, 2).float()
        if settings["do_resize"]:
            target = _resized(pixels.shape[-2], pixels.shape[-1], settings["size"])
            if tuple(pixels.shape[-2:]) != target:
                pixels = _resize(
                    pixels,
                    target,
                    settings["resample"],
                    255.0 if clip.dtype == torch.uint8 else 1.0,
                    settings["antialias"],
                )
        if settings["do_rescale"] and clip.dtype == torch.uint8:
            pixels = pixels * settings["rescale_factor"]
        crops = self._crops(pixels, settings)
        if settings["do_normalize"]:
            mean, std = (
                torch.as_tensor(settings[name], dtype=torch.float32, device=crops.device).reshape(-1, 1, 1)
                for name in ("image_mean", "image_std")
            )
            crops = (crops - mean) / std
        return crops

    def _crops(self, pixels: Tensor, settings: Mapping[str, Any]) -> Tensor:
        """(frames, 3, height, width) to (crops, frames, 3, crop height, crop width)."""
        if not settings["do_center_crop"]:
            return pixels.unsqueeze(0)
        height, width = pixels.shape[-2:]
        crop_height, crop_width = settings["crop_size"].height, settings["crop_size"].width
        if crop_height > height or crop_width > width:
            raise InputError(
                f"a crop of {crop_height}x{crop_width} does not fit into frames of {height}x{width}: lower "
                "crop_size or raise size"
            )
        if settings["num_crops"] == 3 and crop_height != crop_width:
            raise InputError(f"three crops are square, got crop_size {crop_height}x{crop_width}")
        corners = self._crop_corners(height, width, settings)
        return torch.stack(
            [pixels[..., top : top + crop_height, left : left + crop_width] for top, left in corners]
        )


def _with_sound(
    sampled: SampledVideo, reader: VideoReader, seconds: float | None, sampling_rate: int
) -> SampledVideo:
    """The clips, and where `seconds` are given the sound of so long from the start of each on."""
    if seconds is None:
        return sampled
    waveforms = np.stack([reader.audio(start, seconds, sampling_rate) for start in sampled.starts])
    return replace(sampled, waveforms=torch.from_numpy(waveforms))


def _clip_indices(num_frames: int, fps: float | None, settings: Mapping[str, Any]) -> np.ndarray:
    """Frame numbers (clips, frames) under the settings."""
    if not settings["do_sample_frames"]:
        return np.arange(num_frames)[None]
    length, num_clips = settings["num_frames"], settings["num_clips"]
    if settings["sampling"] == "uniform":
        # Clips shifted by a share of a part: the frames of all clips together are again evenly spread.
        spread = segment_middle_clip(num_frames, length * num_clips)
        return spread.reshape(length, num_clips).T.copy()
    stride = settings["frame_stride"]
    if settings["fps"] is not None and fps is not None:
        stride = source_stride(fps, settings["fps"], stride)
    elif fps is None:
        stride = 1.0
    return evenly_spaced_clips(num_frames, length, stride, num_clips=num_clips)


def _shown_instead(indices: np.ndarray, frame_times: np.ndarray, fps: float) -> np.ndarray:
    """Of a video whose frames are not evenly spaced: those on show when these would be at its mean rate."""
    regular = np.arange(len(frame_times)) / fps
    if np.abs(frame_times - regular).max() < 0.5 / fps:  # containers round times
        return indices
    return np.searchsorted(frame_times, regular[indices] + 1e-6, side="right") - 1


def _metadata_fps(metadata: Any) -> float | None:
    if metadata is None:
        return None
    return metadata.get("fps") if isinstance(metadata, Mapping) else metadata.fps


def _metadata(num_frames: int, fps: float | None, size: Any, indices: np.ndarray) -> VideoMetadata:
    height, width = size
    return VideoMetadata(
        total_num_frames=num_frames,
        fps=fps,
        width=int(width),
        height=int(height),
        duration=num_frames / fps if fps else None,
        video_backend="pyav",
        frames_indices=indices.squeeze(0) if len(indices) == 1 else indices,
    )


def _resized(height: int, width: int, size: Any) -> tuple[int, int]:
    """Height and width after resizing; the longer side of a `shortest_edge` is rounded down."""
    if size.shortest_edge:
        if height <= width:
            return size.shortest_edge, int(size.shortest_edge * width / height)
        return int(size.shortest_edge * height / width), size.shortest_edge
    if size.height and size.width:
        return size.height, size.width
    raise InputError(f'size must be {{"shortest_edge"}} or {{"height", "width"}}, got {dict(size)}')


def _resize(
    pixels: Tensor, target: tuple[int, int], resample: int, largest: float, antialias: bool
) -> Tensor:
    mode = _INTERPOLATION[resample]
    resized = F.interpolate(pixels, target, mode=mode, antialias=antialias and mode != "nearest-exact")
    return resized.clamp(0.0, largest) if mode == "bicubic" else resized
