"""Writes the golden cases of STiCA that this repository carries, from `reference_stica.py`.

    PYTHONPATH=tests python tests/parity/make_stica.py

Small networks with options that large recorded cases leave out. Numbers are those of the reference in
float64.
"""

from __future__ import annotations

import json
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from parity import reference_stica as reference
from parity.goldens import CARRIED, Golden
from videossl_hf.models.stica.configuration_stica import STiCAConfig
from videossl_hf.models.stica.conversion_stica import official_state_dict
from videossl_hf.models.stica.modeling_stica import STiCAForPreTraining, STiCAForVideoClassification

SOURCE = "tests/parity/reference_stica.py, float64"
SIZES = {
    "video_widths": [8, 12, 16, 24],
    "video_depths": [1, 2, 1, 1],
    "video_stem_width": 5,
    "audio_widths": [8, 8, 12, 16],
    "pooling_ffn": 32,
    "projection_hidden": 16,
    "projection_dim": 8,
}
PARTS = ("space_large", "space_small", "time_large", "time_small")


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def state_spec(model: torch.nn.Module) -> list[list[Any]]:
    """Sorted official keys with shapes; each BatchNorm has its counter."""
    shapes = {key: list(value.shape) for key, value in official_state_dict(model).items()}
    shapes |= {
        key.replace("running_mean", "num_batches_tracked"): [] for key in shapes if "running_mean" in key
    }
    return [[key, shapes[key], "float32" if shapes[key] else "int64"] for key in sorted(shapes)]


def save(
    case: str, kind: str, meta: dict[str, Any], inputs: dict, outputs: dict, spec: list | None = None
) -> None:
    folder = CARRIED / "stica"
    folder.mkdir(parents=True, exist_ok=True)
    record = {"method": "stica", "case": case, "kind": kind, "source": SOURCE, "meta": meta}
    if spec:
        record["state_spec"] = spec
    (folder / f"{case}.json").write_text(json.dumps(record) + "\n")
    tensors = {f"input.{name}": value.contiguous() for name, value in inputs.items()}
    for name, value in outputs.items():
        value = value.detach().clone().contiguous()
        keeps = name.startswith("float64.") or not value.is_floating_point()
        tensors[f"output.{name}"] = value if keeps else value.float()
    save_file(tensors, folder / f"{case}.safetensors")


def seeded(spec: list, meta: dict[str, Any]) -> dict[str, Tensor]:
    """The case's weights in float64, as leaves."""
    golden = Golden(CARRIED, {"meta": meta, "state_spec": spec})
    state = {
        key: value.double() if value.is_floating_point() else value
        for key, value in golden.official_state().items()
    }
    for key, value in state.items():
        if value.is_floating_point() and "running_" not in key:
            value.requires_grad_()
    return state


def videos(seed: int, *shape: int) -> Tensor:
    return torch.randint(256, shape, generator=generator(seed), dtype=torch.uint8)


def normalized(video: Tensor) -> Tensor:
    return (video.double() / 255 - 0.45) / 0.225


def boxes(seed: int, counts: dict[str, int], size: tuple[int, int, int]) -> dict[str, Tensor]:
    """Random boxes of any size within the map."""
    draws = generator(seed)
    result = {}
    for part in PARTS:
        lengths = size[1:] if part.startswith("space") else size[:1]
        rows = []
        for _ in range(counts[part]):
            row = []
            for length in lengths:
                start = int(torch.randint(length - 1, (), generator=draws))
                row += [start, int(torch.randint(start + 1, length + 1, (), generator=draws))]
            rows.append(row)
        result[part] = torch.tensor(rows, dtype=torch.int64).view(len(rows), 2 * len(lengths))
    return result


def make_eval(case: str, ctor: dict[str, Any], frames: int, tokens: int, **config: Any) -> None:
    meta = {"ctor": ctor, "seed_base": 500}
    spec = state_spec(STiCAForPreTraining(STiCAConfig(pooling_heads=ctor["num_head"], **SIZES, **config)))
    state = seeded(spec, meta)
    video, spectrogram = videos(1, 2, 3, frames, 40, 40), torch.randn(2, 1, 40, 50, generator=generator(2))
    with torch.no_grad():
        feature_map = reference.video_network(state, "video_network.base.", normalized(video), False)
        audio = reference.audio_network(state, "audio_network.base.", spectrogram.double(), False)
        crops = boxes(3, dict(zip(PARTS, (2, 3, 2, 2), strict=True)), tuple(feature_map.shape[2:]))

        def pool(part: Tensor) -> Tensor:
            return reference.pooling(state, "video_pooling.2.", part, tokens, ctor["num_head"])

        outputs = {
            "video_map": feature_map,
            "audio_feat": audio,
            "video_pooled": pool(feature_map),
            "video_embed": reference.head(state, "mlp_v", pool(feature_map), False),
            "audio_embed": reference.head(state, "mlp_a", audio, False),
        }
        for part, windows in crops.items():
            embeddings = [
                reference.head(state, "mlp_v", pool(reference.crop(feature_map, box)), False)
                for box in windows
            ]
            outputs[part] = torch.stack(embeddings)
    save(case, "eval", meta, {"video": video, "spec": spectrogram, **crops}, outputs, spec)


def make_train(case: str, counts: dict[str, int], alpha: float) -> None:
    ctor = {"num_head": 2, "num_sec": 1, "transformer_time_dim": 4, "norm_feat": True}
    short = dict(zip(("L", "S", "TL", "TS"), counts.values(), strict=True))
    meta = {
        "ctor": ctor,
        "seed_base": 700,
        "crops": short,
        "temp_within": 0.4,
        "temp_cross": 0.2,
        "alpha": alpha,
        "grad_keys": [
            "video_network.base.stem.0.weight",
            "video_network.base.layer2.1.conv2.0.3.weight",
            "audio_network.base.conv1.weight",
            "video_pooling.2.transformer.1.mha.q_lin.weight",
            "video_pooling.2.transformer.0.norm1.weight",
            "mlp_v.block_forward.4.weight",
            "mlp_a.block_forward.8.bias",
        ],
    }
    spec = state_spec(STiCAForPreTraining(STiCAConfig(pooling_heads=2, **SIZES)))
    state = seeded(spec, meta)
    inputs: dict[str, Tensor] = {"spec": torch.randn(3, 1, 40, 50, generator=generator(4))}
    embeddings: dict[str, Tensor] = {}
    # As in the official code, small crops are drawn and evaluated once for every large crop.
    drawn = counts | {"space_small": counts["space_large"] * counts["space_small"]}
    drawn["time_small"] = counts["time_large"] * counts["time_small"]
    for view in (0, 1):
        inputs[f"video{view}"] = videos(10 + view, 3, 3, 9, 40, 40)
        feature_map = reference.video_network(
            state, "video_network.base.", normalized(inputs[f"video{view}"]), True
        )
        crops = boxes(20 + view, drawn, tuple(feature_map.shape[2:]))
        inputs |= {f"view{view}.{part}": windows for part, windows in crops.items()}

        def embed(part: Tensor) -> Tensor:
            return reference.head(
                state, "mlp_v", reference.pooling(state, "video_pooling.2.", part, 4, 2), True
            )

        for axis in ("space", "time"):
            large, small = [], []
            for box in crops[f"{axis}_large"]:
                large.append(embed(reference.crop(feature_map, box)))
                small = [embed(reference.crop(feature_map, box)) for box in crops[f"{axis}_small"]]
            embeddings[f"view{view}.{axis}_large"] = torch.stack(large) if large else torch.empty(0)
            embeddings[f"view{view}.{axis}_small"] = torch.stack(small) if small else torch.empty(0)
        embeddings[f"video{view}"] = embed(feature_map)
        sound = reference.audio_network(state, "audio_network.base.", inputs["spec"].double(), True)
        embeddings[f"audio{view}"] = reference.head(state, "mlp_a", sound, True)
    losses = reference.objective([embeddings], 0, counts, alpha, meta["temp_cross"], meta["temp_within"])
    losses["loss"].backward()
    outputs = dict(losses)
    outputs |= {
        f"{kind}_embed{view}": embeddings[f"{kind}{view}"] for kind in ("video", "audio") for view in (0, 1)
    }
    outputs |= {f"grad.{key}": state[key].grad for key in meta["grad_keys"]}
    exact = ("loss", "loss_crops", "loss_av", *(name for name in outputs if name.startswith("grad.")))
    outputs |= {f"float64.{name}": outputs[name] for name in exact}
    for module in ("video_network.base.stem.1", "audio_network.base.bn1", "mlp_v.block_forward.4"):
        for leaf in ("running_mean", "running_var"):
            outputs[f"buffer_after.{module}.{leaf}"] = state[f"{module}.{leaf}"]
    save(case, "train", meta, inputs, outputs, spec)


def make_gdt(case: str) -> None:
    meta = {
        "seed_base": 900,
        "nce_t": 0.1,
        "grad_keys": [
            "video_network.base.stem.0.weight",
            "mlp_v.block_forward.2.weight",
            "audio_network.base.conv1.weight",
        ],
    }
    spec = state_spec(STiCAForPreTraining(STiCAConfig.gdt(**SIZES)))
    state = seeded(spec, meta)
    video, spectrogram = videos(5, 2, 3, 9, 40, 40), torch.randn(2, 1, 40, 50, generator=generator(6))
    features = reference.video_network(state, "video_network.base.", normalized(video), False).mean((2, 3, 4))
    audio = reference.audio_network(state, "audio_network.base.", spectrogram.double(), False)
    video_embed = reference.head(state, "mlp_v", features, False)
    audio_embed = reference.head(state, "mlp_a", audio, False)
    loss = 0.5 * (reference.ell(video_embed, audio_embed, 0.1) + reference.ell(audio_embed, video_embed, 0.1))
    loss.backward()
    outputs = {
        "video_feat": features,
        "audio_feat": audio,
        "video_embed": video_embed,
        "audio_embed": audio_embed,
        "loss": loss,
        **{f"grad.{key}": state[key].grad for key in meta["grad_keys"]},
    }
    outputs |= {
        f"float64.{name}": outputs[name] for name in list(outputs) if "loss" in name or "grad" in name
    }
    save(case, "gdt", meta, {"video": video, "spec": spectrogram}, outputs, spec)


def make_finetune(case: str) -> None:
    ctor = {"num_head": 4, "num_sec": 2, "transformer_time_dim": 8, "norm_feat": True}
    meta = {
        "ctor": ctor,
        "seed_base": 1100,
        "num_classes": 6,
        "grad_keys": [
            "classifier.weight",
            "base.layer1.0.conv1.0.1.weight",
            "pooling_arch.2.transformer.0.mha.q_lin.weight",
        ],
    }
    model = STiCAForVideoClassification(STiCAConfig(pooling_heads=4, num_labels=6, **SIZES))
    spec = state_spec(model)
    state = seeded(spec, meta)
    video, labels = videos(7, 2, 3, 9, 40, 40), torch.tensor([5, 2])
    feature_map = reference.video_network(state, "base.", normalized(video), False)
    pooled = reference.pooling(state, "pooling_arch.2.", feature_map, 8, 4)
    logits = reference.linear(state, "classifier", pooled)
    loss = F.cross_entropy(logits, labels)
    loss.backward()
    outputs = {"pooled": pooled, "logits": logits, "ce_loss": loss}
    outputs |= {f"grad.{key}": state[key].grad for key in meta["grad_keys"]}
    outputs |= {f"float64.{name}": value for name, value in list(outputs.items())}
    save(case, "finetune", meta, {"video": video, "labels": labels}, outputs, spec)


def make_nce(case: str, world: int, counts: dict[str, int], alpha: float) -> None:
    short = dict(zip(("L", "S", "TL", "TS"), counts.values(), strict=True))
    meta = {
        "world_size": world,
        "crops": short,
        "temp_within": 0.3,
        "temp_cross": 0.15,
        "alpha": alpha,
        "nce_t": 0.09,
    }
    draws = generator(8)
    inputs = {}
    for rank in range(world):
        for name in ("video0", "audio0", "video1", "audio1"):
            inputs[f"rank{rank}.{name}"] = F.normalize(torch.randn(3, 12, generator=draws), dim=-1)
        for view in (0, 1):
            for part in PARTS:
                shape = (counts[part], 3, 12)
                inputs[f"rank{rank}.view{view}.{part}"] = F.normalize(
                    torch.randn(shape, generator=draws), dim=-1
                )
    outputs = {}
    for rank in range(world):
        ranks = [
            {
                name.removeprefix(f"rank{other}."): value.double().requires_grad_()
                for name, value in inputs.items()
                if name.startswith(f"rank{other}.")
            }
            for other in range(world)
        ]
        losses = reference.objective(ranks, rank, counts, alpha, meta["temp_cross"], meta["temp_within"])
        losses["loss"].backward()
        outputs |= {f"rank{rank}.{name}": value for name, value in losses.items()}
        for name, leaf in ranks[rank].items():
            outputs[f"rank{rank}.grad.{name}"] = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
    save(case, "nce", meta, inputs, outputs)


def main() -> None:
    plain = {"num_layer": 2, "num_head": 2, "num_sec": 1, "transformer_time_dim": 4, "norm_feat": True}
    make_eval("eval_average", plain | {"num_layer": 0}, 9, 1, pooling_layers=0)
    full = plain | {"num_layer": 3, "num_head": 3, "num_sec": 2, "positional_emb": True, "qkv_mha": True}
    make_eval(
        "eval_full_attention", full, 9, 8, pooling_layers=3, pooling_full_qkv=True, pooling_position=True
    )
    make_train("train_two_large", dict(zip(PARTS, (2, 3, 2, 2), strict=True)), 0.3)
    make_train("train_space_alone", dict(zip(PARTS, (1, 2, 0, 0), strict=True)), 0.5)
    make_gdt("gdt")
    make_finetune("finetune")
    make_nce("nce_three_processes", 3, dict(zip(PARTS, (2, 3, 1, 2), strict=True)), 0.25)
    make_nce("nce_time_alone", 2, dict(zip(PARTS, (0, 0, 2, 1), strict=True)), 0.6)


if __name__ == "__main__":
    main()
