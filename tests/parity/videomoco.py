"""VideoMoCo's golden cases: encoders, generator, queue and whole steps. Kind `augment` is in
`videomoco_aug.py`."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distributed import run_processes
from parity import videomoco_aug
from parity.goldens import Golden, assert_close
from videossl_hf.models.videomoco.configuration_videomoco import VideoMoCoConfig
from videossl_hf.models.videomoco.conversion_videomoco import (
    generator_table,
    infer_config,
    key_table,
    load_official,
    official_state_dict,
    projection_table,
)
from videossl_hf.models.videomoco.generator_videomoco import (
    VideoMoCoGenerator,
    drop_frames,
    lowest_frames,
)
from videossl_hf.models.videomoco.modeling_videomoco import VideoMoCoForPreTraining

DROPPED = 8  # a literal of the official code


class TinyBackbone(nn.Module):
    """The base encoder that small cases were recorded with, up to its global mean."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(3, 8, 3, stride=(1, 2, 2), padding=1, bias=False)
        self.bn1 = nn.BatchNorm3d(8)
        self.conv2 = nn.Conv3d(8, 16, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm3d(16)

    def forward(self, video: Tensor) -> Tensor:
        return self.bn2(self.conv2(self.bn1(self.conv1(video)).relu())).relu()


def seeded_state(shapes: dict[str, Any], base: int, queue_ptr: int = 0) -> dict[str, Tensor]:
    """The weights that the case's `seed_rule` gives."""
    return {
        key: _seeded(key, shapes[key][0], torch.Generator().manual_seed(base + index), queue_ptr)
        for index, key in enumerate(sorted(shapes))
    }


def _seeded(key: str, shape: list[int], generator: torch.Generator, queue_ptr: int) -> Tensor:
    def normal() -> Tensor:
        return torch.randn(shape, generator=generator)

    if key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    if key == "queue_ptr":
        return torch.full(shape, queue_ptr, dtype=torch.int64)
    if key == "queue":
        return F.normalize(normal(), dim=0)
    if key.endswith("running_mean"):
        return 0.1 * normal()
    if key.endswith("running_var"):
        return 1 + 0.1 * torch.rand(shape, generator=generator)
    if len(shape) == 1:
        return 1 + 0.1 * normal() if key.endswith(".weight") else 0.1 * normal()
    return normal() * math.sqrt(2 / (math.prod(shape) / shape[0]))


def recorded_state(golden: Golden, prefix: str = "state.") -> dict[str, Tensor]:
    """The weights of a case: stored in it, or made by its rule."""
    stored = {
        name.removeprefix(prefix): value for name, value in golden.tensors.items() if name.startswith(prefix)
    }
    if stored:
        return stored
    args, shapes = golden.record["args"], golden.record["state_shapes"]
    for part in prefix.split(".")[1:-1]:
        shapes = shapes[part]
    return seeded_state(shapes, args["seed_base"], args.get("queue_ptr", 0))


def clips(golden: Golden, name: str) -> Tensor:
    """Clips `(batch, frames, channels, height, width)` of an input `(batch, channels, frames, ...)`."""
    if f"input.{name}" in golden.tensors:
        return golden.input(name).transpose(1, 2)
    stem, dot, step = name.partition(".")
    repeat = golden.record["args"]["repeat"]
    small = golden.input(f"{stem}_small{dot}{step}").transpose(1, 2)
    return small.repeat_interleave(repeat, 3).repeat_interleave(repeat, 4)


def build(golden: Golden, encoders: dict[str, Tensor], generator: dict[str, Tensor]) -> Any:
    """Our model with the case's weights and options, and its official keys -> our keys."""
    args = golden.record["args"]
    settings: dict[str, Any] = {
        "momentum": args["m"],
        "temperature": args["T"],
        "temporal_decay": args["t"] if args.get("decay", "fixed") == "fixed" else "adversarial",
        "num_dropped_frames": DROPPED,
        "adversarial_start_epoch": 0,
    }
    if args.get("base", "tiny") != "tiny":
        state = encoders | generator
        config = infer_config(state, **settings)
        model = load_official(state, config)
        exported = official_state_dict(model)
        assert all(torch.equal(state[key], value) for key, value in exported.items())
        return model, key_table(config, "pretraining")

    hidden = encoders["encoder_q.bn2.weight"].shape[0]
    settings |= {"arch": "r3d_18", "widths": [hidden], "depths": [1], "dim": args["dim"]}
    settings |= {"mlp": args["mlp"], "queue_size": args["K"], "dropped_frames": "none"}
    if generator:
        settings |= generator_sizes(generator)
    model = VideoMoCoForPreTraining(VideoMoCoConfig(**settings))
    model.videomoco.encoder.backbone, model.key_encoder.backbone = TinyBackbone(), TinyBackbone()
    model.key_encoder.requires_grad_(False)
    table = {"queue": "queue.keys", "queue_ptr": "queue.pointer"}
    table |= generator_table("mask_generator.", "generator.") if generator else {}
    for prefix, encoder, projection in (
        ("encoder_q.", "videomoco.encoder.backbone.", "projection"),
        ("encoder_k.", "key_encoder.backbone.", "key_projection"),
    ):
        table |= {f"{prefix}{key}": f"{encoder}{key}" for key in TinyBackbone().state_dict()}
        table |= projection_table(model.config, f"{prefix}fc", projection)
    state = {table[key]: value for key, value in (encoders | generator).items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert set(missing) == {"queue.ages", "current_epoch", "completed_steps", "previous_loss_g"}
    assert not unexpected
    return model, table


def generator_sizes(state: dict[str, Tensor]) -> dict[str, Any]:
    frames, hidden = state["mask_generator.fc.0.weight"].shape
    features = state["mask_generator.rnn.weight_ih_l0"].shape[1]
    return {
        "dropped_frames": "generator",
        "num_frames": frames,
        "num_channels": state["mask_generator.Conv_BN.0.weight"].shape[0] // frames,
        "image_size": 8 * math.isqrt(features) + 8,
        "generator_hidden": hidden,
        "generator_features": features,
    }


def close(name: str, found: Tensor, expected: Tensor, rtol: float = 1e-4, atol: float = 1e-5) -> None:
    if not expected.is_floating_point():
        assert torch.equal(found.long(), expected.long()), f"{name}: {found} instead of {expected}"
        return
    torch.testing.assert_close(
        found.detach().float(), expected.float(), rtol=rtol, atol=atol, msg=lambda text: f"{name}: {text}"
    )


def check_outputs(golden: Golden, ours: dict[str, Tensor]) -> None:
    """Everything that the case recorded, with its bars."""
    expected = golden.outputs()
    assert expected.keys() <= ours.keys(), f"outputs nobody computes: {expected.keys() - ours.keys()}"
    limit = 5e-3 if "5e-3*absmax" in golden.record["tolerance"] else 1e-3
    for name, value in expected.items():
        if "grad." in name or name.startswith("grad_after"):
            assert_close(name, ours[name], value, of_maximum=limit)
        elif "running_" in name:
            close(name, ours[name], value, rtol=1e-5 if golden.kind == "step" else 1e-4, atol=1e-6)
        elif name.startswith("after."):
            close(name, ours[name], value, atol=2e-7 if golden.kind == "step" else 1e-5)
        else:
            close(name, ours[name], value)


def queue_state(model: VideoMoCoForPreTraining, step: int) -> dict[str, Tensor]:
    queue = model.queue
    state = {"queue": queue.keys, "count": queue.ages, "queue_ptr": queue.pointer}
    return {f"{name}.{step}": value.clone() for name, value in state.items()}


def compare_step(golden: Golden, model: VideoMoCoForPreTraining, step: int, rows: slice) -> dict[str, Tensor]:
    """One official forward pass of the encoders: momentum first, then real and fake clip, keys, queue."""
    model.after_optimizer_step(step, golden.record["args"]["n_steps"])
    fake, real, keys = (clips(golden, f"{name}.{step}")[rows] for name in ("im_q_fake", "im_q", "im_k"))
    output = model.compare(fake, keys, real, golden.input(f"idx_shuffle.{step}"))
    return {
        f"q_fake.{step}": output.query_embeds,
        f"q_real.{step}": output.whole_query_embeds,
        f"logits.{step}": output.logits,
        f"loss_d.{step}": output.loss_d,
        f"loss_g.{step}": output.loss_g,
        f"labels.{step}": torch.zeros(len(fake), dtype=torch.int64),
    } | queue_state(model, step)


def start(golden: Golden, model: VideoMoCoForPreTraining) -> None:
    """Training mode (with BatchNorm as the case has it) and the recorded ages."""
    model.train()
    if not golden.record["args"].get("train", True):
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
    if "input.count" in golden.tensors:
        model.queue.ages.copy_(golden.input("count"))


def check_moco(golden: Golden) -> None:
    model, table = build(golden, recorded_state(golden), {})
    start(golden, model)
    args, ours = golden.record["args"], {}
    for step in range(args["n_steps"]):
        ours |= compare_step(golden, model, step, slice(None))
    ours[f"loss_d.{step}"].backward()
    state, parameters = model.state_dict(), dict(model.named_parameters())
    ours |= {f"grad.{key}": parameters[table[key]].grad for key in args["grad_keys"]}
    ours |= {f"after.{key}": state[table[key]] for key in args["after_keys"]}
    check_outputs(golden, ours)


def check_two_process(golden: Golden) -> None:
    world = len({name.split(".")[0] for name in golden.outputs() if name.startswith("rank")})
    expected = golden.outputs()
    for rank, ours in enumerate(run_processes(_two_process_of_rank, world, str(golden.path))):
        for name, value in expected.items():
            own = name.removeprefix(f"rank{rank}.")
            if own.startswith("rank"):
                continue
            close(f"rank {rank}: {own}", ours[own], value)


def _two_process_of_rank(rank: int, path: str) -> dict[str, Tensor]:
    """Runs in a process of its own."""
    golden = Golden(Path(path), json.loads(Path(path).read_text()))
    model, table = build(golden, recorded_state(golden), {})
    start(golden, model)
    args, ours = golden.record["args"], {}
    batch = args["batch_per_process"]
    for step in range(args["n_steps"]):
        ours |= compare_step(golden, model, step, slice(rank * batch, (rank + 1) * batch))
    state = model.state_dict()
    ours |= {f"after.{key}": state[ours_key] for key, ours_key in table.items()}
    return {name: value.detach() for name, value in ours.items()}


def check_step(golden: Golden) -> None:
    encoders = recorded_state(golden, "state.netD.")
    model, table = build(golden, encoders, recorded_state(golden, "state.netG."))
    start(golden, model)
    args, ours = golden.record["args"], {}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(
        trained, args["lr"], momentum=args["momentum"], weight_decay=args["weight_decay"]
    )

    def name_of(key: str) -> str:
        return f"netG.{key}" if key.startswith("mask_generator.") else f"netD.{key}"

    def gradients(of: VideoMoCoForPreTraining, name: str, step: int) -> dict[str, Tensor]:
        parameters = dict(of.named_parameters())
        return {
            f"{name}.{name_of(key)}.{step}": parameters[our].grad.clone()
            for key, our in table.items()
            if our in parameters and parameters[our].grad is not None
        }

    for step in range(args["n_steps"]):
        model.after_optimizer_step(step, args["n_steps"])
        views = clips(golden, f"video_q.{step}"), clips(golden, f"video_k.{step}")
        permutation = golden.input(f"idx_shuffle.{step}")
        decay = args["t"] if args["decay"] == "fixed" else model.previous_loss_g.exp()
        ours[f"decay_used.{step}"] = torch.as_tensor(decay, dtype=torch.float64)

        alone = copy.deepcopy(model)
        alone.config.generator_contrastive_grad = False
        alone.zero_grad()
        alone(*views, permutation=permutation).loss.backward()
        ours |= gradients(alone, "grad_after_loss_g", step)

        optimizer.zero_grad()
        output = model(*views, permutation=permutation)
        output.loss.backward()
        ours |= gradients(model, "grad", step)
        optimizer.step()
        ours |= {
            f"dropped_sorted.{step}": output.dropped_frames,
            f"q_fake.{step}": output.query_embeds,
            f"q_real.{step}": output.whole_query_embeds,
            f"rank8_gap.{step}": rank_gap(output.scores),
        }
        ours |= {f"{name}.{step}": output[name] for name in ("logits", "loss_d", "loss_g", "scores")}
        ours |= queue_state(model, step)
        assert rank_gap(output.scores).min() > 1e-6
        torch.testing.assert_close(output.loss, output.loss_d + output.loss_g)
    state = model.state_dict()
    ours |= {f"after.{name_of(key)}": state[our] for key, our in table.items()}
    check_outputs(golden, ours)


def rank_gap(scores: Tensor) -> Tensor:
    """Distance of the last score that is dropped to the first that is not."""
    ascending = scores.detach().sort(1).values
    return ascending[:, DROPPED] - ascending[:, DROPPED - 1]


def check_generator(golden: Golden) -> None:
    state = recorded_state(golden)
    config = VideoMoCoConfig(**generator_sizes(state))
    generator = VideoMoCoGenerator(config)
    table = generator_table("mask_generator.", "")
    generator.load_state_dict({table[key]: value for key, value in state.items()})
    video, cotangent = clips(golden, "video"), clips(golden, "cotangent")
    ours = check_drop(golden)
    for mode in ("eval", "train"):
        generator.train(mode == "train").zero_grad()
        seen = recorded_stages(generator)
        scores = generator(video)
        dropped = lowest_frames(scores.detach(), DROPPED)
        fake = drop_frames(video, scores, dropped)
        loss = (fake * cotangent).sum()
        loss.backward()
        parameters = dict(generator.named_parameters())
        results = {
            "scores": scores,
            "dropped_sorted": dropped,
            "loss": loss,
            "rank8_gap": rank_gap(scores),
            "stem_mean": seen["stem"].mean((2, 3)),
            "aspp_mean": seen["context"].mean((2, 3)),
            "lstm_in": seen["steps"],
            "lstm_last": seen["summary"],
            "fake_frame_mean": fake.flatten(2).mean(2),
            "fake_frame_std": fake.flatten(2).std(2),
            "fake_unchanged": (fake == video).flatten(2).all(2),
        }
        results |= {f"grad.{key}": parameters[our].grad for key, our in table.items() if our in parameters}
        ours |= {f"{mode}.{name}": value.detach().clone() for name, value in results.items()}
        assert results["rank8_gap"].min() > 1e-6
    after = generator.state_dict()
    ours |= {f"after_train_forward.{key}": after[our] for key, our in table.items()}
    check_outputs(golden, ours)


def recorded_stages(generator: VideoMoCoGenerator) -> dict[str, Tensor]:
    """What the generator's stages return, filled in by its next call."""
    seen: dict[str, Tensor] = {}

    def record(name: str) -> Callable[[Tensor], Tensor]:
        def stage(x: Tensor) -> Tensor:
            seen[name] = getattr(VideoMoCoGenerator, name)(generator, x)
            return seen[name]

        return stage

    for name in ("stem", "context", "steps", "summary"):
        setattr(generator, name, record(name))
    return seen


def check_drop(golden: Golden) -> dict[str, Tensor]:
    """The drop by itself."""
    video = clips(golden, "topk_video").clone().requires_grad_()
    scores = golden.input("topk_scores").clone().requires_grad_()
    fake = drop_frames(video, scores, lowest_frames(scores.detach(), DROPPED))
    fake.backward(clips(golden, "topk_cotangent"))
    assert video.grad is None
    return {"topk_fake": fake.detach().transpose(1, 2), "topk_grad_scores": scores.grad}


def check_backbone(golden: Golden) -> None:
    args, expected = golden.record["args"], golden.outputs()
    video, labels = clips(golden, "video"), golden.input("labels")
    compared = set()
    for arch in args["archs"]:
        state = seeded_state(golden.record["state_shapes"][arch], args["seed_base"])
        config = infer_config(state, freeze_norm_stats=False)
        assert (config.arch, config.num_labels) == (arch, args["num_classes"])
        model = load_official(state, config)
        single = backbone_features(model, video)
        double = backbone_features(copy.deepcopy(model).double(), video.double())
        found = backbone_training(model, video, labels)
        parameters, table = dict(model.named_parameters()), key_table(config, "classification")
        found |= {f"grad.{key}": parameters[table[key]].grad for key in args["grad_keys"][arch]}
        for name, value in expected.items():
            own = name.removeprefix(f"{arch}.")
            if own == name:
                continue
            compared.add(name)
            if own.startswith("eval."):
                # Element by element the recorded map keeps the bar only to exact values: a float32 map of
                # any order of summation is 2e-6 of its maximum away from these, which small values notice.
                close(name, double[own], value)
                assert_close(name, single[own], value, of_maximum=1e-5)
            elif own.startswith(("grad.layer4", "grad.fc")):
                assert_close(name, found[own], value, of_maximum=1e-3)
            elif own.startswith("grad."):
                assert_close(name, found[own], value, of_maximum=3e-2, cosine=0.999)
            else:
                close(name, found[own], value, rtol=1e-3)
    assert compared == expected.keys()


def backbone_training(model: Any, video: Tensor, labels: Tensor) -> dict[str, Tensor]:
    output = model.train()(video, labels=labels)
    output.loss.backward()
    return {"train.pooled": output.pooler_output, "train.fc": output.logits, "train.loss": output.loss}


@torch.no_grad()
def backbone_features(model: Any, video: Tensor) -> dict[str, Tensor]:
    output = model(video, output_hidden_states=True)
    stem, *maps = output.hidden_states
    ours = {"eval.stem_mean": stem.mean((2, 3, 4)), f"eval.layer{len(maps)}": maps[-1]}
    ours |= {f"eval.layer{number}_mean": x.mean((2, 3, 4)) for number, x in enumerate(maps, 1)}
    return ours | {"eval.pooled": output.pooler_output, "eval.fc": output.logits}


CHECKS: dict[str, Callable[[Golden], object]] = {
    "moco": check_moco,
    "moco_two_process": check_two_process,
    "step": check_step,
    "generator": check_generator,
    "backbone": check_backbone,
    "augment": videomoco_aug.check_augment,
}
