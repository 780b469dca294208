"""Configuration of ILA: CLIP's two towers, the alignment inside the vision tower, and the head."""

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from transformers import CLIPConfig
from transformers.activations import ACT2FN

from ...nn.base_config import VideoSSLConfig, check_range

LARGEST_WIDTH = 16384
LARGEST_COUNT = 1024
SMALLEST_GRID = 4  # the point head halves the map twice

TOWERS: dict[str, dict[str, int]] = {
    "base-patch32": {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "patch_size": 32,
    },
    "base-patch16": {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "patch_size": 16,
    },
    "large-patch14": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "patch_size": 14,
    },
}
_LAYER_FIELDS = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("hidden_act", "layer_norm_eps"),
)
VISION_FIELDS = (*_LAYER_FIELDS, "num_channels", "image_size", "patch_size")
TEXT_FIELDS = (*_LAYER_FIELDS, "vocab_size", "max_position_embeddings", "eos_token_id")
LEGACY_END_OF_TEXT = 2
"""What older CLIP configurations state; the token meant is the last of the vocabulary."""
DATASETS: dict[str, dict[str, Any]] = {
    "k400": {"head": "text", "interactive_block": "depthwise", "num_labels": 400},
    "ssv2": {"head": "linear", "interactive_block": "dense", "num_labels": 174},
}
_PRESET = re.compile(rf"ila-({'|'.join(TOWERS)})(-336)?-(8|16|32)f-({'|'.join(DATASETS)})")


class ILAVisionConfig(VideoSSLConfig):
    """Sizes of the vision tower, under CLIP's names.

    hidden_size (`int`): width.
    intermediate_size (`int`, optional): hidden width of the MLPs; None takes four times the width.
    num_hidden_layers, num_attention_heads (`int`): blocks, and heads of each.
    num_channels, image_size, patch_size (`int`): channels and side of a frame, side of a patch.
    hidden_act (`str`): activation of the MLPs, by transformers' name.
    layer_norm_eps (`float`): added to the variance in the layer norms.
    """

    model_type = "ila_vision_model"
    base_config_key = "vision_config"

    hidden_size: int = 768
    intermediate_size: int | None = None
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    num_channels: int = 3
    image_size: int = 224
    patch_size: int = 16
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5

    def __post_init__(self, **kwargs: Any) -> None:
        """Fill in the width of the MLPs."""
        if self.intermediate_size is None:
            self.intermediate_size = 4 * self.hidden_size
        super().__post_init__(**kwargs)

    @property
    def grid_size(self) -> int:
        """Patches along each side of a frame."""
        return self.image_size // self.patch_size

    def validate_architecture(self) -> None:
        """Refuse sizes that cannot work."""
        _check_tower(self)
        check_range("num_channels", self.num_channels, 1, LARGEST_WIDTH)
        check_range("patch_size", self.patch_size, 1, LARGEST_WIDTH)
        check_range("image_size", self.image_size, self.patch_size, LARGEST_WIDTH)
        if self.image_size % self.patch_size or self.grid_size < SMALLEST_GRID:
            raise ValueError(
                f"image_size={self.image_size} must be a multiple of patch_size={self.patch_size}, at least"
                f" {SMALLEST_GRID} times as large: the alignment halves the grid of patches twice"
            )


class ILATextConfig(VideoSSLConfig):
    """Sizes of the text tower, under CLIP's names.

    vocab_size (`int`): tokens known.
    hidden_size (`int`): width.
    intermediate_size (`int`, optional): hidden width of the MLPs; None takes four times the width.
    num_hidden_layers, num_attention_heads (`int`): blocks, and heads of each.
    max_position_embeddings (`int`): the longest text in tokens, its start and end included.
    hidden_act (`str`): activation of the MLPs, by transformers' name.
    layer_norm_eps (`float`): added to the variance in the layer norms.
    eos_token_id (`int`, optional): the token whose feature stands for the text; None takes the last of the
        vocabulary, as CLIP's is.
    """

    model_type = "ila_text_model"
    base_config_key = "text_config"

    vocab_size: int = 49408
    hidden_size: int = 512
    intermediate_size: int | None = None
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    max_position_embeddings: int = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    eos_token_id: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        """Fill in the fields that depend on others."""
        if self.intermediate_size is None:
            self.intermediate_size = 4 * self.hidden_size
        if self.eos_token_id is None:
            self.eos_token_id = self.vocab_size - 1
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """Refuse sizes that cannot work."""
        _check_tower(self)
        check_range("vocab_size", self.vocab_size, 2, 2**24)
        check_range("max_position_embeddings", self.max_position_embeddings, 2, LARGEST_WIDTH)
        check_range("eos_token_id", self.eos_token_id or 0, 0, self.vocab_size - 1)


class ILAConfig(VideoSSLConfig):
    r"""Sizes, alignment, head and training of an ILA model. The defaults are ViT-B/16 with 8 frames as the
    authors trained it on Kinetics-400.

    Towers:

    vision_config (`ILAVisionConfig` or `dict`): the vision tower.
    text_config (`ILATextConfig` or `dict`): the text tower, which a model with the linear head does not have.
    projection_dim (`int`): size of the space that video and text share.
    num_frames (`int`): frames of a clip, at least 2; other lengths interpolate the temporal positions.

    Alignment of neighbouring frames, in every block:

    token_mode (`str`): "add" adds the aligned map and the interactive features to the block's input, as the
        released code does; "concat" appends the mean of the aligned map as one token to the spatial
        attention, as the paper describes it.
    interactive_block (`str`): first convolutions of a pair of frames, "depthwise" (published for
        Kinetics-400) or "dense" (for Something-Something v2).
    align_hidden (`int`): channels of the interactive features; a multiple of 8.
    point_range (`float`): points lie within plus or minus this; the frame is -1 to 1.
    mask_radius (`float`): distance from the point, along each axis, up to which the mask is 1.
    mask_slope (`float`): how fast it falls beyond.
    disturbance (`float`): in training the mask is the mean of nine, at the point and shifted by this.
    disturbance_decay (`float`): factor on the shift for each epoch from `disturbance_decay_start_epoch` on.
    disturbance_decay_start_epoch (`int`): epochs count from 0.
    align_loss_weight (`float`): weight of the alignment loss beside the cross-entropy.
    align_loss_reduction (`str`): "sum" (as published) or "mean" over the blocks.

    Heads:

    head (`str`): "text" compares a clip with the names of the classes, prompted by the clip; "linear" is a
        classifier that knows no words.
    head_dim (`int`): width of each attention head of the temporal transformer and of the prompts.
    mit_num_layers (`int`): blocks of the transformer that joins the frames (multi-frame integration); 0
        averages the frames, whatever their order.
    prompt_layers (`int`): blocks that make the prompts.
    prompt_alpha (`float`): weight of the prompts at the start.
    label_tokens (`dict[str, list[int]]`, optional): the token ids of every class name, start and end
        included. `ILAForVideoClassification.set_labels` fills it in.
    classifier_dropout (`float`): dropout before the linear classifier.

    Training:

    drop_path_rate (`float`): stochastic depth of the last block, per clip; growing linearly from 0.
    label_smoothing (`float`): of class numbers in training; labels given as probabilities are taken as they
        are.
    freeze_backbone (`bool`): keep what CLIP brought to the vision tower.
    freeze_text (`bool`): keep the text tower and the temperature.
    train_prompts (`bool`): the released code leaves the prompts at their random start by mistake (False).
    aligner_lr_factor, skip_lr_factor, mit_lr_factor, prompt_lr_factor (`float`): learning rates of the new
        parts as multiples of CLIP's.
    synchronize_batch_norm (`bool`): BatchNorm statistics over all processes.
    freeze_batch_norm (`bool`): normalise with the running statistics in training too: for very small batches.
    """

    model_type = "ila"
    fields_of_data: ClassVar[tuple[str, ...]] = ("label_tokens",)
    vision_config: Any = None
    text_config: Any = None
    projection_dim: int = 512
    num_frames: int = 8

    token_mode: Literal["add", "concat"] = "add"
    interactive_block: Literal["depthwise", "dense"] = "depthwise"
    align_hidden: int = 256
    point_range: int | float = 0.75
    mask_radius: int | float = 0.25
    mask_slope: int | float = 1.5
    disturbance: int | float = 0.2
    disturbance_decay: int | float = 0.5
    disturbance_decay_start_epoch: int = 30
    align_loss_weight: int | float = 1.0
    align_loss_reduction: Literal["sum", "mean"] = "sum"

    head: Literal["text", "linear"] = "text"
    head_dim: int = 64
    mit_num_layers: int = 1
    prompt_layers: int = 2
    prompt_alpha: int | float = 0.1
    label_tokens: dict[str, list[int]] | None = None
    classifier_dropout: int | float = 0.5

    drop_path_rate: int | float = 0.0
    label_smoothing: int | float = 0.1
    freeze_backbone: bool = True
    freeze_text: bool = True
    train_prompts: bool = True
    aligner_lr_factor: int | float = 62.5
    skip_lr_factor: int | float = 10.0
    mit_lr_factor: int | float = 50.0
    prompt_lr_factor: int | float = 50.0
    synchronize_batch_norm: bool = True
    freeze_batch_norm: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        """Make the towers' configurations of what was given."""
        for name, kind in (("vision_config", ILAVisionConfig), ("text_config", ILATextConfig)):
            given = getattr(self, name)
            if given is None or isinstance(given, dict):
                setattr(self, name, kind.from_dict(given or {}))
            elif not isinstance(given, kind):
                raise TypeError(f"{name} must be a mapping or {kind.__name__}, got {given!r:.80}")
        super().__post_init__(**kwargs)

    @classmethod
    def from_preset(cls, name: str, **overrides: Any) -> "ILAConfig":
        """A published size: `ila-{base-patch32, base-patch16, large-patch14,
        large-patch14-336}-{8, 16, 32}f-{k400, ssv2}`, such as "ila-base-patch16-8f-k400".

        Args:
            overrides: further fields.

        Raises:
            ValueError: for any other name.
        """
        match = _PRESET.fullmatch(name)
        if match is None or (match[2] and match[1] != "large-patch14"):
            towers = ", ".join([*TOWERS, "large-patch14-336"])
            raise ValueError(
                f"no preset {name!r}; they are called ila-SIZE-FRAMESf-DATA with sizes {towers}, frames 8,"
                f" 16, 32 and data {', '.join(DATASETS)}"
            )
        settings: dict[str, Any] = {"num_frames": int(match[3]), **DATASETS[match[4]]}
        settings["vision_config"] = TOWERS[match[1]] | {"image_size": 336 if match[2] else 224}
        if match[1] == "large-patch14":
            settings["projection_dim"] = 768
            settings["text_config"] = {"hidden_size": 768, "num_attention_heads": 12}
        if "id2label" in overrides:
            del settings["num_labels"]
        return cls(**(settings | overrides))

    @classmethod
    def from_clip(cls, clip: Any, **overrides: Any) -> "ILAConfig":
        """A model on the towers of CLIP: its sizes, and its activations.

        Args:
            clip: a `CLIPConfig`, or the folder or Hub id of one.
            overrides: further fields; `vision_config` and `text_config` may hold some of the towers' only,
                and `image_size` is the vision tower's.
        """
        clip = clip if isinstance(clip, CLIPConfig) else CLIPConfig.from_pretrained(clip)
        settings: dict[str, Any] = {"projection_dim": clip.projection_dim} | overrides
        image_size = settings.pop("image_size", None)
        for tower, names in (("vision_config", VISION_FIELDS), ("text_config", TEXT_FIELDS)):
            given = settings.get(tower) or {}
            given = dict(given) if isinstance(given, Mapping) else given.to_dict()
            settings[tower] = {name: getattr(getattr(clip, tower), name) for name in names} | given
        if image_size is not None:
            settings["vision_config"]["image_size"] = image_size
        if settings["text_config"]["eos_token_id"] == LEGACY_END_OF_TEXT:
            settings["text_config"]["eos_token_id"] = None
        return cls(**settings)

    @property
    def image_size(self) -> int:
        """Height and width of a frame."""
        return self.vision_config.image_size

    @property
    def num_channels(self) -> int:
        """Channels of a frame."""
        return self.vision_config.num_channels

    @property
    def has_text(self) -> bool:
        """Whether there is a text tower."""
        return self.head == "text"

    @property
    def reads_labels(self) -> bool:
        """Whether a classifier compares clips with the names of their classes."""
        return self.has_text

    def validate_architecture(self) -> None:
        """Refuse sizes that cannot work, before anything is built."""
        check_range("num_frames", self.num_frames, 2, LARGEST_COUNT)
        for name in ("projection_dim", "head_dim", "align_hidden"):
            check_range(name, getattr(self, name), 1, LARGEST_WIDTH)
        check_range("mit_num_layers", self.mit_num_layers, 0, LARGEST_COUNT)
        check_range("prompt_layers", self.prompt_layers, 1, LARGEST_COUNT)
        if self.projection_dim % self.head_dim:
            raise ValueError(
                f"projection_dim={self.projection_dim} must be a multiple of head_dim={self.head_dim}"
            )
        if self.align_hidden % 8:
            raise ValueError(f"align_hidden={self.align_hidden} must be a multiple of 8")
        for name in ("point_range", "disturbance", "disturbance_decay", "classifier_dropout"):
            check_range(name, getattr(self, name), 0, 1)
        for name in ("drop_path_rate", "label_smoothing"):
            check_range(name, getattr(self, name), 0, 0.99)
        for name in ("mask_radius", "mask_slope"):
            check_range(name, getattr(self, name), 1e-6, 1e6)
        for name in ("align_loss_weight", "prompt_alpha"):
            check_range(name, getattr(self, name), 0, 1e6)
        for part in ("aligner", "skip", "mit", "prompt"):
            check_range(f"{part}_lr_factor", getattr(self, f"{part}_lr_factor"), 0, 1e6)
        check_range("disturbance_decay_start_epoch", self.disturbance_decay_start_epoch, 0, 10**6)
        for label, ids in (self.label_tokens or {}).items():
            self._check_tokens(label, ids)

    def _check_tokens(self, label: str, ids: list[int]) -> None:
        text = self.text_config
        if len(ids) > text.max_position_embeddings:
            raise ValueError(
                f"label_tokens: {label!r} has {len(ids)} tokens, but texts may have"
                f" {text.max_position_embeddings}: shorten the label"
            )
        if not all(0 <= index < text.vocab_size for index in ids) or text.eos_token_id not in ids:
            raise ValueError(
                f"label_tokens: the ids of {label!r} must lie below {text.vocab_size} and hold the end of"
                f" text, {text.eos_token_id}"
            )


def _check_tower(config: Any) -> None:
    for name in ("hidden_size", "intermediate_size"):
        check_range(name, getattr(config, name), 1, 4 * LARGEST_WIDTH)
    for name in ("num_hidden_layers", "num_attention_heads"):
        check_range(name, getattr(config, name), 1, LARGEST_COUNT)
    if config.hidden_size % config.num_attention_heads:
        raise ValueError(
            f"hidden_size={config.hidden_size} must be a multiple of"
            f" num_attention_heads={config.num_attention_heads}"
        )
    if config.hidden_act not in ACT2FN:
        raise ValueError(f"hidden_act={config.hidden_act!r} is no activation of transformers")
    check_range("layer_norm_eps", config.layer_norm_eps, 1e-30, 1)


__all__ = ["ILAConfig", "ILATextConfig", "ILAVisionConfig"]
