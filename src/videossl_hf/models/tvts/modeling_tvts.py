"""TVTS: Turning to Video for Transcript Sorting (Zeng et al., CVPR 2023, arXiv:2209.15280), and TVTSv2.

Speech says what happens, in the order in which it happens. K pieces of a video's transcript are encoded one
by one, so that nothing tells their order; a small transformer sees the pieces and the clip's tokens and says
of every piece which of the K places in time it holds. Only the video can tell, so the video tower learns
time. In parallel a contrastive loss aligns the clip with the mean of its pieces. TVTSv2 (arXiv:2305.14173)
starts from CLIP and tunes only the last blocks of its text tower. Official code: github.com/TencentARC/TVTS,
v1/model/model_dist_TVTS.py, sort_transformer.py, video_encoder.py.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init
from transformers.utils import ModelOutput, can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from ...errors import ConfigurationError, InputError
from ...nn.base import VideoSSLPreTrainedModel
from ...nn.classification import classification_loss
from ...nn.outputs import VideoClassifierOutput
from .configuration_tvts import TVTSConfig
from .encoder_tvts import (
    TVTSAttention,
    TVTSLayer,
    TVTSLinear,
    TVTSVideoEmbeddings,
    TVTSVideoEncoder,
    draw_kept,
)
from .learning_rates_tvts import classifier_groups, pretraining_groups
from .objective_tvts import contrastive_loss, sorting_loss
from .text_encoding_tvts import confine_last_block, encode_texts, text_blocks


@dataclass
class TVTSModelOutput(ModelOutput):
    """Output of `TVTSModel` and `TVTSVideoModel`; fields of a modality that was not given are None.

    Attributes:
        last_hidden_state: `(batch, 1 + tubelets * patches, token_size)`, class token first, then time first.
        pooler_output: `(batch, token_size)`, the class token: what the method is evaluated with.
        video_embeds: `(batch, projection_dim)`, the clip in the space shared with texts, of any length.
        text_last_hidden_state: `(batch, tokens, width)`, or `(batch, scripts, tokens, width)`.
        text_pooler_output: `(batch, size)`, or `(batch, scripts, size)`: one vector a text.
        text_embeds: `(batch, projection_dim)`, the text in the shared space; of several scripts the mean.
        hidden_states: on request, the tokens before the blocks and after each.
        attentions: on request, of each block `(batch, heads, tokens, tokens)`; with divided attention those
            of the class token alone, `(batch, heads, 1, tokens)`, over space and over time.
    """

    last_hidden_state: Tensor | None = None
    pooler_output: Tensor | None = None
    video_embeds: Tensor | None = None
    text_last_hidden_state: Tensor | None = None
    text_pooler_output: Tensor | None = None
    text_embeds: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class TVTSForPreTrainingOutput(ModelOutput):
    """Output of `TVTSForPreTraining`. Losses and accuracies are scalars and unweighted; absent ones are None.

    Attributes:
        loss: contrastive_weight * loss_contrastive + sorting_weight * loss_sorting.
        loss_contrastive: sum of both directions.
        loss_sorting: mean over scripts; absent for captions.
        accuracy_sorting: share of scripts put in their place.
        accuracy_sorting_all: share of clips with all scripts in place.
        accuracy_video_to_text, accuracy_text_to_video: share that finds its own among those of all processes.
        mask_ratio: share of patches that were dropped.
        sorting_logits: `(batch, scripts, places)`.
        video_embeds, text_embeds: `(batch, projection_dim)`, of any length.
    """

    loss: Tensor | None = None
    loss_contrastive: Tensor | None = None
    loss_sorting: Tensor | None = None
    accuracy_sorting: Tensor | None = None
    accuracy_sorting_all: Tensor | None = None
    accuracy_video_to_text: Tensor | None = None
    accuracy_text_to_video: Tensor | None = None
    mask_ratio: Tensor | None = None
    sorting_logits: Tensor | None = None
    video_embeds: Tensor | None = None
    text_embeds: Tensor | None = None


class TVTSProjection(nn.Module):
    """To the space that clips and texts share; texts pass a ReLU first."""

    def __init__(self, in_features: int, out_features: int, rectify: bool) -> None:
        super().__init__()
        self.linear = TVTSLinear(in_features, out_features, start="torch")
        self.rectify = rectify

    def forward(self, features: Tensor) -> Tensor:
        """`(..., in_features)` to `(..., out_features)`."""
        return self.linear(F.relu(features) if self.rectify else features)


class TVTSSortingHead(nn.Module):
    """Says of each script which place in time it holds.

    Video tokens and scripts attend to each other without a mask. Scripts have no position of their own, only
    a vector that marks them as scripts, so exchanging two of them exchanges their answers.
    """

    def __init__(self, config: TVTSConfig) -> None:
        super().__init__()
        size = config.token_size
        self.num_scripts = config.num_scripts
        self.type_embeddings = nn.Parameter(torch.zeros(1, 2, size))
        self.layers = nn.ModuleList(
            TVTSLayer(config, size, config.sorting_heads) for _ in range(config.sorting_layers)
        )
        self.norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.classifier = nn.Linear(size, config.num_scripts)

    def forward(self, video_tokens: Tensor, scripts: Tensor) -> Tensor:
        """Logits `(batch, scripts, places)`.

        Args:
            video_tokens: `(batch, tokens, size)`.
            scripts: `(batch, scripts, size)`, in any order.
        """
        count = scripts.shape[1]
        if count != self.num_scripts:
            raise InputError(f"{count} scripts a clip; the sorting head is made for {self.num_scripts}")
        video_type, script_type = self.type_embeddings.split(1, dim=1)
        tokens = torch.cat([video_tokens + video_type, scripts.to(video_tokens.dtype) + script_type], dim=1)
        for layer in self.layers[:-1]:
            tokens = layer(tokens)
        # What the last layer makes of the video is not read.
        return self.classifier(self.norm(self.layers[-1](tokens, count)))


class TVTSPreTrainedModel(VideoSSLPreTrainedModel):
    """Base class: initialisation, names, and what can be recorded."""

    config_class = TVTSConfig
    base_model_prefix = "tvts"
    input_modalities: tuple[str, ...] = ("video", "text")
    _no_split_modules: ClassVar[list[str]] = ["TVTSLayer", "TVTSDividedLayer", "TVTSVideoEmbeddings"]
    _can_record_outputs: ClassVar[dict[str, OutputRecorder]] = {
        "hidden_states": OutputRecorder(TVTSLayer, index=0),
        "attentions": OutputRecorder(TVTSAttention, index=1),
    }

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        config = self.config
        if isinstance(module, TVTSLinear):
            _init_linear(module)
        elif isinstance(module, nn.Linear):
            init.trunc_normal_(module.weight, std=config.initializer_range)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Conv3d):
            _init_as_torch_does(module)
        elif isinstance(module, TVTSVideoEmbeddings):
            init.trunc_normal_(module.class_token, std=config.position_init_std)
            init.trunc_normal_(module.spatial_positions, std=config.position_init_std)
            init.normal_(module.temporal_positions, std=config.temporal_init_std)
        elif isinstance(module, TVTSSortingHead):
            init.zeros_(module.type_embeddings)
            for part in module.modules():
                if isinstance(part, nn.Linear):
                    _init_as_torch_does(part)
        else:
            super()._init_weights(module)


def _init_linear(layer: TVTSLinear) -> None:
    if layer.start == "torch":
        return _init_as_torch_does(layer)
    if layer.start == "unit":
        init.normal_(layer.weight, std=layer.in_features**-0.5)
    else:
        init.constant_(layer.weight, 1.0 if layer.start == "ones" else 0.0)
    if layer.bias is not None:
        init.zeros_(layer.bias)


def _init_as_torch_does(layer: nn.Linear | nn.Conv3d) -> None:
    """torch's own initialisation, which the official code leaves in a few places."""
    init.kaiming_uniform_(layer.weight, a=5**0.5)
    if layer.bias is not None:
        bound = layer.weight[0].numel() ** -0.5
        init.uniform_(layer.bias, -bound, bound)


class TVTSVideoModel(TVTSPreTrainedModel):
    """The video tower alone."""

    input_modalities = ("video",)
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [r"text_model\.", r"(text|video)_projection\."]

    def __init__(self, config: TVTSConfig) -> None:
        super().__init__(config)
        self.video_model = TVTSVideoEncoder(config)
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self, pixel_values_videos: Tensor, keep_indices: Tensor | None = None, **kwargs: Any
    ) -> TVTSModelOutput:
        """Features of clips.

        Args:
            pixel_values_videos: normalised clips `(batch, frames, channels, height, width)`.
            keep_indices: patches to keep, `(batch, tubelets, kept)` or `(batch, kept)` int64; None keeps all.
        """
        tokens, pooled = self.video_model(pixel_values_videos, keep_indices)
        return TVTSModelOutput(last_hidden_state=tokens, pooler_output=pooled)

    def get_video_features(self, pixel_values_videos: Tensor) -> Tensor:
        """Class tokens `(batch, token_size)` of clips `(batch, frames, channels, height, width)`."""
        return self(pixel_values_videos=pixel_values_videos).pooler_output


class TVTSModel(TVTSPreTrainedModel):
    """Video and text tower with their projections; takes either modality or both."""

    def __init__(self, config: TVTSConfig) -> None:
        super().__init__(config)
        self.video_model = TVTSVideoEncoder(config)
        self.text_model: Any = None
        self.video_projection: TVTSProjection | None = None
        self.text_projection: TVTSProjection | None = None
        if config.use_text:
            settings = config.text_tower_settings
            self.text_model = settings.build(config._attn_implementation)
            confine_last_block(self.text_model)
            if config.use_projection:
                self.video_projection = TVTSProjection(
                    config.token_size, config.projection_dim, rectify=False
                )
                self.text_projection = TVTSProjection(
                    settings.vector_size, config.projection_dim, rectify=True
                )
        self.post_init()
        self._freeze_text()

    def _freeze_text(self) -> None:
        trained = self.config.trainable_text_layers
        if self.text_model is not None and trained is not None:
            blocks = text_blocks(self.text_model)
            for block in blocks[: max(0, len(blocks) - trained)]:
                block.requires_grad_(False)

    def train(self, mode: bool = True) -> TVTSModel:
        """As everywhere; blocks that the configuration freezes stay frozen, also after loading."""
        super().train(mode)
        self._freeze_text()
        return self

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        pixel_values_videos: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        keep_indices: Tensor | None = None,
        with_text_states: bool = True,
        **kwargs: Any,
    ) -> TVTSModelOutput:
        """Features of what is given.

        Args:
            pixel_values_videos: normalised clips `(batch, frames, channels, height, width)`.
            input_ids: tokens of one text a clip `(batch, tokens)`, or of several `(batch, scripts, tokens)`.
            attention_mask: 1 for tokens, 0 for padding, of the same shape.
            keep_indices: patches to keep, `(batch, tubelets, kept)` or `(batch, kept)` int64; None keeps all.
            with_text_states: False leaves out `text_last_hidden_state` and what only it needs.

        Raises:
            InputError: if neither is given, if shapes do not fit, or for text without a text tower.
        """
        if pixel_values_videos is None and input_ids is None:
            raise InputError("give pixel_values_videos, input_ids or both")
        output = TVTSModelOutput()
        # Texts first: the backward pass then ends with their large gradients, when the video is freed.
        if input_ids is not None:
            states, vectors = self._encode_texts(input_ids, attention_mask, with_text_states)
            embeds = self.text_projection(vectors) if self.text_projection else vectors
            output["text_last_hidden_state"], output["text_pooler_output"] = states, vectors
            output["text_embeds"] = embeds.mean(dim=1) if embeds.ndim == 3 else embeds
        if pixel_values_videos is not None:
            tokens, pooled = self.video_model(pixel_values_videos, keep_indices)
            output["last_hidden_state"], output["pooler_output"] = tokens, pooled
            if self.text_model is not None:
                output["video_embeds"] = self.video_projection(pooled) if self.video_projection else pooled
        return output

    def _encode_texts(
        self, input_ids: Tensor, attention_mask: Tensor | None, with_states: bool
    ) -> tuple[Tensor | None, Tensor]:
        """States, if wanted, and vectors, with the leading axes of `input_ids`.

        The K scripts of a batch go through the encoder as one batch of K times as many texts, script by
        script (all first scripts, then all second ones), as the official code has them.
        """
        if self.text_model is None:
            raise InputError("input_ids given, but this model has no text tower (use_text=False)")
        if input_ids.ndim not in (2, 3) or 0 in input_ids.shape:
            raise InputError(
                f"input_ids has shape {tuple(input_ids.shape)}; give (batch, tokens) or (batch, scripts,"
                " tokens)"
            )
        if attention_mask is not None and attention_mask.shape != input_ids.shape:
            raise InputError(
                f"attention_mask has shape {tuple(attention_mask.shape)}, input_ids {tuple(input_ids.shape)}"
            )
        if input_ids.ndim == 2:
            return encode_texts(self.text_model, input_ids, attention_mask, with_states)
        batch, scripts = input_ids.shape[:2]
        rows = input_ids.transpose(0, 1).flatten(0, 1)
        mask = None if attention_mask is None else attention_mask.transpose(0, 1).flatten(0, 1)
        states, vectors = encode_texts(self.text_model, rows, mask, with_states)
        if states is not None:
            states = states.unflatten(0, (scripts, batch)).transpose(0, 1)
        return states, vectors.unflatten(0, (scripts, batch)).transpose(0, 1)

    def get_video_features(self, pixel_values_videos: Tensor) -> Tensor:
        """Clips `(batch, frames, channels, height, width)` in the shared space: `(batch, projection_dim)`.

        Raises:
            InputError: the model has no text tower to share a space with.
        """
        embeds = self(pixel_values_videos=pixel_values_videos).video_embeds
        if embeds is None:
            raise InputError("this model has no text tower (use_text=False): read pooler_output instead")
        return embeds

    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Texts `(batch, tokens)`, or the means of scripts `(batch, scripts, tokens)`, in the shared space:
        `(batch, projection_dim)`."""
        return self(input_ids=input_ids, attention_mask=attention_mask).text_embeds


class TVTSForPreTraining(TVTSPreTrainedModel):
    """Both towers, the sorting head, and the objective.

    Patches are dropped by `keep_indices`; without them, in training or with a generator, at random. In
    evaluation all patches are kept otherwise. With several processes, wrap it in DistributedDataParallel;
    their batches must have equal size. Batches of captions leave the sorting head without gradient: train on
    them with `find_unused_parameters`.
    """

    def __init__(self, config: TVTSConfig) -> None:
        super().__init__(config)
        if not config.use_text:
            raise ConfigurationError("pre-training needs the text tower: set use_text=True")
        self.tvts = TVTSModel(config)
        self.sorting_head = TVTSSortingHead(config) if config.num_scripts > 1 else None
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values_videos: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        script_positions: Tensor | None = None,
        keep_indices: Tensor | None = None,
        generator: torch.Generator | None = None,
        **kwargs: Any,
    ) -> TVTSForPreTrainingOutput:
        """Losses of a batch of clips with their scripts, or with one caption each.

        Args:
            pixel_values_videos: normalised clips `(batch, frames, channels, height, width)`.
            input_ids: tokens of the scripts `(batch, scripts, tokens)` in any order, or of captions
                `(batch, tokens)`, which are not sorted.
            attention_mask: 1 for tokens, 0 for padding, of the same shape.
            script_positions: `(batch, scripts)` int64, the place in time of the script in each slot, from 0;
                None for scripts in their true order.
            keep_indices: patches to keep, `(batch, tubelets, kept)` or `(batch, kept)` int64.
            generator: of the mask, where `keep_indices` is None.
        """
        if keep_indices is None and self.config.mask_ratio > 0 and (self.training or generator is not None):
            keep_indices = self._draw_kept(pixel_values_videos, generator)
        output = self.tvts(
            pixel_values_videos=pixel_values_videos,
            input_ids=input_ids,
            attention_mask=attention_mask,
            keep_indices=keep_indices,
            with_text_states=False,
        )
        config = self.config
        contrastive = contrastive_loss(
            output.video_embeds, output.text_embeds, config.temperature, config.gather_gradient
        )
        loss = config.contrastive_weight * contrastive.loss
        logits = sorting = None
        scripts = output.text_pooler_output
        if self.sorting_head is not None and scripts.ndim == 3 and scripts.shape[1] > 1:
            tokens = output.last_hidden_state if config.sort_class_token else output.last_hidden_state[:, 1:]
            # Words must not help: the sorting loss never reaches the text tower.
            logits = self.sorting_head(tokens, scripts.detach())
            if script_positions is None:
                script_positions = torch.arange(logits.shape[1], device=logits.device).expand(len(logits), -1)
            sorting = sorting_loss(logits, script_positions)
            loss = loss + config.sorting_weight * sorting.loss
        return TVTSForPreTrainingOutput(
            loss=loss,
            loss_contrastive=contrastive.loss,
            loss_sorting=sorting.loss if sorting else None,
            accuracy_sorting=sorting.accuracy if sorting else None,
            accuracy_sorting_all=sorting.accuracy_all if sorting else None,
            accuracy_video_to_text=contrastive.accuracy_video_to_text,
            accuracy_text_to_video=contrastive.accuracy_text_to_video,
            mask_ratio=self._dropped_share(pixel_values_videos, output.last_hidden_state),
            sorting_logits=logits,
            video_embeds=output.video_embeds,
            text_embeds=output.text_embeds,
        )

    def _grid(self, pixel_values_videos: Tensor) -> tuple[int, int]:
        """Tubelets of a clip and patches of a tubelet."""
        frames, _, height, width = pixel_values_videos.shape[1:]
        tubelets, rows, columns = self.tvts.video_model.embeddings.patches.grid(frames, height, width)
        return tubelets, rows * columns

    def _draw_kept(self, pixel_values_videos: Tensor, generator: torch.Generator | None) -> Tensor:
        if generator is None:
            generator = torch.default_generator
        tubelets, places = self._grid(pixel_values_videos)
        return draw_kept(
            self.config, len(pixel_values_videos), tubelets, places, generator, pixel_values_videos.device
        )

    def _dropped_share(self, pixel_values_videos: Tensor, tokens: Tensor) -> Tensor:
        tubelets, places = self._grid(pixel_values_videos)
        return tokens.new_full((), 1 - (tokens.shape[1] - 1) / (tubelets * places))

    def parameter_groups(self, optimizer_config: Any) -> list[dict[str, Any]]:
        """All parameters at one rate; with divided attention what comes from CLIP at
        `config.pretrained_lr_scale` times that.

        Args:
            optimizer_config: has `lr`, `weight_decay` and `decay_norm_and_bias`.
        """
        return pretraining_groups(self, optimizer_config)


class TVTSForVideoClassification(TVTSPreTrainedModel):
    """Video tower and a linear classifier of its class token.

    There is no text tower: `config` is copied with `use_text=False`, so that a saved classifier loads whole.
    """

    input_modalities = ("video",)
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [r"text_model\.", r"(text|video)_projection\."]

    def __init__(self, config: TVTSConfig) -> None:
        config = copy.deepcopy(config)
        config.use_text = False
        super().__init__(config)
        self.num_labels = config.num_labels
        self.tvts = TVTSModel(config)
        self.classifier = nn.Linear(config.token_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self, pixel_values_videos: Tensor, labels: Tensor | None = None, **kwargs: Any
    ) -> VideoClassifierOutput:
        """Logits, and with labels the cross-entropy.

        Args:
            pixel_values_videos: normalised clips `(batch, frames, channels, height, width)`.
            labels: classes `(batch,)` int64, or their probabilities `(batch, num_labels)`.
        """
        output = self.tvts(pixel_values_videos=pixel_values_videos, **kwargs)
        logits = self.classifier(output.pooler_output)
        loss = None if labels is None else classification_loss(logits, labels)
        return VideoClassifierOutput(
            loss=loss,
            logits=logits,
            pooler_output=output.pooler_output,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )

    def parameter_groups(self, optimizer_config: Any) -> list[dict[str, Any]]:
        """Groups with layer-wise decay of the rate, as the official fine-tuning has them.

        Args:
            optimizer_config: its `lr` is the classifier's, its `weight_decay` that of matrices.
        """
        return classifier_groups(self, optimizer_config)


__all__ = [
    "TVTSForPreTraining",
    "TVTSForPreTrainingOutput",
    "TVTSForVideoClassification",
    "TVTSModel",
    "TVTSModelOutput",
    "TVTSPreTrainedModel",
    "TVTSVideoModel",
]
