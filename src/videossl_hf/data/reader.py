"""Reads exact frames, and the sound that goes with them, from a video file.

    with VideoReader("clip.mp4") as video:
        frames = video.frames(range(0, 64, 4), size=128)      # (16, height, width, 3) uint8 RGB
        sound = video.audio(start=0.0, seconds=2.0, sample_rate=24000)

Frame i is, bit for bit, frame i of the list that decoding the whole file from its start gives, scaled the
same way; where that cannot be had, an error is raised. What makes it fast: frame numbers are mapped to
presentation times by an index (`video_index`), decoding begins at the last keyframe before the first frame
that is wanted and ends at the last one, frames that nothing refers to are skipped unless wanted, and swscale
resizes and converts to RGB in one step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from types import TracebackType
from typing import Any

import numpy as np

from ..errors import DecodeError, InputError, NoAudioError
from .audio_reader import read_audio, read_sound
from .unreferenced import unreferenced_test
from .video_index import VideoIndex, VideoInfo, strict_frames, undamaged_frames, video_index
from .video_source import Media, MediaSource, decode_errors, load_pyav

__all__ = ["VideoInfo", "VideoReader", "read_audio"]

Size = int | tuple[int, int] | None


class VideoReader:
    """Frames and sound of one video, from one open file.

    Args:
        source: path, http(s) URL, bytes, binary file object or `{"bytes", "path"}` cell.
        tolerant: by default any sign of damage raises `DecodeError`. A tolerant reader decodes the whole file
            once, and its frames are those that the damage has not reached, numbered without the others.

    Raises:
        DecodeError: the source is missing, empty, no media file, cut off or damaged where it was read.
        NoVideoError: it has no video.

    A frame number outside the video is an `InputError`. Readers are not shared between threads.
    """

    def __init__(self, source: Any, *, tolerant: bool = False) -> None:
        self._media = Media(MediaSource(source), tolerant=tolerant)
        try:
            self._index = video_index(self._media)
        except BaseException:
            self._media.close()
            raise
        self._reformatter = load_pyav().video.reformatter.VideoReformatter()
        flags = load_pyav().video.reformatter.Interpolation
        self._plain = flags.BILINEAR
        self._full_chroma = flags.BILINEAR | flags.FULL_CHR_H_INT | flags.FULL_CHR_H_INP

    @property
    def info(self) -> VideoInfo:
        """Number of frames, rate, size after rotation, codec and sound."""
        return self._index.info

    @property
    def frame_times(self) -> np.ndarray:
        """float64 (num_frames,): seconds from the first frame to each frame, ascending, read-only."""
        return self._index.times

    @property
    def start_time(self) -> float:
        """Seconds on the container's own clock at which the first frame is shown."""
        return self._index.start

    def __len__(self) -> int:
        return self.info.num_frames

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the file."""
        self._media.close()

    def frames(self, indices: Sequence[int] | np.ndarray, size: Size = None) -> np.ndarray:
        """Frames by number, in any order, repeats allowed.

        Args:
            indices: frame numbers in [0, len(self)).
            size: None for the video's own size, the length of the shorter side (the other one keeps the
                aspect ratio), or (height, width).

        Returns:
            uint8 RGB array of shape (len(indices), height, width, 3).
        """
        return self.clips([indices], size)[0]

    def clips(
        self,
        clips: Sequence[Sequence[int] | np.ndarray],
        size: Size = None,
        *,
        sizes: Sequence[Size] | None = None,
    ) -> list[np.ndarray]:
        """Several clips in one pass: each frame is decoded once, however many clips hold it.

        Args:
            clips: frame numbers of each.
            size: of all clips, as of `frames`.
            sizes: instead, one a clip.

        Returns:
            One array as of `frames` for each sequence of frame numbers.
        """
        self._require_open()
        numbers = [self._check(clip) for clip in clips]
        shapes = [self._target_size(own) for own in (sizes or [size] * len(numbers))]
        outputs = [
            np.empty((len(clip), *shape, 3), dtype=np.uint8)
            for clip, shape in zip(numbers, shapes, strict=True)
        ]
        places: dict[int, list[np.ndarray]] = {}
        for clip, output in zip(numbers, outputs, strict=True):
            for number, place in zip(clip.tolist(), output, strict=True):
                places.setdefault(number, []).append(place)

        def deliver(number: int, frame: Any) -> None:
            converted: dict[tuple[int, ...], np.ndarray] = {}
            for place in places[number]:
                if place.shape in converted:
                    place[...] = converted[place.shape]
                else:
                    self._convert(frame, place)
                    converted[place.shape] = place

        wanted = sorted(places)
        if self._index.seekable:
            for run in _runs(self._index, wanted):
                self._read_run(run, deliver)
        else:
            self._read_from_start(wanted, deliver)
        return outputs

    def audio(self, start: float, seconds: float, sample_rate: int) -> np.ndarray:
        """A span of the sound track, mono.

        Args:
            start: seconds since the first frame; may be negative.
            seconds: length of the span.
            sample_rate: rate to resample to, in Hz.

        Returns:
            int16 array of shape (round(seconds * sample_rate),). It is zero only where the track has no
            samples, that is before its start and after its end.

        Raises:
            NoAudioError: the video has no sound track.
            DecodeError: the track is damaged there.
        """
        self._require_open()
        if not self.info.has_audio:
            raise NoAudioError(self._media.name, "it has no sound track")
        return read_sound(self._media, self._index.start + start, seconds, sample_rate)

    def verify(self) -> None:
        """Decode every frame and all of the sound, and raise `DecodeError` at the first damage.

        A clip is read from the packets that it needs, so damage elsewhere in the file is not noticed, and
        damage that no decoder can tell from a picture may show in a clip. What is to be trusted is checked
        once, when a data set is prepared.
        """
        self._require_open()
        decoded = sum(1 for _ in strict_frames(self._media))
        if not self._media.tolerant and decoded != len(self):
            raise DecodeError(self._media.name, f"of {len(self)} frames only {decoded} are there")
        if self.info.has_audio:
            with suppress(NoAudioError):  # a track without a sample is not damaged
                read_sound(self._media, self._index.start, None, self.info.audio_sample_rate or 24000)

    def _require_open(self) -> None:
        if self._media.container is None:
            raise InputError(f"the reader of {self._media.name} is closed")

    def _check(self, clip: Sequence[int] | np.ndarray) -> np.ndarray:
        numbers = np.asarray(clip)
        if numbers.size == 0:
            numbers = numbers.astype(np.int64)
        if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
            raise InputError(
                "frame numbers are a flat sequence of whole numbers, "
                f"got shape {numbers.shape} of {numbers.dtype}"
            )
        outside = numbers[(numbers < 0) | (numbers >= len(self))]
        if outside.size:
            raise InputError(
                f"frame {outside[0]} of {self._media.name} does not exist: it has frames 0 to {len(self) - 1}"
            )
        return numbers

    def _target_size(self, size: Size) -> tuple[int, int]:
        height, width = self.info.height, self.info.width
        if size is None:
            return height, width
        if isinstance(size, (int, np.integer)) and size > 0:
            scale = size / min(height, width)
            return (
                (int(size), max(round(width * scale), 1))
                if height <= width
                else (max(round(height * scale), 1), int(size))
            )
        if isinstance(size, (tuple, list)) and len(size) == 2 and min(size) > 0:
            return int(size[0]), int(size[1])
        raise InputError(f"size is None, a positive short side or (height, width), got {size!r}")

    def _convert(self, frame: Any, place: np.ndarray) -> None:
        """Scale a decoded frame, as RGB and turned upright, into an array of shape (height, width, 3)."""
        swap, flip_rows, flip_columns = self._index.turn
        height, width = place.shape[1::-1] if swap else place.shape[:2]
        # At its own size a frame is what PyAV's `to_ndarray(format="rgb24")` gives. When scaled, saturated
        # edges would be off without full chroma, which swscale does three times as fast plane by plane.
        scaled = (frame.height, frame.width) != (height, width)
        converted = self._reformatter.reformat(
            frame,
            width,
            height,
            "gbrp" if scaled else "rgb24",
            interpolation=self._full_chroma if scaled else self._plain,
            threads=1,
        )
        channels: tuple[int | slice, ...] = (1, 2, 0) if scaled else (slice(None),)
        for plane, channel in zip(converted.planes, channels, strict=True):
            rows = np.frombuffer(plane, np.uint8).reshape(height, plane.line_size)
            pixels = rows[:, :width] if scaled else rows[:, : width * 3].reshape(height, width, 3)
            if swap:
                pixels = pixels.swapaxes(0, 1)
            place[..., channel] = pixels[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]

    def _read_from_start(self, wanted: list[int], deliver: Callable[[int, Any], None]) -> None:
        """Decode from the start of the file and count: exact by definition, and slow."""
        if not wanted:
            return
        remaining = set(wanted)
        frames = (undamaged_frames if self._media.tolerant else strict_frames)(self._media)
        pts = self._index.pts[self._index.positions]
        for number, frame in enumerate(frames):
            if len(pts) and (number >= len(pts) or frame.pts != pts[number]):
                raise DecodeError(self._media.name, f"a frame is missing around number {number}")
            if number in remaining:
                with decode_errors(self._media.name):
                    deliver(number, frame)
                remaining.discard(number)
                if not remaining:
                    return
        raise DecodeError(self._media.name, f"frame {min(remaining)} is missing")

    def _read_run(self, run: _Run, deliver: Callable[[int, Any], None]) -> None:
        """Decode from the keyframe of the run, or else from the one before it, or else from the start."""
        for key in range(run.key, max(run.key - 2, -1), -1):
            if self._try_run(run, key, deliver):
                return
        self._read_from_start(run.frames, deliver)

    def _try_run(self, run: _Run, key: int, deliver: Callable[[int, Any], None]) -> bool:
        """Whether all frames of a run arrived, undamaged, when decoding began at a keyframe."""
        index = self._index
        context = self._media.stream("video").codec_context
        is_unreferenced = unreferenced_test(context)
        wanted = {int(index.pts[index.positions[number]]): number for number in run.frames}
        start = int(index.pts[index.keys[key]])
        awaited = set(wanted)

        def take(frames: list[Any]) -> None:
            for frame in frames:
                if frame.is_corrupt:
                    raise _InexactError
                awaited.discard(frame.pts)
                if frame.pts in wanted:
                    deliver(wanted[frame.pts], frame)

        try:
            for position, packet in self._packets_between(int(index.keys[key]), run.last):
                if packet.pts not in wanted and is_unreferenced(memoryview(packet)):
                    continue
                # Frames shown before the keyframe may refer to what was not decoded: those never come.
                if packet.pts >= start and not index.hidden[position]:
                    awaited.add(packet.pts)
                take(context.decode(packet))
            # All that is wanted is in the decoder: draining it costs less than feeding it further frames.
            take(context.decode(None))
        except Exception:  # whatever it was: decoding from the start of the file will tell
            return False
        # A packet without a frame is a reference that others lacked, though the decoder may say nothing.
        return not awaited

    def _packets_between(self, first: int, last: int) -> Iterator[tuple[int, Any]]:
        """Seek to a keyframe and yield (position, packet) up to a position, comparing all with the index."""
        index, media = self._index, self._media
        stream = media.stream("video")
        # Containers differ in which of the two times they seek by.
        for target in (index.pts[first], index.dts[first]):
            media.seek(stream, int(target))
            packets = media.packets(stream)
            packet = next(packets)
            position = _find(index.pts, packet.pts)
            if position is not None and position <= first:
                break
        else:
            raise _InexactError
        packets = chain([packet], packets)
        for place, following in zip(range(position, last + 1), packets, strict=False):
            bytes_at = -1 if following.pos is None else following.pos
            if following.pts != index.pts[place] or bytes_at != index.bytes_at[place]:
                raise _InexactError
            yield place, following


class _InexactError(Exception):
    """Decoding from a keyframe did not give what the index says."""


@dataclass(frozen=True)
class _Run:
    """Frames that are decoded in one go.

    Attributes:
        key: number of the keyframe to start from, among the index's `keys`.
        last: position among the packets of the last packet that is needed.
        frames: ascending frame numbers.
    """

    key: int
    last: int
    frames: list[int]


def _runs(index: VideoIndex, wanted: list[int]) -> Iterator[_Run]:
    """Group ascending frame numbers: those after one keyframe, and those that follow without a gap."""
    run: _Run | None = None
    for number in wanted:
        key, position = index.key_before(number), int(index.positions[number])
        if run is None:
            run = _Run(key, position, [number])
        elif key == run.key or index.keys[key] == run.last + 1:
            run = _Run(run.key, max(run.last, position), [*run.frames, number])
        else:
            yield run
            run = _Run(key, position, [number])
    if run is not None:
        yield run


def _find(pts: np.ndarray, value: int | None) -> int | None:
    if value is None:
        return None
    places = np.flatnonzero(pts == value)
    return int(places[0]) if len(places) else None
