"""ILA: Implicit Temporal Modeling with Learnable Alignment for Video Recognition (Tu et al., ICCV 2023,
arXiv:2304.10465).

CLIP reads the frames of a clip; in every block each frame is aligned with its neighbours by masks around
learned points, and what that gives enters the frame's own attention (`alignment_ila.py`, `vision_ila.py`).
There is no attention over time but in one small transformer over the frames' features. A clip is then
compared with the names of the classes, which it prompts (Kinetics-400), or classified by a linear layer
(Something-Something v2).
Official code: github.com/Francis-Rings/ILA, branches master and SSV2, models/{mat,align,mit,prompt,xclip}.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
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
from ...nn.mlp import Mlp
from ...nn.onednn_linear import OneDNNLinear
from .configuration_ila import ILAConfig
from .fold_ila import fold_batch_norms
from .from_clip_ila import clip_model, clip_tokenizer, load_clip_weights
from .layers_ila import ILAAttention, started
from .text_ila import ILATextEncoder, pad_tokens, saved_tokenizer, tokenize_labels
from .vision_ila import ILABlock, ILAMultiFrameIntegration, ILAVisionEmbeddings, ILAVisionEncoder

# Part -> weight decay as a multiple of the optimiser's (0.003 in the official recipe).
WEIGHT_DECAY_FACTORS = {"aligner": 10 / 3, "skip": 1 / 3, "mit": 1.0, "prompt": 1.0, "clip": 1.0}


@dataclass
class ILAModelOutput(ModelOutput):
    """Output of `ILAModel`; fields of what was not given or not asked for are None.

    Attributes:
        last_hidden_state: `(batch, frames * (1 + patches), hidden)`, tokens of the last block, time first.
        pooler_output: `(batch, projection_dim)`, the clip's feature, comparable with `text_embeds`.
        frame_embeds: `(batch, frames, projection_dim)`, the frames' own features.
        patch_embeds: `(batch, patches, projection_dim)`, mean over the frames: what text is prompted with.
        text_embeds: `(texts, projection_dim)`.
        align_losses: of each block, scalar.
        points: of each block, `(batch, frames - 1, 4)`: x and y in the earlier frame of each pair, x and y
            in the later one, from -1 to 1.
        masks: of each block, `(batch, frames, patches)`.
        hidden_states: on request, of each block `(batch, frames, 1 + patches, hidden)`.
        attentions: on request, of each block `(batch * frames, heads, tokens, tokens)`.
    """

    last_hidden_state: Tensor | None = None
    pooler_output: Tensor | None = None
    frame_embeds: Tensor | None = None
    patch_embeds: Tensor | None = None
    text_embeds: Tensor | None = None
    align_losses: tuple[Tensor, ...] | None = None
    points: tuple[Tensor, ...] | None = None
    masks: tuple[Tensor, ...] | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class ILAVideoClassifierOutput(ModelOutput):
    """Output of `ILAForVideoClassification`.

    Attributes:
        loss: `ce_loss` and the weighted `align_loss`, when labels were given.
        logits: `(batch, labels)`, before softmax.
        ce_loss: cross-entropy.
        align_loss: sum (or mean) of `align_losses`.
        align_losses: of each block.
        video_embeds: `(batch, projection_dim)`, unit length with the text head.
        text_embeds: `(batch, labels, projection_dim)`, prompted by each clip, unit length.
        pooler_output: `(batch, projection_dim)`, the clip's feature.
        points, masks, hidden_states, attentions: as of `ILAModel`.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    ce_loss: Tensor | None = None
    align_loss: Tensor | None = None
    align_losses: tuple[Tensor, ...] | None = None
    video_embeds: Tensor | None = None
    text_embeds: Tensor | None = None
    pooler_output: Tensor | None = None
    points: tuple[Tensor, ...] | None = None
    masks: tuple[Tensor, ...] | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class ILAPromptLayer(nn.Module):
    """Lets texts look at the patches of a clip."""

    def __init__(self, config: ILAConfig) -> None:
        super().__init__()
        width = config.projection_dim
        self.norm1 = nn.LayerNorm(width)
        self.cross_attn = ILAAttention(config, width, width // config.head_dim, qkv_bias=False)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, 4 * width, "quick_gelu", OneDNNLinear)

    def forward(self, text: Tensor, patches: Tensor) -> Tensor:
        """`(batch, texts, width)` to the same, with patches `(batch, patches, width)`."""
        text = text + self.cross_attn(self.norm1(text), patches)[0]
        return text + self.mlp(self.norm2(text))


class ILAPromptGenerator(nn.Module):
    """Makes the words of the classes fit a clip (video-specific prompts of X-CLIP, Ni et al. 2022)."""

    def __init__(self, config: ILAConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.projection_dim)
        self.layers = nn.ModuleList(ILAPromptLayer(config) for _ in range(config.prompt_layers))
        self.alpha = nn.Parameter(torch.zeros(config.projection_dim))

    def forward(self, text: Tensor, patches: Tensor) -> Tensor:
        """What to add to texts `(batch, texts, width)`, given patches `(batch, patches, width)`."""
        patches = self.norm(patches)
        for layer in self.layers:
            text = layer(text, patches)
        return self.alpha * text


class ILAPreTrainedModel(VideoSSLPreTrainedModel):
    """Base class: initialisation, names, and what can be recorded."""

    config_class = ILAConfig
    base_model_prefix = "ila"
    input_modalities: tuple[str, ...] = ("video", "text")
    _no_split_modules: ClassVar[list[str]] = ["ILABlock", "ILATransformerLayer", "ILAPromptLayer"]
    _can_record_outputs: ClassVar[dict[str, OutputRecorder]] = {
        "hidden_states": OutputRecorder(ILABlock, index=0),
        "attentions": OutputRecorder(ILAAttention, index=1, layer_name="vision_model"),
    }

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        std, bound = getattr(module, "initial_std", None), getattr(module, "initial_bound", None)
        if std is not None or bound is not None:
            if bound is None:
                init.normal_(module.weight, std=std)
            else:
                init.uniform_(module.weight, -bound, bound)
            if getattr(module, "bias", None) is not None:
                init.zeros_(module.bias)
        elif isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d)):
            init.kaiming_uniform_(module.weight, a=5**0.5)  # as torch does
            if module.bias is not None:
                reach = module.weight[0].numel() ** -0.5
                init.uniform_(module.bias, -reach, reach)
        elif isinstance(module, ILAVisionEmbeddings):
            init.normal_(module.class_embedding, std=len(module.class_embedding) ** -0.5)
        elif isinstance(module, ILAMultiFrameIntegration):
            init.normal_(module.position_embedding, std=0.02)
        elif isinstance(module, ILAPromptGenerator):
            init.constant_(module.alpha, self.config.prompt_alpha)
        elif isinstance(module, ILAModel):
            init.constant_(module.disturbance, self.config.disturbance)
            if module.logit_scale is not None:
                init.constant_(module.logit_scale, math.log(1 / 0.07))
        else:
            super()._init_weights(module)

    def fold_batch_norms(self) -> ILAPreTrainedModel:
        """A copy for inference whose BatchNorms are part of the convolutions before them: the same numbers to
        rounding, faster. It cannot be trained, and saves no checkpoint that would load again."""
        return fold_batch_norms(self)


class ILAModel(ILAPreTrainedModel):
    """Vision tower with alignment, temporal transformer and, for the text head, CLIP's text tower."""

    def __init__(self, config: ILAConfig) -> None:
        super().__init__(config)
        vision, text, width = config.vision_config, config.text_config, config.projection_dim
        self.vision_model = ILAVisionEncoder(config)
        self.visual_projection = nn.Linear(vision.hidden_size, width, bias=False)
        started(self.visual_projection, std=vision.hidden_size**-0.5)
        self.mit = ILAMultiFrameIntegration(config)
        self.register_buffer("disturbance", torch.tensor(float(config.disturbance)))
        self.text_model: ILATextEncoder | None = None
        self.register_parameter("logit_scale", None)
        if config.has_text:
            self.prompts_norm = nn.LayerNorm(vision.hidden_size)
            self.prompts_projection = started(nn.Linear(vision.hidden_size, width, bias=False), std=1.0)
            self.text_model = ILATextEncoder(config)
            self.text_projection = nn.Linear(text.hidden_size, width, bias=False)
            started(self.text_projection, std=text.hidden_size**-0.5)
            self.logit_scale = nn.Parameter(torch.zeros(()))
        self.post_init()

    @classmethod
    def from_clip(cls, clip: Any, **overrides: Any) -> ILAModel:
        """A model that starts from CLIP and, in token mode "add", computes CLIP's features frame by frame.

        Args:
            clip: a `CLIPModel` of transformers, or the folder or Hub id of one.
            overrides: fields of the configuration, such as `num_frames=16` or `head="linear"`; `image_size`
                interpolates CLIP's positions.

        Raises:
            CheckpointError: it is no CLIP model, or keys or shapes differ.
        """
        clip = clip_model(clip)
        model = cls(ILAConfig.from_clip(clip.config, **overrides))
        load_clip_weights(model, clip)
        return model.eval()

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        pixel_values_videos: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        disturb: bool | None = None,
        output_alignment: bool | None = None,
        **kwargs: Any,
    ) -> ILAModelOutput:
        """Features of what is given.

        Args:
            pixel_values_videos: normalised clips `(batch, frames, channels, side, side)`.
            input_ids: token ids of texts `(texts, length)`.
            attention_mask: `(texts, length)`; of no consequence, as CLIP's text tower looks back only.
            disturb: whether masks are averaged over shifted points; by default in training alone.
            output_alignment: whether to return losses, points and masks; by default in training alone.

        Raises:
            InputError: if neither is given, if shapes do not fit, or for text without a text tower.
        """
        if pixel_values_videos is None and input_ids is None:
            raise InputError("give pixel_values_videos, input_ids or both")
        output = ILAModelOutput()
        if pixel_values_videos is not None:
            disturb = self.training if disturb is None else disturb
            with_alignment = self.training if output_alignment is None else output_alignment
            shift = self.disturbance if disturb else None
            tokens, frames, alignments = self.vision_model(pixel_values_videos, shift, with_alignment)
            frame_embeds = self.visual_projection(frames)
            output["last_hidden_state"] = tokens.flatten(1, 2)
            output["pooler_output"] = self.mit(frame_embeds)
            output["frame_embeds"] = frame_embeds
            if self.text_model is not None:
                patches = self.prompts_projection(self.prompts_norm(tokens[:, :, 1:]))
                output["patch_embeds"] = patches.mean(1)
            if with_alignment:
                losses, points, masks = zip(*alignments, strict=True)
                output["align_losses"], output["points"], output["masks"] = losses, points, masks
        if input_ids is not None:
            output["text_embeds"] = self._encode_text(input_ids, attention_mask)
        return output

    def _encode_text(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        if self.text_model is None:
            raise InputError('input_ids given, but this model has no text tower (head="linear")')
        return self.text_projection(self.text_model(input_ids, attention_mask))

    def get_video_features(self, pixel_values_videos: Tensor) -> Tensor:
        """Features `(batch, projection_dim)` of clips `(batch, frames, channels, side, side)`."""
        return self(pixel_values_videos=pixel_values_videos).pooler_output

    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Features `(texts, projection_dim)` of token ids `(texts, length)`."""
        return self._encode_text(input_ids, attention_mask)

    @torch.no_grad()
    def before_epoch(self, epoch: int) -> None:
        """Set the disturbance for an epoch, counted from 0: it decays from the configured epoch on."""
        decays = max(0, epoch - self.config.disturbance_decay_start_epoch + 1)
        self.disturbance.fill_(self.config.disturbance * self.config.disturbance_decay**decays)


class ILAForVideoClassification(ILAPreTrainedModel):
    """ILA and a head.

    With the text head the names in `config.id2label` ARE the classes: a clip is compared with their text
    features. `set_labels` gives a model other classes, with no training. Features of the names are computed
    at the first use and kept; they are computed anew when the names, their order or the text tower's weights
    change. A name whose tokens are not known is an error, so a model never answers with the features of
    other names.

    The head "linear" is a classifier: mean over the frames to unit length, layer norm, dropout, linear layer.
    """

    def __init__(self, config: ILAConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.ila = ILAModel(config)
        self.prompts_generator: ILAPromptGenerator | None = None
        self.label_embeds: Tensor | None
        self.register_buffer("label_embeds", None, persistent=False)
        self._embedded: tuple[Any, ...] = ()  # what label_embeds were made of
        if config.has_text:
            self.prompts_generator = ILAPromptGenerator(config)
        else:
            self.classifier_norm = nn.LayerNorm(config.projection_dim)
            self.dropout = nn.Dropout(config.classifier_dropout)
            self.classifier = started(nn.Linear(config.projection_dim, config.num_labels), std=0.02)
        self.post_init()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load a model as the base class does; names of classes that the checkpoint does not know (passed as
        `id2label`) are tokenised with the tokenizer that lies beside it."""
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        if model._unknown_labels():
            tokenizer = saved_tokenizer(pretrained_model_name_or_path, kwargs)
            if tokenizer is not None:
                model.set_labels(model._labels(), tokenizer)
        return loaded

    @classmethod
    def from_clip(
        cls, clip: Any, labels: Iterable[str], tokenizer: Any = None, **overrides: Any
    ) -> ILAForVideoClassification:
        """A classifier of named classes that starts from CLIP.

        Args:
            clip: a `CLIPModel` of transformers, or the folder or Hub id of one.
            labels: names of the classes.
            tokenizer: of the CLIP checkpoint, or its folder or id; read from that of `clip` by default.
            overrides: fields of the configuration, as for `ILAModel.from_clip`.
        """
        labels = list(labels)
        names = {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
        source, clip = clip, clip_model(clip)
        model = cls(ILAConfig.from_clip(clip.config, **(names | overrides)))
        load_clip_weights(model.ila, clip)
        if model.config.has_text:
            model.set_labels(labels, clip_tokenizer(source, tokenizer))
        return model.eval()

    def set_labels(self, labels: Iterable[str], tokenizer: Any) -> None:
        """Take other classes: from now on a clip is compared with these names.

        Args:
            labels: the names, in the order of the logits.
            tokenizer: CLIP's.

        Raises:
            ConfigurationError: two equal names, a name that exceeds the text context, a tokenizer that does
                not fit, or a model with a linear head, which knows no words.
        """
        if not self.config.has_text:
            raise ConfigurationError('a linear head knows no words: only head="text" can take other labels')
        labels = list(labels)
        self.config.label_tokens = tokenize_labels(labels, tokenizer, self.config)
        self.config.id2label = dict(enumerate(labels))
        self.config.label2id = {label: index for index, label in enumerate(labels)}
        self.num_labels = len(labels)

    def _labels(self) -> tuple[str, ...]:
        return tuple(label for _, label in sorted(self.config.id2label.items()))

    def _unknown_labels(self) -> list[str]:
        if not self.config.has_text:
            return []
        return [label for label in self._labels() if label not in (self.config.label_tokens or {})]

    def get_label_embeds(self) -> Tensor:
        """Text features `(labels, projection_dim)` of the classes, not prompted.

        Raises:
            ConfigurationError: names whose tokens are not known.
        """
        labels = self._labels()
        if unknown := self._unknown_labels():
            raise ConfigurationError(
                f"no tokens are known for {len(unknown)} of {len(labels)} labels, such as {unknown[0]!r}:"
                " call set_labels(labels, tokenizer)"
            )
        text = [p for name, p in self.ila.named_parameters() if name.startswith("text_")]
        if torch.compiler.is_compiling():
            is_fixed = not any(parameter.requires_grad for parameter in text)
            if is_fixed and self.label_embeds is not None and self._embedded[0] == labels:
                return self.label_embeds
            return self._embed_labels(labels)
        if torch.is_grad_enabled() and any(parameter.requires_grad for parameter in text):
            return self._embed_labels(labels)
        state = (labels, text[0].device, text[0].dtype, [(id(p), p._version) for p in text])
        if self.label_embeds is None or self._embedded != state:
            with torch.no_grad():
                self.label_embeds = self._embed_labels(labels)
            self._embedded = state
        return self.label_embeds

    def _embed_labels(self, labels: tuple[str, ...]) -> Tensor:
        ids = pad_tokens(labels, self.config.label_tokens, self.ila.visual_projection.weight.device)
        return self.ila.get_text_features(ids)

    @can_return_tuple
    def forward(
        self,
        pixel_values_videos: Tensor,
        labels: Tensor | None = None,
        input_ids: Tensor | None = None,
        disturb: bool | None = None,
        output_alignment: bool | None = None,
        **kwargs: Any,
    ) -> ILAVideoClassifierOutput:
        """Logits, and with labels the loss.

        Args:
            pixel_values_videos: normalised clips `(batch, frames, channels, side, side)`.
            labels: classes `(batch,)` int64, or their probabilities `(batch, labels)`.
            input_ids: text head: token ids of other classes for this call, `(labels, length)`.
            disturb: as of `ILAModel`.
            output_alignment: whether to return points and masks; by default in training or with labels.

        Raises:
            InputError: shapes that do not fit.
            ConfigurationError: names of classes whose tokens are not known.
        """
        if output_alignment is None:
            output_alignment = self.training or labels is not None
        output = self.ila(
            pixel_values_videos=pixel_values_videos,
            disturb=disturb,
            output_alignment=output_alignment or labels is not None,
            **kwargs,
        )
        video, text = output.pooler_output, None
        if self.prompts_generator is not None:
            logits, video, text = self._compare(self.prompts_generator, output, input_ids)
        elif input_ids is not None:
            raise InputError('input_ids given, but this model has no text tower (head="linear")')
        else:
            features = self.classifier_norm(F.normalize(video, dim=-1))
            logits = self.classifier(self.dropout(features))
        result = ILAVideoClassifierOutput(
            logits=logits,
            align_losses=output.align_losses,
            video_embeds=video,
            text_embeds=text,
            pooler_output=output.pooler_output,
            points=output.points,
            masks=output.masks,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )
        if labels is not None:
            smoothing = self.config.label_smoothing if self.training and labels.ndim == 1 else 0.0
            result["ce_loss"] = classification_loss(logits, labels, smoothing)
            align_loss = torch.stack(output.align_losses).sum()
            if self.config.align_loss_reduction == "mean":
                align_loss = align_loss / len(output.align_losses)
            result["align_loss"] = align_loss
            result["loss"] = result["ce_loss"] + self.config.align_loss_weight * align_loss
        return result

    def _compare(
        self, generator: ILAPromptGenerator, output: Any, input_ids: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits `(batch, labels)`, and the clips and prompted texts that they compare."""
        video = output.pooler_output
        text = self.get_label_embeds() if input_ids is None else self.ila.get_text_features(input_ids)
        text = text.to(video.dtype).expand(video.shape[0], -1, -1)
        text = F.normalize(text + generator(text, output.patch_embeds), dim=-1)
        video = F.normalize(video, dim=-1)
        logits = self.ila.logit_scale.exp() * (text @ video[..., None]).squeeze(-1)
        return logits, video, text

    def train(self, mode: bool = True) -> ILAForVideoClassification:
        """Also freezes what the configuration says (loading a checkpoint would undo it)."""
        super().train(mode)
        config = self.config
        for name, parameter in self.named_parameters():
            part = _part(name)
            parameter.requires_grad_(
                not (part == "clip" and config.freeze_backbone)
                and not (part == "text" and config.freeze_text)
                and not (part == "prompt" and not config.train_prompts)
            )
        if config.freeze_batch_norm:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def before_epoch(self, epoch: int) -> None:
        """As of `ILAModel`."""
        self.ila.before_epoch(epoch)

    def parameter_groups(self, optimizer_config: Any) -> list[dict[str, Any]]:
        """The five groups of the official recipe, each with and without weight decay: aligners, what they add
        to the blocks, the temporal transformer and classifier, prompts, CLIP.

        One-dimensional parameters, biases and positions do not decay.

        Args:
            optimizer_config: its `lr` and `weight_decay` are CLIP's; the others' are multiples of them
                (`aligner_lr_factor` and so on in the configuration).
        """
        return list(self._groups(optimizer_config))

    def _groups(self, optimizer_config: Any) -> Iterator[dict[str, Any]]:
        trained = [(name, p) for name, p in self.named_parameters() if p.requires_grad]
        for part, decay_factor in WEIGHT_DECAY_FACTORS.items():
            factor = 1.0 if part == "clip" else getattr(self.config, f"{part}_lr_factor")
            for decays in (True, False):
                chosen = [
                    parameter
                    for name, parameter in trained
                    if (_part(name) == part or (part == "clip" and _part(name) == "text"))
                    and decays == (parameter.ndim > 1 and "position_embedding" not in name)
                ]
                if chosen:
                    yield {
                        "name": part if decays else f"{part}_no_decay",
                        "params": chosen,
                        "lr": factor * optimizer_config.lr,
                        "weight_decay": decay_factor * optimizer_config.weight_decay if decays else 0.0,
                    }


def _part(name: str) -> str:
    """Which part of a classifier a parameter belongs to: aligner, skip, mit, prompt, text or clip."""
    places = name.removeprefix("ila.").split(".")
    if places[0].startswith("prompts"):
        return "prompt"
    if places[0] in ("mit", "classifier", "classifier_norm"):
        return "mit"
    if places[0] in ("text_model", "text_projection", "logit_scale"):
        return "text"
    if {"message_proj", "message_norm", "alignment"} & set(places):
        return "aligner"
    return "skip" if {"aligned_proj", "interactive_proj"} & set(places) else "clip"


__all__ = [
    "ILAForVideoClassification",
    "ILAModel",
    "ILAModelOutput",
    "ILAPreTrainedModel",
    "ILAVideoClassifierOutput",
]
