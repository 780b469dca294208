"""Damaged files: a typed error or exact frames, whatever the damage, in bounded time and without a leak.

A clip that comes out of a damaged file is exact if it is, bit for bit, one of these:

1. the same clip of the undamaged file,
2. that clip of decoding the whole damaged file strictly, where this raises nothing: no decoder can tell the
damage, 3. where the strict decoder raises at *another* place of the file: what the decoder gives for these
   very frames without complaining about one of them. Few bits of a picture are redundant, so a flipped one
   may pass as a picture; `VideoReader.verify` finds the error at the other place.
"""

from __future__ import annotations

import io
import os
import random
import time
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest

from media import sweep, write_media
from videossl_hf.data.reader import VideoReader, read_audio
from videossl_hf.data.video_index import strict_frames
from videossl_hf.data.video_source import Media, MediaSource
from videossl_hf.errors import DecodeError

SIZE = (24, 32)
SECONDS_ALLOWED = 5.0
REAL_CLIPS = (
    "clips/bento.mp4",
    "clips/mmaction2_part_0.mp4",
    "clips/realshort.mp4",
    "clips/v_GGSY1Qvo990.mp4",
    "clips/carphone_pristine.mp4",
    "clips/rabbit320.webm",
    "clips/flipping_a_pancake.mkv",
    "clips/internvid_example1.mp4",
    "clips/tmbo_video3.avi",
    "clips/ucf101_v_Punch_g03_c01.avi",
    "clips/msvd_j2Dhf-xFUxU_13_20.avi",
    "asl_words/want.mkv",
    "grid/lbax4n.mpg",
    "labelled/egogestar/up/testvideo_up_22.mp4",
    "edge/h265_video.mp4",
    "edge/av1_video.mkv",
    "edge/test_video_66x50.mov",
    "edge/testsrc2_odd_height_and_width_mpeg2.mp4",
    "edge/testsrc2_odd_height_and_width_vp9_10bit.mp4",
)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[bytes, np.ndarray]]:
    """(bytes, all frames) of small clips: real ones where VIDEOSSL_MEDIA names them, else written ones."""
    folder = os.environ.get("VIDEOSSL_MEDIA")
    paths = [Path(folder) / name for name in REAL_CLIPS] if folder else []
    paths = [path for path in paths if path.exists()]
    if not paths:
        made = tmp_path_factory.mktemp("clips")
        short = {"num_frames": 40, "sound": sweep(4.0, 24000)}
        paths = [
            write_media(made / "closed.mp4", options={"g": "10", "bf": "2"}, **short),
            write_media(made / "one_key.mp4", options={"g": "100"}, **short),
            write_media(made / "clip.mkv", options={"g": "10"}, **short),
            write_media(made / "clip.avi", codec="mpeg4", options={"g": "10"}, num_frames=40),
            write_media(made / "hevc.mp4", codec="libx265", options={"x265-params": "log-level=none"}),
            write_media(made / "clip.webm", codec="libvpx-vp9", options={"cpu-used": "8"}),
        ]
    result = []
    for path in paths:
        with VideoReader(path) as reader:
            result.append((path.read_bytes(), reader.frames(range(len(reader)), SIZE)))
    return result


def damage(data: bytes, draw: random.Random) -> bytes:
    """Cut off, flip one bit or twenty, overwrite with zeros, or take bytes out."""
    damaged = bytearray(data)
    kind = draw.randrange(5)
    place = draw.randrange(len(data))
    if kind == 0:
        del damaged[place:]
    elif kind in (1, 2):
        for _ in range(1 if kind == 1 else 20):
            damaged[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    elif kind == 3:
        damaged[place : place + 3000] = bytes(len(damaged[place : place + 3000]))
    else:
        del damaged[place : place + draw.randrange(1, 2000)]
    return bytes(damaged)


def what_came_out(data: bytes, original: np.ndarray, draw: random.Random) -> str:
    with VideoReader(data) as reader:
        start, stride = draw.randrange(len(reader)), draw.choice([1, 2, 4])
        indices = np.minimum(start + stride * np.arange(8), len(reader) - 1)
        frames = reader.frames(indices, SIZE)
        if indices.max() < len(original) and np.array_equal(frames, original[indices]):
            return "as the original"
        converted: list[np.ndarray] = []
        media = Media(MediaSource(data))
        try:
            for frame in strict_frames(media):
                converted.append(np.empty((*SIZE, 3), np.uint8))
                reader._convert(frame, converted[-1])
        except DecodeError:
            return "undetectable" if without_complaint(data, reader, indices, frames) else "silent damage"
        finally:
            media.close()
        assert len(converted) == len(reader)
        np.testing.assert_array_equal(frames, np.stack(converted)[indices])
        return "as decoding everything"


def without_complaint(data: bytes, reader: VideoReader, indices: np.ndarray, frames: np.ndarray) -> bool:
    """Whether a lenient decoder gives these frames too, and flags none of them as damaged."""
    times = dict(zip(reader.frame_times[indices].round(4).tolist(), frames, strict=True))
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for packet in container.demux(stream):
            try:
                decoded = packet.decode()
            except av.error.FFmpegError:
                continue
            for frame in decoded:
                wanted = times.pop(round(frame.time - reader._index.start, 4), None)
                if wanted is not None:
                    pixels = np.empty((*SIZE, 3), np.uint8)
                    reader._convert(frame, pixels)
                    if frame.is_corrupt or not np.array_equal(pixels, wanted):
                        return False
    return not times


def check_seeds(seeds: range, clips: list[tuple[bytes, np.ndarray]]) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    descriptors = None
    for seed in seeds:
        draw = random.Random(seed)
        data, original = clips[seed % len(clips)]
        damaged = damage(data, draw)
        started = time.monotonic()
        try:
            outcome = what_came_out(damaged, original, draw)
        except DecodeError as error:
            outcome = "error" if error.reason and len(str(error)) < 300 else "unreadable error"
        took = time.monotonic() - started
        assert took < SECONDS_ALLOWED, f"seed {seed} took {took:.1f} s"
        assert outcome not in ("silent damage", "unreadable error"), f"seed {seed}: {outcome}"
        outcomes[outcome] += 1
        descriptors = descriptors or len(list(Path("/proc/self/fd").iterdir()))
    assert len(list(Path("/proc/self/fd").iterdir())) <= descriptors
    return outcomes


def test_damaged_files_give_a_typed_error_or_exact_frames(clips: list[tuple[bytes, np.ndarray]]) -> None:
    outcomes = check_seeds(range(100), clips)
    assert outcomes["error"] > 30
    assert outcomes["as the original"] > 3


@pytest.mark.slow
def test_a_thousand_damaged_files_give_a_typed_error_or_exact_frames(
    clips: list[tuple[bytes, np.ndarray]],
) -> None:
    outcomes = check_seeds(range(1000), clips)
    print(dict(outcomes))
    assert outcomes["undetectable"] <= 10


def test_damaged_sound_is_an_error_or_whole(tmp_path: Path) -> None:
    path = write_media(tmp_path / "tone.flac", num_frames=0, sound=sweep(4.0, 24000), sound_codec="flac")
    data = path.read_bytes()
    whole = read_audio(data)
    errors = 0
    for seed in range(60):
        try:
            np.testing.assert_array_equal(read_audio(damage(data, random.Random(seed))), whole)
        except DecodeError:
            errors += 1
    assert errors > 30


def test_a_tolerant_reader_keeps_what_damage_has_not_reached(tmp_path: Path) -> None:
    path = write_media(
        tmp_path / "clip.mp4", num_frames=40, options={"g": "10", "bf": "0", "sc_threshold": "0"}
    )
    with VideoReader(path) as reader:
        whole = reader.frames(range(40), SIZE)
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][13]
    data = bytearray(path.read_bytes())
    data[packet.pos + 4 : packet.pos + packet.size] = bytes(packet.size - 4)

    with VideoReader(bytes(data)) as strict:
        with pytest.raises(DecodeError):
            strict.frames([15])
        np.testing.assert_array_equal(strict.frames([0, 12, 20, 39], SIZE), whole[[0, 12, 20, 39]])
    with VideoReader(bytes(data), tolerant=True) as tolerant:
        kept = [*range(13), *range(20, 40)]
        assert len(tolerant) == len(kept)
        np.testing.assert_array_equal(tolerant.frames(range(len(kept)), SIZE), whole[kept])
        np.testing.assert_allclose(tolerant.frame_times, np.array(kept) / 10, atol=1e-6)


def test_a_tolerant_reader_of_an_undamaged_file_keeps_every_frame(clip_with_sound: Path) -> None:
    with VideoReader(clip_with_sound) as reader, VideoReader(clip_with_sound, tolerant=True) as tolerant:
        np.testing.assert_array_equal(tolerant.frames(range(30), SIZE), reader.frames(range(30), SIZE))
        np.testing.assert_array_equal(tolerant.audio(0.5, 1, 16000), reader.audio(0.5, 1, 16000))


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg4", "mpeg2video", "libvpx-vp9"])
def test_a_destroyed_packet_is_noticed_by_the_frames_after_it(codec: str, tmp_path: Path) -> None:
    # Zeros in place of a packet are no frame at all; the decoder must not be told to overlook that.
    options = {"g": "24", "bf": "2", "cpu-used": "8", "x265-params": "keyint=24:log-level=none"}
    path = write_media(tmp_path / "clip.mp4", num_frames=16, codec=codec, fps=25, options=options)
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    with VideoReader(path) as reader:
        whole = reader.frames(range(16), SIZE)
    raised = 0
    for packet in packets[1:]:
        data = bytearray(path.read_bytes())
        data[packet.pos : packet.pos + packet.size] = bytes(packet.size)
        try:
            with VideoReader(bytes(data)) as reader:
                np.testing.assert_array_equal(reader.frames([15], SIZE), whole[[15]])
        except DecodeError:
            raised += 1
    assert raised > 0
