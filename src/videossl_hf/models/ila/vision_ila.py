"""ILA's vision tower: CLIP's, and in front of every block's attention an alignment of neighbouring frames."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...errors import InputError
from ...nn.drop_path import DropPath, drop_path_rates
from ...nn.onednn_linear import OneDNNLinear
from .alignment_ila import ILAAligner
from .configuration_ila import SMALLEST_GRID, ILAConfig
from .layers_ila import ILATransformerLayer, interpolate_positions, started

__all__ = ["ILABlock", "ILAMultiFrameIntegration", "ILAVisionEncoder"]


class ILAVisionEmbeddings(nn.Module):
    """Patches, the frame's own token in front, and their positions."""

    def __init__(self, config: ILAConfig) -> None:
        super().__init__()
        self.sizes = vision = config.vision_config
        patch = vision.patch_size
        self.patch_embedding = nn.Conv2d(
            vision.num_channels, vision.hidden_size, patch, stride=patch, bias=False
        )
        self.class_embedding = nn.Parameter(torch.zeros(vision.hidden_size))
        self.position_embedding = nn.Embedding(vision.grid_size**2 + 1, vision.hidden_size)
        started(self.patch_embedding, std=0.02)
        started(self.position_embedding, std=0.02)

    def forward(self, videos: Tensor) -> Tensor:
        """`(batch, frames, channels, height, width)` to `(batch, frames, 1 + patches, hidden)`."""
        batch, frames = videos.shape[:2]
        pixels = videos.flatten(0, 1).to(self.patch_embedding.weight.dtype)
        patches = self.patch_embedding(pixels)
        side = patches.shape[-1]
        patches = patches.flatten(2).transpose(1, 2)
        own = self.class_embedding.to(patches.dtype).expand(batch * frames, 1, -1)
        return (torch.cat([own, patches], dim=1) + self._positions(side)).unflatten(0, (batch, frames))

    def _positions(self, side: int) -> Tensor:
        """`(1 + patches, hidden)` for a grid of this side."""
        table = self.position_embedding.weight
        if side == self.sizes.grid_size:
            return table
        return resize_position_table(table, side)


def resize_position_table(table: Tensor, side: int) -> Tensor:
    """Vision positions `(1 + old * old, hidden)` for another grid: `(1 + side * side, hidden)`."""
    old = round((len(table) - 1) ** 0.5)
    grid = table[1:].T.unflatten(1, (old, old))[None]
    return torch.cat([table[:1], interpolate_positions(grid, (side, side))[0].flatten(1).T])


class ILABlock(ILATransformerLayer):
    """One block: every frame is aligned with its neighbours, what that gives enters CLIP's own attention."""

    def __init__(self, config: ILAConfig, drop_path_rate: float = 0.0) -> None:
        vision = config.vision_config
        width = vision.hidden_size
        super().__init__(
            config,
            width,
            vision.num_attention_heads,
            vision.intermediate_size,
            vision.hidden_act,
            vision.layer_norm_eps,
            layers=vision.num_hidden_layers,
        )
        self.adds = config.token_mode == "add"
        self.message_proj = OneDNNLinear(width, width)
        self.message_norm = nn.LayerNorm(width)
        self.alignment = ILAAligner(config)
        if self.adds:
            # Zero at the start, so that a fresh model is CLIP on every frame.
            self.aligned_proj = started(OneDNNLinear(width, width), std=0.0)
            self.interactive_proj = started(OneDNNLinear(width, width), std=0.0)
        self.drop_path = DropPath(drop_path_rate)

    def forward(  # type: ignore[override]
        self, x: Tensor, shift: Tensor | None = None, with_loss: bool = True
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        """One block.

        Args:
            x: `(batch, frames, tokens, hidden)`.
            shift: scalar tensor, the disturbance of the points.
            with_loss: whether to compute the alignment loss.

        Returns:
            the same shape, the loss, points `(batch, pairs, 4)` and masks `(batch, frames, patches)`.
        """
        batch, frames, count, _ = x.shape
        projection = self.interactive_proj if self.adds else None
        messages = self.message_norm(self.message_proj(x))
        alignment = self.alignment(messages, shift, with_loss, projection)
        if self.adds:
            x = x + self.drop_path(alignment.projected(self.aligned_proj))
            x = x + self.drop_path(alignment.interactive)
        else:
            x = torch.cat([x, alignment.aligned[:, :, 1:].mean(2, keepdim=True).to(x.dtype)], dim=2)
        mixed, _ = self.self_attn(self.layer_norm1(x).flatten(0, 1))
        x = (x + self.drop_path(mixed.unflatten(0, (batch, frames))))[:, :, :count]
        x = x + self.drop_path(self.mlp(self.layer_norm2(x)))
        return x, alignment.loss, alignment.points, alignment.masks


class ILAVisionLayers(nn.Module):
    """The blocks."""

    def __init__(self, config: ILAConfig) -> None:
        super().__init__()
        rates = drop_path_rates(config.drop_path_rate, config.vision_config.num_hidden_layers)
        self.layers = nn.ModuleList(ILABlock(config, rate) for rate in rates)


class ILAVisionEncoder(nn.Module):
    """The tower."""

    def __init__(self, config: ILAConfig) -> None:
        super().__init__()
        self.sizes = vision = config.vision_config
        self.embeddings = ILAVisionEmbeddings(config)
        self.pre_layernorm = nn.LayerNorm(vision.hidden_size, eps=vision.layer_norm_eps)
        self.encoder = ILAVisionLayers(config)
        self.post_layernorm = nn.LayerNorm(vision.hidden_size, eps=vision.layer_norm_eps)

    def forward(
        self, videos: Tensor, shift: Tensor | None, with_loss: bool
    ) -> tuple[Tensor, Tensor, list[tuple[Tensor | None, Tensor, Tensor]]]:
        """Encode clips.

        Args:
            videos: `(batch, frames, channels, side, side)`.
            shift: scalar tensor, the disturbance of the points; None for none.
            with_loss: whether to compute the alignment losses.

        Returns:
            tokens `(batch, frames, 1 + patches, hidden)` as the last block leaves them, frame features
            `(batch, frames, hidden)`, and of each block the loss, the points and the masks.
        """
        self._check(videos)
        x = self.pre_layernorm(self.embeddings(videos))
        alignments = []
        for layer in self.encoder.layers:
            x, loss, points, masks = layer(x, shift=shift, with_loss=with_loss)
            alignments.append((loss, points, masks))
        return x, self.post_layernorm(x[:, :, 0]), alignments

    def _check(self, videos: Tensor) -> None:
        shape, channels, patch = tuple(videos.shape), self.sizes.num_channels, self.sizes.patch_size
        if len(shape) != 5 or shape[0] == 0 or shape[2] != channels:
            raise InputError(
                f"pixel_values_videos has shape {shape}; give (batch, frames, {channels}, side, side)"
            )
        if shape[1] < 2:
            raise InputError(
                "pixel_values_videos has one frame a clip; frames are aligned in pairs, give two or more"
            )
        if shape[3] != shape[4] or shape[3] % patch or shape[3] < SMALLEST_GRID * patch:
            raise InputError(
                f"pixel_values_videos has frames of {shape[3]} x {shape[4]}; give squares whose side is a"
                f" multiple of {patch}, at least {SMALLEST_GRID * patch}"
            )
        if not videos.is_floating_point():
            raise InputError(f"pixel_values_videos is {videos.dtype}; give normalised floating point values")


def _mit_layer(config: ILAConfig) -> ILATransformerLayer:
    width = config.projection_dim
    layer = ILATransformerLayer(config, width, width // config.head_dim, 4 * width)
    attention = layer.self_attn
    for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
        started(projection, bound=(6 / (4 * width)) ** 0.5)  # Xavier over the three together
    for linear in (attention.out_proj, layer.mlp.fc1, layer.mlp.fc2):
        started(linear, std=0.02)
    return layer


class ILAMultiFrameIntegration(nn.Module):
    """Transformer over the features of the frames, whose outputs and inputs are averaged to one feature
    (MIT of X-CLIP, Ni et al. 2022)."""

    def __init__(self, config: ILAConfig) -> None:
        super().__init__()
        width = config.projection_dim
        self.position_embedding = nn.Parameter(torch.zeros(1, config.num_frames, width))
        self.layers = nn.ModuleList(_mit_layer(config) for _ in range(config.mit_num_layers))

    def forward(self, frames: Tensor) -> Tensor:
        """`(batch, frames, width)` to `(batch, width)`."""
        positions: Tensor = self.position_embedding
        if frames.shape[1] != positions.shape[1]:
            positions = interpolate_positions(positions.transpose(1, 2), frames.shape[1:2]).transpose(1, 2)
        x = frames + positions
        for layer in self.layers:
            x = layer(x)
        return (x + frames).mean(1)
