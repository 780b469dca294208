"""Reads a span of sound, mono and resampled, exactly where it lies in time.

A track is taken as silence with its samples set into it, resampled as one piece. A span is a cut out of that:
the same samples come out wherever a span begins. So zeros are put in only where the track has no samples:
before the first one, after the last one, and where a packet is stated to last longer than its samples do. Any
other hole, and any damage, is an error.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np

from ..errors import DecodeError, InputError, NoAudioError
from .video_source import Media, MediaSource, decode_errors, load_pyav

__all__ = ["read_audio", "read_sound"]

# Decoders need some packets before their output is that of an unbroken run (AAC one or two, MP3 up to ten).
PREROLL = 0.5  # seconds
# Containers in which seeking leads to a sample, not merely to somewhere near it.
SEEKABLE_CONTAINERS = ("mov", "wav")
# Containers whose header tells how long the track is, and does not merely estimate it.
STATED_LENGTHS = ("mov", "wav", "flac")
# Neighbouring packets whose times disagree by less belong together: Matroska rounds to milliseconds.
TIME_TOLERANCE = 0.02  # seconds


def read_audio(
    source: Any, start: float = 0.0, seconds: float | None = None, sample_rate: int = 24000
) -> np.ndarray:
    """A span of a sound file, or of the sound track of a video file.

    Args:
        source: path, http(s) URL, bytes, binary file object or `{"bytes", "path"}` cell.
        start: seconds since the first sample of the track.
        seconds: length of the span; None for all that is left.
        sample_rate: rate to resample to, in Hz.

    Returns:
        int16 array of shape (round(seconds * sample_rate),), zero where the track has no samples.

    Raises:
        NoAudioError: there is no sound track, or it has no sample.
        DecodeError: the source is missing, empty, no media file, or damaged.
    """
    media = Media(MediaSource(source))
    try:
        first = next(_decode(media, None), None)
        if first is None:
            raise NoAudioError(media.name, "its sound track has no sample")
        if first.pts and "flac" in media.container.format.name:
            raise DecodeError(media.name, "the beginning of its sound is lost")
        origin = float((first.pts or 0) * first.time_base)
        return read_sound(media, origin + start, seconds, sample_rate)
    finally:
        media.close()


def read_sound(media: Media, start: float, seconds: float | None, sample_rate: int) -> np.ndarray:
    """As `read_audio`, from an open source and with `start` on the container's own clock."""
    if not math.isfinite(start) or sample_rate < 1:
        raise InputError(
            f"start must be finite and sample_rate positive, got start={start}, sample_rate={sample_rate}"
        )
    if seconds is not None and not (seconds > 0 and math.isfinite(seconds)):
        raise InputError(f"seconds must be positive and finite, or None, got {seconds}")
    stream = _sound_stream(media)
    begin_of_track = float((stream.start_time or 0) * stream.time_base)
    if start - 2 * PREROLL > begin_of_track and any(
        name in media.container.format.name for name in SEEKABLE_CONTAINERS
    ):
        try:
            return _read(media, start, seconds, sample_rate, seek=True)
        except DecodeError:
            pass  # not every decoder can begin in the middle; the start of the file decides
    return _read(media, start, seconds, sample_rate, seek=False)


def _read(media: Media, start: float, seconds: float | None, sample_rate: int, *, seek: bool) -> np.ndarray:
    frames = _decode(media, start - PREROLL if seek else None)
    first = next(frames, None)
    if first is None:
        raise NoAudioError(media.name, "its sound track has no sample")
    native = first.sample_rate
    # `block_in` samples of the track are `block_out` of the result: reading begins where such blocks meet, so
    # that the resampler is in the same phase for every span, and early enough to fill its filter.
    divisor = math.gcd(native, sample_rate)
    block_in, block_out = native // divisor, sample_rate // divisor
    filter_in = 64 * math.ceil(max(native / sample_rate, 1.0))
    wanted = round(start * sample_rate)
    blocks = (wanted * native // sample_rate - filter_in) // block_in
    begin = blocks * block_in
    length = None if seconds is None else round(seconds * sample_rate)
    end = None if length is None else _divide_up((wanted + length) * native, sample_rate) + filter_in

    pieces = _mono_pieces(media, chain([first], frames), native, begin, end)
    if seek and (not pieces or pieces[0][0] > begin):
        raise DecodeError(media.name, "seeking led past the span")
    if not pieces:
        return np.zeros(length or 0, dtype=np.int16)
    track_from, track_to = pieces[0][0], pieces[-1][0] + len(pieces[-1][1])
    if length is None or end is None:
        length, end = max(_divide_up(track_to * sample_rate, native) - wanted, 0), track_to + filter_in
    track = np.zeros(max(end - begin, 1), dtype=np.float32)
    for at, samples in pieces:
        source = samples[max(begin - at, 0) : max(end - at, 0)]
        track[max(at - begin, 0) :][: len(source)] = source
    with decode_errors(media.name):
        resampled = _resample(track, native, sample_rate)
    # Filters ring: what lies outside the track is exactly zero all the same.
    offset = blocks * block_out
    resampled[: max(_divide_up(track_from * sample_rate, native) - offset, 0)] = 0
    resampled[max(_divide_up(track_to * sample_rate, native) - offset, 0) :] = 0
    return resampled[wanted - offset :][:length]


def _mono_pieces(
    media: Media, frames: Iterator[Any], native: int, begin: int, end: int | None
) -> list[tuple[int, np.ndarray]]:
    """(position of the first sample, float32 samples) of each frame up to `end`, all in samples of the track.

    Positions are counted from the first frame on. Where the stated times leave the count, a packet has either
    said that it lasts longer than its samples (silence), or something is lost.
    """
    pieces: list[tuple[int, np.ndarray]] = []
    position, covered = None, 0
    with decode_errors(media.name):
        # Whole numbers: as floats, FFmpeg's mix of two equal channels would be 1.4 times as loud as each.
        to_mono = load_pyav().AudioResampler("s32", "mono", native)
        for frame in frames:
            stated = position if frame.pts is None else round(frame.pts * frame.time_base * native)
            if position is None:
                position = stated or 0
            elif stated is not None and abs(stated - position) > TIME_TOLERANCE * native:
                if abs(stated - covered) > TIME_TOLERANCE * native and stated > begin:
                    raise DecodeError(media.name, f"its sound has a hole at {position / native:.3f} s")
                position = stated
            if end is not None and position >= end:
                break
            covered = position + round((frame.duration or 0) * frame.time_base * native)
            for mono in to_mono.resample(frame):
                samples = mono.to_ndarray()[0].astype(np.float32) / np.float32(2**31)
                pieces.append((position, samples))
                position += len(samples)
        else:
            if pieces and (end is None or pieces[-1][0] < end):
                _check_complete(media, (pieces[-1][0] + len(pieces[-1][1]) - pieces[0][0]) / native)
    return pieces


def _decode(media: Media, seek_to: float | None) -> Iterator[Any]:
    """Frames of the sound track from a time (in seconds of the container's clock) or from its start."""
    if seek_to is None:
        media.restart()
    stream = _sound_stream(media)
    with decode_errors(media.name):
        if seek_to is not None:
            media.seek(stream, int(seek_to / stream.time_base))
        for packet in media.packets(stream):
            if packet.is_corrupt:
                raise DecodeError(media.name, "its sound track is damaged or cut off")
            yield from stream.codec_context.decode(packet)
        yield from stream.codec_context.decode(None)


def _sound_stream(media: Media) -> Any:
    stream = media.stream("audio")
    if stream is None:
        raise NoAudioError(media.name, "it has no sound track")
    return stream


def _check_complete(media: Media, seconds: float) -> None:
    """The track has ended, so many seconds after it began: is that what its header says?"""
    stream = _sound_stream(media)
    if stream.duration is None or not any(name in media.container.format.name for name in STATED_LENGTHS):
        return
    missing = float(stream.duration * stream.time_base) - seconds
    if missing > 0.1:
        raise DecodeError(media.name, f"its sound track is cut off {missing:.2f} s before its end")


def _divide_up(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)


def _resample(track: np.ndarray, native: int, sample_rate: int) -> np.ndarray:
    """Float32 (samples,) at one rate to int16 at another, the first sample at the same moment."""
    av = load_pyav()
    frame = av.AudioFrame.from_ndarray(track[None], format="flt", layout="mono")
    frame.sample_rate = native
    resampler = av.AudioResampler("s16", "mono", sample_rate)
    parts = [part.to_ndarray()[0] for part in (*resampler.resample(frame), *resampler.resample(None))]
    return np.concatenate(parts)
