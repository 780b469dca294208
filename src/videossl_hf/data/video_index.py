"""Which packet of a video file holds which frame, so that a reader can seek and still be exact.

One pass over the packets, without decoding, lists (presentation time, keyframe). Frame i is then the packet
with the i-th smallest presentation time, and decoding can begin at the last keyframe before it. That holds
where the container stores true presentation times and the codec shows every packet once. Wherever there is a
reason to doubt it, the file is decoded once, and either the list proves right or the file is marked as one
that has to be read from its start, counting frames. Such reasons are:

- containers that derive presentation times (MPEG program streams and so on; AVI with B-frames gets them
  wrong),
- missing or repeated times, frames before the first keyframe, frames hidden by an edit list,
- a decoder that delays its output although no packet is out of order,
- a jump in time in Matroska or another count than the header's in AVI: a damaged packet may have been
  skipped,
- interlaced pictures, which may come one field a packet, and codecs outside `ONE_TO_ONE_CODECS`.

Indices of local files are kept in a process-wide table, keyed by path, modification time and size.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from ..errors import DecodeError, NoVideoError, VideoSSLError
from .video_source import Media, decode_errors, load_pyav

__all__ = ["VideoIndex", "VideoInfo", "strict_frames", "undamaged_frames", "video_index"]

# A frame number costs about 20 bytes: ten thousand clips of 300 frames stay below 100 MB.
CACHE_SIZE = 10_000

# Containers whose packets carry the presentation times that the encoder meant.
TIMED_CONTAINERS = ("mov", "matroska")
# Codecs of which one packet is one shown frame (where pictures are not interlaced). The AV1 decoder passes
# over packets that were cut short without a word, VP8 has frames that are never shown.
ONE_TO_ONE_CODECS = ("h264", "hevc", "mpeg4", "mpeg2video", "vp9")
# Codecs whose decoder carries something over from what it decoded before a seek (seen on damaged files).
UNSEEKABLE_CODECS = ("vp8",)


@dataclass(frozen=True)
class VideoInfo:
    """What a video is, as it will be shown.

    Attributes:
        num_frames: frames that can be read.
        fps: average frames a second.
        duration: seconds, `num_frames / fps`.
        height: rows, after rotation.
        width: columns, after rotation. Non-square pixels are not stretched.
        rotation: degrees by which stored frames are turned counter-clockwise for display: 0, 90, 180 or 270
            (mirrored pictures are mirrored too).
        codec: FFmpeg's name of the codec.
        has_audio: whether there is a sound track.
        audio_sample_rate: its rate in Hz, or None.
    """

    num_frames: int
    fps: float
    duration: float
    height: int
    width: int
    rotation: int
    codec: str
    has_audio: bool
    audio_sample_rate: int | None


@dataclass(frozen=True, eq=False)
class VideoIndex:
    """Where every frame of a video lies.

    Attributes:
        info: description of the video.
        times: float64 (num_frames,), seconds since the first frame, ascending.
        start: seconds between the container's time zero and the first frame.
        turn: how stored pixels become upright ones: (swap rows and columns, then flip rows, flip columns).
        seekable: whether the fields below may be used; otherwise frames are counted from the start of the
        file.
        pts: int64 (packets,), presentation time of every packet in the order of the file.
        dts: int64 (packets,), decoding times in the same order.
        bytes_at: int64 (packets,), where each packet lies in the file; after a seek, times alone may mislead.
        keys: int64, positions of the keyframes among the packets.
        hidden: bool (packets,), whether an edit list keeps the frame from being shown.
        positions: int64 (num_frames,), position among the packets of every frame in order of presentation.
    """

    info: VideoInfo
    times: np.ndarray
    start: float
    turn: tuple[bool, bool, bool]
    seekable: bool
    pts: np.ndarray
    dts: np.ndarray
    bytes_at: np.ndarray
    keys: np.ndarray
    hidden: np.ndarray
    positions: np.ndarray

    def key_before(self, frame: int) -> int:
        """Which of `keys` decoding has to start from to arrive at a frame (its number among `keys`)."""
        position = self.positions[frame]
        key = int(np.searchsorted(self.keys, position, side="right")) - 1
        # Frames of an open group of pictures are shown before the keyframe that they follow in the file.
        while key > 0 and self.pts[self.keys[key]] > self.pts[position]:
            key -= 1
        return max(key, 0)


_cache: OrderedDict[tuple[Any, ...], VideoIndex] = OrderedDict()
_cache_lock = threading.Lock()


def video_index(media: Media) -> VideoIndex:
    """The index of an open source, from the cache where it is a local file that has not changed.

    Raises:
        NoVideoError: there is no video stream, or it has no frame.
        DecodeError: the packets cannot be read, are cut off, or a needed verification fails.
    """
    path = media.source.path
    if path is None:
        return _build(media)
    status = path.stat()
    key = (str(path.absolute()), status.st_mtime_ns, status.st_size, status.st_ino, media.tolerant)
    with _cache_lock:
        index = _cache.get(key)
        if index is not None:
            _cache.move_to_end(key)
            return index
    index = _build(media)
    with _cache_lock:
        _cache[key] = index
        if len(_cache) > CACHE_SIZE:
            _cache.popitem(last=False)
    return index


def strict_frames(media: Media) -> Iterator[Any]:
    """All frames from the start of the file, each an `av.VideoFrame`; any damage raises `DecodeError`."""
    media.restart()
    stream = _video_stream(media)
    with decode_errors(media.name):
        for packet in media.packets(stream):
            for frame in stream.codec_context.decode(packet):
                yield _checked(frame, media.name)
        for frame in stream.codec_context.decode(None):
            yield _checked(frame, media.name)


def undamaged_frames(media: Media) -> Iterator[Any]:
    """All frames from the start of the file that no damage has reached.

    After an error nothing is shown until the next keyframe, since every frame in between may refer to the
    damage.
    """
    media.restart()
    stream = _video_stream(media)
    context = stream.codec_context
    waiting, resumed_at = False, None
    for packet in _readable(media.packets(stream)):
        if waiting:
            if not packet.is_keyframe:
                continue
            waiting, resumed_at = False, packet.pts
        frames, sound = _try_decode(context, packet)
        damaged = not sound or packet.is_corrupt
        if damaged:
            # What was complete before the damage is still inside the decoder.
            frames = [*frames, *(f for f in _try_decode(context, None)[0] if f.pts != packet.pts)]
            context.flush_buffers()
            waiting = True
        for frame in frames:
            if frame.is_corrupt:
                waiting = True
                break
            if resumed_at is None or frame.pts is None or frame.pts >= resumed_at:
                yield frame
    if not waiting:
        yield from (frame for frame in _try_decode(context, None)[0] if not frame.is_corrupt)


class _Packet(NamedTuple):
    """What the demuxer says of one packet."""

    pts: int | None
    dts: int | None
    bytes_at: int | None
    is_key: bool
    is_hidden: bool


def _note(packet: Any) -> _Packet:
    return _Packet(packet.pts, packet.dts, packet.pos, packet.is_keyframe, packet.is_discard)


@dataclass(frozen=True)
class _Packets:
    """What one pass over the packets of a stream says; in the order of the file."""

    pts: Sequence[int | None]
    dts: Sequence[int | None]
    bytes_at: Sequence[int | None]
    is_key: Sequence[bool]
    is_hidden: Sequence[bool]

    @classmethod
    def of(cls, packets: list[_Packet]) -> _Packets:
        """From a list of packets."""
        return cls(*zip(*packets, strict=True)) if packets else cls((), (), (), (), ())

    def shown(self) -> list[int | None]:
        """Presentation times of the packets that an edit list does not hide."""
        return [pts for pts, hidden in zip(self.pts, self.is_hidden, strict=True) if not hidden]


def _scan(media: Media) -> tuple[_Packets, Any]:
    """Read all packets of the video stream, and decode just enough of them for the first frame, or None."""
    packets: list[_Packet] = []
    stream = _video_stream(media)
    context, first = stream.codec_context, None
    with decode_errors(media.name):
        for packet in media.packets(stream):
            if packet.is_corrupt:
                raise DecodeError(media.name, f"it is damaged or cut off at frame {len(packets)}")
            packets.append(_note(packet))
            if first is None:
                first = next(iter(context.decode(packet)), None)
        if first is None:
            first = next(iter(context.decode(None)), None)
    context.flush_buffers()
    return _Packets.of(packets), None if first is None else _checked(first, media.name)


def _scan_undamaged(media: Media) -> tuple[_Packets, Any]:
    """The same of a file that may be damaged: the packets up to where it cannot be read further."""
    packets = [_note(packet) for packet in _readable(media.packets(_video_stream(media)))]
    return _Packets.of(packets), next(undamaged_frames(media), None)


def _build(media: Media) -> VideoIndex:
    stream, sound = _video_stream(media), media.stream("audio")
    container = media.container.format.name
    codec = stream.codec_context.codec.canonical_name
    delayed = bool(stream.codec_context.has_b_frames)
    header_frames, header_fps, time_base = stream.frames, stream.average_rate, stream.time_base
    sample_rate = None if sound is None else int(sound.codec_context.sample_rate)

    packets, first = _scan_undamaged(media) if media.tolerant else _scan(media)
    if header_frames > len(packets.pts) and "mov" in container and not media.tolerant:
        _check_complete(media, header_frames)
    if first is None:
        damage = "no frame of it is undamaged" if media.tolerant else "its video stream has no frame"
        raise NoVideoError(media.name, damage)

    expected = sorted(pts for pts in packets.shown() if pts is not None)
    doubtful = (
        first.interlaced_frame
        or _is_doubtful(packets, container, codec, delayed)
        or _may_lack_packets(packets, container, header_frames)
    )
    if media.tolerant or doubtful:
        frames = undamaged_frames(media) if media.tolerant else strict_frames(media)
        decoded = [frame.pts for frame in frames]
        seekable = decoded == expected and any(name in container for name in (*TIMED_CONTAINERS, "avi"))
        seekable = seekable and len(packets.pts) == len(set(packets.pts))
        seekable = seekable and not media.tolerant and codec not in UNSEEKABLE_CODECS
    else:
        decoded, seekable = list(expected), True

    if None in decoded or len(set(decoded)) < len(decoded):
        fps = float(header_fps or 1)
        times = np.arange(len(decoded)) / fps
        start = float((first.pts or 0) * time_base)
    else:
        ticks = np.array(sorted(decoded), dtype=np.int64)
        times = (ticks - ticks[0]) * float(time_base)
        start = float(ticks[0] * time_base)
        span = int(ticks[-1] - ticks[0]) * time_base
        fps = float((len(ticks) - 1) / span if span else header_fps or 1)
    turn = _display_turn(first)
    height, width = (first.width, first.height) if turn[0] else (first.height, first.width)
    info = VideoInfo(
        num_frames=len(times),
        fps=fps,
        duration=len(times) / fps,
        height=height,
        width=width,
        rotation=round(first.rotation / 90) * 90 % 360,
        codec=codec,
        has_audio=sound is not None,
        audio_sample_rate=sample_rate,
    )
    times.flags.writeable = False
    if not seekable:
        nothing = np.zeros(0, dtype=np.int64)
        return VideoIndex(info, times, start, turn, False, *[nothing] * 6)
    pts = np.array(packets.pts, dtype=np.int64)
    dts = np.array([p if d is None else d for p, d in zip(packets.pts, packets.dts, strict=True)], np.int64)
    shown = np.flatnonzero(~np.array(packets.is_hidden))
    return VideoIndex(
        info,
        times,
        start,
        turn,
        seekable=True,
        pts=pts,
        dts=dts,
        bytes_at=np.array([-1 if at is None else at for at in packets.bytes_at], dtype=np.int64),
        keys=np.flatnonzero(packets.is_key),
        hidden=np.array(packets.is_hidden),
        positions=shown[np.argsort(pts[shown])],
    )


def _display_turn(frame: Any) -> tuple[bool, bool, bool]:
    """`VideoIndex.turn` from the display matrix of a frame, to the nearest multiple of 90 degrees."""
    matrix = frame.side_data.get(load_pyav().sidedata.sidedata.Type.DISPLAYMATRIX)
    if matrix is None:
        return False, False, False
    # A pixel (x, y) is shown at (a * x + c * y, b * x + d * y).
    a, b, _, c, d = np.frombuffer(bytes(matrix), dtype=np.int32)[:5].tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return False, d < 0, a < 0
    return True, b < 0, c < 0


def _is_doubtful(packets: _Packets, container: str, codec: str, delayed: bool) -> bool:
    """Whether the order or the number of the frames may differ from what the packets say (see the module)."""
    pts = packets.pts
    if None in pts or len(set(pts)) < len(pts) or any(packets.is_hidden):
        return True
    in_order = all(a < b for a, b in pairwise(pts))  # type: ignore[operator]  # no None is left
    return (
        codec not in ONE_TO_ONE_CODECS
        or not any(name in container for name in (*TIMED_CONTAINERS, "avi"))
        or (container == "avi" and not in_order)
        or (delayed and in_order)
        or not packets.is_key[0]
        or min(pts) < pts[0]  # type: ignore[operator,type-var]
    )


def _may_lack_packets(packets: _Packets, container: str, header_frames: int) -> bool:
    """Whether a demuxer may have skipped damage: these look for the next packet that they can read."""
    if "avi" in container:
        return header_frames != len(packets.pts)
    if "matroska" in container and len(packets.pts) > 2 and None not in packets.pts:
        steps = np.diff(np.sort(np.array(packets.pts, dtype=np.int64)))
        return bool(steps.max() > 1.5 * np.median(steps))
    return False


def _check_complete(media: Media, header_frames: int) -> None:
    """Tell a file that was cut off from one whose edit list leaves frames out: both have too few packets."""
    with decode_errors(media.name), media.source.open(ignore_editlist="1") as container:
        stream = container.streams[_video_stream(media).index]
        stored = sum(packet.size > 0 for packet in container.demux(stream))
    if stored < header_frames:
        raise DecodeError(media.name, f"it is cut off: of {header_frames} frames only {stored} are there")


def _readable(packets: Iterator[Any]) -> Iterator[Any]:
    try:
        yield from packets
    except VideoSSLError:
        raise
    except Exception:  # a container that is damaged from here on: what follows cannot be found
        return


def _try_decode(context: Any, packet: Any) -> tuple[list[Any], bool]:
    try:
        return list(context.decode(packet)), True
    except Exception:
        return [], False


def _checked(frame: Any, name: str) -> Any:
    if frame.is_corrupt:
        where = "one of its frames" if frame.time is None else f"the frame at {frame.time:.3f} s"
        raise DecodeError(name, f"{where} is damaged")
    return frame


def _video_stream(media: Media) -> Any:
    stream = media.stream("video")
    if stream is None:
        raise NoVideoError(media.name, "it has no video stream")
    return stream
