"""Writes small video and sound files for tests, with PyAV."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from videossl_hf.data.writer import same_bytes_from_x264


def moving_texture(num_frames: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """(num_frames, height, width, 3) uint8: smooth blobs that drift, each frame clearly unlike the others."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    frames = np.zeros((num_frames, height, width, 3))
    for _ in range(4):
        waves, phase, colour = random.uniform(1, 4, 2), random.uniform(0, 6, 1), random.uniform(0, 1, 3)
        speed = random.uniform(0.4, 0.9)
        for number in range(num_frames):
            angle = 2 * np.pi * (waves[0] * rows / height + waves[1] * columns / width) + phase
            frames[number] += (np.sin(angle + speed * number)[..., None] + 1) * colour
    noise = random.integers(0, 12, (height, width, 1))
    return np.clip(frames / frames.max() * 243 + noise, 0, 255).astype(np.uint8)


def sweep(seconds: float, sample_rate: int) -> np.ndarray:
    """int16 (samples,): a tone that rises, so that every moment of it is recognised."""
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    return (12000 * np.sin(2 * np.pi * (200 * time + 150 * time**2))).astype(np.int16)


@contextmanager
def kept_scheduling() -> Iterator[None]:
    """SVT-AV1 makes the thread of a privileged user a real-time one and leaves it so: whatever the process
    does next would starve the machine."""
    if not hasattr(os, "sched_getscheduler"):  # not Linux
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)


@kept_scheduling()
def write_media(
    path: Path,
    *,
    frames: np.ndarray | None = None,
    num_frames: int = 30,
    height: int = 48,
    width: int = 64,
    fps: int = 10,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    ticks: Sequence[int] | None = None,
    rotation: int = 0,
    mirrored: bool = False,
    sound: np.ndarray | None = None,
    sample_rate: int = 24000,
    sound_codec: str = "aac",
    sound_start: float = 0.0,
    seed: int = 0,
) -> Path:
    """Write a file whose container follows from its suffix.

    Args:
        path: file to write.
        frames: uint8 RGB (frames, height, width, 3), or None for a `moving_texture` of the sizes that follow.
        num_frames: frames of the texture; 0 writes no video stream.
        height: its rows.
        width: its columns.
        fps: frames a second.
        codec: FFmpeg's name of the encoder.
        pix_fmt: FFmpeg's name of the pixel format.
        options: of the encoder, for instance {"g": "10", "bf": "2"}.
        ticks: presentation time of each frame in 1/1000 s, in place of an even rate.
        rotation: degrees that a player turns the picture counter-clockwise.
        mirrored: whether a player mirrors it left to right after that.
        sound: int16 mono samples, or None for no sound track.
        sample_rate: of the sound, in Hz.
        sound_codec: FFmpeg's name of its encoder.
        sound_start: seconds by which the sound begins after the first frame.
        seed: of the texture.

    Returns:
        `path`.
    """
    if frames is None and num_frames:
        frames = moving_texture(num_frames, height, width, seed)
    with av.open(str(path), "w") as container:
        video = audio = None
        if frames is not None:
            options = dict(options or {})
            if codec == "libx264":
                options |= same_bytes_from_x264(options.get("x264-params", ""))
            video = container.add_stream(codec, rate=fps, options=options)
            video.height, video.width = frames.shape[1:3]
            video.pix_fmt = pix_fmt
            video.codec_context.thread_count = 1
            if ticks is not None:
                video.codec_context.time_base = Fraction(1, 1000)
            if rotation or mirrored:
                video.set_display_rotation(rotation, hflip=mirrored)
        if sound is not None:
            audio = container.add_stream(sound_codec, rate=sample_rate, layout="mono")
        if video is not None and frames is not None:
            for number, pixels in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.time_base = Fraction(1, 1000) if ticks is not None else Fraction(1, fps)
                frame.pts = number if ticks is None else ticks[number]
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
        if audio is not None and sound is not None:
            frame = av.AudioFrame.from_ndarray(sound[None], format="s16", layout="mono")
            frame.sample_rate = sample_rate
            frame.time_base = Fraction(1, sample_rate)
            frame.pts = round(sound_start * sample_rate)
            resampler = av.AudioResampler(
                audio.format, "mono", sample_rate, frame_size=audio.codec_context.frame_size or 1024
            )
            for piece in (*resampler.resample(frame), *resampler.resample(None)):
                container.mux(audio.encode(piece))
            container.mux(audio.encode(None))
    return path


def decode_all(path: Path | str, **options: str) -> list[av.VideoFrame]:
    """Every frame of the first video stream, decoded in order by PyAV alone."""
    with av.open(str(path), options=options) as container:
        container.streams.video[0].codec_context.thread_count = 1
        return list(container.decode(video=0))
