"""Train a model of transformers at the size of the smoke recipes, for compare.py:
`python benchmarks/compare_peers.py videomae --data D --processor P --steps 200 --output O`.

VideoMAE is pre-trained as its paper does it: tubes of patches are hidden (three quarters here, of a grid of 4
x 4) and their normalised pixels predicted, without labels. TimeSformer has no pre-training of its own; it
learns the labels from random weights, as a second supervised reference. Both see the clips as the processor
in P takes them, without augmentation but for hiding, by AdamW with a cosine. `--measure` counts the
operations of a step instead.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    TimesformerConfig,
    TimesformerForVideoClassification,
    VideoMAEConfig,
    VideoMAEForPreTraining,
)

from videossl_hf.data.datasets import load_videos
from videossl_hf.evaluation.clips import PreparedClips
from videossl_hf.evaluation.cost import flop_counter
from videossl_hf.evaluation.loading import load_processor, quiet_libraries

SIZES = {"image_size": 28, "patch_size": 7, "num_frames": 8, "hidden_size": 64, "num_hidden_layers": 2,
         "num_attention_heads": 4, "intermediate_size": 256}  # fmt: skip
HIDDEN_SHARE = 0.75


def main() -> int:
    """Parse, train, save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("peer", choices=("videomae", "timesformer"))
    parser.add_argument("--data", required=True, help="folder of clips")
    parser.add_argument("--processor", required=True, help="folder of the processor that takes them")
    parser.add_argument("--output", required=True, type=Path, help="folder of the model")
    parser.add_argument("--steps", type=int, default=200, help="of training (200)")
    parser.add_argument("--batch", type=int, default=64, help="clips a step (64)")
    parser.add_argument("--lr", type=float, default=1e-3, help="peak learning rate (1e-3)")
    parser.add_argument("--seed", type=int, default=0, help="of weights, order and masks (0)")
    parser.add_argument(
        "--measure", action="store_true", help="count one step's operations, write them alone"
    )
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    args.output.mkdir(parents=True, exist_ok=True)
    with quiet_libraries():
        dataset: Any = load_videos(args.data, "train")
        rows = range(args.batch) if args.measure else range(len(dataset))
        clips = PreparedClips(load_processor(args.processor), dataset.select(rows))
        videos = torch.cat([clips[row].inputs for row in range(len(clips))])
        labels = torch.tensor(dataset["label"][:])[: len(videos)]
        model = make_model(args.peer, len(dataset.features["label"].names)).train()
        if args.measure:
            with flop_counter() as counter:
                loss_of(model, videos, labels).backward()
            content = {"flop_per_step": counter.get_total_flops()}
            (args.output / "cost.json").write_text(json.dumps(content) + "\n", encoding="utf-8")
            return 0
        losses = train(model, videos, labels, args)
        model.eval().save_pretrained(args.output)
    (args.output / "losses.json").write_text(json.dumps(losses) + "\n", encoding="utf-8")
    return 0


def make_model(peer: str, classes: int) -> Any:
    """From random weights."""
    if peer == "videomae":
        decoder = {"decoder_hidden_size": 32, "decoder_num_hidden_layers": 1}
        decoder |= {"decoder_num_attention_heads": 2, "decoder_intermediate_size": 128}
        return VideoMAEForPreTraining(VideoMAEConfig(**SIZES, tubelet_size=2, **decoder))
    return TimesformerForVideoClassification(TimesformerConfig(**SIZES, num_labels=classes))


def loss_of(model: Any, videos: Tensor, labels: Tensor) -> Tensor:
    """Of a batch (clips, frames, channels, height, width)."""
    if isinstance(model, TimesformerForVideoClassification):
        return model(pixel_values=videos, labels=labels).loss
    config = model.config
    patches = (config.image_size // config.patch_size) ** 2
    hidden = torch.rand(len(videos), patches).argsort(dim=1) < round(HIDDEN_SHARE * patches)
    return model(pixel_values=videos, bool_masked_pos=hidden.repeat(1, config.num_frames // 2)).loss


def train(model: Any, videos: Tensor, labels: Tensor, args: argparse.Namespace) -> list[float]:
    """The losses of all steps."""
    optimizer = torch.optim.AdamW(model.parameters(), args.lr, weight_decay=0.05)
    warmup, losses = max(1, args.steps // 10), []
    order = torch.empty(0, dtype=torch.int64)
    for step in range(args.steps):
        if len(order) < args.batch:
            order = torch.randperm(len(videos))
        batch, order = order[: args.batch], order[args.batch :]
        share = (1 + math.cos(math.pi * step / args.steps)) / 2
        optimizer.param_groups[0]["lr"] = args.lr * min(1.0, (step + 1) / warmup) * share
        loss = loss_of(model, videos[batch], labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(round(loss.item(), 5))
    return losses


if __name__ == "__main__":
    sys.exit(main())
