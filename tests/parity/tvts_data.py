"""TVTS's golden cases of transcripts, frames and the fine-tuning protocol."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from parity.goldens import Golden, assert_close
from videossl_hf.data.augment import augment_clips
from videossl_hf.data.clip_draw import ClipDraw
from videossl_hf.data.transcripts.alignment import align_words
from videossl_hf.data.transcripts.cleaning import clean_words
from videossl_hf.data.transcripts.readers import parse_transcript, subtitle_words, written_words
from videossl_hf.data.transcripts.scripts import ScriptDraw, latest_start, script_texts, script_windows
from videossl_hf.evaluation.retrieval import pair_ranks_from_similarity, retrieval_figures
from videossl_hf.models.tvts.collation_tvts import TVTSAugmentation, resize_clip
from videossl_hf.models.tvts.configuration_tvts import TVTSConfig
from videossl_hf.models.tvts.conversion_tvts import key_table
from videossl_hf.models.tvts.modeling_tvts import TVTSForVideoClassification
from videossl_hf.models.tvts.processing_tvts import TVTSVideoProcessor
from videossl_hf.models.tvts.sampling_tvts import segment_frames, segment_ranges, span_frames
from videossl_hf.training.optimization import LearningRateCurve
from videossl_hf.training.recipe import ScheduleRecipe


def check_transcripts_and_frames(golden: Golden) -> None:
    data = golden.record["data"]
    assert data["asr"]
    for case in data["asr"]:
        _check_transcript(case)
        _check_frames(case)
    for case in data["uniform"]:
        assert segment_frames(case["vlen"], case["num_frames"]).tolist() == case["indices"]
    _check_pixels(golden)


def _check_transcript(case: dict[str, Any]) -> None:
    document = case["document"]
    cleaned = clean_words(subtitle_words(document))
    assert [word.text for word in cleaned] == case["clean_words"]
    assert [word.start for word in cleaned] == case["clean_times"]
    assert align_words(case["clean_words"], written_words(document)) == case["aligned"]
    words = parse_transcript(document)
    assert [word.text for word in words] == case["aligned"]

    (low, high, seconds), *rest = case["draws"]["randint"]
    assert (low, high) == (3, 5)
    scripts, duration = len(case["texts"]), case["duration"]
    draw = ScriptDraw(seconds)
    if rest:
        ((first, last, start),) = rest
        assert (first, last) == (0, latest_start(duration, seconds, scripts))
        draw = ScriptDraw(seconds, start, case["draws"]["random"][0])
    else:
        assert latest_start(duration, seconds, scripts) < 0
    windows = script_windows(duration, draw, scripts)
    np.testing.assert_allclose(windows, np.stack([case["start"], case["end"]], axis=1), rtol=0, atol=1e-9)
    assert script_texts(words, windows) == case["texts"]
    assert case["label"] == list(range(scripts))


def _check_frames(case: dict[str, Any]) -> None:
    expected = case["frames"]
    fps = expected["frame_count"] / case["duration"]
    first, length = span_frames(case["start"][0], case["end"][-1], fps)
    assert first == expected["first_frame"]
    recorded = expected["ranges_and_pick"]
    count = len(recorded) if recorded else TVTSConfig().num_frames
    ranges = segment_ranges(length, count)
    drawn = segment_frames(length, count, torch.Generator().manual_seed(0))
    usable = ranges[:, 1] > ranges[:, 0]
    assert (drawn[usable] >= ranges[usable, 0]).all()
    assert (drawn[usable] < ranges[usable, 1]).all()
    if not recorded or any(
        entry is None for entry in recorded
    ):  # the official code gives up on an empty part
        assert not usable.all()
        assert (drawn[~usable] == ranges[~usable, 0]).all()
        return
    assert usable.all()
    assert ranges.tolist() == [entry[:2] for entry in recorded]
    assert [first + entry[2] for entry in recorded] == expected["indices"]


def _check_pixels(golden: Golden) -> None:
    clip, outputs = golden.input("clip").transpose(0, 1), golden.outputs()  # frames first
    size = outputs["val"].shape[-1]
    side = {"height": size, "width": size}
    short_side = int(TVTSAugmentation().resize_ratio * size)
    processor = TVTSVideoProcessor(
        num_frames=len(clip), size={"shortest_edge": short_side}, crop_size=side, antialias=True
    )
    validation = processor(clip, input_data_format="channels_first")["pixel_values_videos"][0]
    column, row = golden.input("train_crop_xy").tolist()
    training = augment_clips(
        [resize_clip(clip, short_side)],
        [ClipDraw(box=(row, column, size, size))],
        size,
        mean=processor.image_mean,
        std=processor.image_std,
    )[0]
    for name, found in (("val", validation), ("train", training)):
        # One grey level, where the two resizings round differently.
        assert_close(name, found.transpose(0, 1), outputs[name], atol=0.018)


def check_protocol(golden: Golden) -> None:
    data = golden.record["data"]
    _check_groups(golden, data)
    _check_schedule(data)
    _check_views(golden, data)
    _check_retrieval(golden.input("sims"), data)


def _check_groups(golden: Golden, data: dict[str, Any]) -> None:
    sizes, rates = golden.record["encoder_constructor"], data["lr"]
    config = TVTSConfig(
        image_size=sizes["img_size"],
        patch_size=sizes["patch_size"],
        hidden_size=sizes["embed_dim"],
        num_attention_heads=sizes["num_heads"],
        sorting_heads=sizes["num_heads"],
        num_frames=sizes["num_frames"],
        num_hidden_layers=sizes["depth"],
        use_text=False,
        layer_decay=rates["layer_decay"],
    )
    assert config.num_hidden_layers == data["num_layers"]
    model = TVTSForVideoClassification(config)
    table = {ours: theirs for theirs, (ours,) in key_table(config, "classification").items()}
    names = {id(parameter): table[name] for name, parameter in model.named_parameters()}
    found = {
        names[id(parameter)]: [group["weight_decay"], group["lr"] / rates["lr"]]
        for group in model.parameter_groups(SimpleNamespace(lr=rates["lr"], weight_decay=rates["wd"]))
        for parameter in group["params"]
    }
    assert found.keys() == data["groups"].keys()
    for name, expected in data["groups"].items():
        np.testing.assert_allclose(found[name], expected, rtol=0, atol=1e-9, err_msg=name)


def _check_schedule(data: dict[str, Any]) -> None:
    rates = data["lr"]
    schedule = ScheduleRecipe(
        name="cosine",
        warmup_epochs=rates["warmup"],
        warmup_reaches_lr=True,
        final_factor=rates["min_lr"] / rates["lr"],
    )
    curve = LearningRateCurve(schedule, len(data["schedule"]), rates["steps"])
    assert len(data["schedule"]) == rates["epochs"] * rates["steps"]
    found = [rates["lr"] * curve(step) for step in range(len(data["schedule"]))]
    np.testing.assert_allclose(found, data["schedule"], rtol=0, atol=1e-12)


def _check_views(golden: Golden, data: dict[str, Any]) -> None:
    frames, expected = golden.input("frames"), golden.outputs()["views"]
    size, count = expected.shape[-1], len(data["frame_indices_sorted"]) // 2
    clips, crops = (1 + max(view) for view in zip(*data["view_order_chunk_crop"], strict=True))
    processor = TVTSVideoProcessor(
        num_frames=count, size={"shortest_edge": size}, crop_size={"height": size, "width": size}
    )
    indices = processor.clip_indices(len(frames), num_clips=clips)
    assert np.sort(indices, axis=None).tolist() == data["frame_indices_sorted"]
    order = [(clip, crop) for clip in range(clips) for crop in range(crops)]
    assert order == [tuple(view) for view in data["view_order_chunk_crop"]]
    views = processor(frames, num_clips=clips, num_crops=crops)["pixel_values_videos"][0]
    stored = [0, count // 2 - 1, count - 1]
    assert_close("views", views[:, stored].transpose(1, 2), expected, atol=0.02)


def _check_retrieval(similarity: Tensor, data: dict[str, Any]) -> None:
    for name, matrix in (("t2v", similarity), ("v2t", similarity.T)):
        expected = data[name]
        figures = retrieval_figures(pair_ranks_from_similarity(matrix), (1, 5, 10, 50))
        for theirs, ours in (("R1", "R@1"), ("R5", "R@5"), ("R10", "R@10"), ("R50", "R@50")):
            assert math.isclose(figures[ours], expected[theirs], abs_tol=1e-9)
        for key in ("MedR", "MeanR"):
            assert math.isclose(figures[key], expected[key], abs_tol=1e-9)
        product = math.prod(figures[f"R@{k}"] for k in (1, 5, 10))
        assert math.isclose(product ** (1 / 3), expected["geometric_mean_R1-R5-R10"], abs_tol=1e-9)
