"""Configuration of VIMPAC."""

from typing import Any, Literal

from ...nn.base_config import VideoSSLConfig, check_range
from .configuration_dvae import STRIDE

AXES = "THW"
LARGEST_WIDTH = 8192
LARGEST_GRID = 1024
EXTRA_CODES = 5  # after the tokeniser's codes; of these the published models use two


class VIMPACConfig(VideoSSLConfig):
    r"""Sizes, objective and input of a VIMPAC model. The defaults are the paper's small model.

    What the model is fed (describes the input, used by processor, collator and pipelines):

    num_frames (`int`): frames of a clip.
    fps (`float`): frames a second of a clip.
    image_size (`int`, or `[height, width]`): size of a frame; a code stands for 8 x 8 pixels.
    num_codes (`int`): codes of the tokeniser.
    vocab_size (`int`, optional): rows of the embedding; None takes five more than codes.
    pad_code, mask_code (`int`, optional): ids of padding and of hidden places; None takes the second and the
        last of the five, 8193 and 8196 with 8192 codes.

    Transformer:

    hidden_size, num_hidden_layers, num_attention_heads (`int`): width, blocks, heads of each block.
    layout (`str`): attention of a block. Commas separate steps, one after the other; `|` separates axes that
        one step mixes side by side, each with its share of the heads. T is time, H height, W width.
    halve_mlp (`bool`): the hidden layer of the MLP is twice, not four times, as wide as the model.
    halve_att (`bool`): attention works in half the width.
    pre_norm (`bool`): layer norm before each step instead of after it.
    positions (`str`): "axial" adds a table of time, of rows and of columns; "space_time" one of time and one
        of all places of a frame; "joint" has one table of all places of a clip.
    dropout, attention_dropout (`float`): of embeddings and the outputs of each step; of attention weights.
    layer_norm_eps (`float`): added to the variance in the layer norms.
    initializer_range (`float`): standard deviation of the weights at the start.
    pooling (`str`): `pooler_output` is the "cls" token, or the "mean" of all places.
    ignore_padding (`bool`): leave padding out of the means, that of "mean" and that of CLS over rows. As
        published it is in them.

    Objective:

    token_loss_weight, contrastive_weight (`float`): weights of the two losses; one that is 0 has no head.
    mask_strategy (`str`): "block" hides cuboids; "iid" hides single places; "block_replace" hides a cuboid in
        80 % of the cases, fills it with random codes in 10 %, leaves it in 10 %.
    mask_blocks (`int`): cuboids of a clip.
    mask_ratio (`float`): share of places that "iid" hides.
    token_loss_mean (`str`): "all" divides by the hidden places of all processes, which makes several
        processes equal to one with the joint batch; "process", as published, by each process's own.
    temperature (`float`): of the contrastive loss.
    contrastive_input (`str`): "masked" contrasts the clips that the token loss sees, "clean" the same clips
        without mask, in the same pass.
    projection_layers, projection_hidden, projection_dim (`int`): head of the contrastive loss.
    projection_norm (`str`): "batch", or "layer" after the activation.
    projection_activation (`str`): "relu" or "gelu".
    projection_final_norm (`bool`): batch norm of the embeddings too.
    synchronize_batch_norm (`bool`): batch norm over all processes.

    Classifier:

    classifier_dropout (`float`): before the classifier.
    label_smoothing (`float`): of hard labels.
    """

    model_type = "vimpac"

    num_frames: int = 5
    fps: int | float = 2.0
    image_size: int | list[int] | tuple[int, ...] = 128
    num_codes: int = 8192
    vocab_size: int | None = None
    pad_code: int | None = None
    mask_code: int | None = None

    hidden_size: int = 512
    num_hidden_layers: int = 6
    num_attention_heads: int = 8
    layout: str = "T,H|W"
    halve_mlp: bool = False
    halve_att: bool = False
    pre_norm: bool = False
    positions: Literal["axial", "space_time", "joint"] = "axial"
    dropout: int | float = 0.1
    attention_dropout: int | float = 0.1
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    pooling: Literal["cls", "mean"] = "cls"
    ignore_padding: bool = False

    token_loss_weight: int | float = 1.0
    contrastive_weight: int | float = 1.0
    mask_strategy: Literal["block", "iid", "block_replace"] = "block"
    mask_blocks: int = 5
    mask_ratio: int | float = 0.145
    token_loss_mean: Literal["all", "process"] = "all"
    temperature: int | float = 0.2
    contrastive_input: Literal["masked", "clean"] = "masked"
    projection_layers: int = 2
    projection_hidden: int = 2048
    projection_dim: int = 256
    projection_norm: Literal["batch", "layer"] = "batch"
    projection_activation: Literal["relu", "gelu"] = "relu"
    projection_final_norm: bool = False
    synchronize_batch_norm: bool = True

    classifier_dropout: int | float = 0.0
    label_smoothing: int | float = 0.0

    def __post_init__(self, **kwargs: Any) -> None:
        """Fill in the ids that depend on the number of codes."""
        if self.vocab_size is None:
            self.vocab_size = self.num_codes + EXTRA_CODES
        if self.pad_code is None:
            self.pad_code = self.num_codes + 1
        if self.mask_code is None:
            self.mask_code = self.num_codes + EXTRA_CODES - 1
        if isinstance(self.image_size, tuple):  # a list, as it comes back from JSON
            self.image_size = list(self.image_size)
        super().__post_init__(**kwargs)

    @classmethod
    def small(cls, **overrides: Any) -> "VIMPACConfig":
        """The paper's small model, 29.4 M parameters without heads: the defaults."""
        return cls(**overrides)

    @classmethod
    def base(cls, **overrides: Any) -> "VIMPACConfig":
        """The paper's base model, 119.7 M parameters without heads."""
        sizes = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
        head = {"projection_layers": 3, "projection_hidden": 4096}
        return cls(**(sizes | head | overrides))

    @classmethod
    def large_half(cls, **overrides: Any) -> "VIMPACConfig":
        """The paper's large model with half-size attention and MLP, 210.1 M parameters without heads."""
        sizes = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
        halves = {"halve_mlp": True, "halve_att": True}
        head = {"projection_layers": 3, "projection_hidden": 4096}
        return cls(**(sizes | halves | head | overrides))

    @property
    def steps(self) -> list[list[str]]:
        """The layout, parsed: for each step its axes, such as [["T"], ["H", "W"]]."""
        return [[axis.strip() for axis in step.split("|")] for step in self.layout.split(",")]

    @property
    def num_channels(self) -> int:
        """Channels of a frame, before it becomes codes."""
        return 3

    @property
    def attention_size(self) -> int:
        """Width in which attention works."""
        return self.hidden_size // 2 if self.halve_att else self.hidden_size

    @property
    def intermediate_size(self) -> int:
        """Width of the hidden layer of the MLP."""
        return self.hidden_size * (2 if self.halve_mlp else 4)

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width of a frame in pixels."""
        if isinstance(self.image_size, int):
            return self.image_size, self.image_size
        height, width = self.image_size
        return height, width

    @property
    def grid(self) -> tuple[int, int, int]:
        """Frames, rows and columns of the codes of a clip."""
        height, width = self.frame_size
        return self.num_frames, height // STRIDE, width // STRIDE

    def validate_architecture(self) -> None:
        """Refuse sizes that cannot work, before anything is built."""
        ranges: dict[str, tuple[Any, Any]] = {
            "num_frames": (1, LARGEST_GRID),
            "fps": (1e-3, 1000),
            "num_codes": (2, 2**17),
            "vocab_size": (4, 2**17 + EXTRA_CODES),
            "hidden_size": (1, LARGEST_WIDTH),
            "num_hidden_layers": (1, 1024),
            "num_attention_heads": (1, LARGEST_WIDTH),
            "mask_blocks": (1, 62),
            "projection_layers": (1, 64),
            "projection_hidden": (1, 16 * LARGEST_WIDTH),
            "projection_dim": (1, LARGEST_WIDTH),
            "layer_norm_eps": (1e-30, 1),
            "initializer_range": (1e-30, 100),
            "temperature": (1e-6, 1e6),
            "token_loss_weight": (0, 1e6),
            "contrastive_weight": (0, 1e6),
        }
        for name in ("dropout", "attention_dropout", "mask_ratio", "classifier_dropout", "label_smoothing"):
            ranges[name] = (0, 1)
        for name, (low, high) in ranges.items():
            check_range(name, getattr(self, name), low, high)
        self._validate_image_size()
        self._validate_codes()
        self._validate_layout()
        if self.token_loss_weight == 0 and self.contrastive_weight == 0:
            raise ValueError("token_loss_weight and contrastive_weight are both 0: nothing would be learned")

    def _validate_image_size(self) -> None:
        sides = [self.image_size] if isinstance(self.image_size, int) else self.image_size
        if len(sides) not in (1, 2) or (len(sides) == 1 and not isinstance(self.image_size, int)):
            raise ValueError(f"image_size={self.image_size}: give one side, or [height, width]")
        for side in sides:
            if not STRIDE <= side <= STRIDE * LARGEST_GRID or side % STRIDE:
                raise ValueError(
                    f"image_size={self.image_size}: give multiples of {STRIDE} up to {STRIDE * LARGEST_GRID}"
                )

    def _validate_codes(self) -> None:
        for name in ("pad_code", "mask_code"):
            value, vocab_size = getattr(self, name), self.vocab_size or 0
            if not self.num_codes <= value < vocab_size:
                raise ValueError(
                    f"{name}={value} must lie behind the {self.num_codes} codes (num_codes) and within"
                    f" vocab_size={self.vocab_size}"
                )
        if self.pad_code == self.mask_code:
            raise ValueError(f"pad_code and mask_code are both {self.pad_code}; give different ids")

    def _validate_layout(self) -> None:
        if len(self.layout) > 64:
            raise ValueError(f"layout={self.layout[:64]!r}... is too long; write it like 'T,H|W'")
        for axes in self.steps:
            if not set(axes) <= set(AXES) or len(set(axes)) != len(axes):
                raise ValueError(
                    f"layout={self.layout!r} has a step {'|'.join(axes)!r}; write steps like 'T,H|W', with"
                    " each of T, H and W at most once in a step"
                )
            for name in ("attention_size", "num_attention_heads"):
                if getattr(self, name) % len(axes):
                    raise ValueError(
                        f"layout={self.layout!r} splits {name}={getattr(self, name)} into {len(axes)} parts:"
                        " choose hidden_size and num_attention_heads that divide evenly"
                    )
        if self.attention_size % self.num_attention_heads or (self.halve_att and self.hidden_size % 2):
            raise ValueError(
                f"the attention width {self.attention_size} (hidden_size={self.hidden_size}) is no multiple"
                f" of num_attention_heads={self.num_attention_heads}"
            )


__all__ = ["VIMPACConfig"]
