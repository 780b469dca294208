"""VIMPAC: video pre-training via masked token prediction and contrastive learning (Tan et al., CVPR-W 2022,
arXiv:2106.11250).

A frozen tokeniser turns every frame into a grid of codes. A transformer whose attention runs along one axis
of the clip at a time predicts the codes that cuboids hide, and its CLS token finds the other clip of the same
video. Official code: github.com/airsplay/vimpac, vimpac/modeling.py and vimpac/pretrain.py.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.utils import ModelOutput, can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from ...errors import ConfigurationError, InputError
from ...nn.base import VideoSSLPreTrainedModel
from ...nn.classification import classification_loss
from ...nn.outputs import VideoClassifierOutput
from .configuration_vimpac import AXES, VIMPACConfig
from .layers_vimpac import (
    VIMPACAxialAttention,
    VIMPACEmbeddings,
    VIMPACLayer,
    VIMPACProjection,
    VIMPACTokenHead,
    axis_padding,
)
from .masking_vimpac import IGNORED, apply_mask, draw_mask_numbers, find_masked_positions, make_masks
from .modeling_dvae import DVAEModel
from .objective_vimpac import masked_token_loss, two_clip_loss
from .positions_vimpac import TABLES, VIMPACPositions, interpolate_table
from .tokenizer_file_vimpac import HUB_ARGUMENTS, read_tokenizer, write_tokenizer


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
        accuracy_rare_tokens: the same without the most frequent one of them, which on a still ground alone
            gives a high accuracy.
        accuracy_contrastive: share of clips that find the other clip of their video.
        mask_ratio: share of all places, padding included, that are to be predicted.
        pad_ratio: share of all places that are padding.
        video_embeds: `(2, batch, projection_dim)`, what the contrastive loss compares, before normalisation.
    """

    loss: Tensor | None = None
    loss_tokens: Tensor | None = None
    loss_contrastive: Tensor | None = None
    accuracy_tokens: Tensor | None = None
    accuracy_rare_tokens: Tensor | None = None
    accuracy_contrastive: Tensor | None = None
    mask_ratio: Tensor | None = None
    pad_ratio: Tensor | None = None
    video_embeds: Tensor | None = None


_SIZES = ("num_frames", "image_size")


class VIMPACPreTrainedModel(VideoSSLPreTrainedModel):
    """Base class: initialisation, the two kinds of input, and loading for clips of another size.

    Every model takes codes. With a tokeniser it takes pixels too: that of `set_tokenizer_model` or
    `from_pretrained(..., tokenizer_model=...)`, else the one that lies in the folder it was loaded from,
    which is read when it is first needed. The tokeniser is not part of the weights.
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
        self._tokenizer_place: tuple[Any, dict[str, Any]] | None = None
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
        hub = {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}
        stored = cls.config_class.from_pretrained(pretrained_model_name_or_path, **hub)
        config = kwargs.get("config")
        wanted = copy.deepcopy(config if isinstance(config, VIMPACConfig) else stored)
        for name in _SIZES:
            setattr(wanted, name, kwargs.get(name, getattr(wanted, name)))
        if wanted.grid != stored.grid:
            kwargs = {name: value for name, value in kwargs.items() if name not in _SIZES}
            if isinstance(config, VIMPACConfig):
                kwargs["config"] = copy.deepcopy(config)
                for name in _SIZES:
                    setattr(kwargs["config"], name, getattr(stored, name))
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        if wanted.grid != stored.grid:
            model.resize_positions(wanted.num_frames, wanted.image_size)
        model.base_model._tokenizer_place = (pretrained_model_name_or_path, hub)
        return loaded

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """Save the model, and beside it the tokeniser if it has one."""
        super().save_pretrained(save_directory, *args, **kwargs)
        write_tokenizer(self.tokenizer_model, Path(save_directory))

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        std = self.config.initializer_range
        if isinstance(module, VIMPACEmbeddings):
            init.normal_(module.cls, std=std)
        elif isinstance(module, VIMPACPositions):
            init.normal_(module.cls, std=std)
            for table in module.tables().values():
                init.normal_(table, std=std / len(TABLES[self.config.positions]) ** 0.5)
        elif isinstance(module, VIMPACTokenHead):
            init.zeros_(module.bias)
        elif self.config.pre_norm and getattr(module, "ends_branch", False):
            # The sum of all residual branches keeps its scale, however many there are.
            branches = self.config.num_hidden_layers * (len(self.config.steps) + 1)
            init.normal_(module.weight, std=std / branches**0.5)
            init.zeros_(module.bias)
        else:
            super()._init_weights(module)

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

    @property
    def tokenizer_model(self) -> DVAEModel | None:
        """The tokeniser that was given, or has been read."""
        return self.base_model._tokenizer_model[0]

    def _read_tokenizer(self) -> None:
        """Read the tokeniser of the folder that the model was loaded from, once."""
        place, self.base_model._tokenizer_place = self.base_model._tokenizer_place, None
        if place is not None:
            self.base_model.set_tokenizer_model(read_tokenizer(*place))

    def resize_positions(self, num_frames: int, image_size: int | list[int]) -> None:
        """Interpolate the position tables to clips of another length or size, and say so in the config."""
        backbone = self.base_model
        for config in (self.config, backbone.config):
            config.num_frames, config.image_size = num_frames, image_size
        backbone.embeddings.positions.resize(self.config.grid)
        for module in self.modules():
            if isinstance(module, VIMPACAxialAttention):
                module.grid = self.config.grid

    def resize_moment(self, name: str, moment: Tensor, stored_config: VIMPACConfig) -> Tensor:
        """An optimiser's moment of a position table, interpolated as the table itself; others as they are.

        Args:
            name: of the parameter.
            moment: its first or second moment, in the shape of the earlier run.
            stored_config: of the earlier run.
        """
        axes = TABLES[self.config.positions].get(name.rsplit(".", 1)[-1])
        if axes is None or ".positions." not in name:
            return moment
        before, after = ([grid[axis] for axis in axes] for grid in (stored_config.grid, self.config.grid))
        return interpolate_table(moment, before, after)

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
        if input_codes is None:
            if self.tokenizer_model is None:
                self._read_tokenizer()
            tokenizer_model = self.tokenizer_model
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
        positions: Tensor | None = None,
        **kwargs: Any,
    ) -> VIMPACModelOutput:
        """Features of clips.

        Args:
            input_codes: `(batch, frames, rows, columns)` integers; `config.pad_code` is never attended to.
            pixel_values_videos: instead, `(batch, frames, channels, height, width)`, for a model with a
                tokeniser.
            frame_mask: `(batch, frames)` bool, False at frames that are padding.
            has_padding: False promises that no code is padding, which lets attention go without a mask.
            positions: flat positions among all places of the batch: `last_hidden_state` is that of these
                alone, `(positions, hidden)`, and the last block leaves out what they and CLS do not need.
                There is then no mean to pool.

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
        *layers, last = self.layers
        for layer in layers:
            hidden = layer(hidden, padding=padding)
        if positions is not None:
            return self._at(positions, hidden, last, padding)
        hidden = self.norm(last(hidden, padding=padding))
        cls, tokens = hidden[:, 0], hidden[:, 1:]
        pooled = cls
        if self.config.pooling == "mean":
            weights = torch.ones_like(tokens[..., :1])
            if has_padding and self.config.ignore_padding:
                weights = (~is_padding).flatten(1)[..., None].to(tokens.dtype)
            pooled = (tokens * weights).sum(1) / weights.sum(1).clamp_min(1)
        return VIMPACModelOutput(last_hidden_state=tokens, pooler_output=pooled, cls_hidden_state=cls)

    def _at(self, positions: Tensor, hidden: Tensor, last: nn.Module, padding: Any) -> VIMPACModelOutput:
        """The last block for CLS and some places."""
        batch, length = hidden.shape[:2]
        cls = torch.arange(batch, device=hidden.device) * length
        places = positions + positions // (length - 1) + 1  # CLS stands before the places of each clip
        hidden = self.norm(last(hidden, padding=padding, wanted=torch.cat([cls, places])))
        pooled = hidden[:batch] if self.config.pooling == "cls" else None
        return VIMPACModelOutput(
            last_hidden_state=hidden[batch:], pooler_output=pooled, cls_hidden_state=hidden[:batch]
        )

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
        if self.token_head is None:
            masked_positions = torch.empty(0, dtype=torch.int64, device=clips.device)
        elif masked_positions is None:
            masked_positions = find_masked_positions(both_masks)
        features = self.vimpac(
            input_codes=torch.cat(parts), has_padding=has_padding, positions=masked_positions
        )
        losses, tokens, contrast, embeds = [], None, None, None
        if self.token_head is not None:
            logits = self.token_head(features.last_hidden_state, self.vimpac.embeddings.codes.weight)
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
            accuracy_rare_tokens=tokens.rare_accuracy if tokens else None,
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
        smoothing = self.config.label_smoothing
        loss = None if labels is None else classification_loss(logits, labels, smoothing)
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
