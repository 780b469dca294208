"""ILA's golden cases: alignment, blocks, towers, whole models, blending, frame sampling and tokens."""

from __future__ import annotations

import math
import random
import re
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clip_vocabulary import clip_tokenizer
from parity.goldens import Golden, assert_close
from videossl_hf.data.blending import Blend, apply_blend, cutmix_box, smooth_labels
from videossl_hf.data.rounded_segments import (
    offset_clips,
    rounded_bounds,
    rounded_clips,
    step_crop_positions,
)
from videossl_hf.models.ila.alignment_ila import ILAAligner, interaction_masks
from videossl_hf.models.ila.configuration_ila import ILAConfig
from videossl_hf.models.ila.conversion_ila import (
    Table,
    aligner_table,
    block_table,
    convert_state_dict,
    infer_config,
    key_table,
    load_official,
    official_state_dict,
    official_tensor,
)
from videossl_hf.models.ila.modeling_ila import ILAForVideoClassification
from videossl_hf.models.ila.text_ila import pad_tokens, tokenize_labels
from videossl_hf.models.ila.vision_ila import ILABlock

ACTIVATIONS = {"of_maximum": 2e-5, "atol": 2e-5}
GRADIENTS = {"of_maximum": 5e-5}


def seeded_state(golden: Golden) -> dict[str, Tensor]:
    """The weights of the case, made by the rule that its JSON spells out (`seed_rule`)."""
    specification = {key: value for key, value in golden.record["state_keys"].items() if key != "_columns"}
    base = golden.record["seed_rule"]["base"]
    state = {}
    for index, key in enumerate(sorted(specification)):
        shape, _, total = specification[key]
        state[key] = seeded_tensor(key, shape, torch.Generator().manual_seed(base + index))
        assert abs(state[key].double().sum().item() - total) < 1e-3, key
    return state


def seeded_tensor(key: str, shape: list[int], generator: torch.Generator) -> Tensor:
    """One tensor by that rule."""

    def normal() -> Tensor:
        return torch.randn(shape, generator=generator)

    if key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    if key.endswith("running_mean"):
        return 0.1 * normal()
    if key.endswith("running_var"):
        return 1 + 0.1 * torch.rand(shape, generator=generator)
    if key.endswith("logit_scale"):
        return torch.tensor(2.65926)
    if key.endswith("alpha"):
        return 0.3 + 0.05 * normal()
    if key.endswith(("class_embedding", "positional_embedding", "token_embedding.weight")):
        return 0.5 * normal()
    if key.endswith("bias"):
        return 0.05 * normal()
    if len(shape) == 1:
        return 1 + 0.1 * normal()
    if key.rpartition(".")[2] in ("proj", "prompts_visual_proj", "text_projection"):
        return normal() / math.sqrt(shape[0])
    return normal() / math.sqrt(math.prod(shape[1:]))


def arguments(golden: Golden) -> dict[str, Any]:
    return golden.record["constructor_arguments"]


def interactive_kind(state: dict[str, Tensor], prefix: str = "") -> str:
    return "depthwise" if f"{prefix}interactive_block.0.depthwise_conv.0.weight" in state else "dense"


def part_config(
    golden: Golden, heads: int, state: dict[str, Tensor], prefix: str = "", token_mode: str = "add"
) -> ILAConfig:
    """Configuration of which only the vision tower's sizes and the alignment matter."""
    sizes, kind = arguments(golden), interactive_kind(state, prefix)
    return ILAConfig(
        head="linear",
        num_frames=sizes["T"],
        interactive_block=kind,
        align_hidden=state[f"{prefix}prediction_block.0.weight"].shape[1],
        token_mode=token_mode,
        vision_config={
            "hidden_size": sizes["d_model"],
            "num_attention_heads": heads,
            "image_size": sizes["input_resolution"],
            "patch_size": sizes["patch_size"],
            "num_hidden_layers": 1,
        },
    )


def load_part(module: nn.Module, state: dict[str, Tensor], table: Table) -> None:
    module.load_state_dict(convert_state_dict(state, table))


def compare_gradients(golden: Golden, module: nn.Module, table: Table) -> None:
    gradients = {name: parameter.grad for name, parameter in module.named_parameters()}
    for name, expected in golden.outputs().items():
        if name.startswith("grad."):
            found = official_tensor(table[name.removeprefix("grad.")], gradients)
            assert_close(name, found, expected, **GRADIENTS)


def compare(golden: Golden, ours: dict[str, Tensor]) -> None:
    """All outputs but gradients and buffers must be among ours."""
    for name, expected in golden.outputs().items():
        if not name.startswith("grad.") and ".after." not in name:
            assert_close(name, ours[name], expected, **ACTIVATIONS)


def check_aligner(golden: Golden) -> None:
    state = seeded_state(golden)
    # The heads of the attention play no role here; one fits any width.
    config = part_config(golden, 1, state)
    table = aligner_table(config)
    aligner = ILAAligner(config).eval()
    load_part(aligner, state, table)
    earlier, later = golden.input("pre"), golden.input("cur")
    tokens = torch.cat([earlier, later[:, -1:]], dim=1)
    assert torch.equal(tokens[:, 1:], later)
    assert torch.equal(tokens[:, :, 0], golden.input("cls_token")[0])
    shift = torch.tensor(config.disturbance)
    ours: dict[str, Tensor] = {}
    with torch.no_grad():
        for name, amount in (("nodist", None), ("dist", shift), ("dist_decayed_once", shift / 2)):
            found = aligner(tokens, amount)
            ours |= {
                f"{name}.pair": pooled_pair(aligner, tokens, amount),
                f"{name}.aligned_frame": found.aligned,
                f"{name}.cos_loss": found.loss,
            }
        ours["interactive_feature"] = sequence_first(found.interactive)
        ours["points"] = found.points
        for name in golden.outputs():
            if name.startswith("mask."):
                ours[name] = interaction_masks(golden.input("mask_points"), int(name.removeprefix("mask.")))

    aligner.train()
    found = aligner(tokens, shift)
    features = sequence_first(found.interactive)
    loss = (
        found.loss
        + (found.aligned * golden.input("w_frame")).sum()
        + (features * golden.input("w_feat")).sum()
    )
    loss.backward()
    ours |= {"train.interactive_feature": features, "train.loss": loss, "train.cos_loss": found.loss}
    ours["train.aligned_frame"] = found.aligned
    buffers = {name: value.clone() for name, value in aligner.state_dict().items()}
    for name, expected in golden.outputs().items():
        if ".after." in name:
            key = name.partition(".after.")[2]
            assert_close(name, official_tensor(table[key], buffers), expected, **ACTIVATIONS)
    ours["train.pair"] = pooled_pair(aligner, tokens, shift)
    compare(golden, ours)
    compare_gradients(golden, aligner, table)


@torch.no_grad()
def pooled_pair(aligner: ILAAligner, tokens: Tensor, shift: Tensor | None) -> Tensor:
    """Sums of the masked patches of each pair, `(1, batch, pairs, 2 * hidden)`, from points and masks."""
    side = math.isqrt(tokens.shape[2] - 1)
    points = aligner(tokens, shift).points
    earlier, later = interaction_masks(points.unflatten(-1, (2, 2)), side, shift=shift).flatten(-2).unbind(2)
    patches = tokens[:, :, 1:]
    sums = [
        torch.einsum("bpn,bpnd->bpd", mask, part)
        for mask, part in ((earlier, patches[:, :-1]), (later, patches[:, 1:]))
    ]
    return torch.cat(sums, -1)[None]


def sequence_first(x: Tensor) -> Tensor:
    """`(batch, frames, tokens, hidden)` to `(tokens, batch * frames, hidden)`."""
    return x.flatten(0, 1).transpose(0, 1)


def check_block(golden: Golden) -> None:
    state = seeded_state(golden)
    concat = "eval_nodist.token" in golden.outputs()
    heads, mode = arguments(golden)["n_head"], "concat" if concat else "add"
    config = part_config(golden, heads, state, "message_attn.", mode)
    table = block_table(config)
    if concat:  # parts of the released block that the paper's lacks
        state = {key: value for key, value in state.items() if not _only_added(key)}
    block = ILABlock(config).eval()
    load_part(block, state, table)
    frames = arguments(golden)["T"]
    x = golden.input("x").transpose(0, 1).unflatten(0, (-1, frames))
    shift = torch.tensor(config.disturbance)
    ours: dict[str, Tensor] = {}
    with torch.no_grad():
        for name, amount in (("eval_nodist", None), ("eval_dist", shift)):
            out, loss, _, _ = block(x, amount)
            ours |= {f"{name}.x": sequence_first(out), f"{name}.cos_loss": loss}
            aligned = block.alignment(block.message_norm(block.message_proj(x)), amount).aligned
            ours[f"{name}.token"] = aligned[:, :, 1:].mean(2).flatten(0, 1)[None]
    block.train()
    out, align_loss, _, _ = block(x, shift)
    loss = align_loss + (sequence_first(out) * golden.input("w")).sum()
    loss.backward()
    ours |= {"train.x": sequence_first(out), "train.cos_loss": align_loss, "train.loss": loss}
    compare(golden, ours)
    compare_gradients(golden, block, table)


def _only_added(key: str) -> bool:
    return key.startswith(("temporal_skip_", "message_attn.conv.", "message_attn.fc."))


def build(golden: Golden, **overrides: Any) -> ILAForVideoClassification:
    """Our model with the case's weights, through the converter."""
    state, sizes = seeded_state(golden), arguments(golden)
    settings = {
        "text_config": {"num_attention_heads": sizes["transformer_heads"]},
        "freeze_backbone": False,
        "freeze_text": False,
        "classifier_dropout": 0.0,
    }
    config = infer_config(state, **(settings | overrides))
    assert config.num_frames == sizes["T"]
    assert config.image_size == sizes["image_resolution"]
    model = load_official(state, config)
    exported = official_state_dict(model)
    assert exported.keys() == state.keys()
    assert all(torch.equal(state[key], value) for key, value in exported.items())
    return model


@torch.no_grad()
def check_encoder(golden: Golden) -> None:
    model = build(golden)
    videos = golden.input("video")
    ours: dict[str, Tensor] = {}
    for name, disturb in (("eval_nodist", False), ("eval_dist", True)):
        found = model.ila(videos, disturb=disturb, output_alignment=True)
        tokens = found.last_hidden_state.unflatten(1, (videos.shape[1], -1))
        ours[f"{name}.frame_cls"] = found.frame_embeds.flatten(0, 1)
        ours[f"{name}.patch_tokens"] = tokens[:, :, 1:].flatten(0, 1)
        ours[f"{name}.cos_losses"] = torch.stack(found.align_losses)
        ours[f"{name}.video_features"] = found.pooler_output
        if model.config.has_text:
            patches = model.ila.prompts_projection(model.ila.prompts_norm(tokens[:, :, 1:]))
            ours[f"{name}.img_features"] = patches
            assert_close("patch_embeds", found.patch_embeds, patches.mean(1), **ACTIVATIONS)
        else:
            ours[f"{name}.video_features"] = model(videos, disturb=disturb).logits
    compare(golden, ours)


def check_model(golden: Golden) -> None:
    model = build(golden)
    videos = golden.input("video")
    texts = {"input_ids": golden.input("text")} if model.config.has_text else {}
    ours: dict[str, Tensor] = {}
    with torch.no_grad():
        if texts:
            ours["text_features"] = model.ila.get_text_features(**texts)
        for name, disturb in (("eval_nodist", False), ("eval_dist", True)):
            found = model(videos, disturb=disturb, output_alignment=True, **texts)
            ours[f"{name}.logits"] = found.logits
            ours[f"{name}.cos_losses"] = torch.stack(found.align_losses)
    model.train()
    found = model(videos, labels=golden.input("soft_targets"), **texts)
    found.loss.backward()
    ours |= {
        "train.logits": found.logits,
        "train.ce": found.ce_loss,
        "train.align_loss": found.align_loss,
        "train.loss": found.loss,
        "train.cos_losses": torch.stack(found.align_losses),
    }
    compare(golden, ours)
    compare_gradients(golden, model, key_table(model.config))


def check_blending(golden: Golden) -> None:
    sizes = golden.record["constructor_arguments"]
    videos, classes = golden.input("video"), golden.input("labels")
    labels = smooth_labels(classes, sizes["num_classes"], sizes["smoothing"])
    ours = {"smooth_labels": labels}
    mixup = Blend(golden.input("mixup_lam").item(), tuple(golden.input("mixup_perm").tolist()))
    ours["mixup_video"], ours["mixup_labels"] = apply_blend(videos, labels, mixup)
    box = tuple(golden.input("cutmix_bbox_x1y1x2y2").tolist())
    drawn = golden.input("cutmix_lam_drawn").item()
    cutmix = Blend(drawn, tuple(golden.input("cutmix_perm").tolist()), box)
    ours["cutmix_video"], ours["cutmix_labels"] = apply_blend(videos, labels, cutmix)
    height, width = videos.shape[-2:]
    centres = [(column, row) for column in range(width) for row in range(height)]
    assert box in {cutmix_box(height, width, drawn, centre) for centre in centres}
    for name, expected in golden.outputs().items():
        assert_close(name, ours[name], expected, atol=1e-6)


def _numbers(name: str) -> dict[str, int]:
    """ "T8_n300_seed0" to {"T": 8, "n": 300, "seed": 0}."""
    return {match[1]: int(match[2]) for match in re.finditer(r"([A-Za-z]+)(\d+)", name)}


def check_sampling(golden: Golden) -> None:
    record = golden.record
    for name, expected in record["single_view_eval"].items():
        sizes = _numbers(name)
        assert rounded_clips(sizes["n"], sizes["T"])[0].tolist() == expected, name
    for name, expected in record["train"].items():
        sizes = _numbers(name)
        draw = random.Random(sizes["seed"]).randint
        found = [draw(int(low), int(high)) for low, high in rounded_bounds(sizes["n"], sizes["T"])]
        assert found == expected, name
    for name, expected in record["multiview4"].items():
        sizes = _numbers(name)
        draw = np.random.RandomState(sizes["seed"]).randint
        length, part = sizes["T"], sizes["n"] // sizes["T"]
        clips = len(expected) // length
        offsets = np.stack([draw(part, size=length) if part else np.zeros(length) for _ in range(clips)])
        assert offset_clips(sizes["n"], length, offsets).flatten().tolist() == expected, name
    for name, expected in record["three_crop"].items():
        sizes = _numbers(name)
        corners = step_crop_positions(sizes["h"], sizes["w"], sizes["c"]).tolist()
        found = [[left, top, left + sizes["c"], top + sizes["c"]] for top, left in corners]
        assert found == expected, name


def check_tokens(golden: Golden) -> None:
    expected = golden.tensors["output.ids"]
    labels = golden.record["inputs"]["labels"]
    config = ILAConfig()
    tokens = tokenize_labels(labels, clip_tokenizer(), config)
    found = pad_tokens(labels, tokens, torch.device("cpu"))
    assert found.shape[1] == max(map(len, tokens.values()))  # the text tower sees no more than it must
    padded = torch.nn.functional.pad(found, (0, expected.shape[1] - found.shape[1]))
    assert torch.equal(padded, expected.long())


CHECKS = {
    "aligner": check_aligner,
    "block": check_block,
    "encoder": check_encoder,
    "model": check_model,
    "blending": check_blending,
    "sampling": check_sampling,
    "tokens": check_tokens,
}
