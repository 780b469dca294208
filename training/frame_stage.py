"""Write a folder shaped like a CLIP checkpoint whose vision tower knows where things are, for runs on
generated clips, which no CLIP fits: `python training/frame_stage.py --output outputs/frame-clip`.

The tower sees single still frames of Sounding Shapes and learns place and size of the shape in them. Place
and size in any one frame are the same for all motions, so it learns nothing about the classes, nor about
time. Its text tower stays as it starts; its tokenizer knows the words that the clips are told with. ILA
then begins with this folder as it would with CLIP's: `--training.init_from outputs/frame-clip`.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel

from videossl_hf.data.augment import normalize_clips
from videossl_hf.data.seeds import seeded_generator
from videossl_hf.data.sounding_shapes.motions import CLASS_NAMES
from videossl_hf.data.sounding_shapes.render import NUISANCE_LEVELS, draw_appearance, render
from videossl_hf.data.sounding_shapes.transcript import VOCABULARY
from videossl_hf.data.sounding_shapes.word_tokenizer import word_tokenizer
from videossl_hf.errors import VideoSSLError
from videossl_hf.evaluation.loading import quiet_libraries
from videossl_hf.models.ila.processing_ila import ILAVideoProcessor

CONTEXT = 16


def main() -> int:
    """Parse, train, save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("outputs/frame-clip"), help="folder to write")
    parser.add_argument("--nuisance", choices=NUISANCE_LEVELS, default="low", help="of the frames (low)")
    parser.add_argument("--steps", type=int, default=450, help="of training (450)")
    parser.add_argument("--batch", type=int, default=128, help="frames a step (128)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and frames (0)")
    parser.add_argument("--size", type=int, default=32, help="side of a frame in pixels (32)")
    parser.add_argument("--patch", type=int, default=8, help="side of a patch in pixels (8)")
    parser.add_argument("--width", type=int, default=48, help="of the vision tower (48)")
    args = parser.parse_args()
    try:
        with quiet_libraries():
            error = write_frame_clip(args)
    except VideoSSLError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    Console().print(f"place and size to a squared error of {error:.4f}; wrote {args.output}", highlight=False)
    return 0


def write_frame_clip(args: argparse.Namespace) -> float:
    """Train and save; the mean squared error of the last tenth of the steps (0.5 is knowing nothing)."""
    torch.manual_seed(args.seed)
    names = {word for name in CLASS_NAMES for word in name.split("_")}
    tokenizer = word_tokenizer(sorted(names.union(VOCABULARY)))
    clip = CLIPModel(frame_clip_config(args, tokenizer))
    regression = nn.Linear(clip.config.projection_dim, 6)
    vision = [*clip.vision_model.parameters(), *clip.visual_projection.parameters()]
    optimizer = torch.optim.AdamW([*vision, *regression.parameters()], lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, args.steps, pct_start=0.1)
    generator = seeded_generator(args.seed)
    losses = []
    for _ in range(args.steps):
        frames, targets = draw_frames(args.batch, args.size, args.nuisance, generator)
        features = clip.get_image_features(frames).pooler_output
        loss = nn.functional.mse_loss(regression(features), targets)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(vision, 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.detach())
    clip.save_pretrained(args.output)
    tokenizer.save_pretrained(args.output)
    return torch.stack(losses[-max(1, args.steps // 10) :]).mean().item()


def frame_clip_config(args: argparse.Namespace, tokenizer: object) -> CLIPConfig:
    """Two narrow blocks in each tower, CLIP's activation."""
    layers = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_act": "quick_gelu"}
    sizes = {"hidden_size": args.width, "intermediate_size": 4 * args.width}
    special = {
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return CLIPConfig(
        vision_config=layers | sizes | {"image_size": args.size, "patch_size": args.patch},
        text_config=layers
        | {"hidden_size": 64, "intermediate_size": 256, "vocab_size": len(tokenizer)}
        | {"max_position_embeddings": CONTEXT}
        | special,
        projection_dim=64,
    )


def draw_frames(count: int, size: int, nuisance: str, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Still frames `(count, 3, size, size)`, normalised as ILA does, and what to tell of each `(count, 6)`:
    sine and cosine of x, of y and of the size, all of which wrap round."""
    state = torch.rand(3, count, generator=generator, dtype=torch.float64)
    frames = [
        render(draw_appearance(nuisance, generator), state[:, index : index + 1].numpy(), size)[0]
        for index in range(count)
    ]
    pixels = torch.stack([torch.from_numpy(frame) for frame in frames]).permute(0, 3, 1, 2).float() / 255
    angles = 2 * math.pi * state.T
    processor = ILAVideoProcessor
    return (
        normalize_clips(pixels, processor.image_mean, processor.image_std),
        torch.cat([angles.sin(), angles.cos()], dim=1).float(),
    )


if __name__ == "__main__":
    sys.exit(main())
