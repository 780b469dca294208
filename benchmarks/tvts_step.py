"""Time and memory of TVTS, ours beside the official code, on this CPU.

    python benchmarks/tvts_step.py --official TVTS_CHECKOUT --packages FOLDER

Both sides take the same weights, clips, scripts and masks. A step is forward and backward of pre-training:
16 frames of 224 pixels with three quarters of the patches dropped, four scripts of 50 tokens, both losses;
DistilBERT comes from transformers on both sides, without dropout, so that losses can be compared. Features
are the class tokens of whole clips. Losses, and the length of the gradient, are printed beside each other;
weights are read tensor by tensor, so that peak memory is that of the step. How it is timed: step_timing.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import DistilBertConfig, DistilBertModel

from checkouts import add_checkout_arguments, has_checkout
from official_tvts import NEEDED, official_model
from step_timing import add_step_arguments, compare

TABLES = {
    "pre-training, forward and backward": ("official fp32", "ours fp32", "ours bf16", "ours bf16 weights"),
    "features, all patches": ("official features fp32", "ours features fp32", "ours features bf16"),
}
SCRIPTS, TOKENS, KEPT, TUBELETS, PLACES = 4, 50, 49, 8, 196

Step = Callable[[], dict[str, Tensor]]


def make_batch(arguments: argparse.Namespace) -> dict[str, Tensor]:
    """Clips, scripts (in their true order) and masks, in our layout."""
    generator = torch.Generator().manual_seed(0)
    batch, size = arguments.batch, arguments.size
    coarse = torch.randn(batch, 3, 8, 7, 7, generator=generator)
    clips = F.interpolate(coarse, size=(arguments.frames, size, size), mode="trilinear")
    kept = torch.rand(batch, TUBELETS, PLACES, generator=generator).argsort(dim=-1)
    return {
        "pixel_values_videos": clips.transpose(1, 2).contiguous(),
        "input_ids": torch.randint(1000, 20000, (batch, SCRIPTS, TOKENS), generator=generator),
        "attention_mask": torch.ones(batch, SCRIPTS, TOKENS, dtype=torch.int64),
        "keep_indices": kept[..., :KEPT],
    }


def text_tower() -> DistilBertModel:
    """DistilBERT of its published size."""
    return DistilBertModel(DistilBertConfig(dropout=0.0, attention_dropout=0.0))


def official_side(arguments: argparse.Namespace, features: bool) -> Step:
    """The official step; also writes the weights for the other sides."""
    model = official_model(arguments, text_tower()).train()
    save_file(model.state_dict(), arguments.folder / "weights.safetensors")
    batch = make_batch(arguments)
    if features:
        everything = torch.arange(PLACES).expand(arguments.batch, TUBELETS, PLACES)

        @torch.no_grad()
        def embed() -> dict[str, Tensor]:
            return {"norm": model.video_model(batch["pixel_values_videos"], everything)[:, 0].norm()}

        return embed
    # Script by script: all first ones, then all second ones.
    texts = {name: batch[name].transpose(0, 1).flatten(0, 1) for name in ("input_ids", "attention_mask")}
    data = {"text": texts, "video": batch["pixel_values_videos"], "keep_ind": batch["keep_indices"]}
    places = torch.arange(SCRIPTS).repeat(arguments.batch)
    cross_entropy = torch.nn.CrossEntropyLoss()

    def step() -> dict[str, Tensor]:
        model.zero_grad()
        text, video, order = model(data)
        contrastive = model.contrastive(model.similarities(video, text))
        loss = contrastive + 2 * cross_entropy(order.reshape(-1, SCRIPTS), places)
        loss.backward()
        return {"loss": loss.detach(), "gradient of length": gradient_length(model)}

    return step


def our_side(arguments: argparse.Namespace, side: str) -> Step:
    """Our step, as the trainer runs it; "bf16 weights": everything in bfloat16, without autocast."""
    features = "features" in side
    model = our_model(arguments, features, torch.bfloat16 if "bf16 weights" in side else torch.float32)
    batch = make_batch(arguments)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=side.endswith("bf16"))

    @torch.no_grad()
    def embed() -> dict[str, Tensor]:
        with autocast:
            return {"norm": model.get_video_features(batch["pixel_values_videos"]).float().norm()}

    def step() -> dict[str, Tensor]:
        model.zero_grad()
        with autocast:
            loss = model(**batch).loss
        loss.backward()
        return {"loss": loss.detach(), "gradient of length": gradient_length(model)}

    return embed if features else step


@torch.no_grad()
def our_model(arguments: argparse.Namespace, features: bool, dtype: torch.dtype) -> Any:
    """Our model with the official side's weights."""
    from videossl_hf import TVTSConfig, TVTSForPreTraining, TVTSVideoModel
    from videossl_hf.models.tvts.conversion_tvts import key_table

    config = TVTSConfig(text_settings={"dropout": 0.0, "attention_dropout": 0.0})
    torch.set_default_dtype(dtype)
    model = TVTSVideoModel(config).eval() if features else TVTSForPreTraining(config).train()
    torch.set_default_dtype(torch.float32)
    own = model.state_dict()
    table, prefix = (
        key_table(config, "video" if features else "pretraining"),
        "video_model." if features else "",
    )
    for key, (name,) in table.items():
        # Opened for each tensor: what was read of a mapped file counts as resident while it is open.
        with safe_open(arguments.folder / "weights.safetensors", framework="pt") as weights:
            own[name].copy_(weights.get_tensor(prefix + key).reshape(own[name].shape))
    return model


def gradient_length(model: nn.Module) -> Tensor:
    """Of all gradients together."""
    return nn.utils.get_total_norm(p.grad for p in model.parameters() if p.grad is not None)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_checkout_arguments(parser, NEEDED)
    add_step_arguments(parser, batch=2, frames=16)
    parser.set_defaults(size=224)
    arguments = parser.parse_args()
    if not has_checkout(arguments, NEEDED):
        return

    def make_step(side: str) -> Step:
        features = "features" in side
        if side.startswith("official"):
            return official_side(arguments, features)
        return our_side(arguments, side)

    for title, sides in TABLES.items():
        if arguments.side is None:
            print(f"{title}: {arguments.batch} clips of 16 x 224 x 224, one CPU thread", flush=True)
        if arguments.side in (None, *sides):
            compare(arguments, sides, make_step)


if __name__ == "__main__":
    main()
