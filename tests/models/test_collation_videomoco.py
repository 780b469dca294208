from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets as hf
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from media import write_media
from videossl_hf.data.clip_draw import ClipDraw
from videossl_hf.data.datasets import SeededDataset, SeededStream
from videossl_hf.data.ledger import read_ledger
from videossl_hf.data.loading import SampleLoader
from videossl_hf.data.reader import VideoReader
from videossl_hf.data.sampling import dense_clip
from videossl_hf.data.seeds import seeded_generator
from videossl_hf.errors import ConfigurationError, DataError, DecodeError
from videossl_hf.models.videomoco.collation_videomoco import (
    VideoMoCoAugmentation,
    VideoMoCoCollator,
    draw_view,
)
from videossl_hf.models.videomoco.configuration_videomoco import VideoMoCoConfig
from videossl_hf.models.videomoco.processing_videomoco import VideoMoCoProcessor

CONFIG = VideoMoCoConfig(num_frames=8, image_size=28)
OFF = VideoMoCoAugmentation(
    crop_area=(1.0, 1.0),
    crop_ratio=(1.0, 1.0),
    flip_probability=0.0,
    jitter_probability=0.0,
    gray_probability=0.0,
    decode_short_side=None,
)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four clips of 3 s at 10 fps, of several shapes, each with its own picture."""
    folder = tmp_path_factory.mktemp("clips")
    return [
        write_media(folder / f"{index}.mp4", height=48, width=48 + 16 * index, seed=index)
        for index in range(4)
    ]


def samples_of(paths: list[Path], seed: int = 0) -> SeededDataset:
    cells = [{"bytes": None, "path": str(path)} for path in paths]
    features = hf.Features({"video": hf.Video(decode=False)})
    return SeededDataset(hf.Dataset.from_dict({"video": cells}, features=features), seed)


def collator(
    augmentation: VideoMoCoAugmentation | None = None, config: VideoMoCoConfig = CONFIG, **loader: Any
) -> VideoMoCoCollator:
    processor = VideoMoCoProcessor.from_config(config)
    return VideoMoCoCollator(config, processor, augmentation, SampleLoader(**loader))


def batch_of(paths: list[Path], make: VideoMoCoCollator, seed: int = 0) -> dict[str, torch.Tensor]:
    data = samples_of(paths, seed)
    return make([data[index] for index in range(len(data))])


def views_of(augmentation: VideoMoCoAugmentation, count: int = 1000, frames: int = 4) -> list[list[ClipDraw]]:
    generator = torch.Generator().manual_seed(0)
    return [draw_view(augmentation, 40, 50, 28, frames, generator) for _ in range(count)]


def test_a_batch_holds_a_query_and_a_key_of_clips_of_any_size(clips: list[Path]) -> None:
    from videossl_hf import VideoMoCoForPreTraining

    batch = batch_of(clips, collator())
    for value in batch.values():
        assert value.shape == (4, 8, 3, 28, 28)
        assert value.dtype == torch.float32
        assert value.isfinite().all()
    query, key = batch.values()
    assert not torch.equal(query, key)
    assert batch.keys() <= inspect.signature(VideoMoCoForPreTraining.forward).parameters.keys()


def test_both_views_are_made_of_the_same_consecutive_frames(tmp_path: Path) -> None:
    path = write_media(tmp_path / "clip.mp4", height=28, width=28)
    batch = batch_of([path], collator(OFF), seed=5)
    generator = seeded_generator(samples_of([path], 5)[0]["sample_seed"])
    with VideoReader(path) as video:
        indices = dense_clip(len(video), 8, generator=generator)
        frames = torch.from_numpy(video.frames(indices)).permute(0, 3, 1, 2) / 255
    assert np.array_equal(np.diff(indices), np.ones(7))
    processor = VideoMoCoProcessor().video_processor
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (processor.image_mean, processor.image_std))
    query, key = batch.values()
    assert torch.allclose(query[0], (frames - mean) / std, atol=1e-6)
    assert torch.equal(query, key)


def test_query_and_key_can_come_from_two_clips(tmp_path: Path) -> None:
    path = write_media(tmp_path / "clip.mp4", height=28, width=28)
    make = collator(replace(OFF, clips_per_video=2))
    query, key = batch_of([path], make).values()
    assert not torch.equal(query, key)


def test_frames_keep_the_distance_of_the_configuration(tmp_path: Path) -> None:
    path = write_media(tmp_path / "clip.mp4", height=28, width=28, num_frames=15)
    config = VideoMoCoConfig(num_frames=8, image_size=28, fps=5.0)
    query = batch_of([path], collator(OFF, config))["pixel_values_videos"]
    with VideoReader(path) as video:  # only one clip of every second frame fits
        expected = video.frames(np.arange(0, 15, 2))
    processor = VideoMoCoProcessor.from_config(config, do_sample_frames=False, do_resize=False)
    assert torch.allclose(query, processor(videos=expected)["pixel_values_videos"], atol=1e-6)


def test_a_short_video_repeats_its_last_frame_or_is_refused(tmp_path: Path) -> None:
    path = write_media(tmp_path / "clip.mp4", num_frames=7, height=28, width=28)
    query = batch_of([path], collator(OFF))["pixel_values_videos"][0]
    assert torch.equal(query[7], query[6])
    assert not torch.equal(query[6], query[5])
    with pytest.raises(DataError, match="has 7 frames, but a clip needs 8"):
        batch_of([path], collator(replace(OFF, reject_short=True)))
    short_enough = VideoMoCoConfig(num_frames=7, image_size=28)
    batch_of([path], collator(replace(OFF, reject_short=True), short_enough))


def test_damaged_files_follow_the_policy(clips: list[Path], tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    paths = [clips[0], tmp_path / "text.mp4"]
    with pytest.raises(DecodeError):
        batch_of(paths, collator())
    skipping = collator(policy="skip", ledger=tmp_path / "bad.jsonl", replacements=samples_of(clips[:1]))
    assert len(batch_of(paths, skipping)["pixel_values_videos"]) == 2
    assert len(read_ledger(tmp_path / "bad.jsonl")) == 1


@pytest.mark.parametrize("per_frame", [False, True])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_sample_is_the_same_in_any_batch(clips: list[Path], per_frame: bool, legacy: bool) -> None:
    make = collator(VideoMoCoAugmentation.v2(per_frame=per_frame, legacy_augmentations=legacy))
    together = batch_of(clips, make)
    alone = make([samples_of(clips)[2]])
    for name, value in alone.items():
        assert torch.allclose(value[0], together[name][2], atol=1e-6), name


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_and_caches_change_nothing(clips: list[Path], workers: int) -> None:
    make = collator(VideoMoCoAugmentation(per_frame=True), cache="memory")
    loader = DataLoader(samples_of(clips), batch_size=2, collate_fn=make, num_workers=workers)
    expected = batch_of(clips, collator(VideoMoCoAugmentation(per_frame=True)))
    for _ in range(2):
        batches = list(loader)
        for name, value in expected.items():
            found = torch.cat([batch[name] for batch in batches])
            assert torch.allclose(found, value, atol=1e-6), name


def test_epochs_differ_and_streams_feed_it_too(clips: list[Path]) -> None:
    data = samples_of(clips[:1])
    make = collator()
    first = make([data[0]])["pixel_values_videos"]
    data.set_epoch(1)
    assert not torch.equal(make([data[0]])["pixel_values_videos"], first)
    stream = SeededStream(samples_of(clips).dataset.to_iterable_dataset(num_shards=2), 0)
    assert torch.equal(
        make(list(stream))["pixel_values_videos"], batch_of(clips, make)["pixel_values_videos"]
    )


@pytest.mark.parametrize(
    ("augmentation", "expected"),
    [
        (VideoMoCoAugmentation(), {"gray": 0.2, "jitter": 1.0, "blur": 0.0, "flip": 0.5, "hue": 0.4}),
        (VideoMoCoAugmentation.v2(), {"gray": 0.2, "jitter": 0.8, "blur": 0.5, "flip": 0.5, "hue": 0.1}),
    ],
)
def test_both_versions_have_the_official_probabilities_and_ranges(
    augmentation: VideoMoCoAugmentation, expected: dict[str, float]
) -> None:
    draws = [view[0] for view in views_of(augmentation)]
    for step in ("gray", "jitter", "blur", "flip"):
        share = np.mean([bool(getattr(draw, step)) for draw in draws])
        assert abs(share - expected[step]) <= 0.05 * (0 < expected[step] < 1), step
    limits = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": expected["hue"]}
    drawn = [dict(draw.jitter) for draw in draws if draw.jitter]
    for name, limit in limits.items():
        middle = 0 if name == "hue" else 1
        values = np.array([factors[name] for factors in drawn]) - middle
        assert limit * 0.98 < np.abs(values).max() <= limit
        assert abs(values.mean()) < 0.1 * limit
    orders = {tuple(name for name, _ in draw.jitter) for draw in draws if draw.jitter}
    assert len(orders) == 24
    areas = [draw.box[2] * draw.box[3] / 2000 for draw in draws]
    assert 0.19 < min(areas) < 0.25
    assert max(areas) > 0.9


def test_the_two_versions_differ_in_their_order() -> None:
    assert VideoMoCoAugmentation().steps == ("gray", "jitter", "blur", "flip")
    assert VideoMoCoAugmentation.v2().steps == ("jitter", "gray", "blur", "flip")
    assert VideoMoCoAugmentation.v2(hue=0.2).hue == 0.2


def test_per_clip_there_is_one_draw_and_per_frame_one_a_frame() -> None:
    assert all(len(view) == 1 for view in views_of(VideoMoCoAugmentation(), 5))
    views = views_of(VideoMoCoAugmentation.v2(per_frame=True), 40)
    assert all(len(view) == 4 for view in views)
    for view in views:  # what the official code draws once for all frames
        assert len({(draw.box, draw.blur, tuple(name for name, _ in draw.jitter)) for draw in view}) == 1
    for name in ("flip", "gray", "jitter"):  # and what for each by itself
        assert any(len({getattr(draw, name) for draw in view}) > 1 for view in views), name


def test_a_clip_keeps_its_colours_over_time_only_per_clip(tmp_path: Path) -> None:
    still = write_media(tmp_path / "still.mp4", frames=np.full((12, 28, 28, 3), (200, 90, 40), np.uint8))
    jitter = replace(OFF, jitter_probability=1.0)
    steady = batch_of([still], collator(jitter))["pixel_values_videos"][0]
    assert (steady - steady[:1]).abs().max() < 0.1
    flickering = batch_of([still], collator(replace(jitter, per_frame=True)))["pixel_values_videos"][0]
    assert (flickering - flickering[:1]).abs().amax(dim=(1, 2, 3))[1:].min() > 0.05


def test_old_and_new_colour_rules_differ(clips: list[Path]) -> None:
    new = batch_of(clips, collator(replace(OFF, jitter_probability=1.0)))["pixel_values_videos"]
    old = collator(replace(OFF, jitter_probability=1.0, legacy_augmentations=True))
    assert not torch.allclose(batch_of(clips, old)["pixel_values_videos"], new, atol=0.1)


def test_switching_one_step_off_leaves_the_others_as_they_were() -> None:
    full = views_of(VideoMoCoAugmentation(), 20)
    less = views_of(VideoMoCoAugmentation(contrast=0.0, flip_probability=0.0), 20)
    for (one,), (other,) in zip(full, less, strict=True):
        assert (one.box, one.gray, one.blur) == (other.box, other.gray, other.blur)
        assert other.jitter == tuple(step for step in one.jitter if step[0] != "contrast")
        assert not other.flip


@pytest.mark.parametrize(
    "wrong",
    [{"hue": 0.6}, {"clips_per_video": 3}, {"decode_short_side": 0}, {"crop_area": (0.5, 0.2)}],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        VideoMoCoAugmentation(**wrong)
