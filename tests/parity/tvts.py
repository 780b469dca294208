"""TVTS's golden cases: networks, losses and gradients. Kinds of data and protocol are checked in
`tvts_data.py`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distributed import run_processes
from parity import tvts_data
from parity.goldens import Golden, assert_close
from videossl_hf.models.tvts.configuration_tvts import TVTSConfig
from videossl_hf.models.tvts.conversion_tvts import (
    Table,
    convert_state_dict,
    infer_config,
    key_table,
    load_image_weights,
    load_official,
    official_state_dict,
    sorting_table,
)
from videossl_hf.models.tvts.modeling_tvts import (
    TVTSForPreTraining,
    TVTSPreTrainedModel,
    TVTSSortingHead,
    TVTSVideoModel,
)
from videossl_hf.models.tvts.objective_tvts import contrastive_loss, cosine_similarities, sorting_loss

GRADIENT_SHARE = 1e-5
"""Of each tensor's largest value: what the cases state."""


def state_of(golden: Golden) -> dict[str, Tensor]:
    """Official weights of a case."""
    start = "state."
    return {
        name.removeprefix(start): value for name, value in golden.tensors.items() if name.startswith(start)
    }


def gradients(model: TVTSPreTrainedModel | TVTSSortingHead, table: Table) -> dict[str, Tensor]:
    """Gradients under the official keys."""
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return official_state_dict(found, table)


def compare_gradients(golden: Golden, prefix: str, found: dict[str, Tensor]) -> None:
    expected = {
        name.removeprefix(prefix): value
        for name, value in golden.outputs().items()
        if name.startswith(prefix)
    }
    assert expected, f"no gradients named {prefix}*"
    for name, value in expected.items():
        assert_close(prefix + name, found[name].reshape(value.shape), value, of_maximum=GRADIENT_SHARE)


def check_export(model: TVTSPreTrainedModel, state: dict[str, Tensor], kind: str) -> None:
    """What was loaded goes back bit by bit."""
    exported = official_state_dict(model.state_dict(), key_table(model.config, kind))
    assert exported.keys() == state.keys()
    assert all(torch.equal(state[name], value.reshape(state[name].shape)) for name, value in exported.items())


def video_model(
    golden: Golden, heads: int, drop: tuple[str, ...] = ()
) -> tuple[TVTSVideoModel, dict[str, Tensor]]:
    state = {name: value for name, value in state_of(golden).items() if name not in drop}
    model = load_official(state, infer_config(state, num_attention_heads=heads))
    check_export(model, state, "video")
    return model, state


def check_encoder(golden: Golden) -> None:
    constructor, outputs = golden.record["official"]["constructor"], golden.outputs()
    model, _ = video_model(golden, constructor["num_heads"], ("head.weight", "head.bias"))
    for field, theirs in (
        ("image_size", "img_size"),
        ("patch_size", "patch_size"),
        ("hidden_size", "embed_dim"),
        ("num_hidden_layers", "depth"),
        ("mlp_ratio", "mlp_ratio"),
        ("num_frames", "num_frames"),
        ("tubelet_size", "tubelet_size"),
    ):
        assert getattr(model.config, field) == constructor[theirs]
    tokens = model(golden.input("video"), keep_indices=golden.input("keep_ind")).last_hidden_state
    assert_close("tokens", tokens, outputs["tokens"], atol=1e-5)
    probe = (tokens * golden.input("grad_weight")).sum() / math.sqrt(tokens.numel())
    assert_close("probe_loss", probe, outputs["probe_loss"], atol=1e-5)
    probe.backward()
    compare_gradients(golden, "grad.", gradients(model, key_table(model.config, "video")))
    for name, expected in outputs.items():
        if name.startswith("tokens_"):
            which = name.removeprefix("tokens_")
            with torch.no_grad():
                shorter = model(
                    golden.input(f"video_{which}"), keep_indices=golden.input(f"keep_ind_{which}")
                )
            assert_close(name, shorter.last_hidden_state, expected, atol=1e-5)
    if "cls_logits" in outputs:
        state = state_of(golden)
        classifier = load_official(state, infer_config(state, num_attention_heads=constructor["num_heads"]))
        check_export(classifier, state, "classification")
        with torch.no_grad():
            found = classifier(golden.input("video"))
        assert_close("cls_logits", found.logits, outputs["cls_logits"], atol=1e-5)
        assert_close("cls_feature", found.pooler_output, outputs["cls_feature"], atol=1e-5)


def check_v2_encoder(golden: Golden) -> None:
    constructor, outputs = golden.record["official"]["constructor"], golden.outputs()
    model, _ = video_model(golden, constructor["heads"])
    config = model.config
    assert (config.num_frames, config.projection_dim) == (
        constructor["num_frames"],
        constructor["output_dim"],
    )
    kept = golden.input("keep_ind")
    result = model(golden.input("video"), keep_indices=kept)
    assert_close("tokens", result.last_hidden_state, outputs["tokens"], atol=1e-5)
    assert torch.equal(result.pooler_output, result.last_hidden_state[:, 0])
    probe = (result.last_hidden_state * golden.input("grad_weight")).sum()
    probe = probe / math.sqrt(result.last_hidden_state.numel())
    assert_close("probe_loss", probe, outputs["probe_loss"], atol=1e-5)
    probe.backward()
    compare_gradients(golden, "grad.", gradients(model, key_table(config, "video")))


def scripts(golden: Golden, name: str, batch: int) -> dict[str, Tensor]:
    """Script-major rows `(scripts * batch, tokens)` to our arguments `(batch, scripts, tokens)`."""
    suffix = f"_{name}" if name else ""
    return {
        key: golden.input(key + suffix).unflatten(0, (-1, batch)).transpose(0, 1)
        for key in ("input_ids", "attention_mask")
    }


def build(golden: Golden) -> TVTSForPreTraining:
    sizes, state = golden.record["official"]["size_overrides"], state_of(golden)
    config = infer_config(
        state,
        num_attention_heads=sizes["video"]["num_heads"],
        sorting_heads=sizes["sort"]["num_heads"],
        text_settings=sizes["text"],
    )
    model = load_official(state, config)
    check_export(model, state, "pretraining")
    return model


def check_train_step(golden: Golden) -> None:
    outputs, model = golden.outputs(), build(golden)
    assert model.config.num_scripts == golden.record["n_scripts"]
    table, batch = key_table(model.config, "pretraining"), golden.record["batch"]
    video = {"pixel_values_videos": golden.input("video"), "keep_indices": golden.input("keep_ind")}
    found = model(**video, **scripts(golden, "", batch), script_positions=golden.input("label"))
    towers = model.tvts(**video, **scripts(golden, "", batch))
    ours = {
        "text_embeds": found.text_embeds,
        "video_embeds": found.video_embeds,
        "sort_logits": found.sorting_logits,
        "sim_video_text": cosine_similarities(found.video_embeds, found.text_embeds),
        "loss_align": found.loss_contrastive,
        "loss_sort_x2": 2 * found.loss_sorting,
        "loss": found.loss,
        "video_tokens": towers.last_hidden_state,
        "text_cls": towers.text_pooler_output.transpose(0, 1).flatten(0, 1),
    }
    for name, value in ours.items():
        assert_close(name, value, outputs[name], atol=2e-5)

    found.loss.backward(retain_graph=True)
    compare_gradients(golden, "grad.", gradients(model, table))
    model.zero_grad()
    (2 * found.loss_sorting).backward()
    sorting_alone = gradients(model, table)
    compare_gradients(golden, "grad_sort_only.", sorting_alone)
    assert bool(outputs["grad_sort_only_text_is_none"]) is not any(
        name.startswith(("text_model.", "txt_proj.", "vid_proj.")) for name in sorting_alone
    )

    with torch.no_grad():
        shuffled = model(**video, **scripts(golden, "shuf", batch), script_positions=golden.input("shuffle"))
        assert_close("sort_logits_shuf", shuffled.sorting_logits, outputs["sort_logits_shuf"], atol=2e-5)
        assert_close("loss_sort_x2_shuf", 2 * shuffled.loss_sorting, outputs["loss_sort_x2_shuf"], atol=2e-5)
        assert_close("loss_align_shuf", shuffled.loss_contrastive, outputs["loss_align_shuf"], atol=2e-5)
        for name in (name.removeprefix("loss_") for name in outputs if name.startswith("loss_cap")):
            _check_captions(golden, model, name)
    _check_image_start(golden, model)


def _check_captions(golden: Golden, model: TVTSForPreTraining, name: str) -> None:
    outputs = golden.outputs()
    found = model(
        golden.input(f"video_{name}"),
        golden.input(f"input_ids_{name}"),
        golden.input(f"attention_mask_{name}"),
        keep_indices=golden.input(f"keep_ind_{name}"),
    )
    assert found.loss_sorting is None
    for ours, theirs in (
        (found.text_embeds, "text_embeds"),
        (found.video_embeds, "video_embeds"),
        (found.loss, "loss"),
    ):
        assert_close(f"{theirs}_{name}", ours, outputs[f"{theirs}_{name}"], atol=2e-5)


def _check_image_start(golden: Golden, model: TVTSForPreTraining) -> None:
    """Weights of an image model: those of the case, and the model's own for the rest."""
    outputs, start = golden.outputs(), "video_model."
    state = {
        name.removeprefix(start): value
        for name, value in official_state_dict(
            model.state_dict(), key_table(model.config, "pretraining")
        ).items()
        if name.startswith(start) and not name.endswith("temporal_embed")
    }
    state["patch_embed.proj.weight"] = golden.input("mae_patch_embed_weight_2d")
    state["pos_embed"] = golden.input("mae_pos_embed")
    load_image_weights(model, state)
    embeddings = model.tvts.video_model.embeddings
    assert torch.equal(embeddings.patches.weight, outputs["inflated_patch_embed_weight"])
    assert torch.equal(embeddings.spatial_positions, outputs["inflated_pos_embed"])
    assert torch.equal(embeddings.temporal_positions, outputs["temporal_embed_after_mae_init"])


def _contrastive_of_rank(rank: int, path: str) -> dict[str, dict[str, Tensor]]:
    """Runs in a process of its own."""
    golden = Golden(Path(path), json.loads(Path(path).read_text()))
    return {
        mode: _contrastive(golden.input("video_embeds")[rank], golden.input("text_embeds")[rank], mode)
        for mode in ("local", "full")
    }


def _contrastive(videos: Tensor, texts: Tensor, mode: Any) -> dict[str, Tensor]:
    videos, texts = (x.clone().requires_grad_() for x in (videos, texts))
    loss = contrastive_loss(videos, texts, TVTSConfig().temperature, mode).loss
    loss.backward()
    assert videos.grad is not None
    assert texts.grad is not None
    return {"loss": loss.detach(), "video": videos.grad, "text": texts.grad}


def check_losses(golden: Golden) -> None:
    outputs, world = golden.outputs(), golden.record["world_size"]
    share = {"of_maximum": 2e-6}
    ranks = run_processes(_contrastive_of_rank, world, str(golden.path))
    for mode, factor in (("local", 1), ("full", world)):
        losses = torch.stack([modes[mode]["loss"] for modes in ranks])
        assert_close(f"{mode} loss", losses, outputs["loss_per_rank"], **share)
        for tower in ("video", "text"):
            found = torch.stack([modes[mode][tower] for modes in ranks])
            assert_close(f"{mode} {tower}", found, factor * outputs[f"grad_{tower}_per_rank"], **share)
    videos, texts = golden.input("video_embeds"), golden.input("text_embeds")
    joint = _contrastive(videos.flatten(0, 1), texts.flatten(0, 1), "full")
    assert_close("loss", joint["loss"], outputs["loss_single_process"], **share)
    for tower in ("video", "text"):
        expected = outputs[f"grad_{tower}_single_process"]
        assert_close(f"grad {tower}", joint[tower].view(expected.shape), expected, **share)
    similarities = cosine_similarities(videos.flatten(0, 1), texts.flatten(0, 1))
    assert_close("sim_video_text", similarities, outputs["sim_video_text"], **share)
    rows = torch.stack([torch.zeros_like(videos[0, 0]), videos[0, 0]])
    assert_close("sim_zero_row", cosine_similarities(rows, rows), outputs["sim_zero_row"], **share)
    _check_sorting(golden)


def _check_sorting(golden: Golden) -> None:
    """The sorting head alone, with gradients of its inputs."""
    outputs, sizes, state = golden.outputs(), golden.record["official"]["sort_constructor"], state_of(golden)
    config = TVTSConfig(
        hidden_size=sizes["embed_dim"],
        num_attention_heads=sizes["num_heads"],
        sorting_heads=sizes["num_heads"],
        sorting_layers=sizes["depth"],
        num_scripts=sizes["num_classes"],
        use_text=False,
    )
    head, table = TVTSSortingHead(config), sorting_table(config, "", "")
    head.load_state_dict(convert_state_dict(state, head, table))
    texts, tokens = (
        golden.input(f"sort_{name}").clone().requires_grad_() for name in ("text", "video_tokens")
    )
    logits = head(tokens, texts)
    loss = sorting_loss(logits, golden.input("sort_label")).loss * config.sorting_weight
    loss.backward()
    assert_close("sort_logits", logits, outputs["sort_logits"], of_maximum=2e-6)
    assert_close("sort_loss_x2", loss, outputs["sort_loss_x2"], of_maximum=2e-6)
    assert torch.equal(logits.argmax(-1), outputs["sort_pred"])
    for name, leaf in (("sort_text", texts), ("sort_video_tokens", tokens)):
        assert_close(name, leaf.grad, outputs[f"grad_input.{name}"], of_maximum=GRADIENT_SHARE)
    compare_gradients(golden, "grad.", gradients(head, table))


CHECKS: dict[str, Callable[[Golden], object]] = {
    "encoder": check_encoder,
    "v2_encoder": check_v2_encoder,
    "train_step": check_train_step,
    "losses": check_losses,
    "data_asr_video": tvts_data.check_transcripts_and_frames,
    "downstream_protocol": tvts_data.check_protocol,
}
