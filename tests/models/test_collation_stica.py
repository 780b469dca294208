from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets as hf
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from media import sweep, write_media
from videossl_hf.data.datasets import SeededDataset, SeededStream
from videossl_hf.data.ledger import read_ledger
from videossl_hf.data.loading import SampleLoader
from videossl_hf.data.reader import VideoReader
from videossl_hf.data.sampling import stica_clip_length, stica_clip_span, stica_frame_indices
from videossl_hf.data.seeds import seeded_generator
from videossl_hf.errors import ConfigurationError, DataError, InputError, NoAudioError
from videossl_hf.models.stica.collation_stica import STiCAAugmentation, STiCACollator
from videossl_hf.models.stica.configuration_stica import STiCAConfig
from videossl_hf.models.stica.processing_stica import STiCAProcessor

CONFIG = STiCAConfig(num_frames=8, fps=5.0, image_size=28, num_mel_bins=20, audio_seconds=1.0)
OFF = STiCAAugmentation(
    crop_area=(1.0, 1.0),
    crop_ratio=(1.0, 1.0),
    flip_probability=0.0,
    jitter_probability=0.0,
    gray_probability=0.0,
    blur_probability=0.0,
    volume=0.0,
)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four clips of 3 s at 10 fps, the first one square, each with its own picture and the same sweep."""
    folder = tmp_path_factory.mktemp("clips")
    return [
        write_media(
            folder / f"{index}.mp4", height=48, width=48 + 16 * index, seed=index, sound=sweep(3.0, 24000)
        )
        for index in range(4)
    ]


def samples_of(paths: list[Path], seed: int = 0, **columns: Any) -> SeededDataset:
    cells = [{"bytes": None, "path": str(path)} for path in paths]
    features = hf.Features({"video": hf.Video(decode=False)})
    return SeededDataset(hf.Dataset.from_dict({"video": cells, **columns}, features=features), seed)


def collator(
    config: STiCAConfig = CONFIG, augmentation: STiCAAugmentation | None = None, **loader: Any
) -> STiCACollator:
    return STiCACollator(config, STiCAProcessor.from_config(config), augmentation, SampleLoader(**loader))


def variant(**changes: Any) -> STiCAConfig:
    return STiCAConfig(**{**CONFIG.to_dict(), "pooling_layers": None, **changes})


def batch_of(paths: list[Path], make: STiCACollator, seed: int = 0) -> dict[str, torch.Tensor]:
    data = samples_of(paths, seed)
    return make([data[index] for index in range(len(data))])


def shapes(batch: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in batch.items()}


def test_a_batch_holds_two_views_and_the_sound_of_clips_of_any_size(clips: list[Path]) -> None:
    batch = batch_of(clips, collator())
    assert shapes(batch) == {
        "pixel_values_videos": (4, 8, 3, 28, 28),
        "second_pixel_values_videos": (4, 8, 3, 28, 28),
        "input_features": (4, 1, 20, 99),
    }
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in batch.values())
    assert not torch.equal(batch["pixel_values_videos"], batch["second_pixel_values_videos"])


def test_gdt_has_one_view(clips: list[Path]) -> None:
    batch = batch_of(clips[:2], collator(variant(objective="gdt")))
    assert set(batch) == {"pixel_values_videos", "input_features"}


def test_without_a_sound_tower_no_sound_is_read(tmp_path: Path) -> None:
    silent = write_media(tmp_path / "silent.mp4")
    batch = batch_of([silent], collator(variant(use_audio=False)))
    assert set(batch) == {"pixel_values_videos", "second_pixel_values_videos"}


def test_crops_of_the_input_are_small_views(clips: list[Path]) -> None:
    config = variant(crop_space="input", space_small_crops=3)
    batch = batch_of(clips[:2], collator(config, STiCAAugmentation(small_size=16)))
    small = batch["small_pixel_values_videos"]
    assert small.shape == (2, 3, 8, 3, 16, 16)
    assert not torch.equal(small[:, 0], small[:, 1])
    none = batch_of(clips[:2], collator(variant(crop_space="input", space_small_crops=0)))
    assert "small_pixel_values_videos" not in none


def expected_clip(path: Path, sample_seed: int) -> tuple[np.ndarray, float]:
    """Frames and start of the clip, straight from the rule of the official code."""
    with VideoReader(path) as video:
        length = stica_clip_length(8, 10.0, target_fps=5.0)
        start, _ = stica_clip_span(len(video), length, generator=seeded_generator(sample_seed))
        indices = stica_frame_indices(len(video), length, 8, start=start)
        return video.frames(indices, (28, 28)), start


def test_both_views_are_made_of_the_frames_that_the_sampling_rule_gives(tmp_path: Path) -> None:
    path = write_media(tmp_path / "clip.mp4", height=28, width=28, sound=sweep(3.0, 24000))
    batch = batch_of([path], collator(augmentation=OFF), seed=5)
    frames, _ = expected_clip(path, samples_of([path], 5)[0]["sample_seed"])
    expected = (torch.from_numpy(frames).permute(0, 3, 1, 2) / 255 - 0.45) / 0.225
    assert torch.allclose(batch["pixel_values_videos"][0], expected, atol=1e-6)
    assert torch.equal(batch["pixel_values_videos"], batch["second_pixel_values_videos"])


def spectrogram(path: Path, start: float) -> torch.Tensor:
    with VideoReader(path) as video:
        sound = video.audio(start, 1.0, 24000)
    return STiCAProcessor.from_config(CONFIG).feature_extractor([sound])["input_features"][0]


def test_the_sound_starts_where_the_clip_starts(clips: list[Path]) -> None:
    for seed in range(4):
        data = samples_of(clips[:1], seed)
        _, start = expected_clip(clips[0], data[0]["sample_seed"])
        batch = collator(augmentation=OFF)([data[0]])
        assert torch.allclose(batch["input_features"][0], spectrogram(clips[0], start / 10), atol=1e-4)


def test_sound_that_would_run_over_the_end_is_moved_back(tmp_path: Path) -> None:
    """A clip of 0.4 s anywhere in 1.2 s leaves less than a second of sound, mostly."""
    path = write_media(tmp_path / "clip.mp4", num_frames=12, sound=sweep(1.2, 24000))
    config = variant(num_frames=4, fps=10.0)
    for seed in range(4):
        data = samples_of([path], seed)
        start, _ = stica_clip_span(12, 4.0, generator=seeded_generator(data[0]["sample_seed"]))
        batch = collator(config, OFF)([data[0]])
        assert torch.allclose(batch["input_features"][0], spectrogram(path, min(start / 10, 0.2)), atol=1e-4)


def test_a_short_video_repeats_its_last_frame_and_is_padded_with_silence(tmp_path: Path) -> None:
    path = write_media(tmp_path / "clip.mp4", num_frames=4, height=28, width=28, sound=sweep(0.4, 24000))
    batch = batch_of([path], collator(augmentation=OFF))
    video = batch["pixel_values_videos"][0]
    assert torch.equal(video[4:], video[3:4].expand(4, -1, -1, -1)[: len(video) - 4])
    silence = STiCAProcessor.from_config(CONFIG).feature_extractor([np.zeros(24000, np.int16)])
    assert torch.equal(batch["input_features"][0, ..., 60:], silence["input_features"][0, ..., 60:])
    assert (batch["input_features"][0, ..., :38] > silence["input_features"][0, ..., :38]).any(dim=1).all()


def test_short_videos_can_be_refused(tmp_path: Path) -> None:
    path = write_media(tmp_path / "clip.mp4", num_frames=15, sound=sweep(1.5, 24000))
    augmentation = replace(OFF, reject_short=True)
    with pytest.raises(DataError, match=r"lasts 1\.50 s, but 1\.60 s"):
        batch_of([path], collator(augmentation=augmentation))
    batch_of([path], collator(variant(num_frames=7), augmentation))


def test_a_video_without_sound_is_a_bad_sample(clips: list[Path], tmp_path: Path) -> None:
    paths = [clips[0], write_media(tmp_path / "silent.mp4")]
    with pytest.raises(NoAudioError):
        batch_of(paths, collator())
    (tmp_path / "text.mp4").write_text("no video")
    paths.append(tmp_path / "text.mp4")
    batch = batch_of(
        paths, collator(policy="skip", ledger=tmp_path / "bad.jsonl", replacements=samples_of(clips[:1]))
    )
    assert len(batch["pixel_values_videos"]) == len(batch["input_features"]) == 3
    reasons = [entry["reason"].split(":")[0] for entry in read_ledger(tmp_path / "bad.jsonl")]
    assert reasons == ["NoAudioError", "DecodeError"]


def test_a_sample_is_the_same_in_any_batch(clips: list[Path]) -> None:
    config = variant(crop_space="input")
    augmentation = STiCAAugmentation(small_size=16, spec_augment="heavy", sound_shift=0.3)
    together = batch_of(clips, collator(config, augmentation))
    data = samples_of(clips)
    alone = collator(config, augmentation)([data[2]])
    for name, value in alone.items():
        assert torch.equal(value[0], together[name][2]), name


@pytest.mark.parametrize("cache", ["none", "memory", "disk"])
@pytest.mark.parametrize("workers", [0, 2])
def test_workers_and_caches_change_nothing(
    clips: list[Path], workers: int, cache: str, tmp_path: Path
) -> None:
    make = collator(cache=cache, cache_dir=tmp_path)
    loader = DataLoader(samples_of(clips), batch_size=2, collate_fn=make, num_workers=workers)
    expected = batch_of(clips, collator())
    for _ in range(2):
        batches = list(loader)
        for name, value in expected.items():
            assert torch.equal(torch.cat([batch[name] for batch in batches]), value), name


def test_epochs_and_runs_differ(clips: list[Path]) -> None:
    data = samples_of(clips[:1])
    make = collator()
    first = make([data[0]])["pixel_values_videos"]
    data.set_epoch(1)
    assert not torch.equal(make([data[0]])["pixel_values_videos"], first)
    assert not torch.equal(batch_of(clips[:1], make, seed=1)["pixel_values_videos"], first)


def test_streams_feed_it_too(clips: list[Path]) -> None:
    dataset = samples_of(clips).dataset.to_iterable_dataset(num_shards=2)
    batch = collator()(list(SeededStream(dataset, 0)))
    expected = batch_of(clips, collator())
    assert torch.equal(batch["input_features"], expected["input_features"])


def test_volume_shifts_the_spectrogram_by_less_than_its_range(clips: list[Path]) -> None:
    plain = batch_of(clips, collator(augmentation=OFF))["input_features"]
    loud = batch_of(clips, collator(augmentation=replace(OFF, volume=0.1)))["input_features"]
    shift = (loud - plain)[:, 0, 2:, 5:50]
    assert shift.abs().max() <= 2 * np.log(1 / 0.9) + 1e-3
    assert shift.mean(dim=(1, 2)).unique().numel() == 4


def test_masks_fill_parts_of_the_spectrogram_with_zero(clips: list[Path]) -> None:
    plain = batch_of(clips, collator(augmentation=OFF))["input_features"]
    masked = batch_of(clips, collator(augmentation=replace(OFF, spec_augment="heavy")))["input_features"]
    changed = masked != plain
    assert changed.any()
    assert (masked[changed] == 0).all()


@pytest.mark.parametrize("crop", ["resized", "short_side"])
def test_official_order_and_constants_work_end_to_end(clips: list[Path], crop: str) -> None:
    augmentation = STiCAAugmentation(crop=crop, short_side=(28, 40), legacy_augmentations=True)
    assert batch_of(clips, collator(augmentation=augmentation))["pixel_values_videos"].isfinite().all()


def test_large_frames_are_scaled_down_while_they_are_decoded(tmp_path: Path) -> None:
    path = write_media(tmp_path / "large.mp4", height=120, width=160, sound=sweep(3.0, 24000))
    make = collator(augmentation=replace(OFF, decode_short_side=28))
    clip = make.loader.load_batch([samples_of([path])[0]], make._decode)[0]
    assert clip.frames.shape == (8, 3, 28, 37)
    assert clip.frames.dtype == torch.uint8


@pytest.mark.parametrize(
    "wrong",
    [
        {"volume": 1.0},
        {"sound_shift": -1.0},
        {"spec_augment": "strong"},
        {"small_area": (0.2, 0.1)},
        {"small_size": 0},
        {"decode_short_side": 0},
        {"blur_kernel": 2},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        STiCAAugmentation(**wrong)


def test_processor_and_model_must_agree_about_the_sound() -> None:
    with pytest.raises(ConfigurationError, match="num_mel_bins is 20, but the model's is 40"):
        STiCACollator(variant(num_mel_bins=40), STiCAProcessor.from_config(CONFIG))


def test_short_side_crops_must_cover_the_view(clips: list[Path]) -> None:
    augmentation = STiCAAugmentation(crop="short_side", short_side=(20, 24))
    with pytest.raises(InputError, match="raise short_side"):
        batch_of(clips[:1], collator(augmentation=augmentation))
