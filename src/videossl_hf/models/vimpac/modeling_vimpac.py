"""VIMPAC: video pre-training via masked token prediction and contrastive learning (Tan et al., CVPR-W 2022,
arXiv:2106.11250).

A frozen tokeniser turns every frame into a grid of codes. A transformer whose attention runs along one axis
of the clip at a time predicts the codes that cuboids hide, and its CLS token finds the other clip of the same
video. Official code: github.com/airsplay/vimpac, vimpac/modeling.py and vimpac/pretrain.py.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import ModelOutput, can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from ...errors import ConfigurationError, InputError
from ...nn.attention import attend, split_heads
from ...nn.base import VideoSSLPreTrainedModel
from ...nn.batch_norm import BatchNorm1d
from ...nn.mlp import Mlp
from ...nn.outputs import VideoClassifierOutput
from .configuration_vimpac import AXES, VIMPACConfig
from .masking_vimpac import IGNORED, apply_mask, draw_mask_numbers, find_masked_positions, make_masks
from .modeling_dvae import DVAEModel
from .objective_vimpac import masked_token_loss, two_clip_loss
from .positions_vimpac import TABLES, VIMPACPositions


@dataclass
class VIMPACModelOutput(ModelOutput):
    """Output of `VIMPACModel`.

    Attributes:
        last_hidden_state: `(batch, frames * rows * columns, hidden)`, t-major.
        pooler_output: `(batch, hidden)`, the CLS token, with which the method is evaluated, or with
            `config.pooling="mean"` the mean of all places.
        cls_hidden_state: `(batch, hidden)`, the CLS token.
        hidden_states: on request, what goes into the first block and comes out of each,
            `(batch, 1 + frames * rows * columns, hidden)`, CLS first.
        attentions: on request, of each axis of each step of each block, `(batch * rows of that axis, heads,
            1 + length, 1 + length)`, CLS first.
    """

    last_hidden_state: Tensor | None = None
    pooler_output: Tensor | None = None
    cls_hidden_state: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class VIMPACForPreTrainingOutput(ModelOutput):
    """Output of `VIMPACForPreTraining`. Scalars, unweighted; those of a loss that is switched off are None.

    Attributes:
        loss: token_loss_weight * loss_tokens + contrastive_weight * loss_contrastive.
        loss_tokens: mean cross-entropy of the hidden codes.
        loss_contrastive: both directions added up, times the temperature, as published.
        accuracy_tokens: share of the hidden codes that are predicted.
        accuracy_contrastive: share of clips that find the other clip of their video.
        mask_ratio: share of all places, padding included, that are to be predicted.
        pad_ratio: share of all places that are padding.
        video_embeds: `(2, batch, projection_dim)`, what the contrastive loss compares, before normalisation.
    """

    loss: Tensor | None = None
    loss_tokens: Tensor | None = None
    loss_contrastive: Tensor | None = None
    accuracy_tokens: Tensor | None = None
    accuracy_contrastive: Tensor | None = None
    mask_ratio: Tensor | None = None
    pad_ratio: Tensor | None = None
    video_embeds: Tensor | None = None


class AxisPadding(NamedTuple):
    """What padding means for the attention along one axis.

    Attributes:
        scores: `(batch * rows, 1, 1, 1 + length)`, added to the scores: -inf at padding, never at CLS.
        row_weights: `(batch, rows, rows')`, weight of each row in the mean of CLS; None weighs all the same.
    """

    scores: Tensor
    row_weights: Tensor | None


def axis_padding(is_padding: Tensor, axis: int, dtype: torch.dtype, ignore_rows: bool) -> AxisPadding:
    """From `is_padding` `(batch, frames, rows, columns)`; `axis` is 0, 1 or 2."""
    rows = is_padding.movedim(axis + 1, -1)
    hidden = F.pad(rows, (1, 0)).flatten(0, 2)[:, None, None]
    scores = torch.zeros_like(hidden, dtype=dtype).masked_fill(hidden, -torch.inf)
    if not ignore_rows:
        return AxisPadding(scores, None)
    weights = (~rows.all(-1)).to(dtype)
    return AxisPadding(scores, weights / weights.sum((1, 2), keepdim=True).clamp_min(1))


class VIMPACAxialAttention(nn.Module):
    """Attention along one axis: every row of the clip attends to itself and to the one CLS token.

    CLS takes part in every row; what it becomes is the mean over the rows.
    """

    def __init__(self, config: VIMPACConfig, axis: int, size: int, heads: int) -> None:
        super().__init__()
        self.config = config
        self.axis = axis
        self.grid = config.grid
        self.head_dim = size // heads
        self.scaling = self.head_dim**-0.5
        self.is_causal = False

    def forward(self, qkv: Tensor, padding: AxisPadding | None = None) -> tuple[Tensor, Tensor | None]:
        """Queries, keys and values `(batch, 1 + places, 3 * size)`, CLS first, to
        `(batch, 1 + places, size)` and the weights."""
        tokens = qkv[:, 1:].unflatten(1, self.grid).movedim(self.axis + 1, 3)
        cls = qkv[:, :1, None, None].expand(-1, tokens.shape[1], tokens.shape[2], -1, -1)
        rows = torch.cat([cls, tokens], dim=3)
        query, key, value = (split_heads(x, self.head_dim) for x in rows.flatten(0, 2).chunk(3, dim=-1))
        scores = None if padding is None else padding.scores
        mixed, weights = attend(self, query, key, value, scores, self.config.attention_dropout)
        mixed = mixed.unflatten(0, (-1, *rows.shape[1:3]))
        cls, tokens = mixed[..., 0, :], mixed[..., 1:, :]
        if padding is None or padding.row_weights is None:
            cls = cls.mean((1, 2))
        else:
            cls = (cls * padding.row_weights[..., None]).sum((1, 2))
        return torch.cat([cls[:, None], tokens.movedim(3, self.axis + 1).flatten(1, 3)], dim=1), weights


class VIMPACAttentionStep(nn.Module):
    """One step of the layout: its axes side by side, each with its share of the heads, and their mixture."""

    def __init__(self, config: VIMPACConfig, axes: list[str]) -> None:
        super().__init__()
        size, heads = config.attention_size // len(axes), config.num_attention_heads // len(axes)
        self.qkv = nn.Linear(config.hidden_size, 3 * config.attention_size)
        self.axes = [AXES.index(name) for name in axes]
        self.attentions = nn.ModuleList(VIMPACAxialAttention(config, axis, size, heads) for axis in self.axes)
        self.output = nn.Linear(config.attention_size, config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.pre_norm = config.pre_norm

    def forward(self, hidden: Tensor, padding: dict[int, AxisPadding] | None = None) -> Tensor:
        """`(batch, 1 + places, hidden)` to the same."""
        parts = self.qkv(self.norm(hidden) if self.pre_norm else hidden).chunk(len(self.axes), dim=-1)
        mixed = [
            attention(part, None if padding is None else padding[axis])[0]
            for axis, attention, part in zip(self.axes, self.attentions, parts, strict=True)
        ]
        output = self.dropout(self.output(torch.cat(mixed, dim=-1)))
        return hidden + output if self.pre_norm else self.norm(output + hidden)


class VIMPACLayer(GradientCheckpointingLayer):
    """Block: the steps of the layout, then the MLP, each with a residual connection and a layer norm."""

    def __init__(self, config: VIMPACConfig) -> None:
        super().__init__()
        self.steps = nn.ModuleList(VIMPACAttentionStep(config, axes) for axes in config.steps)
        self.mlp = Mlp(config.hidden_size, config.intermediate_size)
        self.dropout = nn.Dropout(config.dropout)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.pre_norm = config.pre_norm

    def forward(self, hidden: Tensor, padding: dict[int, AxisPadding] | None = None) -> Tensor:
        """`(batch, 1 + places, hidden)` to the same."""
        for step in self.steps:
            hidden = step(hidden, padding=padding)
        output = self.dropout(self.mlp(self.norm(hidden) if self.pre_norm else hidden))
        return hidden + output if self.pre_norm else self.norm(hidden + output)


class VIMPACEmbeddings(nn.Module):
    """Codes to vectors, with CLS before them and positions added."""

    def __init__(self, config: VIMPACConfig) -> None:
        super().__init__()
        self.codes = nn.Embedding(config.vocab_size or 0, config.hidden_size)
        self.cls = nn.Parameter(torch.empty(config.hidden_size))
        self.positions = VIMPACPositions(config)
        self.norm: nn.Module = nn.Identity()
        if not config.pre_norm:
            self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, codes: Tensor) -> Tensor:
        """`(batch, frames, rows, columns)` to `(batch, 1 + frames * rows * columns, hidden)`."""
        try:
            embedded = self.codes(codes.flatten(1))
        except IndexError as error:  # a GPU would stop with an assertion
            raise InputError(
                f"input_codes reach beyond the vocabulary of {self.codes.num_embeddings} codes: were they"
                " made by another tokeniser?"
            ) from error
        cls = self.cls.expand(len(codes), 1, -1)
        return self.dropout(self.norm(torch.cat([cls, embedded], dim=1) + self.positions()))


class VIMPACTokenHead(nn.Module):
    """Scores of all codes for a place; the output matrix is the embedding of the codes."""

    def __init__(self, config: VIMPACConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.bias = nn.Parameter(torch.empty(config.vocab_size or 0))

    def forward(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        """`(places, hidden)` and `(vocabulary, hidden)` to `(places, vocabulary)`."""
        return F.linear(self.norm(F.gelu(self.dense(hidden))), embedding, self.bias)


class VIMPACProjection(nn.Module):
    """Head of the contrastive loss: hidden layers with a norm, and a last linear layer without bias."""

    def __init__(self, config: VIMPACConfig) -> None:
        super().__init__()
        widths = [config.hidden_size, *[config.projection_hidden] * (config.projection_layers - 1)]
        widths.append(config.projection_dim)
        self.layers = nn.ModuleList(
            nn.Linear(before, after, bias=place < config.projection_layers - 1)
            for place, (before, after) in enumerate(pairwise(widths))
        )
        self.norm_first = config.projection_norm == "batch"
        self.norms = nn.ModuleList(
            BatchNorm1d(width, synchronized=config.synchronize_batch_norm)
            if self.norm_first
            else nn.LayerNorm(width, eps=config.layer_norm_eps)
            for width in widths[1:-1]
        )
        self.activation = ACT2FN[config.projection_activation]
        self.final_norm: nn.Module = nn.Identity()
        if config.projection_final_norm:
            self.final_norm = BatchNorm1d(config.projection_dim, synchronized=config.synchronize_batch_norm)

    def forward(self, cls: Tensor) -> Tensor:
        """`(clips, hidden)` to `(clips, projection_dim)`."""
        x = cls
        for layer, norm in zip(self.layers[:-1], self.norms, strict=True):
            x = self.activation(norm(layer(x))) if self.norm_first else norm(self.activation(layer(x)))
        return self.final_norm(self.layers[-1](x))


_HUB_ARGUMENTS = ("revision", "cache_dir", "token", "local_files_only", "force_download", "subfolder")


class VIMPACPreTrainedModel(VideoSSLPreTrainedModel):
    """Base class: initialisation, the two kinds of input, and loading for clips of another size.

    Every model takes codes. With a tokeniser, `from_pretrained(..., tokenizer_model=...)` or
    `set_tokenizer_model`, it takes pixels too; the tokeniser is not part of the weights.
    """

    config_class = VIMPACConfig
    base_model_prefix = "vimpac"
    main_input_name = "input_codes"
    _no_split_modules: ClassVar[list[str]] = ["VIMPACEmbeddings", "VIMPACLayer"]
    _can_record_outputs: ClassVar[dict[str, OutputRecorder]] = {
        "hidden_states": OutputRecorder(VIMPACLayer),
        "attentions": OutputRecorder(VIMPACAxialAttention, index=1),
    }

    def __init__(self, config: VIMPACConfig, tokenizer_model: DVAEModel | None = None) -> None:
        super().__init__(config)
        self.set_tokenizer_model(tokenizer_model)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load a model; for another `num_frames` or `image_size` than the checkpoint's interpolate positions.

        Args:
            kwargs: as transformers takes them, among them fields of the configuration and `tokenizer_model`,
                with which the model takes pixels.

        Raises:
            CheckpointError: see `VideoSSLPreTrainedModel`.
        """
        config = kwargs.pop("config", None)
        hub = {name: kwargs[name] for name in _HUB_ARGUMENTS if name in kwargs}
        stored = cls.config_class.from_pretrained(pretrained_model_name_or_path, **hub)
        if not isinstance(config, VIMPACConfig):
            config = cls.config_class.from_pretrained(config or pretrained_model_name_or_path, **hub)
        wanted = copy.deepcopy(config)
        for name in ("num_frames", "image_size"):
            setattr(wanted, name, kwargs.pop(name, getattr(wanted, name)))
        if wanted.grid == stored.grid:
            return super().from_pretrained(pretrained_model_name_or_path, *args, config=wanted, **kwargs)
        loading = copy.deepcopy(config)
        loading.num_frames, loading.image_size = stored.num_frames, stored.image_size
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, config=loading, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.resize_positions(wanted.num_frames, wanted.image_size)
        return loaded

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        std = self.config.initializer_range
        if isinstance(module, VIMPACEmbeddings):
            init.normal_(module.cls, std=std)
        elif isinstance(module, VIMPACPositions):
            init.normal_(module.cls, std=std)
            for table in module.tables().values():
                init.normal_(table, std=std / len(TABLES[self.config.positions]) ** 0.5)
        elif isinstance(module, VIMPACTokenHead):
            init.zeros_(module.bias)
        elif self.config.pre_norm and isinstance(module, (VIMPACAttentionStep, Mlp)):
            # The sum of all residual branches keeps its scale, however many there are.
            last = module.output if isinstance(module, VIMPACAttentionStep) else module.fc2
            branches = self.config.num_hidden_layers * (len(self.config.steps) + 1)
            init.normal_(last.weight, std=std / branches**0.5)

    def set_tokenizer_model(self, tokenizer_model: DVAEModel | None) -> None:
        """Give the tokeniser that turns pixels into codes; it is neither trained nor saved with this model.

        Raises:
            ConfigurationError: it has another number of codes.
        """
        if tokenizer_model is not None and tokenizer_model.config.vocab_size != self.config.num_codes:
            raise ConfigurationError(
                f"the tokeniser has {tokenizer_model.config.vocab_size} codes, this model"
                f" {self.config.num_codes}: they were not made for each other"
            )
        backbone = getattr(self, self.base_model_prefix, None)
        if backbone is not None:
            backbone.set_tokenizer_model(tokenizer_model)
        self._tokenizer_model = (tokenizer_model,)  # a tuple, so that it is no part of the model

    def resize_positions(self, num_frames: int, image_size: int | list[int]) -> None:
        """Interpolate the position tables to clips of another length or size, and say so in the config."""
        backbone = self.base_model
        for config in (self.config, backbone.config):
            config.num_frames, config.image_size = num_frames, image_size
        backbone.embeddings.positions.resize(self.config.grid)
        for module in self.modules():
            if isinstance(module, VIMPACAxialAttention):
                module.grid = self.config.grid

    def codes_of(
        self,
        input_codes: Tensor | None,
        pixel_values_videos: Tensor | None = None,
        frame_mask: Tensor | None = None,
    ) -> Tensor:
        """Codes `(batch, frames, rows, columns)` of what is given, checked.

        Args:
            input_codes: `(batch, frames, rows, columns)` integers.
            pixel_values_videos: `(batch, frames, channels, height, width)`, normalised for the tokeniser.
            frame_mask: `(batch, frames)` bool, False at frames that are padding.
        """
        (tokenizer_model,) = self._tokenizer_model
        if input_codes is None:
            if pixel_values_videos is None:
                raise InputError("give input_codes, or pixel_values_videos and a tokeniser")
            if tokenizer_model is None:
                raise InputError(
                    "pixel_values_videos need a tokeniser: give input_codes, load the model with"
                    " tokenizer_model=..., or let a processor that has a tokeniser make the codes"
                )
            pixels = pixel_values_videos
            input_codes = tokenizer_model.to(pixels.device).encode(pixels)
        if tuple(input_codes.shape[1:]) != self.config.grid or input_codes.ndim != 4:
            raise InputError(
                f"the codes have shape {tuple(input_codes.shape)}; give (batch, *{self.config.grid}), frames"
                " x rows x columns, or load the model with another num_frames or image_size"
            )
        if input_codes.is_floating_point():
            raise InputError(f"input_codes are {input_codes.dtype}; give integers")
        codes = input_codes.long()
        if frame_mask is not None:
            codes = torch.where(frame_mask[:, :, None, None], codes, self.config.pad_code)
        return codes


class VIMPACModel(VIMPACPreTrainedModel):
    """The transformer: codes to features."""

    def __init__(self, config: VIMPACConfig, tokenizer_model: DVAEModel | None = None) -> None:
        super().__init__(config, tokenizer_model)
        self.embeddings = VIMPACEmbeddings(config)
        self.layers = nn.ModuleList(VIMPACLayer(config) for _ in range(config.num_hidden_layers))
        self.norm: nn.Module = nn.Identity()
        if config.pre_norm:
            self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """The embedding of the codes."""
        return self.embeddings.codes

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        input_codes: Tensor | None = None,
        pixel_values_videos: Tensor | None = None,
        frame_mask: Tensor | None = None,
        has_padding: bool = True,
        **kwargs: Any,
    ) -> VIMPACModelOutput:
        """Features of clips.

        Args:
            input_codes: `(batch, frames, rows, columns)` integers; `config.pad_code` is never attended to.
            pixel_values_videos: instead, `(batch, frames, channels, height, width)`, for a model with a
                tokeniser.
            frame_mask: `(batch, frames)` bool, False at frames that are padding.
            has_padding: False promises that no code is padding, which lets attention go without a mask.

        Raises:
            InputError: neither codes nor pixels, pixels without a tokeniser, or a shape that does not fit.
        """
        codes = self.codes_of(input_codes, pixel_values_videos, frame_mask)
        hidden = self.embeddings(codes)
        is_padding = codes == self.config.pad_code
        padding = None
        if has_padding:
            padding = {
                axis: axis_padding(is_padding, axis, hidden.dtype, self.config.ignore_padding)
                for axis in range(len(AXES))
            }
        for layer in self.layers:
            hidden = layer(hidden, padding=padding)
        hidden = self.norm(hidden)
        cls, tokens = hidden[:, 0], hidden[:, 1:]
        pooled = cls
        if self.config.pooling == "mean":
            weights = torch.ones_like(tokens[..., :1])
            if has_padding and self.config.ignore_padding:
                weights = (~is_padding).flatten(1)[..., None].to(tokens.dtype)
            pooled = (tokens * weights).sum(1) / weights.sum(1).clamp_min(1)
        return VIMPACModelOutput(last_hidden_state=tokens, pooler_output=pooled, cls_hidden_state=cls)

    def get_video_features(self, input_codes: Tensor | None = None, **kwargs: Any) -> Tensor:
        """Pooled features `(batch, hidden)` of clips; arguments as of `forward`."""
        return self(input_codes=input_codes, **kwargs).pooler_output


def _decay_groups(model: VIMPACPreTrainedModel, optimizer_config: Any) -> list[dict[str, Any]]:
    """As published: no weight decay on biases and on the layer norms of the backbone.

    Everything else decays: the token head's layer norm, batch norms, position tables, embeddings. With
    `decay_norm_and_bias` all parameters do.
    """
    backbone = model.base_model
    spared = {
        id(parameter)
        for module in backbone.modules()
        if isinstance(module, nn.LayerNorm)
        for parameter in module.parameters()
    }
    spared |= {id(parameter) for name, parameter in model.named_parameters() if name.endswith("bias")}
    if optimizer_config.decay_norm_and_bias:
        spared = set()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"name": "decayed", "params": [parameter for parameter in trained if id(parameter) not in spared]},
        {
            "name": "spared",
            "params": [parameter for parameter in trained if id(parameter) in spared],
            "weight_decay": 0.0,
        },
    ]
    return [group for group in groups if group["params"]]


class VIMPACForPreTraining(VIMPACPreTrainedModel):
    """The transformer, both heads and both losses.

    Negatives are those of one forward pass, of all processes, whose batches must have equal size; gradient
    accumulation adds none.
    """

    def __init__(self, config: VIMPACConfig, tokenizer_model: DVAEModel | None = None) -> None:
        super().__init__(config)
        self.vimpac = VIMPACModel(config)
        self.token_head = VIMPACTokenHead(config) if config.token_loss_weight else None
        self.projection = VIMPACProjection(config) if config.contrastive_weight else None
        self.post_init()
        self.set_tokenizer_model(tokenizer_model)

    @can_return_tuple
    def forward(
        self,
        input_codes: Tensor | None = None,
        second_input_codes: Tensor | None = None,
        mask: Tensor | None = None,
        second_mask: Tensor | None = None,
        masked_positions: Tensor | None = None,
        has_padding: bool = True,
        pixel_values_videos: Tensor | None = None,
        second_pixel_values_videos: Tensor | None = None,
        frame_mask: Tensor | None = None,
        second_frame_mask: Tensor | None = None,
        generator: torch.Generator | None = None,
        **kwargs: Any,
    ) -> VIMPACForPreTrainingOutput:
        """The loss of a batch.

        Args:
            input_codes: first clip of each video, `(batch, frames, rows, columns)` integers.
            second_input_codes: second clip; not needed without the contrastive loss.
            mask, second_mask: what stands in the place of each code, see `masking_vimpac`; drawn when None.
            masked_positions: `find_masked_positions` of both masks behind each other. Without them a model on
                a GPU has to wait for a mask that lies there; the collator gives them.
            has_padding: False promises that no code is padding, which lets attention go without a mask.
            pixel_values_videos, second_pixel_values_videos: instead of codes, for a model with a tokeniser:
                `(batch, frames, channels, height, width)`.
            frame_mask, second_frame_mask: `(batch, frames)` bool, False at frames that are padding.
            generator: of the CPU; draws the masks.
        """
        config = self.config
        codes = [self.codes_of(input_codes, pixel_values_videos, frame_mask)]
        if second_input_codes is not None or second_pixel_values_videos is not None:
            codes.append(self.codes_of(second_input_codes, second_pixel_values_videos, second_frame_mask))
        elif self.projection is not None:
            raise InputError(
                "the contrastive loss compares two clips: give second_input_codes (or set"
                " contrastive_weight=0)"
            )
        if len({clip.shape for clip in codes}) > 1:
            raise InputError(f"the clips differ in shape: {', '.join(str(tuple(c.shape)) for c in codes)}")
        clips = torch.cat(codes)
        masks = [given for given in (mask, second_mask) if given is not None]
        if not masks:
            drawn = make_masks(config, draw_mask_numbers(config, len(clips), generator))
            masked_positions = find_masked_positions(drawn).to(clips.device, non_blocking=True)
            masks = [drawn.to(clips.device, non_blocking=True)]
        both_masks = torch.cat(masks)
        if both_masks.shape != clips.shape:
            raise InputError(
                f"the masks have shape {tuple(both_masks.shape)}, the clips {tuple(clips.shape)}; give a mask"
                " of each clip"
            )
        seen, labels = apply_mask(clips, both_masks, config.pad_code or 0)

        use_clean = self.projection is not None and config.contrastive_input == "clean"
        parts = ([seen] if self.token_head is not None or not use_clean else []) + [clips] * use_clean
        features = self.vimpac(input_codes=torch.cat(parts), has_padding=has_padding)
        losses, tokens, contrast, embeds = [], None, None, None
        if self.token_head is not None:
            if masked_positions is None:
                masked_positions = find_masked_positions(both_masks)
            hidden = features.last_hidden_state[: len(clips)].flatten(0, 1)[masked_positions]
            logits = self.token_head(hidden, self.vimpac.embeddings.codes.weight)
            tokens = masked_token_loss(
                logits, labels.flatten()[masked_positions], config.token_loss_mean == "all"
            )
            losses.append(config.token_loss_weight * tokens.loss)
        if self.projection is not None:
            embeds = self.projection(features.cls_hidden_state[-len(clips) :]).unflatten(0, (2, -1))
            contrast = two_clip_loss(embeds[0], embeds[1], config.temperature)
            losses.append(config.contrastive_weight * contrast.loss)
        return VIMPACForPreTrainingOutput(
            loss=torch.stack(losses).sum(),
            loss_tokens=tokens.loss if tokens else None,
            loss_contrastive=contrast.loss if contrast else None,
            accuracy_tokens=tokens.accuracy if tokens else None,
            accuracy_contrastive=contrast.accuracy if contrast else None,
            mask_ratio=(labels != IGNORED).float().mean(),
            pad_ratio=(clips == config.pad_code).float().mean(),
            video_embeds=embeds,
        )

    def token_logits(self, input_codes: Tensor, **kwargs: Any) -> Tensor:
        """Scores of all codes for every place of (masked) clips `(batch, frames, rows, columns)`:
        `(batch, frames, rows, columns, vocabulary)`. For pictures: training scores hidden places alone."""
        if self.token_head is None:
            raise InputError("this model has no token head (token_loss_weight=0)")
        hidden = self.vimpac(input_codes=input_codes, **kwargs).last_hidden_state
        logits = self.token_head(hidden, self.vimpac.embeddings.codes.weight)
        return logits.unflatten(1, self.config.grid)

    def parameter_groups(self, optimizer_config: Any) -> list[dict[str, Any]]:
        """Which parameters decay; see `decay_norm_and_bias` of the recipe.

        Args:
            optimizer_config: with `decay_norm_and_bias` false, biases and the backbone's layer norms do not
                decay, as published.
        """
        return _decay_groups(self, optimizer_config)


class VIMPACForVideoClassification(VIMPACPreTrainedModel):
    """The transformer and a linear classifier of its pooled features, which starts at zero."""

    def __init__(self, config: VIMPACConfig, tokenizer_model: DVAEModel | None = None) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.vimpac = VIMPACModel(config)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()
        self.set_tokenizer_model(tokenizer_model)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if module is self.classifier:
            init.zeros_(self.classifier.weight)
            init.zeros_(self.classifier.bias)
        else:
            super()._init_weights(module)

    @can_return_tuple
    def forward(
        self,
        input_codes: Tensor | None = None,
        pixel_values_videos: Tensor | None = None,
        labels: Tensor | None = None,
        frame_mask: Tensor | None = None,
        has_padding: bool = True,
        **kwargs: Any,
    ) -> VideoClassifierOutput:
        """Logits, and with labels the cross-entropy.

        Args:
            input_codes: `(batch, frames, rows, columns)` integers.
            pixel_values_videos: instead, `(batch, frames, channels, height, width)`, for a model with a
                tokeniser.
            labels: classes `(batch,)` int64, or their probabilities `(batch, num_labels)`.
            frame_mask: `(batch, frames)` bool, False at frames that are padding.
            has_padding: False promises that no code is padding.
        """
        output = self.vimpac(
            input_codes=input_codes,
            pixel_values_videos=pixel_values_videos,
            frame_mask=frame_mask,
            has_padding=has_padding,
            **kwargs,
        )
        features = self.dropout(output.pooler_output).to(self.classifier.weight.dtype)
        logits = self.classifier(features)
        loss = None
        if labels is not None:
            if labels.shape not in (logits.shape[:1], logits.shape):
                raise InputError(
                    f"labels have shape {tuple(labels.shape)}; give (batch,) classes or"
                    f" (batch, {self.num_labels}) probabilities"
                )
            scores = logits.to(torch.promote_types(logits.dtype, torch.float32))
            loss = F.cross_entropy(scores, labels, label_smoothing=self.config.label_smoothing)
        return VideoClassifierOutput(
            loss=loss,
            logits=logits,
            pooler_output=output.pooler_output,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )

    def parameter_groups(self, optimizer_config: Any) -> list[dict[str, Any]]:
        """Which parameters decay; see `decay_norm_and_bias` of the recipe.

        Args:
            optimizer_config: with `decay_norm_and_bias` false, biases and the backbone's layer norms do not
                decay, as published.
        """
        return _decay_groups(self, optimizer_config)


__all__ = [
    "VIMPACForPreTraining",
    "VIMPACForPreTrainingOutput",
    "VIMPACForVideoClassification",
    "VIMPACModel",
    "VIMPACModelOutput",
    "VIMPACPreTrainedModel",
]
