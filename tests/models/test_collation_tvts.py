from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets as hf
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from media import write_media
from models import tiny_tvts
from videossl_hf.data.datasets import SeededDataset, SeededStream, load_videos
from videossl_hf.data.ledger import read_ledger
from videossl_hf.data.loading import SampleLoader
from videossl_hf.data.seeds import seeded_generator
from videossl_hf.data.sounding_shapes import (
    ClipSettings,
    SoundingShapes,
    word_tokenizer,
    write_sounding_shapes,
)
from videossl_hf.data.sounding_shapes.word_tokenizer import SPECIAL_TOKENS
from videossl_hf.data.transcripts.scripts import draw_scripts
from videossl_hf.errors import ConfigurationError, DataError
from videossl_hf.models.tvts.collation_tvts import TVTSAugmentation, TVTSCollator
from videossl_hf.models.tvts.configuration_tvts import TVTSConfig
from videossl_hf.models.tvts.modeling_tvts import TVTSForPreTraining
from videossl_hf.models.tvts.processing_tvts import TVTSProcessor

FPS, LEVELS = 10, 3
# The clips tell their time: frame n is of the grey LEVELS * n, and word n is said at (n + 0.5) / 5 s.
WORDS = tuple(f"w{number}" for number in range(50))
CONFIG = tiny_tvts.make_config(max_text_length=40, mask_ratio=0.5)
SCRIPTS = TVTSAugmentation(script_seconds=(1, 2), resize_ratio=1.0)
CAPTIONS = TVTSAugmentation(text="caption", caption_frames=4, resize_ratio=1.0)


def transcript(seconds: float, first: float = 0.0) -> list[dict[str, Any]]:
    said = [(word, (number + 0.5) / 5) for number, word in enumerate(WORDS)]
    return [{"text": word, "start": at, "end": at + 0.1} for word, at in said if first < at < seconds]


def clock(path: Path, num_frames: int) -> Path:
    levels = (LEVELS * np.arange(num_frames)).astype(np.uint8)
    frames = np.broadcast_to(levels[:, None, None, None], (num_frames, 32, 40, 3))
    return write_media(path, frames=np.ascontiguousarray(frames), fps=FPS, options={"g": "8"})


@pytest.fixture(scope="module")
def clocks(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Clips of 8.5, 7.5 and 8 s."""
    folder = tmp_path_factory.mktemp("clocks")
    return [clock(folder / f"{count}.mp4", count) for count in (85, 75, 80)]


def samples_of(paths: list[Path], seed: int = 0, **columns: Any) -> SeededDataset:
    columns = columns or {"transcript": [transcript(10.0)] * len(paths)}
    columns["video"] = [{"bytes": None, "path": str(path)} for path in paths]
    data = hf.Dataset.from_dict(columns).cast_column("video", hf.Video(decode=False))
    return SeededDataset(data, seed)


def collator(
    augmentation: TVTSAugmentation = SCRIPTS, config: TVTSConfig = CONFIG, **loader: Any
) -> TVTSCollator:
    processor = TVTSProcessor.from_config(config, word_tokenizer(WORDS))
    return TVTSCollator(config, processor, augmentation, SampleLoader(**loader))


def batch_of(data: SeededDataset, make: TVTSCollator) -> dict[str, Tensor]:
    return make([data[index] for index in range(len(data))])


def frame_numbers(batch: dict[str, Tensor]) -> Tensor:
    """(batch, frames): which frames of a `clock` were taken, read off their grey."""
    video = TVTSProcessor.from_config(CONFIG).video_processor
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (video.image_mean, video.image_std))
    return ((batch["pixel_values_videos"] * std + mean) * 255 / LEVELS).mean((2, 3, 4)).round().long()


def word_numbers(batch: dict[str, Tensor], sample: int) -> list[list[int]]:
    """The words of each script, in the order in which the model gets the scripts."""
    first = len(SPECIAL_TOKENS)
    return [[token - first for token in row.tolist() if token >= first] for row in batch["input_ids"][sample]]


def in_true_order(batch: dict[str, Tensor], sample: int) -> list[list[int]]:
    scripts = word_numbers(batch, sample)
    return [scripts[slot] for slot in batch["script_positions"][sample].argsort().tolist()]


def test_narrated_sounding_shapes_become_batches_that_the_model_takes(tmp_path: Path) -> None:
    shapes = SoundingShapes(train=3, clips=ClipSettings(size=32, motions=4, sample_rate=8000))
    folder = write_sounding_shapes(tmp_path / "shapes", shapes, processes=1, show_progress=False)
    config = tiny_tvts.make_config(
        max_text_length=20,
        mask_ratio=0.5,
        text_settings=tiny_tvts.DISTILBERT | {"vocab_size": 70, "max_position_embeddings": 20},
    )
    processor = TVTSProcessor.from_config(config, tokenizer=folder / "tokenizer")
    data = SeededDataset(load_videos(str(folder), "train"), 0)
    batch = batch_of(data, TVTSCollator(config, processor, replace(SCRIPTS, script_gap=0)))
    assert batch.keys() <= inspect.signature(TVTSForPreTraining.forward).parameters.keys()
    assert batch["pixel_values_videos"].shape == (3, 8, 3, 32, 32)
    assert batch["input_ids"].shape[:2] == batch["script_positions"].shape == (3, 3)
    assert batch["keep_indices"].shape == (3, 4, 8)
    for sample in range(3):  # without gaps, the scripts in their true order are one piece of what is told
        scripts = batch["input_ids"][sample][batch["script_positions"][sample].argsort()]
        told = processor.tokenizer.decode(scripts.flatten(), skip_special_tokens=True)
        assert len(told.split()) > 3
        assert f" {told} " in f" {data[sample]['caption']} "
    assert TVTSForPreTraining(config)(**batch).loss.isfinite()


@pytest.mark.parametrize("gap", [0, 1])
def test_scripts_are_the_words_of_their_windows_and_frames_come_from_the_whole_span(
    clocks: list[Path], gap: int
) -> None:
    make, spans = collator(replace(SCRIPTS, script_gap=gap)), set()
    for seed in range(6):
        data = samples_of(clocks, seed)
        batch = batch_of(data, make)
        for sample, path in enumerate(clocks):
            duration = int(path.stem) // FPS
            draw = draw_scripts(duration, 3, seeded_generator(data[sample]["sample_seed"]), (1, 2), gap)
            start = draw.start + draw.fraction
            end = min(duration - 1, start + 3 * draw.seconds + 2 * gap)
            length = (end - start - 2 * gap) / 3
            spans.add(round(length, 3))
            begins = [start + place * (length + gap) for place in range(3)]
            assert in_true_order(batch, sample) == [
                [number for number in range(50) if begin < (number + 0.5) / 5 < begin + length]
                for begin in begins
            ]
            frames, parts = frame_numbers(batch)[sample], np.linspace(start, end, 9) * FPS
            inside = (parts[:-1] - 2 < frames.numpy()) & (frames.numpy() < parts[1:] + 1)
            assert inside.all()
            assert (frames.diff() > 0).all()
    assert {1, 1.333, 1.667} <= spans if gap else {1, 2} <= spans


def test_a_video_shorter_than_the_span_is_used_from_its_beginning_to_its_last_second(
    clocks: list[Path], tmp_path: Path
) -> None:
    long = replace(SCRIPTS, script_seconds=(3, 5))  # 11 s at least
    batch = batch_of(samples_of(clocks[:1]), collator(long))
    # 8.5 s count as 8, the last of which is left out: three scripts of 5/3 s with gaps of one.
    windows = [(begin, begin + 5 / 3) for begin in (0, 8 / 3, 16 / 3)]
    assert in_true_order(batch, 0) == [
        [number for number in range(50) if begin < (number + 0.5) / 5 < end] for begin, end in windows
    ]
    assert frame_numbers(batch).max() < 70
    too_short = clock(tmp_path / "short.mp4", 35)
    with pytest.raises(DataError, match="lasts 3 s: too short for 3 scripts with gaps of 1 s"):
        batch_of(samples_of([too_short]), collator(long))


def test_the_official_frame_rate_runs_ahead_of_the_speech(clocks: list[Path]) -> None:
    last = {}
    for legacy in (False, True):
        make = collator(replace(SCRIPTS, script_seconds=(3, 3), legacy_frame_rate=legacy))
        last[legacy] = max(
            int(frame_numbers(batch_of(samples_of(clocks[1:2], seed), make)).max()) for seed in range(8)
        )
    # 75 frames in 7.5 s, of which the first 6 are used: 60 frames, or with 75 frames in 7 s the first 64.
    assert last[False] < 60 <= last[True] < 64


def test_scripts_are_shuffled_and_their_labels_say_where_they_belong(clocks: list[Path]) -> None:
    orders = set()
    for seed in range(8):
        data = samples_of(clocks, seed)
        shuffled = batch_of(data, collator())
        ordered = batch_of(data, collator(replace(SCRIPTS, shuffle_scripts=False)))
        assert ordered["script_positions"].tolist() == [[0, 1, 2]] * 3
        for sample in range(3):
            orders.add(tuple(shuffled["script_positions"][sample].tolist()))
            assert in_true_order(shuffled, sample) == word_numbers(ordered, sample)
            told = [number for script in in_true_order(shuffled, sample) for number in script]
            assert told == sorted(told)
    assert len(orders) > 3


def test_each_row_of_the_mask_follows_the_text_that_is_there(clocks: list[Path]) -> None:
    batch = batch_of(samples_of(clocks), collator())
    assert torch.equal(batch["attention_mask"].bool(), batch["input_ids"] != 0)
    assert (batch["input_ids"][..., 0] == 2).all()
    short = tiny_tvts.make_config(max_text_length=4)
    assert batch_of(samples_of(clocks), collator(config=short))["input_ids"].shape == (3, 3, 4)


def test_empty_scripts_are_taken_as_published_or_are_bad_samples(clocks: list[Path], tmp_path: Path) -> None:
    late = {"transcript": [transcript(10.0), transcript(10.0, first=8.4)]}
    data = samples_of(clocks[:2], **late)
    batch = batch_of(data, collator())
    assert batch["attention_mask"][1].sum(-1).tolist() == [2, 2, 2]
    with pytest.raises(DataError, match=r"only 0 words are said from .*; 2 are asked for"):
        batch_of(data, collator(replace(SCRIPTS, min_words=2)))
    ledger = tmp_path / "bad.jsonl"
    skipping = collator(
        replace(SCRIPTS, min_words=2), policy="skip", ledger=ledger, replacements=samples_of(clocks[:1])
    )
    assert batch_of(data, skipping)["attention_mask"].sum(-1).min() >= 4
    assert [entry["index"] for entry in read_ledger(ledger)] == [1]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": [0]}, "the sample has no transcript"),
        ({"transcript": [None]}, "the sample has no transcript"),
        ({"transcript": [[]]}, "holds no words"),
        ({"transcript": [[{"text": "hello", "start": None}]]}, "has no time"),
        ({"transcript": ["hello"]}, "expected a list or a mapping"),
    ],
)
def test_a_sample_without_a_timed_transcript_is_named(
    clocks: list[Path], columns: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        batch_of(samples_of(clocks[:1], **columns), collator())
    assert any(str(clocks[0]) in note for note in caught.value.__notes__)


def test_annotations_that_would_have_to_be_aligned_for_every_draw_are_refused(clocks: list[Path]) -> None:
    raw = {"subtitles": [{"word": "w1", "time": 1.0}], "denoised": [{"cleanasr": "W1."}]}
    with pytest.raises(ConfigurationError, match="videossl prepare SOURCE --transcripts"):
        batch_of(samples_of(clocks[:1], transcript=[raw]), collator(policy="skip"))


def test_captions_come_one_a_clip_without_places(clocks: list[Path]) -> None:
    data = samples_of(clocks, caption=["w1 w2 w3", "w4", "w5 w6"])
    batch = batch_of(data, collator(CAPTIONS))
    assert "script_positions" not in batch
    assert batch["input_ids"].tolist() == [[2, 5, 6, 7, 3], [2, 8, 3, 0, 0], [2, 9, 10, 3, 0]]
    assert batch["pixel_values_videos"].shape == (3, 4, 3, 32, 32)
    for path, frames in zip(clocks, frame_numbers(batch).tolist(), strict=True):
        edges = np.linspace(0, int(path.stem), 5).astype(int)
        assert np.searchsorted(edges, frames, side="right").tolist() == [1, 2, 3, 4]
    with pytest.raises(DataError, match="no caption: the column 'caption' holds None"):
        batch_of(samples_of(clocks), collator(CAPTIONS))


def test_an_image_is_one_tubelet_of_the_same_frame(tmp_path: Path) -> None:
    image = samples_of([clock(tmp_path / "image.mp4", 1)], caption=["w1"])
    pixels = batch_of(image, collator(CAPTIONS))["pixel_values_videos"]
    assert pixels.shape == (1, CONFIG.tubelet_size, 3, 32, 32)
    assert torch.equal(pixels[:, 0], pixels[:, 1])


@pytest.mark.parametrize("crop", ["short_side", "resized"])
def test_a_clip_is_cropped_as_a_whole_and_flipped_only_if_asked(tmp_path: Path, crop: str) -> None:
    texture = samples_of([write_media(tmp_path / "clip.mp4", num_frames=12)], caption=["w1"])
    settings = replace(CAPTIONS, crop=crop, resize_ratio=1.2)
    plain = batch_of(texture, collator(settings))["pixel_values_videos"]
    flipped = batch_of(texture, collator(replace(settings, flip_probability=1.0)))["pixel_values_videos"]
    assert torch.allclose(flipped, plain.flip(-1), atol=1e-6)
    texture.set_epoch(1)
    assert not torch.allclose(batch_of(texture, collator(settings))["pixel_values_videos"], plain, atol=0.1)


def test_masks_follow_the_configuration(clocks: list[Path]) -> None:
    data = samples_of(clocks)
    kept = batch_of(data, collator())["keep_indices"]
    assert kept.shape == (3, 4, 8)
    assert all(len(set(row.tolist())) == 8 for row in kept.flatten(0, 1))
    assert kept.min() >= 0
    assert kept.max() < CONFIG.num_places
    assert len({tuple(sorted(row.tolist())) for row in kept.flatten(0, 1)}) == 12
    tube = batch_of(data, collator(config=tiny_tvts.make_config(mask_ratio=0.5, mask_type="tube")))
    assert torch.equal(tube["keep_indices"], tube["keep_indices"][:, :1].expand_as(kept))
    assert "keep_indices" not in batch_of(data, collator(config=tiny_tvts.make_config(mask_ratio=0.0)))


def test_a_sample_is_the_same_in_any_batch_and_another_in_the_next_epoch(clocks: list[Path]) -> None:
    data, make = samples_of(clocks), collator()
    together, alone = batch_of(data, make), make([data[2]])
    length = alone["input_ids"].shape[-1]
    for name, value in alone.items():
        other = together[name][2]
        assert torch.equal(
            value[0], other[..., :length] if name in ("input_ids", "attention_mask") else other
        )
    data.set_epoch(1)
    assert in_true_order(make([data[2]]), 0) != in_true_order(alone, 0)
    assert not torch.equal(make([data[2]])["keep_indices"], alone["keep_indices"])


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_and_caches_change_nothing(clocks: list[Path], workers: int) -> None:
    data = samples_of(clocks)
    expected = batch_of(data, collator())
    loader = DataLoader(data, batch_size=3, collate_fn=collator(cache="memory"), num_workers=workers)
    for _ in range(2):
        (batch,) = loader
        assert all(torch.equal(batch[name], value) for name, value in expected.items())
    stream = SeededStream(data.dataset.to_iterable_dataset(num_shards=1), 0)
    assert torch.equal(collator()(list(stream))["input_ids"], expected["input_ids"])


def test_without_a_tokenizer_there_is_no_training() -> None:
    with pytest.raises(ConfigurationError, match="set processor"):
        TVTSCollator(CONFIG, TVTSProcessor.from_config(CONFIG))


@pytest.mark.parametrize("frames", [3, 10])
def test_captioned_clips_are_whole_tubelets_that_the_model_has_room_for(frames: int) -> None:
    with pytest.raises(ConfigurationError, match=f"caption_frames={frames} must be a multiple"):
        collator(replace(CAPTIONS, caption_frames=frames))


@pytest.mark.parametrize(
    "wrong",
    [
        {"text": "speech"},
        {"crop": "centre"},
        {"script_seconds": (5, 3)},
        {"script_gap": -1},
        {"min_words": -1},
        {"caption_frames": 0},
        {"crop_area": (0.5, 1.5)},
        {"resize_ratio": 0.9},
        {"resize_ratio": float("nan")},
        {"flip_probability": 1.5},
        {"decode_short_side": 0},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        TVTSAugmentation(**wrong)
