"""Time and memory of one VideoMoCo training step, ours beside the official code, on this CPU.

    python benchmarks/videomoco_step.py --official VIDEOMOCO_CHECKOUT --torchvision FOLDER

Both sides take the same weights, views and queue. A step is that of the adversarial stage: generator, whole
and cut query, key, queue, both losses, the gradients of both players, SGD for both. The official code is
measured as it stands (its forward pass switches anomaly detection on) and without that. The gradients of the
first step are compared: by how much each player's differs, as a share of its length. How it is timed:
step_timing.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from checkouts import add_checkout_arguments, has_checkout
from official_videomoco import NEEDED, load_official_code
from step_timing import add_step_arguments, compare

OFFICIAL = ("official fp32", "official fp32, no anomaly detection")
OURS = {
    "ours fp32": (torch.float32, False),
    "ours fp32 + channels last": (torch.float32, True),
    "ours bf16 + channels last": (torch.bfloat16, True),
}
# With 0.07 a new network tells its keys from random ones so surely that the loss's gradient is all rounding.
TEMPERATURE = 1.0
SGD = {"lr": 0.005, "momentum": 0.9, "weight_decay": 1e-4}

Step = Callable[[], dict[str, Tensor]]


def make_views(arguments: argparse.Namespace) -> list[Tensor]:
    """Two views `(batch, channels, frames, height, width)`, alike for one clip and smooth, as clips are."""
    generator = torch.Generator().manual_seed(0)
    size = (arguments.frames, arguments.size, arguments.size)

    def coarse() -> Tensor:
        return torch.randn(arguments.batch, 3, 8, 7, 7, generator=generator)

    clips = coarse()
    return [F.interpolate(clips + 0.3 * coarse(), size=size, mode="trilinear") for _ in range(2)]


def official_step(arguments: argparse.Namespace, anomaly_detection: bool) -> Step:
    """The official step; also writes weights and the first gradients for the other sides."""
    code = load_official_code(arguments)
    torch.manual_seed(0)
    encoder = getattr(code.video_models, arguments.arch)
    discriminator = code.builder.MoCo(
        encoder, K=arguments.queue_size, T=TEMPERATURE, mlp=arguments.mlp
    ).train()
    generator = code.builder.MaskGenerator().train()
    networks = (discriminator, generator)
    state = {name: value for network in networks for name, value in network.state_dict().items()}
    if anomaly_detection:
        torch.save(state, arguments.folder / "weights.pt")
    else:
        torch.autograd.set_detect_anomaly = lambda *args, **kwargs: None
    players = [torch.optim.SGD(network.parameters(), **SGD) for network in networks]
    query, key = make_views(arguments)
    cross_entropy, distance = nn.CrossEntropyLoss(), nn.L1Loss()

    def step() -> dict[str, Tensor]:
        outputs = discriminator(generator(query), im_q=query, im_k=key, t=0.99999)
        cut, whole, logits, labels = outputs
        code.train_utils.set_requires_grad(discriminator, False)
        players[1].zero_grad()
        loss_g = -100 * distance(cut, whole)
        loss_g.backward(retain_graph=True)
        code.train_utils.set_requires_grad(discriminator, True)
        players[0].zero_grad()
        loss_d = cross_entropy(logits, labels)
        loss_d.backward()
        gradients = arguments.folder / "gradients.pt"
        if not gradients.exists():
            named = (item for network in networks for item in network.named_parameters())
            torch.save({name: value.grad for name, value in named if value.grad is not None}, gradients)
        for player in reversed(players):
            player.step()
        return {"loss_d": loss_d.detach(), "loss_g": loss_g.detach()}

    return step


def our_step(arguments: argparse.Namespace, dtype: torch.dtype, channels_last: bool) -> Step:
    """Our step, as the trainer runs it."""
    from videossl_hf.models.videomoco.conversion_videomoco import infer_config, key_table, load_official

    weights = torch.load(arguments.folder / "weights.pt", weights_only=True)
    expected = torch.load(arguments.folder / "gradients.pt", weights_only=True)
    config = infer_config(weights, adversarial_start_epoch=0, num_dropped_frames=8, temperature=TEMPERATURE)
    names = {ours: official for official, ours in key_table(config, "pretraining").items()}
    model = load_official(weights, config).train()
    for parameter in model.parameters():
        if channels_last and parameter.ndim == 5:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], **SGD)
    query, key = (view.transpose(1, 2).contiguous() for view in make_views(arguments))
    differences: dict[str, Tensor] = {}
    steps = 0

    def step() -> dict[str, Tensor]:
        nonlocal steps
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            output = model(query, key)
        optimizer.zero_grad()
        output.loss.backward()
        if steps == 0:
            found = {names[n]: p.grad for n, p in model.named_parameters() if p.grad is not None}
            assert found.keys() == expected.keys(), "other parameters have gradients"
            differences.update(gradient_differences(found, expected))
        optimizer.step()
        steps += 1
        model.after_optimizer_step(steps, arguments.steps)
        losses = {"loss_d": output.loss_d, "loss_g": output.loss_g}
        return losses | differences

    return step


def gradient_differences(found: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """Length of the difference of each player's gradient as a share of the gradient's length."""
    result = {}
    for player, prefix in (("encoder", "encoder_q."), ("generator", "mask_generator.")):
        own = [name for name in expected if name.startswith(prefix)]
        one, other = (torch.cat([side[name].flatten() for name in own]) for side in (found, expected))
        result[f"gradient of the {player} off by"] = (one - other).norm() / other.norm()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_checkout_arguments(parser, NEEDED)
    add_step_arguments(parser, batch=2, frames=32)
    parser.add_argument("--arch", choices=("r3d_18", "r2plus1d_18", "mc3_18"), default="r3d_18")
    parser.add_argument("--mlp", action="store_true", help="a hidden layer in the projection")
    parser.add_argument("--queue-size", type=int, default=4096)
    arguments = parser.parse_args()
    if not has_checkout(arguments, NEEDED):
        return
    if not arguments.side:
        shape = f"{arguments.frames} x {arguments.size} x {arguments.size}"
        print(f"{arguments.arch}, {arguments.batch} clips of {shape}, one CPU thread", flush=True)

    def make_step(side: str) -> Step:
        if side in OFFICIAL:
            return official_step(arguments, anomaly_detection=side == OFFICIAL[0])
        return our_step(arguments, *OURS[side])

    compare(arguments, [*OFFICIAL, *OURS], make_step)


if __name__ == "__main__":
    main()
