"""VIMPAC's fine-tuning clips: one of twelve views by the sample's seed, from files as from stored codes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from common.media import make_clip
from models import tiny_vimpac
from videossl_hf.cli import main
from videossl_hf.data.datasets import SeededDataset, load_videos
from videossl_hf.data.stored_codes import read_codes_manifest
from videossl_hf.errors import ConfigurationError, DataError
from videossl_hf.evaluation.clips import PreparedClips
from videossl_hf.evaluation.results import read_results
from videossl_hf.models.vimpac.labelled_vimpac import (
    VIMPACLabelledClipAugmentation,
    VIMPACLabelledClipCollator,
)
from videossl_hf.models.vimpac.modeling_vimpac import VIMPACForVideoClassification
from videossl_hf.models.vimpac.processing_vimpac import VIMPACProcessor
from videossl_hf.training.finetune import finetune
from videossl_hf.training.recipe import load_recipe

FPS = 24.0
VIEWS = ["--scales", "1", "1.25", "--crops", "top", "center", "bottom", "--flips"]
CUTS = VIMPACLabelledClipAugmentation(codes_fps=FPS)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of two videos; one is shorter than a clip."""
    folder = tmp_path_factory.mktemp("videos")
    for name in ("left", "right"):
        for place, count in enumerate((40, 6)):
            path = folder / "train" / name / f"{place}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            make_clip(path, fps=FPS, count=count)
    return folder


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny_vimpac.make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def stored(videos: Path, tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The twelve views, as the command stores them."""
    folder = tmp_path_factory.mktemp("codes") / "stored"
    command = f"prepare {videos} --codes {tokenizer} --fps {FPS} --image-size 32 --output {folder} --quiet"
    assert main([*command.split(), *VIEWS]) == 0
    return folder


def samples(source: Path, seed: int = 0) -> list[dict[str, Any]]:
    dataset = SeededDataset(load_videos(str(source), "train"), seed)
    return [dataset[index] for index in range(len(dataset))]


def collator(
    cuts: VIMPACLabelledClipAugmentation = CUTS, with_tokenizer: bool = True, **settings: Any
) -> VIMPACLabelledClipCollator:
    config = tiny_vimpac.make_config(num_labels=2, **settings)
    tokenizer = tiny_vimpac.make_tokenizer() if with_tokenizer else None
    return VIMPACLabelledClipCollator(config, VIMPACProcessor.from_config(config, tokenizer), cuts)


def equal(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(value, second[name]) if torch.is_tensor(value) else value == second[name]
        for name, value in first.items()
    )


def test_files_and_stored_codes_give_one_batch(videos: Path, stored: Path) -> None:
    for seed in range(3):
        batch = collator()(samples(videos, seed))
        assert equal(batch, collator(with_tokenizer=False)(samples(stored, seed)))
        assert batch["labels"].tolist() == [0, 0, 1, 1]
        assert batch["has_padding"]
    assert torch.isfinite(VIMPACForVideoClassification(collator().config)(**batch).loss)


def test_a_sample_depends_on_its_seed_and_not_on_its_batch(stored: Path) -> None:
    first, second = (samples(stored, seed) for seed in (1, 2))
    whole, again = collator()(first), collator()(second)
    for index, sample in enumerate(first):
        assert torch.equal(collator()([sample])["input_codes"][0], whole["input_codes"][index])
    assert not torch.equal(whole["input_codes"], again["input_codes"])


def test_all_twelve_views_are_drawn_alike_and_six_without_flips(stored: Path) -> None:
    whole = collator()
    assert len(whole.views) == 12
    assert {view.column(32) for view in whole.views} == set(read_codes_manifest(str(stored)).views)
    assert len(collator(VIMPACLabelledClipAugmentation(flips=False)).views) == 6
    (sample, *_), seen = samples(stored), Counter()
    marked = {view.column(32): np.full((40, 4, 4), place) for place, view in enumerate(whole.views)}
    for seed in range(600):
        batch = whole([sample | marked | {"sample_seed": seed}])
        seen[int(batch["input_codes"][0, 0, 0, 0])] += 1
    assert set(seen) == set(range(12))
    assert max(abs(count - 50) for count in seen.values()) < 30


def test_every_nth_frame_of_faster_codes_from_any_start() -> None:
    codes = np.arange(20)[:, None, None] + np.zeros((1, 4, 4), int)
    cuts = VIMPACLabelledClipAugmentation(scales=(1.0,), crops=("center",), flips=False, codes_fps=48.0)
    load, starts = collator(cuts), set()
    for seed in range(60):
        sample = {"codes": codes, "label": 1, "sample_seed": seed, "sample_epoch": 0, "sample_index": 0}
        frames = load([sample])["input_codes"][0, :, 0, 0]
        assert frames.diff().tolist() == [4] * 4
        starts.add(int(frames[0]))
    assert starts == {0, 1, 2, 3}  # 20 stored frames, of which a clip of 5 spans 17


def test_codes_without_the_views_of_the_recipe_are_refused(
    videos: Path, tokenizer: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "plain"
    command = f"prepare {videos} --codes {tokenizer} --fps {FPS} --image-size 32 --output {folder} --quiet"
    assert main(command.split()) == 0
    with pytest.raises(ConfigurationError, match=r"no column codes_32_top, .*codes_40_bottom_flip"):
        collator().check_source(str(folder))
    with pytest.raises(DataError, match="not in the column"):
        collator()([samples(folder, seed)[0] for seed in range(9)])
    collator(VIMPACLabelledClipAugmentation((1.0,), ("center",), False, FPS)).check_source(str(folder))
    clips = load_videos(str(folder), "train")
    with pytest.raises(ConfigurationError, match="no column codes_32_top, codes_32_bottom"):
        PreparedClips(collator().processor, clips, views="1x3", codes=read_codes_manifest(str(folder)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scales": (0.5,)}, "at least 1"),
        ({"scales": ()}, "at least one each"),
        ({"crops": ("left",)}, "top, center, bottom, got left"),
        ({"codes_fps": 0.0}, "positive"),
    ],
)
def test_views_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        VIMPACLabelledClipAugmentation(**settings)


def test_a_sample_without_a_class_of_the_model_is_refused() -> None:
    sample = {"codes": np.zeros((9, 4, 4), int), "sample_seed": 0, "sample_epoch": 0, "sample_index": 0}
    for label in (None, 2):
        with pytest.raises(DataError, match="a label from 0 to 1"):
            collator()([sample | {"label": label}])


def test_a_test_takes_the_official_starts_and_crops_of_stored_codes(stored: Path) -> None:
    manifest, clips = read_codes_manifest(str(stored)), load_videos(str(stored), "train")
    prepared = PreparedClips(collator().processor, clips, views="4x3", codes=manifest)
    inputs = prepared[0].inputs.unflatten(0, (4, 3))
    raw = SeededDataset(clips)[0]
    last = 40 + 1 - 5 * 2  # codes of 24 a second, clips of 12: every second frame
    for place, crop in enumerate(("codes_32_top", "codes", "codes_32_bottom")):
        for clip in range(4):
            start = int(last * clip / 3)
            wanted = torch.from_numpy(raw[crop][start : start + 10 : 2].astype(np.int64))
            assert torch.equal(inputs[clip, place, : len(wanted)], wanted)
            assert (inputs[clip, place, len(wanted) :] == tiny_vimpac.CODES + 1).all()
    assert PreparedClips(collator().processor, clips, views="1x1", codes=manifest)[1].inputs.shape[0] == 1


def test_trains_from_stored_codes_and_is_scored_on_their_views(stored: Path, tmp_path: Path) -> None:
    recipe = Path(__file__).parents[2] / "training/recipes/vimpac/finetune_ucf101.yaml"
    model = {"num_frames": 5, "fps": 12, "image_size": 32, "num_codes": 24, "hidden_size": 16}
    model |= {"num_hidden_layers": 1, "num_attention_heads": 4}
    changes = [f"--model.{name}={value}" for name, value in model.items()]
    changes += [
        f"--data.train={stored}",
        f"--training.output_dir={tmp_path / 'run'}",
        "--training.max_steps=2",
    ]
    changes += ["--training.batch_size=2", "--training.num_workers=0", "--training.device=cpu"]
    changes += ["--training.init_from=null", "--training.bf16=false", f"--augmentation.codes_fps={FPS}"]
    changes += ["--training.gradient_accumulation_steps=1", "--evaluation.accuracy_every=1"]
    changes += ["--evaluation.views=2x3", "--data.validation_split=train", "--training.epochs=null"]
    run = finetune(load_recipe(recipe, changes), console=Console(quiet=True))
    log = [json.loads(line) for line in (run.output_dir / "metrics.jsonl").read_text().splitlines()]
    assert any("eval_top1" in line for line in log)
    command = f"evaluate {run.output_dir} --data {stored} --protocol classify --views 2x3 --test-split train"
    assert main([*command.split(), "--output", str(tmp_path / "results.json")]) == 0
    (result,) = read_results(tmp_path / "results.json")
    assert result.views == "2x3"
