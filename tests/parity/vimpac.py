"""VIMPAC's golden cases: network, both losses, gradients, fine-tuning, masks, clips, tokeniser."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from distributed import run_processes
from parity.goldens import Golden, find_goldens
from videossl_hf.evaluation.clips import PreparedClips, PreparedSample
from videossl_hf.evaluation.features import extract_features
from videossl_hf.evaluation.knn import knn_votes
from videossl_hf.models.vimpac.clips_vimpac import PADDING, random_clips, uniform_clips
from videossl_hf.models.vimpac.configuration_vimpac import VIMPACConfig
from videossl_hf.models.vimpac.conversion_dvae import load_official_dvae
from videossl_hf.models.vimpac.conversion_vimpac import load_official, official_state_dict
from videossl_hf.models.vimpac.layers_vimpac import axis_padding
from videossl_hf.models.vimpac.masking_vimpac import (
    IGNORED,
    NOT_MASKED,
    MaskDraws,
    apply_mask,
    cover,
    draw_mask_numbers,
    make_masks,
    replace_blocks,
)
from videossl_hf.models.vimpac.modeling_vimpac import VIMPACModel, VIMPACPreTrainedModel
from videossl_hf.models.vimpac.objective_vimpac import two_clip_loss

POSITIONS = {"hw_separation": "axial", "temporal_separation": "space_time", "default": "joint"}
PAD, MASK = 8193, 8196  # of the recorded cases without weights


def close(golden: Golden, name: str, found: Tensor | float, gradient: bool = False) -> None:
    """A value within the tolerance that the case states: atol 2e-5, rtol 1e-4; gradients 1e-5, 1e-3."""
    expected = golden.tensors[name]
    found = torch.as_tensor(found, dtype=expected.dtype).detach()
    atol, rtol = (1e-5, 1e-3) if gradient else (2e-5, 1e-4)
    torch.testing.assert_close(found, expected, atol=atol, rtol=rtol, msg=lambda text: f"{name}: {text}")


def prefixed(golden: Golden, prefix: str) -> dict[str, Tensor]:
    return {
        key.removeprefix(prefix): value for key, value in golden.tensors.items() if key.startswith(prefix)
    }


def make_config(case: dict[str, Any], grid: tuple[int, int, int], **overrides: Any) -> VIMPACConfig:
    settings: dict[str, Any] = {
        "num_frames": grid[0],
        "image_size": [8 * grid[1], 8 * grid[2]],
        "hidden_size": case["hid"],
        "num_hidden_layers": case["layers"],
        "num_attention_heads": case["heads"],
        "layout": case["layout"],
        "halve_mlp": case["halve_mlp"],
        "halve_att": case["halve_att"],
        "pre_norm": case["pre"],
        "positions": POSITIONS[case["pos"]],
        "dropout": 0.0,
        "attention_dropout": 0.0,
    }
    return VIMPACConfig(**(settings | overrides))


def num_codes(golden: Golden) -> int:
    """Of the tokeniser; five more ids have rows in the embedding."""
    return len(golden.tensors["state.backbone.embedding.weight"]) - 5


def load(golden: Golden, config: VIMPACConfig) -> Any:
    """Our model with the case's weights, through the converter, which must lose nothing.

    In float64 where the case's own numbers are: what float32 rounds away is then no matter of tolerance.
    """
    state = prefixed(golden, "state.")
    tied = {copied: state[source] for copied, source in golden.record.get("tied", {}).items()}
    model = load_official(state | tied, config)
    exported = official_state_dict(model)
    assert exported.keys() >= state.keys()
    assert all(torch.equal(exported[key], value) for key, value in state.items())
    return model.double() if "float64" in golden.record.get("source", "") else model


def official_gradients(model: VIMPACPreTrainedModel) -> dict[str, Tensor]:
    """Gradients under the official names: those of a model whose weights are the gradients."""
    gradients = copy.deepcopy(model)
    for own, parameter in zip(model.parameters(), gradients.parameters(), strict=True):
        parameter.data = torch.zeros_like(own) if own.grad is None else own.grad
    return official_state_dict(gradients)


def check_gradients(golden: Golden, model: VIMPACPreTrainedModel, norms: str) -> None:
    gradients = official_gradients(model)
    for key, _ in prefixed(golden, "output.grad.").items():
        close(golden, f"output.grad.{key}", gradients[key], gradient=True)
    names = golden.record["grad_norm_parameter_names"]
    close(golden, norms, torch.stack([gradients[name].norm() for name in names]), gradient=True)


def check_pretrain(golden: Golden) -> None:
    case = golden.record["config"]
    codes, seen, labels = (golden.input(name) for name in ("codes", "masked_codes", "labels"))
    grid = tuple(codes.shape[2:])
    config = make_config(
        case,
        grid,
        num_codes=num_codes(golden),
        projection_layers=case["nce_layers"],
        projection_hidden=case["nce_hid"],
        projection_dim=case["nce_out"],
        projection_final_norm=case["bn_after"],
    )
    model = load(golden, config)
    clips = codes.transpose(0, 1).flatten(0, 1)
    pad_code = config.pad_code or 0
    masks = torch.where(labels == IGNORED, NOT_MASKED, seen)
    for mine, theirs in zip(apply_mask(clips, masks, pad_code), (seen, labels), strict=True):
        assert torch.equal(mine, theirs)
    first_mask, second_mask = masks.chunk(2)
    batch = {
        "input_codes": codes[:, 0],
        "second_input_codes": codes[:, 1],
        "mask": first_mask,
        "second_mask": second_mask,
    }
    with torch.no_grad():
        _check_features(golden, model, clips, seen)
        _check_heads(golden, model, seen, labels, model(**batch))
    model.train()
    output = model(**batch)
    output.loss.backward()
    close(golden, "output.train.projection", output.video_embeds.flatten(0, 1))
    close(golden, "output.train.mlm_loss", output.loss_tokens)
    close(golden, "output.train.nce_loss", output.loss_contrastive)
    close(golden, "output.train.loss", output.loss)
    exported = official_state_dict(model)
    for key in prefixed(golden, "output.train.updated."):
        close(golden, f"output.train.updated.{key}", exported[key])
    check_gradients(golden, model, "output.train.grad_norm_per_parameter")
    total = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
    close(golden, "output.train.grad_norm_total", total, gradient=True)


def _check_features(golden: Golden, model: Any, clips: Tensor, seen: Tensor) -> None:
    backbone: VIMPACModel = model.vimpac
    features = backbone(input_codes=seen, output_hidden_states=True)
    grid = model.config.grid
    close(golden, "output.eval.cls", features.pooler_output)
    close(golden, "output.eval.hiddens", features.last_hidden_state.unflatten(1, grid))
    close(golden, "output.eval.cls_unmasked_input", backbone(input_codes=clips).pooler_output)
    close(golden, "output.eval.position_embedding", backbone.embeddings.positions())
    backbone.config.pooling = "mean"
    close(golden, "output.eval.pooling", backbone(input_codes=seen).pooler_output)
    backbone.config.pooling = "cls"
    embedded, after_block = features.hidden_states[:2]
    pad_code = model.config.pad_code
    padding = {axis: axis_padding(seen == pad_code, axis, model.dtype, False) for axis in range(3)}
    step = backbone.layers[0].steps[0]
    if step.pre_norm:
        after_step = step(embedded, step.norm, padding=padding)
    else:  # which leaves its norm to what follows
        after_step = step.norm(step(embedded, torch.nn.Identity(), padding=padding))
    for name, hidden in (("embed", embedded), ("block0_attn0", after_step), ("block0", after_block)):
        close(golden, f"output.eval.{name}_cls", hidden[:, 0])
        close(golden, f"output.eval.{name}_tokens", hidden[:, 1:].unflatten(1, grid))
    if not (clips == pad_code).any():
        plain = backbone(input_codes=seen, has_padding=False)
        close(golden, "output.eval.cls", plain.pooler_output)


def _check_heads(golden: Golden, model: Any, seen: Tensor, labels: Tensor, output: Any) -> None:
    logits = model.token_logits(seen)
    count = golden.record["config"]["nlog"]
    masked = (labels != IGNORED).flatten().nonzero().squeeze(1)
    close(golden, "output.eval.logits_first_masked", logits.flatten(0, 3)[masked[:count]])
    close(golden, "output.eval.logits_logsumexp", logits.logsumexp(-1))
    of_label = logits.gather(-1, labels.clamp_min(0)[..., None]).squeeze(-1)
    close(golden, "output.eval.logits_label", of_label)
    close(golden, "output.eval.projection", output.video_embeds.flatten(0, 1))
    close(golden, "output.eval.mlm_loss", output.loss_tokens)
    close(golden, "output.eval.nce_loss", output.loss_contrastive)
    close(golden, "output.eval.loss", output.loss)
    close(golden, "output.eval.mask_accuracy_percent", 100 * output.accuracy_tokens)
    close(golden, "output.eval.mask_ratio", output.mask_ratio)


class _StoredClips(PreparedClips):
    """Codes (videos, clips, frames, rows, columns), the clips of a video being its views in a test."""

    def __init__(self, codes: Tensor, labels: Tensor) -> None:
        super().__init__(None, range(len(codes)), views=f"{codes.shape[1]}x1")
        self.samples = [
            PreparedSample(own, int(label), str(row))
            for row, (own, label) in enumerate(zip(codes, labels, strict=True))
        ]

    def _prepare(self, row: int) -> PreparedSample:
        return self.samples[row]


def check_finetune(golden: Golden) -> None:
    case = golden.record["config"]
    before, after = case["pre_shape"], case["fine"]
    config = make_config(
        case, (before["L"], before["H"], before["W"]), num_codes=num_codes(golden), num_labels=case["classes"]
    )
    model = load(golden, config)
    model.resize_positions(after["L"], [8 * after["H"], 8 * after["W"]])
    exported = official_state_dict(model)
    for key in prefixed(golden, "output.interpolated."):
        close(golden, f"output.interpolated.{key}", exported[f"backbone.positional_embedding.{key}"])
    close(golden, "output.position_embedding", model.vimpac.embeddings.positions())
    codes, labels = golden.input("codes"), golden.input("labels")
    videos, clips = codes.shape[:2]
    with torch.no_grad():
        output = model(input_codes=codes.flatten(0, 1))
        hidden = model.vimpac(input_codes=codes[:, 0]).last_hidden_state
    logits = output.logits.unflatten(0, (videos, clips))
    close(golden, "output.cls", output.pooler_output)
    close(golden, "output.hiddens", hidden.unflatten(1, model.config.grid))
    close(golden, "output.logits", logits)
    averaged = extract_features(model, None, _StoredClips(codes, labels), space="probabilities").features
    close(golden, "output.probs_mean", averaged.to(logits.dtype))
    assert torch.equal(averaged.argmax(-1), golden.tensors["output.predictions"])
    of_clips = F.cross_entropy(logits.flatten(0, 1), labels.repeat_interleave(clips), reduction="none")
    close(golden, "output.eval_loss_per_video", of_clips.view(videos, clips).mean(1))
    model.train()
    loss = model(input_codes=codes[:, 0], labels=labels).loss
    loss.backward()
    close(golden, "output.train_loss", loss)
    for name in prefixed(golden, "output.train_loss_smooth"):
        model.config.label_smoothing = float(name)
        smooth = model(input_codes=codes[:, 0], labels=labels).loss
        close(golden, f"output.train_loss_smooth{name}", smooth)
    check_gradients(golden, model, "output.grad_norm_per_parameter")


def check_objective(golden: Golden) -> None:
    """Each part of the objective that the case has; at least one."""
    parts: dict[str, Callable[[Golden], None]] = {
        "output.mask.": _check_masks,
        "output.mask_ratio_mean_sd": _check_mask_statistics,
        "output.replace.": _check_other_masks,
        "output.nce.": _check_contrast,
        "output.nce_ranks.": _check_contrast_of_processes,
        "output.uniform_clips.": _check_clips,
        "output.knn.": _check_knn,
    }
    present = [check for prefix, check in parts.items() if prefixed(golden, prefix)]
    assert present
    for check in present:
        check(golden)


def _official_boxes(clips: int, grid: tuple[int, int, int], blocks: int) -> Tensor:
    """The official draws, `(clips, blocks, 6)`: the order of its calls of Python's random."""
    longest = [2 * grid[0] // 3, grid[1] // 2, grid[2] // 2]
    boxes = [[_official_box(grid, longest) for _ in range(blocks)] for _ in range(clips)]
    return torch.tensor(boxes)


def _official_box(grid: tuple[int, int, int], longest: list[int]) -> list[int]:
    lengths = [random.randint(1, length) for length in longest]
    starts = [random.randint(0, size - length) for size, length in zip(grid, lengths, strict=True)]
    return [edge for start, length in zip(starts, lengths, strict=True) for edge in (start, start + length)]


def _check_masks(golden: Golden) -> None:
    for name, (clips, frames, rows, columns, blocks, seed) in golden.record["config"]["masks"].items():
        grid = (frames, rows, columns)
        random.seed(seed)
        boxes = _official_boxes(clips, grid, blocks)
        assert torch.equal(boxes, golden.input(f"mask_boxes.{name}").long())
        covered = (cover(boxes, grid) != 0).to(torch.uint8)
        assert torch.equal(covered, golden.tensors[f"output.mask.{name}"])
        config = VIMPACConfig(num_frames=frames, image_size=[8 * rows, 8 * columns], mask_blocks=blocks)
        marginal = _drawn_masks(config, 20000).float().mean(0)
        expected = golden.tensors[f"output.mask_marginal_exact.{name}"]
        torch.testing.assert_close(marginal, expected, atol=0.02, rtol=0)


def _drawn_masks(config: VIMPACConfig, count: int) -> Tensor:
    """Whether a place is masked, `(count, frames, rows, columns)`, in portions that fit into memory."""
    generator = torch.Generator().manual_seed(0)
    portions = [1000] * (count // 1000)
    return torch.cat(
        [make_masks(config, draw_mask_numbers(config, size, generator)) != NOT_MASKED for size in portions]
    )


def _check_mask_statistics(golden: Golden) -> None:
    clips, frames, rows, columns, blocks, _ = golden.record["config"]["stat"]
    config = VIMPACConfig(num_frames=frames, image_size=[8 * rows, 8 * columns], mask_blocks=blocks)
    masks = _drawn_masks(config, clips)
    ratios = masks.flatten(1).float().mean(1)
    mean, deviation = golden.tensors["output.mask_ratio_mean_sd"]
    assert abs(ratios.mean() - mean) <= 0.002
    assert abs(ratios.std() - deviation) <= 0.002
    marks = torch.tensor([0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99])
    expected = golden.tensors["output.mask_ratio_quantiles"]
    torch.testing.assert_close(ratios.quantile(marks), expected, atol=0.006, rtol=0)
    marginal, expected = masks.float().mean(0), golden.tensors["output.mask_marginal_measured"]
    torch.testing.assert_close(marginal, expected, atol=0.02, rtol=0)


def _check_other_masks(golden: Golden) -> None:
    """The other strategies on the official draws."""
    case = golden.record["config"]
    clips, frames, rows, columns, blocks, seed = case["replace"]
    codes, grid = golden.input("replace.codes"), (frames, rows, columns)
    random.seed(seed)
    boxes = _official_boxes(clips, grid, blocks)
    plain = torch.where(cover(boxes, grid) != 0, MASK, NOT_MASKED)
    _check_applied(golden, "plain", codes, plain)

    random.seed(seed)
    torch.manual_seed(seed)
    longest = [2 * frames // 3, rows // 2, columns // 2]
    boxes, actions = torch.empty(clips, blocks, 6, dtype=torch.int64), torch.empty(clips, blocks)
    random_codes = torch.zeros(clips, *grid, dtype=torch.int64)
    for clip in range(clips):
        for block in range(blocks):
            box = _official_box(grid, longest)
            boxes[clip, block] = torch.tensor(box)
            actions[clip, block] = action = random.random()
            if 0.8 <= action < 0.9:
                inside = tuple(slice(box[2 * axis], box[2 * axis + 1]) for axis in range(3))
                place = random_codes[clip][inside]
                place.copy_(torch.randint(0, 8192, place.shape))
    _check_applied(golden, "replace", codes, replace_blocks(boxes, actions, random_codes, MASK))

    ratio = -case["iid"] / 1000
    config = VIMPACConfig(
        num_frames=frames, image_size=[8 * rows, 8 * columns], mask_strategy="iid", mask_ratio=ratio
    )
    torch.manual_seed(seed)
    _check_applied(golden, "iid", codes, make_masks(config, MaskDraws(places=torch.rand(codes.shape))))


def _check_applied(golden: Golden, name: str, codes: Tensor, masks: Tensor) -> None:
    seen, labels = apply_mask(codes, masks, PAD)
    assert torch.equal(seen, golden.tensors[f"output.{name}.masked_codes"]), name
    assert torch.equal(labels, golden.tensors[f"output.{name}.labels"]), name


def _check_contrast(golden: Golden) -> None:
    for suffix, temperature, normalize in (
        ("", 0.2, True),
        ("_t1", 1.0, True),
        ("_unnormalised", 1.0, False),
    ):
        if f"output.nce.loss{suffix}" not in golden.tensors:
            continue
        hidden = golden.input("nce.hidden").clone().requires_grad_()
        loss = two_clip_loss(*hidden.chunk(2), temperature, normalize).loss
        _close_to(loss, golden.tensors[f"output.nce.loss{suffix}"])
        if f"output.nce.grad{suffix}" in golden.tensors:
            loss.backward()
            _close_to(hidden.grad, golden.tensors[f"output.nce.grad{suffix}"])


def _close_to(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.detach(), expected, atol=1e-6, rtol=1e-6)


def _loss_of_rank(rank: int, path: str) -> dict[str, Tensor]:
    """Runs in a process of its own."""
    golden = _read(path)
    hidden = golden.input("nce_ranks.hidden")[rank].clone().requires_grad_()
    loss = two_clip_loss(*hidden.chunk(2), 0.2).loss
    loss.backward()
    return {"loss": loss.detach(), "grad": hidden.grad}


def _read(path: str) -> Golden:
    return next(case for case in find_goldens(Path(path).parent) if str(case.path) == path)


def _check_contrast_of_processes(golden: Golden) -> None:
    hidden = golden.input("nce_ranks.hidden")
    ranks = len(hidden)
    results = run_processes(_loss_of_rank, ranks, str(golden.path))
    losses = torch.stack([result["loss"] for result in results])
    if "output.nce_ranks.loss" in golden.tensors:
        _close_to(losses, golden.tensors["output.nce_ranks.loss"])
    _close_to(torch.stack([result["grad"] for result in results]), golden.tensors["output.nce_ranks.grad"])
    union = hidden.clone().requires_grad_()
    first, second = (clip.flatten(0, 1) for clip in union.chunk(2, dim=1))
    loss = two_clip_loss(first, second, 0.2).loss
    loss.backward()
    _close_to(loss, golden.tensors["output.nce_ranks.union_loss"])
    _close_to(losses.mean(), golden.tensors["output.nce_ranks.union_loss"])
    _close_to(ranks * union.grad, golden.tensors["output.nce_ranks.grad"])


def _check_clips(golden: Golden) -> None:
    case = golden.record["config"]
    for name, (frames, length, step, clips) in case["uniform"].items():
        found = torch.from_numpy(uniform_clips(frames, length, step, clips))
        assert torch.equal(found, golden.tensors[f"output.uniform_clips.{name}"]), name
    for name, (frames, length, step, clips, distance, seed) in case["random"].items():
        random.seed(seed)
        for expected in golden.tensors[f"output.random_clips.{name}"]:
            found = random_clips(frames, length, step, clips, random.randint, distance)
            assert torch.equal(torch.from_numpy(found), expected), name
    assert PADDING == -1


def _check_knn(golden: Golden) -> None:
    _, _, _, classes, k = golden.record["config"]["knn"]
    votes = knn_votes(
        golden.input("knn.bank"),
        golden.input("knn.bank_labels"),
        golden.input("knn.feature"),
        k=k,
        num_classes=classes,
        temperature=0.07,
    )
    ranked = votes.argsort(dim=-1, descending=True)
    assert torch.equal(ranked, golden.tensors["output.knn.ranked_classes"])


def dvae_state(shapes: dict[str, list[int]], case: dict[str, Any]) -> dict[str, Tensor]:
    """The tokeniser's weights, made by the rule that the case spells out (`seed_rule`)."""
    state = {}
    for index, (name, shape) in enumerate(sorted(shapes.items())):
        values = torch.randn(shape, generator=torch.Generator().manual_seed(case["seed"] + index))
        if name.endswith(".w"):
            values = 1.4 * values / math.sqrt(math.prod(shape[1:]))
            state[name] = values * case["res"] if name.endswith("conv_4.w") else values
        else:
            state[name] = 0.1 * values
    return state


def check_dvae_encoder(golden: Golden) -> None:
    case = golden.record["config"]
    shapes = {name: entry["shape"] for name, entry in golden.record["state"].items()}
    state = dvae_state(shapes, case)
    model = load_official_dvae(state)
    frames = golden.input("frames_uint8").permute(0, 3, 1, 2)
    pixels = model.map_pixels(frames.float() / 255)
    torch.testing.assert_close(pixels, golden.tensors["output.pixels"], atol=1e-6, rtol=0)
    with torch.no_grad():
        stages = model.encoder.stages(pixels)
        output = model(pixels[None])
    for name, x in zip(("input", "group_1", "group_2", "group_3", "group_4"), stages, strict=True):
        corner, mean = golden.tensors[f"output.corner.{name}"], golden.tensors[f"output.mean_abs.{name}"]
        torch.testing.assert_close(x[:, :4, :3, :3], corner, atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(x.abs().mean(), mean, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(output.logits[0], golden.tensors["output.logits"], atol=1e-3, rtol=1e-4)
    sure = golden.tensors["output.token_margin"] > 1e-3
    for codes in (output.codes[0], model.encode(frames), model.encode(pixels, chunk_size=1)):
        assert torch.equal(codes[sure], golden.tensors["output.tokens"][sure])


CHECKS: dict[str, Callable[[Golden], object]] = {
    "pretrain": check_pretrain,
    "finetune": check_finetune,
    "objective": check_objective,
    "dvae_encoder": check_dvae_encoder,
}
