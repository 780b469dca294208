"""TVTS's video tower: a space-time transformer over the patches that a mask keeps.

Joint attention (TVTS; official `v1/model/video_encoder.py`) mixes all tokens of a clip at once. Divided
attention (TVTSv2; `v2/model/video_encoder_ViT_B_16.py`) mixes first the patches of one place over time, then
those of one frame, and puts the tower into CLIP's layout.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from ...errors import InputError
from ...nn.attention import attend, split_heads
from ...nn.drop_path import DropPath, drop_path_rates
from ...nn.lean_linear import norm_linear, plain_linear
from ...nn.mlp import Mlp
from ...nn.tubelet_embedding import TubeletEmbedding
from .configuration_tvts import TVTSConfig

__all__ = [
    "TVTSAttention",
    "TVTSDividedAttention",
    "TVTSDividedLayer",
    "TVTSLayer",
    "TVTSLinear",
    "TVTSVideoEncoder",
    "draw_kept",
]


def draw_kept(
    config: TVTSConfig,
    batch: int,
    tubelets: int,
    places: int,
    generator: torch.Generator,
    device: torch.device,
) -> Tensor:
    """Which patches a random mask keeps.

    Args:
        batch: clips.
        tubelets: of a clip; under a tube mask all of a clip keep the same places.
        places: patches of a tubelet.
        generator: source of the draw.
        device: of the result.

    Returns:
        `(batch, tubelets, kept)` int64.
    """
    drawn = 1 if config.mask_type == "tube" else tubelets
    scores = torch.rand(batch, drawn, places, generator=generator, device=generator.device)
    kept = scores.argsort(dim=-1)[..., : int(places * (1 - config.mask_ratio))]
    return kept.expand(-1, tubelets, -1).to(device, non_blocking=True)


class TVTSVideoEmbeddings(nn.Module):
    """Patches and class token with their positions: spatial and temporal for patches, its own for the
    class."""

    def __init__(self, config: TVTSConfig) -> None:
        super().__init__()
        self.config = config
        size = config.hidden_size
        has_bias = config.attention_type == "joint"
        self.patches = TubeletEmbedding(
            config.num_channels, size, config.tubelet_size, config.patch_size, bias=has_bias
        )
        self.class_token = nn.Parameter(torch.zeros(1, 1, size))
        self.spatial_positions = nn.Parameter(torch.zeros(1, 1 + config.num_places, size))
        self.temporal_positions = nn.Parameter(torch.zeros(1, config.num_frames // config.tubelet_size, size))

    def forward(self, pixel_values_videos: Tensor, kept: Tensor | None = None) -> Tensor:
        """`(batch, frames, channels, height, width)` to `(batch, 1 + tubelets * patches, hidden)`.

        Args:
            pixel_values_videos: normalised clips.
            kept: `(batch, tubelets or more, patches)` int64, for each tubelet the places to keep, in the
                order of the tokens; or `(batch, patches)` for the same places in all. None keeps all.
        """
        pixels = self._checked(pixel_values_videos)
        tubelets, rows, columns = self.patches.grid(pixels.shape[1], *pixels.shape[3:])
        if kept is not None:
            kept = self._kept_of_each(kept, pixels.shape[0], tubelets)
        class_position, spatial = self._spatial(rows, columns).split([1, rows * columns])
        spatial = spatial.unsqueeze(0) if kept is None else F.embedding(kept, spatial)
        tokens = self.patches(pixels, kept) + spatial + self._temporal(tubelets).unsqueeze(1)
        class_token = (self.class_token + class_position).expand(pixels.shape[0], -1, -1)
        return torch.cat([class_token, tokens.flatten(1, 2)], dim=1)

    def _checked(self, pixel_values_videos: Tensor) -> Tensor:
        config, shape = self.config, tuple(pixel_values_videos.shape)
        if len(shape) != 5 or shape[2] != config.num_channels or 0 in shape:
            raise InputError(
                f"pixel_values_videos has shape {shape}; give (batch, frames, {config.num_channels}, height,"
                " width)"
            )
        if not pixel_values_videos.is_floating_point():
            raise InputError(
                f"pixel_values_videos is {pixel_values_videos.dtype}; give normalised floating point values"
            )
        if not config.interpolate_positions:
            if shape[3:] != (config.image_size, config.image_size):
                raise InputError(
                    f"frames of {shape[3]} x {shape[4]}, but the position table is for {config.image_size} x"
                    f" {config.image_size}: resize them, or set interpolate_positions=True"
                )
            if shape[1] > config.num_frames:
                raise InputError(
                    f"{shape[1]} frames, but the temporal table is for {config.num_frames}: give fewer, or"
                    " set interpolate_positions=True"
                )
        return pixel_values_videos.to(self.patches.weight.dtype)

    def _kept_of_each(self, kept: Tensor, batch: int, tubelets: int) -> Tensor:
        if kept.ndim == 2:
            kept = kept.unsqueeze(1).expand(-1, tubelets, -1)
        if kept.ndim != 3 or kept.shape[0] != batch or kept.shape[1] < tubelets or kept.shape[2] < 1:
            raise InputError(
                f"kept patches have shape {tuple(kept.shape)}; give ({batch}, {tubelets} tubelets, patches)"
                f" or ({batch}, patches)"
            )
        return kept[:, :tubelets]

    def _spatial(self, rows: int, columns: int) -> Tensor:
        """`(1 + rows * columns, hidden)`."""
        table = self.spatial_positions[0]
        side = self.config.image_size // self.config.patch_size
        if (rows, columns) == (side, side):
            return table
        image = table[1:].T.view(1, -1, side, side)
        image = F.interpolate(image, size=(rows, columns), mode="bicubic", align_corners=False)
        return torch.cat([table[:1], image[0].flatten(1).T])

    def _temporal(self, tubelets: int) -> Tensor:
        """`(tubelets, hidden)`: the first rows, as published; stretched only for longer clips."""
        table = self.temporal_positions[0]
        if tubelets <= len(table):
            return table[:tubelets]
        return F.interpolate(table.T[None], size=tubelets, mode="linear", align_corners=False)[0].T


class TVTSLinear(nn.Linear):
    """A linear layer that says how its weights start, biases being zero.

    Args:
        in_features, out_features, bias: as ever.
        start: "zeros", "ones", "unit" (normal, variance 1 / in_features), or "torch" (torch's own, biases
            too).
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, start: str) -> None:
        super().__init__(in_features, out_features, bias)
        self.start = start


class TVTSAttention(nn.Module):
    """Multi-head self-attention over all tokens."""

    def __init__(self, config: TVTSConfig, size: int, heads: int) -> None:
        super().__init__()
        self.config = config
        self.head_dim = size // heads
        self.scaling = self.head_dim**-0.5
        self.is_causal = False
        self.qkv = nn.Linear(size, 3 * size)
        self.proj = nn.Linear(size, size)

    def project(
        self, tokens: Tensor, norm: nn.LayerNorm, num_queries: int | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (of the last `num_queries` tokens alone), keys and values of the norm of `tokens`:
        `(batch, heads, tokens, head_dim)`."""
        if num_queries is None:
            query, key, value = norm_linear(tokens, norm, self.qkv).chunk(3, dim=-1)
        else:
            tokens = norm(tokens)
            size = tokens.shape[-1]
            weights, biases = self.qkv.weight.split([size, 2 * size]), self.qkv.bias.split([size, 2 * size])
            query = F.linear(tokens[:, -num_queries:], weights[0], biases[0])
            key, value = F.linear(tokens, weights[1], biases[1]).chunk(2, dim=-1)
        query, key, value = (split_heads(part, self.head_dim) for part in (query, key, value))
        return query, key, value

    def forward(
        self, tokens: Tensor, norm: nn.LayerNorm, num_queries: int | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Of the norm of `tokens`, `(batch, tokens, size)`, to the last `num_queries` (by default all) of
        them, and the weights where the implementation has them."""
        mixed, weights = attend(self, *self.project(tokens, norm, num_queries))
        return plain_linear(mixed, self.proj), weights


class TVTSDividedAttention(TVTSAttention):
    """Attention within groups: all patches of one place over time, or all of one frame.

    The class token belongs to every group as key and value; as query it attends to all tokens.
    """

    def __init__(self, config: TVTSConfig, over_time: bool) -> None:
        size = config.hidden_size
        super().__init__(config, size, config.num_attention_heads)
        self.over_time = over_time
        if over_time:
            # The layer starts as if it had no attention over time.
            self.qkv = TVTSLinear(size, 3 * size, start="zeros")
            self.proj = TVTSLinear(size, size, start="ones")

    def forward(  # type: ignore[override]
        self, tokens: Tensor, norm: nn.LayerNorm, frames: int
    ) -> tuple[Tensor, Tensor | None]:
        """Of the norm of `tokens`, `(batch, 1 + frames * places, hidden)`, to the same, and the class
        token's weights `(batch, heads, 1, tokens)`."""
        query, key, value = self.project(tokens, norm)
        class_mixed, weights = attend(self, query[:, :, :1], key, value)
        key, value = (self._grouped(part, frames, with_class=True) for part in (key, value))
        mixed, _ = attend(self, self._grouped(query, frames, with_class=False), key, value)
        mixed = mixed.unflatten(0, (tokens.shape[0], -1))
        if self.over_time:
            mixed = mixed.transpose(1, 2)
        return self.proj(torch.cat([class_mixed, mixed.flatten(1, 2)], dim=1)), weights

    def _grouped(self, x: Tensor, frames: int, with_class: bool) -> Tensor:
        """`(batch, heads, 1 + frames * places, dim)` to `(batch * groups, heads, members, dim)`."""
        patches = x[:, :, 1:].unflatten(2, (frames, -1)).transpose(1, 2)  # batch, frames, heads, places, dim
        if self.over_time:
            patches = patches.transpose(1, 3)  # batch, places, heads, frames, dim
        if with_class:
            class_token = x[:, None, :, :1].expand(-1, patches.shape[1], -1, -1, -1)
            patches = torch.cat([class_token, patches], dim=3)
        return patches.flatten(0, 1)


class TVTSLayer(GradientCheckpointingLayer):
    """x + attention(norm1(x)), then x + mlp(norm2(x))."""

    def __init__(self, config: TVTSConfig, size: int, heads: int, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.attention = TVTSAttention(config, size, heads)
        self.norm2 = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.mlp = Mlp(size, int(size * config.mlp_ratio), config.hidden_act)
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor, num_queries: int | None = None) -> Tensor:
        """`(batch, tokens, size)` to the last `num_queries` (by default all) of them."""
        mixed, _ = self.attention(tokens, self.norm1, num_queries)
        tokens = tokens if num_queries is None else tokens[:, -num_queries:]
        tokens = tokens + self.drop_path(mixed)
        return tokens + self.drop_path(self.mlp(tokens, self.norm2))


class TVTSDividedLayer(TVTSLayer):
    """Attention over time, over space, perceptron; the second residual starts from the layer's input
    again."""

    def __init__(self, config: TVTSConfig, drop_path: float = 0.0) -> None:
        super().__init__(config, config.hidden_size, config.num_attention_heads, drop_path)
        self.attention = TVTSDividedAttention(config, over_time=False)
        self.temporal_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.temporal_attention = TVTSDividedAttention(config, over_time=True)

    def forward(self, tokens: Tensor, frames: int) -> Tensor:  # type: ignore[override]
        """`(batch, 1 + frames * places, hidden)` to the same."""
        over_time = tokens + self.drop_path(self.temporal_attention(tokens, self.temporal_norm, frames)[0])
        tokens = tokens + self.drop_path(self.attention(over_time, self.norm1, frames)[0])
        return tokens + self.drop_path(self.mlp(tokens, self.norm2))


class TVTSVideoEncoder(nn.Module):
    """Embeddings, blocks and last norm."""

    def __init__(self, config: TVTSConfig) -> None:
        super().__init__()
        self.config = config
        self.is_divided = config.attention_type == "divided"
        size = config.hidden_size
        rates = drop_path_rates(config.drop_path_rate, config.num_hidden_layers)
        self.embeddings = TVTSVideoEmbeddings(config)
        self.layers = nn.ModuleList(
            TVTSDividedLayer(config, rate)
            if self.is_divided
            else TVTSLayer(config, size, config.num_attention_heads, rate)
            for rate in rates
        )
        self.norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        if self.is_divided:
            self.first_norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
            self.projection = TVTSLinear(size, config.projection_dim, bias=False, start="unit")

    def forward(self, pixel_values_videos: Tensor, kept: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Tokens `(batch, 1 + tubelets * patches, token_size)`, class token first, and that token alone
        `(batch, token_size)`.

        Args:
            pixel_values_videos: normalised clips `(batch, frames, channels, height, width)`.
            kept: patches to keep, see `TVTSVideoEmbeddings`.
        """
        tokens = self.embeddings(pixel_values_videos, kept)
        if not self.is_divided:
            for layer in self.layers:
                tokens = layer(tokens)
            tokens = self.norm(tokens)
            return tokens, tokens[:, 0]
        frames = pixel_values_videos.shape[1] // self.config.tubelet_size
        tokens = self.first_norm(tokens)
        for layer in self.layers:
            tokens = layer(tokens, frames)
        if self.config.normalize_patch_tokens:
            tokens = self.norm(tokens)
        else:
            tokens = torch.cat([self.norm(tokens[:, :1]), tokens[:, 1:]], dim=1)
        tokens = self.projection(tokens)
        return tokens, tokens[:, 0]
