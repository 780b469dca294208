"""Writes the golden cases of VideoMoCo that this repository carries, from `reference_videomoco.py`.

    PYTHONPATH=tests python tests/parity/make_videomoco.py

Small cases with options that large recorded ones leave out: a batch that straddles the queue's end, keys
whose decay follows the generator's loss over several steps, three processes, frozen statistics, mixed
convolutions. Numbers are those of the reference in float64.
"""

from __future__ import annotations

import json
import math
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from parity import reference_videomoco as reference
from parity.goldens import CARRIED
from parity.videomoco import DROPPED, TinyBackbone, rank_gap, seeded_state
from videossl_hf.models.videomoco.configuration_videomoco import VideoMoCoConfig
from videossl_hf.models.videomoco.conversion_videomoco import generator_table, official_state_dict
from videossl_hf.models.videomoco.generator_videomoco import VideoMoCoGenerator
from videossl_hf.models.videomoco.modeling_videomoco import VideoMoCoForVideoClassification

SOURCE = "tests/parity/reference_videomoco.py, float64"
TOLERANCE = "rtol 1e-4 / atol 1e-5; gradients 1e-3*absmax; integers exact"


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator(seed))


def save(case: str, kind: str, args: dict[str, Any], inputs: dict, outputs: dict, **more: Any) -> None:
    folder = CARRIED / "videomoco"
    folder.mkdir(parents=True, exist_ok=True)
    record = {"method": "videomoco", "case": case, "kind": kind, "source": SOURCE, "args": args}
    record |= {"tolerance": TOLERANCE} | more
    (folder / f"{case}.json").write_text(json.dumps(record) + "\n")
    tensors = {f"input.{name}": value for name, value in inputs.items()}
    tensors |= {f"output.{name}": value for name, value in outputs.items()}
    tensors = {
        name: (value.float() if value.is_floating_point() else value).detach().clone().contiguous()
        for name, value in tensors.items()
    }
    save_file(tensors, folder / f"{case}.safetensors")


def shapes_of(state: dict[str, Tensor]) -> dict[str, Any]:
    return {key: [list(value.shape), str(value.dtype).removeprefix("torch.")] for key, value in state.items()}


def double(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As leaves of float64."""
    state = {
        key: value.double() if value.is_floating_point() else value.clone() for key, value in state.items()
    }
    for key, value in state.items():
        if value.is_floating_point() and "running_" not in key and key != "queue":
            value.requires_grad_(not key.startswith("encoder_k."))
    return state


def encoder_shapes(args: dict[str, Any]) -> dict[str, Any]:
    shapes = shapes_of(TinyBackbone().state_dict())
    hidden, dim = 16, args["dim"]
    layers = {"fc.0": (hidden, hidden), "fc.2": (dim, hidden)} if args["mlp"] else {"fc": (dim, hidden)}
    for name, (rows, columns) in layers.items():
        shapes |= {f"{name}.weight": [[rows, columns], "float32"], f"{name}.bias": [[rows], "float32"]}
    both = {f"{side}.{key}": value for side in ("encoder_q", "encoder_k") for key, value in shapes.items()}
    return both | {"queue": [[dim, args["K"]], "float32"], "queue_ptr": [[1], "int64"]}


def make_moco(case: str, kind: str, world: int, batch: int, **args: Any) -> None:
    """Forward passes without a step of the optimiser, by one process or by several."""
    args |= {"base": "tiny", "seed_base": 700, "batch_per_process": batch}
    shapes = encoder_shapes(args)
    states = [double(seeded_state(shapes, args["seed_base"], args["queue_ptr"])) for _ in range(world)]
    ages = torch.randint(5, (args["K"],), generator=generator(1))
    queue = reference.Queue(states[0], ages.clone(), args)
    inputs, outputs = {"count": ages.to(torch.int16)}, {}
    for step in range(args["n_steps"]):
        clips = {
            f"{name}.{step}": normal(10 * step + index, world * batch, 3, 2, 6, 6)
            for index, name in enumerate(("im_q_fake", "im_q", "im_k"))
        }
        order = torch.randperm(world * batch, generator=generator(50 + step))
        results = queue.forward(
            states, *(value.double() for value in clips.values()), decay=args["t"], order=order
        )
        inputs |= clips | {f"idx_shuffle.{step}": order}
        for rank in range(world):
            prefix = f"rank{rank}." if kind == "moco_two_process" else ""
            outputs |= {f"{prefix}{name}.{step}": values[rank] for name, values in results.items()}
        outputs |= queue.outputs(step)
    last = results["loss_d"]
    if kind == "moco":
        args["grad_keys"] = ["encoder_q.conv1.weight", "encoder_q.fc.0.weight", "encoder_q.bn2.bias"]
        args["after_keys"] = [
            "encoder_k.conv2.weight",
            "encoder_k.bn1.running_var",
            "encoder_q.bn2.running_mean",
        ]
        last[0].backward()
        outputs |= {f"grad.{key}": states[0][key].grad for key in args["grad_keys"]}
        outputs |= {f"after.{key}": states[0][key] for key in args["after_keys"]}
    else:
        key = "encoder_k.bn2.running_mean"
        outputs |= {f"rank{rank}.after.{key}": state[key] for rank, state in enumerate(states)}
    save(case, kind, args, inputs, outputs, state_shapes=shapes)


def make_step(case: str, **args: Any) -> None:
    """Whole iterations of both players, with the official two backward passes and two optimisers."""
    args |= {"base": "tiny", "repeat": 2, "seed_base": 900, "queue_ptr": 3}
    config = VideoMoCoConfig(num_frames=12, image_size=12, generator_hidden=8)
    table = generator_table("mask_generator.", "")
    own = VideoMoCoGenerator(config).state_dict()
    shapes = {
        "netG": shapes_of({key: own[our] for key, our in table.items()}),
        "netD": encoder_shapes(args),
    }
    nets = {net: seeded_state(own, args["seed_base"], args["queue_ptr"]) for net, own in shapes.items()}
    outputs: dict[str, Tensor] = {}
    players = {net: double(state) for net, state in nets.items()}
    optimizers = {
        net: torch.optim.SGD(
            [value for value in state.values() if value.requires_grad],
            args["lr"],
            momentum=args["momentum"],
            weight_decay=args["weight_decay"],
        )
        for net, state in players.items()
    }
    queue = reference.Queue(players["netD"], torch.zeros(args["K"], dtype=torch.int64), args)
    inputs, decay = {}, 1.0
    for step in range(args["n_steps"]):
        small = [normal(200 + 10 * step + view, 2, 3, 12, 6, 6) for view in (0, 1)]
        inputs |= {f"video_{name}_small.{step}": view for name, view in zip("qk", small, strict=True)}
        inputs[f"idx_shuffle.{step}"] = torch.arange(2)
        views = [view.double().repeat_interleave(2, 3).repeat_interleave(2, 4) for view in small]
        scores = reference.score(players["netG"], views[0], True)["scores"]
        fake, chosen = reference.drop(views[0], scores, DROPPED)
        results = queue.forward([players["netD"]], fake, *views, decay, inputs[f"idx_shuffle.{step}"])
        loss_g, loss_d = results["loss_g"][0], results["loss_d"][0]
        trained = {
            net: {key: value for key, value in state.items() if value.requires_grad}
            for net, state in players.items()
        }
        alone = torch.autograd.grad(loss_g, list(trained["netG"].values()), retain_graph=True)
        for net, state in trained.items():
            gradients = torch.autograd.grad(loss_d, list(state.values()), retain_graph=True)
            for index, (key, value) in enumerate(state.items()):
                value.grad = gradients[index] + (alone[index] if net == "netG" else 0)
                if key in args[f"grad_keys_{net[-1]}"]:
                    outputs[f"grad.{net}.{key}.{step}"] = value.grad.clone()
                    if net == "netG":
                        outputs[f"grad_after_loss_g.{net}.{key}.{step}"] = alone[index]
        for optimizer in optimizers.values():
            optimizer.step()
        outputs |= {f"{name}.{step}": values[0] for name, values in results.items()}
        outputs |= {f"scores.{step}": scores, f"rank8_gap.{step}": rank_gap(scores)}
        outputs[f"dropped_sorted.{step}"] = chosen
        outputs[f"decay_used.{step}"] = torch.tensor(decay, dtype=torch.float64)
        outputs |= queue.outputs(step)
        decay = math.exp(float(loss_g.detach()))
    for net, keys in (("netG", args["grad_keys_G"]), ("netD", args["grad_keys_D"])):
        outputs |= {f"after.{net}.{key}": players[net][key] for key in keys}
    save(case, "step", args, inputs, outputs, state_shapes=shapes)


def make_generator(case: str) -> None:
    config = VideoMoCoConfig(num_frames=10, image_size=20, generator_hidden=8)
    table, own = generator_table("mask_generator.", ""), VideoMoCoGenerator(config).state_dict()
    shapes = shapes_of({key: own[our] for key, our in table.items()})
    args = {"seed_base": 300, "repeat": 2}
    args["grad_keys"] = [
        f"mask_generator.{key}" for key in ("conv2.0.weight", "rnn.bias_hh_l0", "fc.0.weight")
    ]
    state = double(seeded_state(shapes, args["seed_base"]))
    inputs = {"video_small": normal(1, 2, 3, 10, 10, 10), "cotangent_small": normal(2, 2, 3, 10, 10, 10)}
    large = {
        name: value.double().repeat_interleave(2, 3).repeat_interleave(2, 4) for name, value in inputs.items()
    }
    outputs: dict[str, Tensor] = {}
    for mode in ("eval", "train"):
        stages = reference.score(state, large["video_small"], mode == "train")
        fake, chosen = reference.drop(large["video_small"], stages["scores"], DROPPED)
        loss = (fake * large["cotangent_small"]).sum()
        gradients = torch.autograd.grad(loss, [state[key] for key in args["grad_keys"]])
        frames = fake.transpose(1, 2).flatten(2)
        results = {name: stages[name] for name in ("scores", "lstm_in", "lstm_last")}
        results |= {f"{name}_mean": stages[name].mean((2, 3)) for name in ("stem", "aspp")}
        results |= {"loss": loss, "dropped_sorted": chosen, "fake_frame_mean": frames.mean(2)}
        results |= {f"grad.{key}": value for key, value in zip(args["grad_keys"], gradients, strict=True)}
        outputs |= {f"{mode}.{name}": value for name, value in results.items()}
    key = "mask_generator.conv1.1.running_var"
    outputs[f"after_train_forward.{key}"] = state[key]
    inputs |= {"topk_video": normal(3, 2, 3, 11, 4, 5), "topk_cotangent": normal(4, 2, 3, 11, 4, 5)}
    inputs["topk_scores"] = normal(5, 2, 11)
    scores = inputs["topk_scores"].double().requires_grad_()
    fake, _ = reference.drop(inputs["topk_video"].double(), scores, DROPPED)
    fake.backward(inputs["topk_cotangent"].double())
    outputs |= {"topk_fake": fake, "topk_grad_scores": scores.grad}
    save(case, "generator", args, inputs, outputs, state_shapes=shapes)


def make_backbone(case: str) -> None:
    grad_keys = ["stem.0.weight", "layer3.0.downsample.0.weight", "layer2.0.conv1.0.weight", "fc.bias"]
    args: dict[str, Any] = {"archs": ["mc3_18", "r3d_18"], "num_classes": 7, "seed_base": 40}
    args["grad_keys"] = dict.fromkeys(args["archs"], grad_keys)
    inputs, outputs, shapes = {"video": normal(1, 2, 3, 4, 20, 20), "labels": torch.tensor([2, 6])}, {}, {}
    for arch in args["archs"]:
        config = VideoMoCoConfig(arch=arch, widths=[4, 6, 8], depths=[1, 2, 1], num_labels=7)
        shapes[arch] = shapes_of(official_state_dict(VideoMoCoForVideoClassification(config)))
        state = double(seeded_state(shapes[arch], args["seed_base"]))
        maps = reference.residual_network(state, inputs["video"].double(), False)
        results = {f"{name}_mean": maps[name].mean((2, 3, 4)) for name in ("stem", "layer1", "layer2")}
        results |= {name: maps[name] for name in ("layer3", "pooled", "fc")}
        outputs |= {f"{arch}.eval.{name}": value for name, value in results.items()}
        maps = reference.residual_network(state, inputs["video"].double(), True)
        loss = F.cross_entropy(maps["fc"], inputs["labels"])
        gradients = torch.autograd.grad(loss, [state[key] for key in grad_keys])
        results = {name: maps[name] for name in ("pooled", "fc")} | {"loss": loss}
        outputs |= {f"{arch}.train.{name}": value for name, value in results.items()}
        outputs |= {f"{arch}.grad.{key}": value for key, value in zip(grad_keys, gradients, strict=True)}
    save(case, "backbone", args, inputs, outputs, state_shapes=shapes)


def main() -> None:
    torch.set_num_threads(1)
    options: dict[str, Any] = {"dim": 6, "m": 0.8, "T": 0.2, "t": 0.9, "mlp": True, "n_steps": 2}
    make_moco("moco_straddling", "moco", 1, 4, K=11, queue_ptr=8, **options)
    make_moco("moco_frozen", "moco", 1, 3, K=7, queue_ptr=0, train=False, **(options | {"t": 1.0}))
    make_moco("moco_three_processes", "moco_two_process", 3, 2, K=8, queue_ptr=5, **options)
    make_step(
        "step_adversarial_decay",
        **(options | {"n_steps": 3, "T": 0.5, "mlp": False}),
        K=8,
        lr=0.05,
        momentum=0.9,
        weight_decay=0.01,
        decay="plus",
        grad_keys_G=["mask_generator.fc.0.weight", "mask_generator.conv2.1.weight"],
        grad_keys_D=["encoder_q.conv2.weight", "encoder_q.fc.bias"],
    )
    make_generator("generator_small")
    make_backbone("backbone_mixed")


if __name__ == "__main__":
    main()
