"""STiCA's golden cases: network, objective and gradients. Kind `aug` is checked in `stica_aug.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from distributed import run_processes
from parity import stica_aug
from parity.goldens import Golden, assert_close
from videossl_hf.models.stica.configuration_stica import STiCAConfig
from videossl_hf.models.stica.conversion_stica import (
    infer_config,
    key_table,
    load_official,
    official_state_dict,
)
from videossl_hf.models.stica.modeling_stica import STiCAForPreTraining, STiCAPreTrainedModel
from videossl_hf.models.stica.objective_stica import (
    FULL,
    PARTS,
    FeatureCrops,
    Group,
    contrastive_losses,
    crop_boxes,
    crop_comparisons,
    map_size,
)
from videossl_hf.nn.contrastive import gather_keys, info_nce, symmetric_info_nce
from videossl_hf.nn.feature_crop import pool_boxes

TOKENS_OF_SECONDS = {1: 4, 2: 8, 3: 12, 4: 15}
HEADS = ("mlp_", "video_pooling.", "pooling_arch.", "audio_network.", "classifier")


def build(golden: Golden, dtype: torch.dtype = torch.float32, **overrides: Any) -> STiCAPreTrainedModel:
    """Our model with the case's weights, through the converter."""
    options = golden.meta | golden.meta.get("ctor", {})
    state = golden.official_state()
    settings: dict[str, Any] = {
        "pooling_heads": options.get("num_head", 4),
        "projection_normalize": options.get("norm_feat", True),
        "projection_dropout": 0.0,
        "classifier_normalize": options.get("use_l2_norm", False),
    }
    if "num_sec" in options:
        settings["pooling_tokens"] = TOKENS_OF_SECONDS[options["num_sec"]]
    model = load_official(state, infer_config(state, **(settings | overrides)))
    exported = official_state_dict(model)
    assert all(torch.equal(state[key], value) for key, value in exported.items())
    # The recorded float64 runs have the softmax in float32, as this implementation has it.
    model.set_attn_implementation("eager" if dtype is torch.float64 else "sdpa")
    return model.to(dtype)


def pixels(video: Tensor, dtype: torch.dtype) -> Tensor:
    """uint8 `(batch, channels, frames, height, width)` to normalised
    `(batch, frames, channels, height, width)`."""
    return ((video.to(dtype) / 255 - 0.45) / 0.225).transpose(1, 2)


def crops_of(tensors: dict[str, Tensor], counts: dict[str, int] | None = None) -> FeatureCrops:
    """Boxes of one view, only the first so many of each kind."""
    counts = counts or {}
    absent = {part: torch.empty(0, 4 if part.startswith("space") else 2, dtype=torch.int64) for part in PARTS}
    return FeatureCrops(*((absent | tensors)[part][: counts.get(part)] for part in PARTS))


def crop_counts(meta: dict[str, Any]) -> dict[str, int]:
    crops = meta["crops"]
    return dict(zip(PARTS, (crops["L"], crops["S"], crops["TL"], crops["TS"]), strict=True))


def objective_config(golden: Golden) -> dict[str, Any]:
    meta = golden.meta
    settings: dict[str, Any] = {f"{part}_crops": count for part, count in crop_counts(meta).items()}
    settings["alpha"] = meta["alpha"]
    settings["temperature_within"] = meta["temp_within"]
    settings["temperature_cross"] = meta.get("temp_cross", golden.record.get("temp_cross", 0.1))
    return settings


def embed_crops(
    model: STiCAForPreTraining, feature_map: Tensor, crops: FeatureCrops, groups: list[Group]
) -> Tensor:
    """Embeddings `(groups, batch, dim)` of crops of a map."""
    pooling = model.stica.video_model.pooling
    boxes = crop_boxes(groups, crops, map_size(feature_map), feature_map)
    tokens = pool_boxes(feature_map, boxes, pooling.token_count(feature_map))
    return model.video_projection(pooling.attend(tokens))


@torch.no_grad()
def check_eval(golden: Golden) -> None:
    expected = golden.outputs()
    dtypes = [torch.float32]
    if any(name.startswith("float64.") for name in expected):
        dtypes.append(torch.float64)
    for dtype in dtypes:
        ours = _evaluate(golden, dtype)
        for name, value in expected.items():
            if name.startswith("float64.") != (dtype is torch.float64) or not value.numel():
                continue
            name = name.removeprefix("float64.")
            found = ours[name]
            if name in PARTS and len(found) < len(value):
                # The official code evaluates small crops once more for every large crop.
                found = found.repeat(len(value) // len(found), 1, 1)
            if dtype is torch.float64 or name in ("video_map", "audio_feat"):
                assert_close(name, found, value, of_maximum=1e-5)
            else:
                atol = 6e-6 if name == "video_pooled" else 2e-6
                assert_close(name, found, value, atol=max(atol, 4 * golden.rounding(name)))


def _evaluate(golden: Golden, dtype: torch.dtype) -> dict[str, Tensor]:
    model = build(golden, dtype)
    videos, spectrograms = pixels(golden.input("video"), dtype), golden.input("spec").to(dtype)
    feature_map = model.stica.video_model.feature_map(videos)
    features = model.stica(pixel_values_videos=videos, input_features=spectrograms)
    crops = crops_of(golden.inputs_below(""))
    ours = {
        "video_map": feature_map[: golden.meta.get("map_samples")],
        "audio_feat": features.audio_pooler_output,
        "video_pooled": features.pooler_output,
        "video_embed": model.get_video_embeddings(videos),
        "audio_embed": model.get_audio_embeddings(spectrograms),
    }
    for part, windows in zip(PARTS, crops, strict=True):
        if len(windows):
            groups: list[Group] = [(0, part, index) for index in range(len(windows))]
            ours[part] = embed_crops(model, feature_map, crops, groups)
    return ours


def check_train(golden: Golden) -> None:
    _check_train_in(golden, torch.float32)
    _check_train_in(golden, torch.float64)


def _check_train_in(golden: Golden, dtype: torch.dtype) -> None:
    counts = crop_counts(golden.meta)
    model = build(golden, dtype, **objective_config(golden)).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    views = [pixels(golden.input(f"video{view}"), dtype) for view in (0, 1)]
    crops = [crops_of(golden.inputs_below(f"view{view}."), counts) for view in (0, 1)]
    output = model(*views, golden.input("spec").to(dtype), crops=crops)
    output.loss.backward()

    comparisons = crop_comparisons(model.config)
    part_counts = [sum(entry.weight for entry in comparisons if entry.part == part) for part in PARTS]
    part_means = [
        output[f"loss_{part}"] if count else output.loss * 0
        for part, count in zip(PARTS, part_counts, strict=True)
    ]
    ours = {
        "loss": output.loss,
        "loss_crops": output.loss_crops,
        "loss_av": output.loss_cross_modal,
        "crop_loss_sums": torch.stack(
            [mean * count for mean, count in zip(part_means, part_counts, strict=True)]
        ),
        "crop_loss_counts": torch.tensor(part_counts),
        **{f"video_embed{view}": output.video_embeds[view] for view in (0, 1)},
        **{f"audio_embed{view}": output.audio_embeds[view] for view in (0, 1)},
    }
    _compare(golden, dtype, model, ours)
    if dtype is torch.float32:
        _compare_buffers(golden, model, before, views)


def _compare(
    golden: Golden, dtype: torch.dtype, model: STiCAPreTrainedModel, ours: dict[str, Tensor]
) -> None:
    """Outputs and gradients with the bars that the case states."""
    kind = "classification" if golden.kind == "finetune" else "pretraining"
    table = key_table(model.config, kind)
    parameters = dict(model.named_parameters())
    compared = set()
    for name, expected in golden.outputs().items():
        is_double = name.startswith("float64.")
        name = name.removeprefix("float64.")
        if name.startswith("buffer_after.") or is_double != (dtype is torch.float64):
            continue
        compared.add(name)
        if name.startswith("grad."):
            key = name.removeprefix("grad.")
            gradient = parameters[table[key]].grad
            if is_double:
                assert_close(name, gradient, expected, of_maximum=1e-5)
            elif key.startswith(HEADS):
                assert_close(name, gradient, expected, of_maximum=2e-3)
            else:
                assert_close(name, gradient, expected, of_maximum=3e-2, cosine=0.999)
        elif is_double:
            assert_close(name, ours[name], expected, of_maximum=1e-5)
        elif "loss" in name:
            assert_close(name, ours[name], expected, of_maximum=1e-4)
        else:
            assert_close(name, ours[name], expected, atol=1e-4)
    assert {f"grad.{key}" for key in golden.meta["grad_keys"]} <= compared


def _compare_buffers(
    golden: Golden, model: STiCAForPreTraining, before: dict[str, Tensor], views: list[Tensor]
) -> None:
    """Running statistics after the step. Ours differ on purpose in two places, which are led back here."""
    table = key_table(model.config, "pretraining")
    after = {key: value.clone() for key, value in model.state_dict().items()}
    official_order = _head_statistics_in_official_order(golden, model, before, views)
    for name, expected in golden.outputs().items():
        if not name.startswith("buffer_after."):
            continue
        module, _, leaf = name.removeprefix("buffer_after.").rpartition(".")
        prefix = table[f"{module}.weight"].removesuffix(".weight")
        if module.startswith("mlp_v."):
            found = official_order[leaf]
        elif module.startswith("audio_network.") and leaf != "num_batches_tracked":
            # The official code runs the sound network twice: a second update with the same statistics.
            first = after[f"{prefix}.{leaf}"]
            found = first + 0.9 * (first - before[f"{prefix}.{leaf}"])
        else:
            found = after[f"{prefix}.{leaf}"]
        assert_close(name, found, expected, of_maximum=1e-4)


@torch.no_grad()
def _head_statistics_in_official_order(
    golden: Golden, model: STiCAForPreTraining, before: dict[str, Tensor], views: list[Tensor]
) -> dict[str, Tensor]:
    """The video head's statistics when every crop is evaluated as often as in the official code."""
    model.load_state_dict(before)
    counts = crop_counts(golden.meta)
    for view, video in enumerate(views):
        crops = crops_of(golden.inputs_below(f"view{view}."))
        groups: list[Group] = []
        for axis in ("space", "time"):
            for large in range(counts[f"{axis}_large"]):
                groups.append((view, f"{axis}_large", large))
                small = f"{axis}_small"
                groups += [(view, small, index) for index in range(len(getattr(crops, small)))]
        groups.append((view, FULL, 0))
        embed_crops(model, model.stica.video_model.feature_map(video), crops, groups)
    return {name: value.clone() for name, value in model.video_projection.norm.named_buffers()}


def check_gdt(golden: Golden) -> None:
    for dtype in (torch.float32, torch.float64):
        model = build(golden, dtype, temperature_gdt=golden.meta.get("nce_t", 0.07))
        videos, spectrograms = pixels(golden.input("video"), dtype), golden.input("spec").to(dtype)
        output = model(videos, input_features=spectrograms)
        output.loss.backward()
        with torch.no_grad():
            features = model.stica(pixel_values_videos=videos, input_features=spectrograms)
        ours = {
            "loss": output.loss,
            "video_feat": features.pooler_output,
            "audio_feat": features.audio_pooler_output,
            "video_embed": output.video_embeds[0],
            "audio_embed": output.audio_embeds[0],
        }
        _compare(golden, dtype, model, ours)


def check_finetune(golden: Golden) -> None:
    for dtype in (torch.float32, torch.float64):
        model = build(golden, dtype)
        output = model(pixels(golden.input("video"), dtype), labels=golden.input("labels"))
        output.loss.backward()
        ours = {"pooled": output.pooler_output, "logits": output.logits, "ce_loss": output.loss}
        _compare(golden, dtype, model, ours)


def check_nce(golden: Golden) -> None:
    """The objective on given embeddings, by real processes, and by one process that holds all batches."""
    world = golden.meta["world_size"]
    for rank, ours in enumerate(run_processes(_nce_of_rank, world, str(golden.path))):
        _compare_nce(golden, rank, ours)
    _check_nce_in_one_process(golden, world)


def _compare_nce(golden: Golden, rank: int, ours: dict[str, Tensor]) -> None:
    prefix = f"rank{rank}."
    for name, expected in golden.outputs().items():
        if not name.startswith(prefix):
            continue
        name = name.removeprefix(prefix)
        atol = 1e-6 if "grad." in name else 1e-5
        assert_close(prefix + name, ours[name], expected, atol=atol)


def _nce_leaves(golden: Golden, prefix: str) -> dict[str, Tensor]:
    return {name: value.clone().requires_grad_() for name, value in golden.inputs_below(prefix).items()}


def _nce_groups(leaves: dict[str, Tensor]) -> dict[Group, Tensor]:
    groups: dict[Group, Tensor] = {}
    for view in (0, 1):
        for part in PARTS:
            for index, embeddings in enumerate(leaves[f"view{view}.{part}"]):
                groups[view, part, index] = embeddings
        groups[view, FULL, 0] = leaves[f"video{view}"]
    return groups


def _gradients(leaves: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        f"{prefix}{name}": leaf.grad if leaf.grad is not None else torch.zeros_like(leaf)
        for name, leaf in leaves.items()
    }


def _nce_of_rank(rank: int, path: str) -> dict[str, Tensor]:
    """Runs in a process of its own."""
    golden = _read(path)
    leaves = _nce_leaves(golden, f"rank{rank}.")
    config = STiCAConfig(**objective_config(golden))
    audio = torch.stack([leaves["audio0"], leaves["audio1"]])
    losses = contrastive_losses(config, _nce_groups(leaves), audio)
    losses.loss.backward()
    ours = _gradients(leaves, "grad.")
    comparisons = crop_comparisons(config)
    counts = [sum(entry.weight for entry in comparisons if entry.part == part) for part in PARTS]
    sums = [
        losses.parts.get(part, torch.zeros(())) * count for part, count in zip(PARTS, counts, strict=True)
    ]
    ours |= {"loss": losses.loss, "loss_av": losses.loss_cross_modal}
    if losses.loss_crops is not None:
        ours["loss_crops"] = losses.loss_crops
    ours |= {"crop_loss_sums": torch.stack(sums), "crop_loss_counts": torch.tensor(counts)}
    if "temp_extra" in golden.meta:
        temperature, video, sound = golden.meta["temp_extra"], leaves["video0"], leaves["audio0"]
        ours["pair_symmetric"] = symmetric_info_nce(video, sound, temperature).loss
        ours["pair_asymmetric"] = info_nce(sound, gather_keys(video), temperature).loss
    leaves = _nce_leaves(golden, f"rank{rank}.")
    gdt = STiCAConfig.gdt(temperature_gdt=golden.meta.get("nce_t", 0.07))
    loss = contrastive_losses(gdt, {(0, FULL, 0): leaves["video0"]}, leaves["audio0"][None]).loss
    loss.backward()
    ours |= {"gdt_loss_hyp1": loss} | _gradients(leaves, "gdt_grad.")
    return {name: value.detach() for name, value in ours.items()}


def _check_nce_in_one_process(golden: Golden, world: int) -> None:
    """One batch that holds all processes' rows has the mean of their losses, and their mean gradient."""
    ranks = [_nce_leaves(golden, f"rank{rank}.") for rank in range(world)]
    joined = {name: torch.cat([leaves[name] for leaves in ranks], dim=-2) for name in ranks[0]}
    config = STiCAConfig(**objective_config(golden))
    audio = torch.stack([joined["audio0"], joined["audio1"]])
    losses = contrastive_losses(config, _nce_groups(joined), audio)
    losses.loss.backward()
    expected = golden.outputs()
    mean = torch.stack([expected[f"rank{rank}.loss"] for rank in range(world)]).mean()
    assert_close("mean loss", losses.loss, mean, atol=1e-5)
    for rank, leaves in enumerate(ranks):
        for name, gradient in _gradients(leaves, "grad.").items():
            if f"rank{rank}.{name}" in expected:
                assert_close(
                    f"rank{rank}.{name}", gradient * world, expected[f"rank{rank}.{name}"], atol=1e-6
                )


def _read(path: str) -> Golden:
    import json
    from pathlib import Path

    return Golden(Path(path), json.loads(Path(path).read_text()))


CHECKS: dict[str, Callable[[Golden], object]] = {
    "eval": check_eval,
    "train": check_train,
    "gdt": check_gdt,
    "finetune": check_finetune,
    "nce": check_nce,
    "aug": lambda golden: stica_aug.check(golden.meta, golden.tensors),
}
