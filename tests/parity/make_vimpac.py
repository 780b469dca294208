"""Writes the golden cases of VIMPAC that this repository carries, from `reference_vimpac.py`.

    PYTHONPATH=tests python tests/parity/make_vimpac.py

Small vocabularies and options that the large recorded cases leave out: pre-norm, other layouts and positions,
three-layer heads with a last batch norm. Numbers are those of the reference in float64.
"""

from __future__ import annotations

import json
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from parity import reference_vimpac as reference
from parity.goldens import CARRIED
from parity.vimpac import dvae_state, make_config
from videossl_hf.models.vimpac.configuration_dvae import DVAEConfig
from videossl_hf.models.vimpac.conversion_dvae import dvae_key_table
from videossl_hf.models.vimpac.conversion_vimpac import official_state_dict
from videossl_hf.models.vimpac.masking_vimpac import apply_mask, draw_mask_numbers, make_masks
from videossl_hf.models.vimpac.modeling_dvae import DVAEModel
from videossl_hf.models.vimpac.modeling_vimpac import VIMPACForPreTraining, VIMPACForVideoClassification

SOURCE = "tests/parity/reference_vimpac.py, float64"
TIED = {"mlm_head.decoder.weight": "backbone.embedding.weight", "mlm_head.decoder.bias": "mlm_head.bias"}
CODES = 20
HEAD = {"nce_layers": 2, "nce_hid": 10, "nce_out": 6, "bn_after": False}
SIZES = {"hid": 12, "layers": 2, "heads": 6, "halve_mlp": False, "halve_att": False, "pre": False}
PRETRAINING = {
    "pretrain_three_steps": {"layout": "T,H,W", "pos": "default", "pad_from": 2},
    "pretrain_pre_norm": {"layout": "T,H|W", "pos": "temporal_separation", "pre": True, "halve_mlp": True},
    "pretrain_side_by_side": {
        "layout": "T|H|W",
        "pos": "hw_separation",
        "halve_att": True,
        "nce_layers": 3,
        "bn_after": True,
        "pad_from": 3,
    },
}


def save(case: str, kind: str, config: dict[str, Any], tensors: dict[str, Tensor], **record: Any) -> None:
    folder = CARRIED / "vimpac"
    folder.mkdir(parents=True, exist_ok=True)
    head = {"method": "vimpac", "case": case, "kind": kind, "source": SOURCE, "config": config}
    (folder / f"{case}.json").write_text(json.dumps(head | record) + "\n")
    kept = {
        name: (value.float() if value.is_floating_point() else value).detach().clone().contiguous()
        for name, value in tensors.items()
    }
    save_file(kept, folder / f"{case}.safetensors")


def random_state(model: torch.nn.Module, seed: int) -> dict[str, Tensor]:
    """Weights far from their start, so that nothing hides; as leaves in float64."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, value in official_state_dict(model).items():
        if key in TIED or key.endswith("num_batches_tracked"):
            continue
        noise = torch.randn(value.shape, generator=generator)
        one = key.endswith(
            (".ln.weight", "LayerNorm.weight", "ln_pre.weight", "ln_post.weight", "running_var")
        )
        one = one or ("bn_" in key and key.endswith(".weight")) or key == "mlm_head.transform.2.weight"
        values = 1 + 0.1 * noise if one else 0.25 * noise
        values = values.abs() if key.endswith("running_var") else values
        state[key] = values.float().double()
        if "running_" not in key:
            state[key].requires_grad_()
    return state


def clips(videos: int, grid: tuple[int, int, int], seed: int, pad_from: int | None) -> Tensor:
    """(videos, 2, frames, rows, columns); the last video is padded."""
    codes = torch.randint(CODES, (videos, 2, *grid), generator=torch.Generator().manual_seed(seed))
    if pad_from is not None:
        codes[-1, :, pad_from:] = CODES + 1
    return codes


def write_pretraining(name: str, options: dict[str, Any]) -> None:
    case: dict[str, Any] = SIZES | HEAD | {"pad_from": None, "nlog": 5, "videos": 3} | options
    grid = (4, 2, 3)
    config = make_config(
        case,
        grid,
        num_codes=CODES,
        projection_layers=case["nce_layers"],
        projection_hidden=case["nce_hid"],
        projection_dim=case["nce_out"],
        projection_final_norm=case["bn_after"],
    )
    state = random_state(VIMPACForPreTraining(config), seed=1)
    saved = {f"state.{key}": value.detach().clone() for key, value in state.items()}
    codes = clips(case["videos"], grid, 2, case["pad_from"])
    ordered = codes.transpose(0, 1).flatten(0, 1)
    masks = make_masks(config, draw_mask_numbers(config, len(ordered), torch.Generator().manual_seed(3)))
    pad_code = CODES + 1
    seen, labels = apply_mask(ordered, masks, pad_code)
    outputs = reference.backbone(state, case, seen, pad_code)
    logits = reference.token_logits(state, outputs["hiddens"])
    masked = labels != -100
    token_loss = F.cross_entropy(logits[masked], labels[masked])
    expected: dict[str, Tensor] = {f"eval.{key}": value for key, value in outputs.items()}
    expected["eval.cls_unmasked_input"] = reference.backbone(state, case, ordered, pad_code)["cls"]
    expected["eval.logits_first_masked"] = logits[masked][: case["nlog"]]
    expected["eval.logits_logsumexp"] = logits.logsumexp(-1)
    expected["eval.logits_label"] = logits.gather(-1, labels.clamp_min(0)[..., None])[..., 0]
    expected["eval.mask_accuracy_percent"] = (
        100 * (logits[masked].argmax(-1) == labels[masked]).double().mean()
    )
    expected["eval.mask_ratio"] = masked.double().mean()
    for mode in ("eval", "train"):
        embeds = reference.projection(state, case, outputs["cls"], mode == "train")
        contrast = reference.contrastive_loss(embeds)
        loss = token_loss + contrast
        expected |= {
            f"{mode}.projection": embeds,
            f"{mode}.mlm_loss": token_loss,
            f"{mode}.nce_loss": contrast,
            f"{mode}.loss": loss,
        }
    expected |= {f"train.updated.{key}": value for key, value in state.items() if "running_" in key}
    loss.backward()
    names = sorted(key for key, value in state.items() if value.requires_grad)
    norms = torch.stack([state[key].grad.norm() for key in names])
    expected |= {"train.grad_norm_per_parameter": norms, "train.grad_norm_total": norms.norm()}
    keys = [key for key in names if key.endswith(("query.weight", "cls_param", "mlp.c_fc.weight"))][:4]
    expected |= {f"grad.{key}": state[key].grad for key in keys}
    inputs = {"input.codes": codes, "input.masked_codes": seen, "input.labels": labels}
    tensors = saved | inputs | {f"output.{key}": value for key, value in expected.items()}
    save(name, "pretrain", case, tensors, grad_norm_parameter_names=names, tied=TIED)


def write_finetuning() -> None:
    case: dict[str, Any] = SIZES | {
        "layout": "T,H|W",
        "pos": "hw_separation",
        "halve_mlp": True,
        "halve_att": True,
        "classes": 4,
        "pre_shape": {"L": 2, "H": 2, "W": 3},
        "fine": {"L": 5, "H": 3, "W": 4},
    }
    config = make_config(case, (2, 2, 3), num_codes=CODES, num_labels=case["classes"])
    state = random_state(VIMPACForVideoClassification(config), seed=4)
    saved = {f"state.{key}": value.detach().clone() for key, value in state.items()}
    fine = {"temporal": 5, "height": 3, "width": 4}
    prefix, expected = "backbone.positional_embedding.", {}
    for axis, size in fine.items():
        table = state[f"{prefix}{axis}_pos_embedding"].detach()
        resized = F.interpolate(table.T[None], size, mode="linear", align_corners=False)[0].T.clone()
        expected[f"interpolated.{axis}_pos_embedding"] = resized
        state[f"{prefix}{axis}_pos_embedding"] = resized.requires_grad_()
    codes, labels = clips(2, (5, 3, 4), 5, pad_from=3), torch.tensor([1, 3])
    pad_code = CODES + 1
    outputs = reference.backbone(state, case, codes.flatten(0, 1), pad_code)
    logits = reference.linear(state, "cls_fc", outputs["cls"]).unflatten(0, (2, 2))
    loss = F.cross_entropy(logits[:, 0], labels)
    of_clips = F.cross_entropy(logits.flatten(0, 1), labels.repeat_interleave(2), reduction="none")
    expected |= {
        "cls": outputs["cls"],
        "hiddens": outputs["hiddens"].unflatten(0, (2, 2))[:, 0],
        "position_embedding": outputs["position_embedding"],
        "logits": logits,
        "probs_mean": logits.softmax(-1).mean(1),
        "predictions": logits.softmax(-1).mean(1).argmax(-1),
        "eval_loss_per_video": of_clips.view(2, 2).mean(1),
        "train_loss": loss,
        "train_loss_smooth0.2": F.cross_entropy(logits[:, 0], labels, label_smoothing=0.2),
    }
    loss.backward()
    names = sorted(state)
    expected["grad_norm_per_parameter"] = torch.stack([state[key].grad.norm() for key in names])
    key = f"{prefix}temporal_pos_embedding"
    expected |= {f"grad.{key}": state[key].grad, "grad.cls_fc.weight": state["cls_fc.weight"].grad}
    tensors = saved | {"input.codes": codes, "input.labels": labels}
    tensors |= {f"output.{name}": value for name, value in expected.items()}
    save("finetune_other_size", "finetune", case, tensors, grad_norm_parameter_names=names)


def write_contrast() -> None:
    """The contrastive loss alone, of three processes; the recorded case has the masks and clips."""
    hidden = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    single = hidden[0].clone().requires_grad_()
    loss = reference.contrastive_loss(single)
    loss.backward()
    ranks = hidden.clone().requires_grad_()
    union = reference.contrastive_loss(torch.cat([*ranks[:, :2], *ranks[:, 2:]]))
    (3 * union).backward()
    tensors = {
        "input.nce.hidden": hidden[0],
        "output.nce.loss": loss,
        "output.nce.grad": single.grad,
        "input.nce_ranks.hidden": hidden,
        "output.nce_ranks.union_loss": union,
        "output.nce_ranks.grad": ranks.grad,
    }
    save("objective_three_processes", "objective", {}, tensors)


def write_tokeniser() -> None:
    config = DVAEConfig(hidden_size=8, vocab_size=12, num_blocks_per_group=1, use_decoder=False)
    model = DVAEModel(config)
    own = model.state_dict()
    shapes = {key: list(own[ours].shape) for key, ours in dvae_key_table(config, "encoder").items()}
    frames = torch.randint(256, (2, 16, 24, 3), generator=torch.Generator().manual_seed(7))
    case = {"kwargs": {"n_hid": 8, "vocab_size": 12, "n_blk_per_group": 1}, "seed": 50, "res": 4.0}
    state = {key: value.double() for key, value in dvae_state(shapes, case).items()}
    x = pixels = 0.8 * frames.permute(0, 3, 1, 2).double() / 255 + 0.1
    stages = {}

    def conv(key: str, y: Tensor) -> Tensor:
        weight = state[f"{key}.w"]
        return F.conv2d(y, weight, state[f"{key}.b"], padding=(weight.shape[-1] - 1) // 2)

    x = stages["input"] = conv("blocks.input", x)
    for group in range(1, 5):
        key = f"blocks.group_{group}.block_1"
        residual = x
        for number in range(1, 5):
            residual = conv(f"{key}.res_path.conv_{number}", residual.relu())
        x = (conv(f"{key}.id_path", x) if f"{key}.id_path.w" in state else x) + residual / 16
        x = stages[f"group_{group}"] = F.max_pool2d(x, 2) if group < 4 else x
    logits = conv("blocks.output.conv", x.relu())
    best = logits.topk(2, dim=1).values
    tensors = {
        "input.frames_uint8": frames.to(torch.uint8),
        "output.pixels": pixels,
        "output.logits": logits,
        "output.tokens": logits.argmax(1),
        "output.token_margin": best[:, 0] - best[:, 1],
    }
    for name, value in stages.items():
        tensors |= {
            f"output.corner.{name}": value[:, :4, :3, :3],
            f"output.mean_abs.{name}": value.abs().mean(),
        }
    save("dvae_one_block", "dvae_encoder", case, tensors, state={k: {"shape": v} for k, v in shapes.items()})


if __name__ == "__main__":
    for name, options in PRETRAINING.items():
        write_pretraining(name, options)
    write_finetuning()
    write_contrast()
    write_tokeniser()
