"""Makes the carried case of ILA from the plain reference: python tests/parity/make_ila.py

Dense block, three frames, a 5 x 5 grid: sizes that no recorded run of the official code has.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from parity.ila import seeded_tensor
from parity.reference_ila import align, mask_at

FOLDER = Path(__file__).parent / "data" / "ila"
FRAMES, SIDE, HIDDEN, INNER, BASE = 3, 5, 16, 16, 7000
GRADIENTS = (
    "interactive_block.0.weight",
    "interactive_block.4.weight",
    "prediction_block.10.weight",
    "prediction_block.12.weight",
    "conv.weight",
    "fc.weight",
)
BUFFERS = ("interactive_block.1.running_mean", "prediction_block.5.running_var")


def shapes() -> dict[str, list[int]]:
    half = INNER // 2
    weights = {
        "interactive_block.0": [INNER, 2 * HIDDEN, 3, 3],
        "interactive_block.3": [INNER, INNER, 3, 3],
        "prediction_block.0": [half, INNER, 3, 3],
        "prediction_block.4": [half, half, 3, 3],
        "prediction_block.10": [half // 2, half // 2, 1],
        "prediction_block.12": [4, half // 4, 1],
        "conv": [half, half, 3, 1, 1],
        "fc": [HIDDEN, half],
    }
    found: dict[str, list[int]] = {}
    for name, shape in weights.items():
        found |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    norms = {"interactive_block.1": INNER, "interactive_block.4": INNER}
    norms |= {"prediction_block.1": half, "prediction_block.5": half}
    for name, width in norms.items():
        leaves = ("weight", "bias", "running_mean", "running_var")
        found |= {f"{name}.{leaf}": [width] for leaf in leaves} | {f"{name}.num_batches_tracked": []}
    return found


def main() -> None:
    state = {
        key: seeded_tensor(key, shape, torch.Generator().manual_seed(BASE + index))
        for index, (key, shape) in enumerate(sorted(shapes().items()))
    }
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    tokens = normal(2, FRAMES, 1 + SIDE * SIDE, HIDDEN)
    inputs = {
        "pre": tokens[:, :-1],
        "cur": tokens[:, 1:],
        "cls_token": tokens[None, :, :, 0],
        "mask_points": 1.5 * torch.rand(2, 3, 2, generator=generator) - 0.75,
        "w_frame": normal(*tokens.shape),
        "w_feat": normal(1 + SIDE * SIDE, 2 * FRAMES, HIDDEN),
    }
    outputs: dict[str, Tensor] = {}
    with torch.no_grad():
        for name, shift in (("nodist", 0.0), ("dist", 0.2), ("dist_decayed_once", 0.1)):
            found = align(tokens, state, shift, training=False)
            outputs |= {f"{name}.{key}": found[key] for key in ("pair", "aligned_frame", "cos_loss")}
        outputs |= {key: found[key] for key in ("points", "interactive_feature")}
        masks = [mask_at(point, SIDE) for point in inputs["mask_points"].flatten(0, 1)]
        outputs[f"mask.{SIDE}"] = torch.stack(masks).unflatten(0, (2, 3))
    trained = {
        key: value.clone().requires_grad_("running" not in key and value.ndim > 0)
        for key, value in state.items()
    }
    found = align(tokens, trained, 0.2, training=True)
    loss = (
        found["cos_loss"]
        + (found["aligned_frame"] * inputs["w_frame"]).sum()
        + (found["interactive_feature"] * inputs["w_feat"]).sum()
    )
    loss.backward()
    outputs |= {f"train.{key}": found[key] for key in ("pair", "interactive_feature", "cos_loss")}
    outputs |= {"train.loss": loss} | {f"grad.{key}": trained[key].grad for key in GRADIENTS}
    outputs |= {f"train.after.{key}": trained[key] for key in BUFFERS}
    tensors = {f"input.{name}": value for name, value in inputs.items()}
    tensors |= {f"output.{name}": value.detach() for name, value in outputs.items()}
    record = {
        "method": "ila",
        "kind": "aligner",
        "made_by": "tests/parity/make_ila.py",
        "constructor_arguments": {
            "T": FRAMES,
            "d_model": HIDDEN,
            "patch_size": 8,
            "input_resolution": 8 * SIDE,
        },
        "seed_rule": {"base": BASE},
        "state_keys": {
            key: [list(value.shape), str(value.dtype), value.double().sum().item()]
            for key, value in state.items()
        },
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "aligner_dense.json").write_text(json.dumps(record, indent=1) + "\n")
    save_file(
        {name: value.contiguous() for name, value in tensors.items()}, FOLDER / "aligner_dense.safetensors"
    )


if __name__ == "__main__":
    main()
