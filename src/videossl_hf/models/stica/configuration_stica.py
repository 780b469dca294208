"""Configuration of STiCA and of its cross-modal baseline, GDT."""

from typing import Any, Literal

from ...nn.base_config import VideoSSLConfig, check_range

BACKBONE_DEPTHS = {"r2plus1d_18": (2, 2, 2, 2), "r2plus1d_34": (3, 4, 6, 3)}
LARGEST_WIDTH = 8192
LARGEST_COUNT = 1024


class STiCAConfig(VideoSSLConfig):
    r"""Sizes, objective and input of a STiCA model. The defaults are the paper's two-second set-up.

    What the model is fed (describes the input, used by processor, collator and pipelines):

    num_frames (`int`): frames of a clip; 30 for one second, 60 for two.
    fps (`float`): frames a second of a clip.
    image_size (`int`): height and width of a frame.
    num_channels (`int`): channels of a frame.
    num_mel_bins (`int`): rows of the log-mel spectrogram.
    audio_seconds (`float`): length of the sound that goes with a clip.

    Video tower:

    backbone (`str`): "r2plus1d_18" or "r2plus1d_34".
    video_widths (`list[int]`): channels of each stage; each stage after the first halves time, height and
        width. The last one is the size of the features.
    video_depths (`list[int]`, optional): blocks of each stage; None takes those of the backbone, 2 2 2 2 or
        3 4 6 3.
    video_stem_width (`int`): channels between the spatial and the temporal convolution of the stem.

    Sound tower (a 2-D ResNet; the default is "ResNet-9"):

    use_audio (`bool`): whether there is a sound tower. Classifiers have none.
    audio_widths, audio_depths (`list[int]`): channels and blocks of each stage.

    Transformer pooling of the last feature map:

    pooling_layers (`int`, optional): layers; 0 averages instead. None takes 2, or 0 for GDT.
    pooling_heads (`int`): attention heads.
    pooling_ffn (`int`): hidden width of the feed-forward part.
    pooling_tokens (`int`, optional): tokens that a map, or a crop of it, is averaged to; None takes the
        time steps of the map.
    pooling_full_qkv (`bool`): learned value and output projections; without, both are the identity.
    pooling_position (`bool`): a learned position is added to each token.
    pooling_position_size (`int`): rows of that position table.
    pooling_dropout (`float`): dropout of attention weights and attention outputs.
    layer_norm_eps (`float`): added to the variance in the layer norms.
    initializer_range (`float`): standard deviation of the pooling's linear layers at the start.

    Projection heads of the objective:

    projection_hidden (`int`, optional): hidden width; None makes the head one linear layer.
    projection_dim (`int`): size of the embeddings that are compared.
    projection_dropout (`float`): dropout before both layers.
    projection_normalize (`bool`): scale embeddings to unit length.

    Objective:

    objective (`str`): "stica", or "gdt" for the cross-modal loss on one view alone.
    alpha (`float`): weight of the cross-modal loss; the crop losses have 1 - alpha.
    temperature_cross, temperature_within, temperature_gdt (`float`): temperatures of the cross-modal loss,
        of the crop losses, and of GDT's loss.
    num_negatives (`int`, optional): GDT: so many negatives are drawn, with replacement, among those of the
        other processes; None takes all.
    space_large_crops, space_small_crops, time_large_crops, time_small_crops (`int`): crops of a map; at
        most two large ones of each kind. The published example has 2, 4, 2 and 1.
    space_large_fraction, space_small_fraction, time_large_fraction, time_small_fraction (`float`): side of
        a crop as a share of the map's (rounded). The defaults give the published windows: 6 and 4 of 7
        rows, 3 and 2 of 4 steps.
    legacy_crop_range (`bool`): never draw the last possible position, as the official code does.
    symmetric_crops (`bool`): let both views give anchors and small crops, and compare all large crops. By
        default, as published, anchors come from view 1 and small crops from view 2.
    crop_space (`str`): "feature", or "input" for the baseline whose space crops are crops of the video,
        each with its own pass through the backbone (time crops stay crops of the map).
    crop_seed (`int`): seed of the crop positions, which are a function of it and of the training step.
    concat_views (`bool`): send both views through the backbone as one batch: faster, but they then share
        BatchNorm statistics.
    synchronize_batch_norm (`bool`): BatchNorm statistics over all processes.

    Classifier (the published fine-tuning has none of these extras):

    classifier_dropout (`float`): dropout before the classifier; the official option uses 0.9.
    classifier_normalize (`bool`): scale features to unit length first.
    classifier_batch_norm (`bool`): BatchNorm right before the classifier.
    """

    model_type = "stica"

    num_frames: int = 60
    fps: int | float = 30.0
    image_size: int = 112
    num_channels: int = 3
    num_mel_bins: int = 257
    audio_seconds: int | float = 2.0

    backbone: Literal["r2plus1d_18", "r2plus1d_34"] = "r2plus1d_18"
    video_widths: list[int] | tuple[int, ...] = (64, 128, 256, 512)
    video_depths: list[int] | tuple[int, ...] | None = None
    video_stem_width: int = 45

    use_audio: bool = True
    audio_widths: list[int] | tuple[int, ...] = (64, 128, 256, 512)
    audio_depths: list[int] | tuple[int, ...] = (1, 1, 1, 1)

    pooling_layers: int | None = None
    pooling_heads: int = 4
    pooling_ffn: int = 2048
    pooling_tokens: int | None = None
    pooling_full_qkv: bool = False
    pooling_position: bool = False
    pooling_position_size: int = 64
    pooling_dropout: int | float = 0.0
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02

    projection_hidden: int | None = 512
    projection_dim: int = 256
    projection_dropout: int | float = 0.3
    projection_normalize: bool = True

    objective: Literal["stica", "gdt"] = "stica"
    alpha: int | float = 0.5
    temperature_cross: int | float = 0.1
    temperature_within: int | float = 0.5
    temperature_gdt: int | float = 0.07
    num_negatives: int | None = None
    space_large_crops: int = 2
    space_small_crops: int = 4
    time_large_crops: int = 2
    time_small_crops: int = 1
    space_large_fraction: int | float = 6 / 7
    space_small_fraction: int | float = 4 / 7
    time_large_fraction: int | float = 3 / 4
    time_small_fraction: int | float = 1 / 2
    legacy_crop_range: bool = False
    symmetric_crops: bool = False
    crop_space: Literal["feature", "input"] = "feature"
    crop_seed: int = 31
    concat_views: bool = False
    synchronize_batch_norm: bool = True

    classifier_dropout: int | float = 0.0
    classifier_normalize: bool = False
    classifier_batch_norm: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        """Fill in the fields that depend on others."""
        if self.pooling_layers is None:
            self.pooling_layers = 0 if self.objective == "gdt" else 2
        if self.video_depths is None and self.backbone in BACKBONE_DEPTHS:
            self.video_depths = BACKBONE_DEPTHS[self.backbone]
        for name in ("video_widths", "video_depths", "audio_widths", "audio_depths"):
            if isinstance(getattr(self, name), tuple):  # lists, as they come back from JSON
                setattr(self, name, list(getattr(self, name)))
        super().__post_init__(**kwargs)

    @classmethod
    def gdt(cls, **overrides: Any) -> "STiCAConfig":
        """The published GDT baseline: one view of a second, 40 mel bins, average pooling, no crops."""
        settings = {"objective": "gdt", "num_frames": 30, "audio_seconds": 1.0, "num_mel_bins": 40}
        return cls(**(settings | overrides))

    @property
    def hidden_size(self) -> int:
        """Size of the video features."""
        return self.video_widths[-1]

    @property
    def audio_hidden_size(self) -> int:
        """Size of the sound features."""
        return self.audio_widths[-1]

    def validate_architecture(self) -> None:
        """Refuse sizes that cannot work, before anything is built."""
        for name in ("num_frames", "image_size", "num_mel_bins"):
            check_range(name, getattr(self, name), 1, 65536)
        for name in ("video_widths", "video_depths", "audio_widths", "audio_depths"):
            largest = LARGEST_WIDTH if name.endswith("widths") else LARGEST_COUNT
            sizes = getattr(self, name)
            if not 1 <= len(sizes) <= 8:
                raise ValueError(f"{name} has {len(sizes)} stages; give 1 to 8")
            for size in sizes:
                check_range(name, size, 1, largest)
        for tower in ("video", "audio"):
            if len(getattr(self, f"{tower}_widths")) != len(getattr(self, f"{tower}_depths")):
                raise ValueError(f"{tower}_widths and {tower}_depths differ in their number of stages")
        for name in ("num_channels", "video_stem_width", "projection_dim"):
            check_range(name, getattr(self, name), 1, LARGEST_WIDTH)
        for name in ("pooling_ffn", "pooling_position_size"):
            check_range(name, getattr(self, name), 1, 16 * LARGEST_WIDTH)
        for name in ("pooling_heads", "pooling_tokens", "num_negatives", "projection_hidden"):
            if getattr(self, name) is not None:
                check_range(name, getattr(self, name), 1, LARGEST_WIDTH)
        check_range("pooling_layers", self.pooling_layers or 0, 0, LARGEST_COUNT)
        if self.pooling_layers and self.hidden_size % self.pooling_heads:
            raise ValueError(
                f"the feature size {self.hidden_size} is not a multiple of pooling_heads={self.pooling_heads}"
            )
        for name in ("space_large_crops", "time_large_crops"):
            check_range(name, getattr(self, name), 0, 2)
        for name in ("space_small_crops", "time_small_crops"):
            check_range(name, getattr(self, name), 0, LARGEST_COUNT)
        for kind in ("space_large", "space_small", "time_large", "time_small"):
            check_range(f"{kind}_fraction", getattr(self, f"{kind}_fraction"), 1e-6, 1)
        for name in ("alpha", "projection_dropout", "pooling_dropout", "classifier_dropout"):
            check_range(name, getattr(self, name), 0, 1)
        for name in ("fps", "audio_seconds", "layer_norm_eps", "initializer_range"):
            check_range(name, getattr(self, name), 1e-30, 65536)
        for name in ("temperature_cross", "temperature_within", "temperature_gdt"):
            check_range(name, getattr(self, name), 1e-6, 1e6)
        check_range("crop_seed", self.crop_seed, 0, 2**62)


__all__ = ["STiCAConfig"]
