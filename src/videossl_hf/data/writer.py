"""Writing MP4 files (H.264 + AAC) with PyAV: close keyframes, no B-frames, sound aligned with the frames."""

from __future__ import annotations

import contextlib
import io
import os
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

from ..errors import InputError, OutputError
from .video_source import load_pyav

__all__ = ["VideoWriter", "encode_video", "same_bytes_from_x264", "write_video"]

TICKS = (
    90_000  # a second; every usual frame rate is a whole number of them, or off by less than 6 microseconds
)
AUDIO_BIT_RATE = 64_000


class VideoWriter:
    """Writes frames, and sound if wanted, as they come.

    The file appears under its name only once it is complete: until `close` it is a hidden file beside it,
    which is removed if anything goes wrong.

    ```python
    with VideoWriter("clip.mp4", height=48, width=48, fps=8, sample_rate=24000) as writer:
        writer.add_frames(frames)
        writer.add_sound(samples)
    ```

    Args:
        target: path, or a buffer that holds the file afterwards.
        height, width: in pixels, both even (H.264 with 4:2:0 colour).
        fps: frames a second; the rate at which frames without times of their own follow each other.
        sample_rate: of the sound (one of AAC's: 8000 to 96000); None writes no sound.
        keyframe_distance: at most so many frames from one keyframe to the next. Small values let a reader
            start anywhere at little cost.
        crf: constant rate factor of x264; 18 is visually near lossless.
        preset: of x264.

    Raises:
        InputError: a size, rate or sample that does not fit.
        OutputError: the file cannot be written.
    """

    def __init__(
        self,
        target: str | os.PathLike[str] | io.BytesIO,
        *,
        height: int,
        width: int,
        fps: float,
        sample_rate: int | None = None,
        keyframe_distance: int = 16,
        crf: int = 18,
        preset: str = "veryfast",
    ) -> None:
        if height < 2 or width < 2 or height % 2 or width % 2:
            raise InputError(f"H.264 needs an even height and width, got {height}x{width}")
        if fps <= 0 or keyframe_distance < 1:
            raise InputError(f"fps and keyframe_distance must be positive, got {fps} and {keyframe_distance}")
        self._path = None if isinstance(target, io.BytesIO) else Path(target)
        self._part = None if self._path is None else self._path.with_name(f".{self._path.name}.part")
        self._size = (height, width)
        self._fps = float(fps)
        self._next_time = 0.0
        self._last_tick = -1
        self._samples = 0
        self._av = av = load_pyav()
        try:
            self._container = av.open(target if self._part is None else str(self._part), "w", format="mp4")
        except OSError as error:
            raise OutputError(f"cannot write {self._path}: {error.strerror or error}") from error
        try:
            self._add_streams(height, width, sample_rate, keyframe_distance, crf, preset)
        except BaseException:
            self._discard()
            raise

    def _add_streams(
        self, height: int, width: int, sample_rate: int | None, keyframe_distance: int, crf: int, preset: str
    ) -> None:
        rate = Fraction(self._fps).limit_denominator(1001)
        self._video: Any = self._container.add_stream("libx264", rate=rate)
        self._video.height, self._video.width, self._video.pix_fmt = height, width, "yuv420p"
        self._video.codec_context.time_base = Fraction(1, TICKS)
        self._video.options = {
            "crf": str(crf),
            "preset": preset,
            "g": str(keyframe_distance),
            "bf": "0",  # frames are stored in the order in which they are shown
            "threads": "1",  # the same bytes on every machine; callers run several processes instead
            **same_bytes_from_x264(),
        }
        self._audio: Any = None
        if sample_rate is not None:
            if sample_rate not in self._av.codec.Codec("aac", "w").audio_rates:
                raise InputError(f"AAC has no sample rate {sample_rate}; take 16000, 24000, 44100 or 48000")
            coder = {"aac_coder": "fast"}  # in half the time of the default, and closer to the original
            self._audio = self._container.add_stream("aac", rate=sample_rate, layout="mono", options=coder)
            self._audio.bit_rate = AUDIO_BIT_RATE

    def add_frames(self, frames: np.ndarray, times: np.ndarray | None = None) -> None:
        """Append frames.

        Args:
            frames: uint8 RGB array (frames, height, width, 3).
            times: seconds since the start at which each is shown, ascending; by default at the writer's rate.
        """
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != (*self._size, 3):
            raise InputError(
                f"frames must be uint8 (frames, {self._size[0]}, {self._size[1]}, 3), "
                f"got {frames.dtype} {tuple(frames.shape)}"
            )
        if times is None:
            times = self._next_time + np.arange(len(frames)) / self._fps
        elif len(times) != len(frames):
            raise InputError(f"{len(frames)} frames came with {len(times)} times")
        for pixels, time in zip(frames, times, strict=True):
            frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts = round(float(time) * TICKS)
            if frame.pts <= self._last_tick:
                raise InputError(f"times must ascend, got {float(time)} s after {self._last_tick / TICKS} s")
            self._last_tick = frame.pts
            frame.time_base = Fraction(1, TICKS)
            frame.duration = round(TICKS / self._fps)
            self._mux(self._video.encode(frame))
        if len(frames):
            self._next_time = float(times[-1]) + 1 / self._fps

    def add_sound(self, samples: np.ndarray) -> None:
        """Append int16 mono samples; the first one ever added sounds with time 0 of the frames."""
        if self._audio is None:
            raise InputError("this writer has no sound: give it a sample_rate")
        if samples.dtype != np.int16 or samples.ndim != 1:
            raise InputError(f"sound must be int16 (samples,), got {samples.dtype} {tuple(samples.shape)}")
        if not len(samples):
            return
        frame = self._av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples[None]), format="s16", layout="mono"
        )
        frame.sample_rate = self._audio.rate
        frame.pts = self._samples
        frame.time_base = Fraction(1, self._audio.rate)
        self._samples += len(samples)
        self._mux(self._audio.encode(frame))

    def close(self) -> None:
        """Finish the file and give it its name."""
        try:
            if self._last_tick < 0:
                raise InputError(f"{self._path or 'a video'} got no frames: a video needs at least one")
            self._mux(self._video.encode(None))
            if self._samples:
                self._mux(self._audio.encode(None))
            self._container.close()
            if self._part is not None and self._path is not None:
                self._part.replace(self._path)
        except self._av.FFmpegError as error:
            self._discard()
            raise OutputError(f"cannot write {self._path}: {error}") from error
        except BaseException:
            self._discard()
            raise

    def _mux(self, packets: Any) -> None:
        try:
            self._container.mux(packets)
        except OSError as error:
            raise OutputError(f"cannot write {self._path}: {error.strerror or error}") from error

    def _discard(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # what is thrown away need not be well-formed
            self._container.close()
        if self._part is not None:
            self._part.unlink(missing_ok=True)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._discard()


def write_video(
    target: str | os.PathLike[str] | io.BytesIO,
    frames: np.ndarray,
    fps: float,
    *,
    sound: np.ndarray | None = None,
    sample_rate: int = 24000,
    keyframe_distance: int = 16,
    crf: int = 18,
) -> None:
    """Write a whole clip: uint8 frames (frames, height, width, 3) and int16 samples, see `VideoWriter`."""
    if frames.ndim != 4:
        raise InputError(f"frames must be (frames, height, width, 3), got {tuple(frames.shape)}")
    with VideoWriter(
        target,
        height=frames.shape[1],
        width=frames.shape[2],
        fps=fps,
        sample_rate=None if sound is None else sample_rate,
        keyframe_distance=keyframe_distance,
        crf=crf,
    ) as writer:
        writer.add_frames(frames)
        if sound is not None:
            writer.add_sound(sound)


def same_bytes_from_x264(params: str = "") -> dict[str, str]:
    """Encoder options that keep x264 from its AVX-512 code, on processors that have it.

    That code decides about narrow frames by memory that nobody wrote: of equal clips of 48 pixels one in ten
    came out with other bytes and, decoded, with other pixels (x264 core 165, on a busy machine).

    Args:
        params: x264's own parameters that hold besides, as in "open-gop=1:scenecut=0".
    """
    wanted = [params] if params else []
    if torch.backends.cpu.get_cpu_capability() == "AVX512":
        wanted.append("asm=avx2")
    return {"x264-params": ":".join(wanted)} if wanted else {}


def encode_video(frames: np.ndarray, fps: float, **options: Any) -> bytes:
    """The bytes of the file that `write_video` with the same arguments would write."""
    buffer = io.BytesIO()
    write_video(buffer, frames, fps, **options)
    return buffer.getvalue()
