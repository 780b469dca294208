from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from media import sweep, write_media
from videossl_hf.data import cache as cache_module
from videossl_hf.data.cache import MediaCache, fetched
from videossl_hf.data.reader import VideoReader
from videossl_hf.errors import DecodeError, InputError, NoAudioError, OutputError

KINDS = ["none", "memory", "disk"]


def make_cache(kind: str, folder: Path) -> MediaCache:
    return MediaCache(kind, folder / "cache" if kind == "disk" else None)


def read(cache: MediaCache, cell: Any, short_side: int | None = None) -> dict[str, Any]:
    with cache.open(cell, short_side) as video:
        return {
            "info": video.info,
            "times": video.frame_times,
            "frames": video.frames([3, 0, 3, 20]),
            "sound": video.audio(0.7, 1.1, 16000),
            "beyond": video.audio(2.5, 9.0, 16000),
            "before": video.audio(-0.2, 0.4, 16000),
        }


def same(left: dict[str, Any], right: dict[str, Any]) -> bool:
    return all(np.array_equal(left[name], right[name]) for name in left if name != "info") and (
        left["info"] == right["info"]
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("as_bytes", [False, True])
@pytest.mark.parametrize("short_side", [None, 20, 500])
def test_what_comes_out_is_bit_for_bit_what_the_reader_gives(
    kind: str, as_bytes: bool, short_side: int | None, clip_with_sound: Path, tmp_path: Path
) -> None:
    cell = {"bytes": clip_with_sound.read_bytes() if as_bytes else None, "path": str(clip_with_sound)}
    cache = make_cache(kind, tmp_path)
    with VideoReader(cell) as video:
        expected = {
            "info": video.info,
            "times": video.frame_times,
            "frames": video.frames([3, 0, 3, 20], short_side if short_side == 20 else None),
            "sound": video.audio(0.7, 1.1, 16000),
            "beyond": video.audio(2.5, 9.0, 16000),
            "before": video.audio(-0.2, 0.4, 16000),
        }
    assert same(read(cache, cell, short_side), expected)
    assert same(read(cache, cell, short_side), expected)


@pytest.mark.parametrize("late", [0.0, 0.31])
@pytest.mark.parametrize("rate", [24000, 11025])
def test_any_span_of_a_cached_track_equals_that_of_the_reader(late: float, rate: int, tmp_path: Path) -> None:
    path = write_media(tmp_path / "clip.mp4", sound=sweep(2.0, 44100), sample_rate=44100, sound_start=late)
    cache = MediaCache("memory")
    for start in np.random.default_rng(0).uniform(0, 2, 12).tolist():
        with cache.open(str(path)) as cached, VideoReader(path) as plain:
            assert np.array_equal(cached.audio(start, 0.37, rate), plain.audio(start, 0.37, rate)), start


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_a_file_is_decoded_once(
    kind: str, clip_with_sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = make_cache(kind, tmp_path)

    def look() -> Any:
        with cache.open(str(clip_with_sound), 24) as video:
            return video.info, video.frames([1, 2]), video.audio(0.0, 1.0, 8000)

    look()
    monkeypatch.setattr(cache_module, "VideoReader", None)
    look()


def test_what_is_cached_cannot_be_changed_by_its_readers(clip_with_sound: Path) -> None:
    cache = MediaCache("memory")
    for _ in range(2):
        with cache.open(str(clip_with_sound)) as video:
            frames, sound = video.frames([0]), video.audio(0.5, 0.1, 8000)
            assert frames.any()
            assert sound.any()
            frames[:] = 0
            sound[:] = 0


def test_a_file_that_changes_is_read_anew(tmp_path: Path) -> None:
    path = write_media(tmp_path / "clip.mp4", num_frames=4, seed=0)
    cache = MediaCache("memory")
    with cache.open(str(path)) as video:
        before = video.frames([0])
    write_media(path, num_frames=5, seed=1)
    os.utime(path, ns=(1, 1))
    with cache.open(str(path)) as video:
        assert video.info.num_frames == 5
        assert not np.array_equal(video.frames([0]), before)


def test_memory_stays_below_its_limit_and_drops_what_was_not_used_longest(tmp_path: Path) -> None:
    paths = [write_media(tmp_path / f"{index}.mp4", num_frames=4, seed=index) for index in range(3)]
    entry = 4 * 48 * 64 * 3
    cache = MediaCache("memory", max_bytes=2 * entry + 4000)
    for path in (*paths[:2], paths[0], paths[2]):
        with cache.open(str(path)) as video:
            video.frames([0])
    store = cache._store
    assert store.size <= store.max_bytes
    kept = [entry["frames"] for entry in store.entries.values()]
    assert len(kept) == 2
    with VideoReader(paths[0]) as video:
        assert np.array_equal(kept[0], video.frames(range(4)))


def test_large_videos_pass_by(clip_with_sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "_LARGEST_ENTRY", 1000)
    cache = MediaCache("memory")
    assert read(cache, str(clip_with_sound))["frames"].shape == (4, 48, 64, 3)
    assert not any("frames" in entry for entry in cache._store.entries.values())


def test_damage_elsewhere_in_a_file_does_not_spoil_what_is_asked_for(
    clip_with_sound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = VideoReader.frames

    def fails_on_all(self: VideoReader, indices: Any, size: Any = None) -> np.ndarray:
        if len(indices) > 20:
            raise DecodeError("clip", "it is damaged at its end")
        return frames(self, indices, size)

    monkeypatch.setattr(VideoReader, "frames", fails_on_all)
    with MediaCache("memory").open(str(clip_with_sound)) as video:
        assert video.frames([0, 1]).shape == (2, 48, 64, 3)


def test_a_missing_track_is_the_same_error_with_every_cache(tmp_path: Path) -> None:
    silent = write_media(tmp_path / "silent.mp4")
    for kind in KINDS:
        with make_cache(kind, tmp_path).open(str(silent)) as video, pytest.raises(NoAudioError):
            video.audio(0.0, 1.0, 8000)


@pytest.mark.parametrize("index", [-1, 30])
def test_frame_numbers_outside_the_video_are_the_same_error_with_every_cache(
    index: int, clip_with_sound: Path, tmp_path: Path
) -> None:
    for kind in KINDS:
        with make_cache(kind, tmp_path).open(str(clip_with_sound)) as video, pytest.raises(InputError):
            video.frames([index])


def test_the_disk_cache_serves_later_processes_and_leaves_no_half_files(
    clip_with_sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = read(make_cache("disk", tmp_path), str(clip_with_sound))
    assert not list(tmp_path.rglob("*.part"))
    monkeypatch.setattr(cache_module.CachedVideo, "_decode_frames", None)
    assert same(read(make_cache("disk", tmp_path), str(clip_with_sound)), first)


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cache folder"):
        MediaCache("disk", tmp_path / "file" / "cache")


def test_addresses_of_other_file_systems_are_fetched() -> None:
    with fsspec.open("memory://clips/a.mp4", "wb") as file:
        file.write(b"video")
    cell = fetched({"bytes": None, "path": "memory://clips/a.mp4"})
    assert cell == {"bytes": b"video", "path": "memory://clips/a.mp4"}
    with pytest.raises(DecodeError, match="cannot be fetched"):
        fetched({"bytes": None, "path": "memory://clips/gone.mp4"})
    for cell in ({"bytes": b"1", "path": "hf://x"}, {"bytes": None, "path": "https://a/b.mp4"}, "a.mp4"):
        assert fetched(cell) is cell


def test_only_addresses_of_a_commit_have_an_identity() -> None:
    commit = f"hf://datasets/alice/clips@{'0123456789' * 4}/train/a.mp4"
    assert cache_module._identity({"bytes": None, "path": commit}) == commit
    for changing in ("hf://datasets/alice/clips/train/a.mp4", "https://host/a.mp4", "no/such/file.mp4"):
        assert cache_module._identity(changing) is None
