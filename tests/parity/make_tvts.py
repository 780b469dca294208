"""Writes the golden case of TVTS that this repository carries, from `reference_tvts.py`.

    PYTHONPATH=tests python tests/parity/make_tvts.py

Options that recorded cases leave out: tubelets of three frames, one head, another width of the perceptron,
    and a
clip of another length.
"""

from __future__ import annotations

import json
import math

import torch
from safetensors.torch import save_file

from parity import reference_tvts as reference
from parity.goldens import CARRIED
from videossl_hf.models.tvts.configuration_tvts import TVTSConfig
from videossl_hf.models.tvts.conversion_tvts import key_table, official_state_dict
from videossl_hf.models.tvts.modeling_tvts import TVTSVideoModel

SIZES = {
    "img_size": 12,
    "patch_size": 4,
    "embed_dim": 10,
    "depth": 3,
    "num_heads": 1,
    "mlp_ratio": 3.0,
    "num_frames": 9,
    "tubelet_size": 3,
}


def main() -> None:
    config = TVTSConfig(
        image_size=SIZES["img_size"],
        patch_size=SIZES["patch_size"],
        hidden_size=SIZES["embed_dim"],
        num_hidden_layers=SIZES["depth"],
        num_attention_heads=SIZES["num_heads"],
        mlp_ratio=SIZES["mlp_ratio"],
        num_frames=SIZES["num_frames"],
        tubelet_size=SIZES["tubelet_size"],
        sorting_heads=1,
        use_text=False,
    )
    generator = torch.Generator().manual_seed(13)
    shapes = official_state_dict(TVTSVideoModel(config).state_dict(), key_table(config, "video"))
    state = {
        name: 0.3 * torch.randn(value.shape, generator=generator, dtype=torch.float64)
        for name, value in shapes.items()
    }
    video = torch.randn(2, 9, 3, 12, 12, generator=generator, dtype=torch.float64)
    kept = torch.rand(2, 3, 9, generator=generator).argsort(-1)[..., :4]
    weight = torch.randn(2, 13, 10, generator=generator, dtype=torch.float64)
    everything = torch.rand(2, 3, 9, generator=generator).argsort(-1)
    leaves = {name: value.clone().requires_grad_() for name, value in state.items()}
    tokens = reference.encode(video, kept, leaves, SIZES["num_heads"], SIZES["depth"])
    probe = (tokens * weight).sum() / math.sqrt(tokens.numel())
    probe.backward()
    shorter = reference.encode(video[:, :6], everything, state, SIZES["num_heads"], SIZES["depth"])
    tensors = {f"state.{name}": value for name, value in state.items()}
    tensors |= {"input.video": video, "input.keep_ind": kept, "input.grad_weight": weight}
    tensors |= {"input.video_6f": video[:, :6].contiguous(), "input.keep_ind_6f": everything}
    tensors |= {"output.tokens": tokens, "output.tokens_6f": shorter, "output.probe_loss": probe}
    tensors |= {f"output.grad.{name}": leaf.grad for name, leaf in leaves.items()}
    folder = CARRIED / "tvts"
    folder.mkdir(exist_ok=True)
    save_file(
        {
            name: (value.detach().float() if value.is_floating_point() else value).contiguous()
            for name, value in tensors.items()
        },
        folder / "encoder_tubelets_of_three.safetensors",
    )
    record = {
        "method": "tvts",
        "kind": "encoder",
        "source": "tests/parity/reference_tvts.py, float64",
        "official": {"constructor": SIZES},
    }
    (folder / "encoder_tubelets_of_three.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
