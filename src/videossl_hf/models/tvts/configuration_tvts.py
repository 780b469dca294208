"""Configuration of TVTS and of its successor TVTSv2."""

from typing import Any, Literal

from ...nn.base_config import VideoSSLConfig, check_range
from .text_tvts import TextTowerSettings

LARGEST_WIDTH = 8192
LARGEST_COUNT = 1024

V2_SIZES: dict[str, dict[str, Any]] = {
    "base_patch32": {"patch_size": 32, "mask_ratio": 0.0},
    "base_patch16": {"patch_size": 16, "mask_ratio": 0.5},
    "huge_patch14": {
        "patch_size": 14,
        "mask_ratio": 0.7,
        "hidden_size": 1280,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "hidden_act": "gelu",
        "projection_dim": 1024,
        "sorting_heads": 16,
        "normalize_patch_tokens": False,
        "sort_class_token": False,
        "trainable_text_layers": 6,
        "text_settings": {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "hidden_act": "gelu",
        },
    },
}


class TVTSConfig(VideoSSLConfig):
    r"""Sizes, objective and input of a TVTS model. The defaults are the paper's; `TVTSConfig.v2()` is TVTSv2.

    What the model is fed (describes the input, used by processor, collator and pipelines):

    num_frames (`int`): frames of a clip, and the most that the temporal table has rows for.
    image_size (`int`): height and width of a frame.
    num_channels (`int`): channels of a frame.
    max_text_length (`int`): tokens that a script is cut to, special tokens included.

    Video tower:

    patch_size (`int`): rows and columns of a patch.
    tubelet_size (`int`): frames of a patch.
    hidden_size, num_hidden_layers, num_attention_heads (`int`): width, blocks and heads.
    mlp_ratio (`float`): hidden width of the perceptrons, of sorting head too, in multiples of their width.
    hidden_act (`str`): "gelu" or "quick_gelu".
    layer_norm_eps (`float`): added to the variance in the layer norms of video tower and sorting head.
    attention_type (`str`): "joint" attends over all tokens of a clip at once (TVTS); "divided" first over
        time, then over space (TVTSv2), with CLIP's layout: a norm before the blocks, no bias in the patches,
        and a projection of all tokens after them.
    interpolate_positions (`bool`): clips of other sizes, or longer ones, stretch the position tables.
        Otherwise they are refused. Shorter clips take the first rows of the temporal table either way.
    drop_path_rate (`float`): stochastic depth, growing over the blocks; the official runs have none.
    initializer_range (`float`): standard deviation of linear layers at the start.
    position_init_std, temporal_init_std (`float`): the same of the spatial and the temporal table.
    normalize_patch_tokens (`bool`): "divided": whether the last norm covers all tokens or the class token
        alone.

    Mask:

    mask_ratio (`float`): share of patches that pre-training drops.
    mask_type (`str`): "random" draws other places for every tubelet, "tube" the same for all of a clip.

    Text tower:

    use_text (`bool`): whether there is a text tower. Classifiers have none.
    text_tower (`str`): which of transformers' text encoders: "distilbert" (TVTS), "clip" (TVTSv2), "bert",
        "roberta", "xlm-roberta".
    text_settings (`dict`): sizes of the text tower that differ from transformers' defaults, under
        transformers' names.
    trainable_text_layers (`int`, optional): only so many last blocks of the text tower learn, with
        embeddings, last norm and projection; None trains all.

    Objective:

    projection_dim (`int`): size of the space in which clips and texts are compared.
    use_projection (`bool`): a projection of its own for either tower; without, they end in that space
        already.
    temperature (`float`): divides the cosines.
    contrastive_weight, sorting_weight (`float`): weights of the two losses.
    gather_gradient (`str`): "full": several processes get the gradient of one with the joint batch. "local",
        as in the official code: of the contrastive loss every process keeps its own rows' share, which
            averaging
        over processes then divides by their number, so that the weight of sorting grows with it.
    num_scripts (`int`): scripts of a clip to be sorted; 1 leaves the sorting head out.
    sorting_layers, sorting_heads (`int`): of the sorting head.
    sort_class_token (`bool`): whether the sorting head sees the class token.

    Fine-tuning:

    layer_decay (`float`): classifier: each block learns at this multiple of the rate of the next.
    pretrained_lr_scale (`float`): pre-training with "divided": what comes from CLIP learns at this multiple
        of the rate of what is new.
    """

    model_type = "tvts"

    num_frames: int = 16
    image_size: int = 224
    num_channels: int = 3
    max_text_length: int = 50

    patch_size: int = 16
    tubelet_size: int = 2
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    mlp_ratio: int | float = 4.0
    hidden_act: Literal["gelu", "quick_gelu"] = "gelu"
    layer_norm_eps: float = 1e-6
    attention_type: Literal["joint", "divided"] = "joint"
    interpolate_positions: bool = False
    drop_path_rate: int | float = 0.0
    initializer_range: float = 0.02
    position_init_std: int | float = 0.02
    temporal_init_std: int | float = 0.0
    normalize_patch_tokens: bool = True

    mask_ratio: int | float = 0.75
    mask_type: Literal["random", "tube"] = "random"

    use_text: bool = True
    text_tower: Literal["distilbert", "bert", "roberta", "xlm-roberta", "clip"] = "distilbert"
    text_settings: dict[str, Any] | None = None
    trainable_text_layers: int | None = None

    projection_dim: int = 256
    use_projection: bool = True
    temperature: int | float = 0.05
    contrastive_weight: int | float = 1.0
    sorting_weight: int | float = 2.0
    gather_gradient: Literal["full", "local"] = "full"
    num_scripts: int = 4
    sorting_layers: int = 2
    sorting_heads: int = 12
    sort_class_token: bool = True

    layer_decay: int | float = 0.75
    pretrained_lr_scale: int | float = 1.0

    def __post_init__(self, **kwargs: Any) -> None:
        """An absent text_settings is an empty one."""
        if self.text_settings is None:
            self.text_settings = {}
        super().__post_init__(**kwargs)

    @classmethod
    def v2(cls, size: str = "base_patch16", **overrides: Any) -> "TVTSConfig":
        """TVTSv2 on CLIP's towers.

        Args:
            size: "base_patch32", "base_patch16" or "huge_patch14".
            overrides: further fields.
        """
        if size not in V2_SIZES:
            raise ValueError(f"size={size!r} is unknown; give {', '.join(V2_SIZES)}")
        settings: dict[str, Any] = {
            "num_frames": 12,
            "max_text_length": 77,
            "tubelet_size": 1,
            "hidden_act": "quick_gelu",
            "layer_norm_eps": 1e-5,
            "attention_type": "divided",
            "mask_type": "tube",
            "text_tower": "clip",
            "trainable_text_layers": 3,
            "projection_dim": 512,
            "use_projection": False,
            "sorting_heads": 8,
            "temporal_init_std": 768**-0.5,
            "position_init_std": 768**-0.5,
            "pretrained_lr_scale": 1e-3,
        }
        return cls(**(settings | V2_SIZES[size] | overrides))

    @property
    def num_places(self) -> int:
        """Patches of one tubelet at the configured size."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def num_kept(self) -> int:
        """Patches of a tubelet that the mask keeps, rounded down."""
        return int(self.num_places * (1 - self.mask_ratio))

    @property
    def token_size(self) -> int:
        """Size of the video tower's tokens."""
        return self.hidden_size if self.attention_type == "joint" else self.projection_dim

    @property
    def text_tower_settings(self) -> TextTowerSettings:
        """The text tower's settings, checked."""
        return TextTowerSettings(self.text_tower, self.text_settings or {}, self.projection_dim)

    def validate_architecture(self) -> None:
        """Refuse sizes that cannot work, before anything is built."""
        for name in ("num_frames", "image_size", "max_text_length"):
            check_range(name, getattr(self, name), 1, 65536)
        for name in ("num_channels", "patch_size", "tubelet_size", "hidden_size", "projection_dim"):
            check_range(name, getattr(self, name), 1, LARGEST_WIDTH)
        for name in (
            "num_hidden_layers",
            "num_attention_heads",
            "num_scripts",
            "sorting_layers",
            "sorting_heads",
        ):
            check_range(name, getattr(self, name), 1, LARGEST_COUNT)
        if self.trainable_text_layers is not None:
            check_range("trainable_text_layers", self.trainable_text_layers, 0, LARGEST_COUNT)
        for name in ("mlp_ratio", "layer_norm_eps", "initializer_range", "position_init_std"):
            check_range(name, getattr(self, name), 1e-30, 64)
        check_range("temperature", self.temperature, 1e-6, 1e6)
        for name in ("temporal_init_std", "contrastive_weight", "sorting_weight"):
            check_range(name, getattr(self, name), 0, 1e6)
        for name in ("mask_ratio", "drop_path_rate", "layer_decay", "pretrained_lr_scale"):
            check_range(name, getattr(self, name), 0, 1)
        if self.image_size % self.patch_size or self.num_frames % self.tubelet_size:
            raise ValueError(
                f"image_size={self.image_size} must be a multiple of patch_size={self.patch_size}, and"
                f" num_frames={self.num_frames} of tubelet_size={self.tubelet_size}"
            )
        if self.num_kept < 1:
            raise ValueError(f"mask_ratio={self.mask_ratio} keeps none of the {self.num_places} patches")
        for size, heads in (("hidden_size", "num_attention_heads"), ("token_size", "sorting_heads")):
            if getattr(self, size) % getattr(self, heads):
                raise ValueError(
                    f"{size}={getattr(self, size)} is no multiple of {heads}={getattr(self, heads)}"
                )
        if self.attention_type == "divided" and self.mask_type != "tube":
            raise ValueError(
                "attention_type='divided' needs mask_type='tube': the same patches in every frame"
            )
        if self.use_text:
            self._validate_text()

    def _validate_text(self) -> None:
        text_size = self.text_tower_settings.vector_size
        if self.num_scripts > 1 and text_size != self.token_size:
            raise ValueError(
                f"text_settings gives vectors of {text_size}, and the video tower tokens of"
                f" {self.token_size}: the sorting head needs them to be equal"
            )
        if not self.use_projection and text_size != self.token_size:
            raise ValueError(
                f"use_projection=False compares clips of size {self.token_size} and texts of size"
                f" {text_size}: make them equal"
            )


__all__ = ["TVTSConfig"]
