"""Time and memory of ILA, ours beside the official code, on this CPU: the video encoder alone in a test, and
a training step of the whole classifier with CLIP frozen, as released.

    python benchmarks/ila_step.py --official ILA_CHECKOUT --packages FOLDER

Both sides take the same weights and clips and compare them with 400 names of classes, whose text features
they compute once. A step is forward, both losses and the gradients. The lengths of the features (test), the
losses and the gradients (training) are compared. How it is timed: step_timing.py.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from checkouts import add_checkout_arguments, has_checkout
from official_ila import LABEL_LENGTH, NEEDED, SIDE, make_official_model
from step_timing import add_step_arguments, compare

CLASSES = 400
SIDES: dict[str, dict[str, torch.dtype]] = {
    "encoder": {
        "official fp32": torch.float32,
        "ours fp32": torch.float32,
        "ours fp32, BatchNorms folded": torch.float32,
        "ours bf16": torch.bfloat16,
    },
    "training": {
        "official fp32": torch.float32,
        "ours fp32": torch.float32,
        "ours bf16": torch.bfloat16,
    },
}

Step = Callable[[], dict[str, Tensor]]


def make_clips(arguments: argparse.Namespace) -> Tensor:
    """`(batch, frames, channels, side, side)`, smooth, as clips are."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(arguments.batch * arguments.frames, 3, 14, 14, generator=generator)
    clips = F.interpolate(coarse, size=(SIDE, SIDE), mode="bilinear")
    return clips.unflatten(0, (arguments.batch, arguments.frames))


def make_labels(arguments: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """Token ids of the names `(classes, length)`, and a class for each clip."""
    generator = torch.Generator().manual_seed(1)
    start, end = arguments.vocabulary - 2, arguments.vocabulary - 1
    words = torch.randint(start, (CLASSES, 4), generator=generator)
    names = torch.zeros(CLASSES, LABEL_LENGTH, dtype=torch.int64)
    names[:, :6] = F.pad(F.pad(words, (1, 0), value=start), (0, 1), value=end)
    return names, torch.randint(CLASSES, (arguments.batch,), generator=generator)


def official_step(arguments: argparse.Namespace, mode: str) -> Step:
    """The official side; also writes weights and the first gradients for the others."""
    model = make_official_model(arguments)
    torch.save(model.state_dict(), arguments.folder / "weights.pt")
    clips, (names, labels) = make_clips(arguments), make_labels(arguments)

    def encode() -> dict[str, Tensor]:
        with torch.no_grad():
            features, _, _ = model.encode_video(clips)
        return {"feature": features.norm()}

    def train() -> dict[str, Tensor]:
        model.zero_grad()
        logits, align_losses = model(clips, names)
        loss = F.cross_entropy(logits, labels) + sum(align_losses)
        loss.backward()
        gradients = arguments.folder / "gradients.pt"
        if not gradients.exists():
            named = model.named_parameters()
            torch.save({name: value.grad for name, value in named if value.grad is not None}, gradients)
        return {"loss": loss.detach()}

    if mode == "training":
        model.train()
        return train
    model.eval()
    for block in model.visual.transformer.resblocks:
        block.message_attn.is_training = False  # evaluation mode alone leaves the disturbance on
    return encode


def convert(arguments: argparse.Namespace) -> None:
    """Write the official weights as a folder of ours."""
    from videossl_hf.evaluation.loading import quiet_libraries
    from videossl_hf.models.ila.conversion_ila import infer_config, load_official

    weights = torch.load(arguments.folder / "weights.pt", weights_only=True)
    texts = {f"class {index}": row[:6].tolist() for index, row in enumerate(make_labels(arguments)[0])}
    config = infer_config(weights, id2label=dict(enumerate(texts)), label_tokens=texts)
    with quiet_libraries():
        load_official(weights, config).save_pretrained(arguments.folder / "ours")


def our_step(arguments: argparse.Namespace, mode: str, dtype: torch.dtype, folded: bool) -> Step:
    """Our side."""
    from videossl_hf import ILAForVideoClassification
    from videossl_hf.evaluation.loading import quiet_libraries
    from videossl_hf.models.ila.conversion_ila import key_table, official_tensor

    ours = arguments.folder / "ours"
    if not ours.exists():  # in a process of its own, whose memory does not count
        process = multiprocessing.get_context("spawn").Process(target=convert, args=(arguments,))
        process.start()
        process.join()
    with quiet_libraries():
        model = ILAForVideoClassification.from_pretrained(ours)
    labels = make_labels(arguments)[1]
    clips, text_passes = make_clips(arguments), []
    model.ila.text_model.register_forward_hook(lambda *_: text_passes.append(1))
    differences: dict[str, Tensor] = {}

    def encode() -> dict[str, Tensor]:
        with torch.no_grad(), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            features = model.ila(clips).pooler_output
        return {"feature": features.float().norm()}

    def train() -> dict[str, Tensor]:
        model.zero_grad()
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss = model(clips, labels=labels).loss
        loss.backward()
        if not differences:
            expected = torch.load(arguments.folder / "gradients.pt", weights_only=True, mmap=True)
            own = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
            difference, total = torch.zeros(2)
            for official, entry in key_table(model.config).items():
                if official in expected:  # one after the other: what compares them is not to be the peak
                    gradient = expected.pop(official)
                    difference += (official_tensor(entry, own) - gradient).square().sum()
                    total += gradient.square().sum()
            assert not expected, f"the official code has gradients of {', '.join(expected)}"
            differences["gradients off by"] = (difference / total).sqrt()
        return {"loss": loss.detach()} | differences | {"text passes": torch.tensor(len(text_passes))}

    if mode == "training":
        model.train()
        model.config.label_smoothing = 0.0
        return train
    if folded:
        model = model.fold_batch_norms()
    return encode


def main() -> None:
    """All sides of both comparisons, or the one that this process is for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_checkout_arguments(parser, NEEDED)
    add_step_arguments(parser, batch=1, frames=8)
    parser.add_argument("--patch", type=int, choices=(16, 32), default=16, help="ViT-B/16 or ViT-B/32 (16)")
    parser.add_argument(
        "--vocabulary", type=int, default=1000, help="tokens that the text tower knows (1000)"
    )
    arguments = parser.parse_args()
    if not has_checkout(arguments, NEEDED):
        return
    for mode, sides in SIDES.items():
        named = {f"{mode}, {side}": side for side in sides}
        if arguments.side and arguments.side not in named:
            continue

        def make_step(side: str, mode: str = mode, named: dict[str, str] = named) -> Step:
            own = named[side]
            if own.startswith("official"):
                return official_step(arguments, mode)
            return our_step(arguments, mode, SIDES[mode][own], "folded" in own)

        if not arguments.side:
            size = f"{arguments.frames} x {SIDE} x {SIDE}"
            print(f"{mode}: ViT-B/{arguments.patch}, {arguments.batch} clip(s) of {size}, one CPU thread")
        compare(arguments, list(named), make_step)


if __name__ == "__main__":
    main()
