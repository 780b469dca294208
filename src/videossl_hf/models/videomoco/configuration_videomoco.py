"""Configuration of VideoMoCo and, by its options, of plain MoCo for video."""

from typing import Any, Literal

from ...nn.base_config import VideoSSLConfig, check_range

LARGEST_WIDTH = 8192
LARGEST_COUNT = 1024


class VideoMoCoConfig(VideoSSLConfig):
    r"""Sizes, objective and input of a VideoMoCo model. The defaults are the paper's main configuration.

    What the model is fed (describes the input, used by processor, collator and pipelines):

    num_frames (`int`): frames of a clip. The generator takes no other number.
    frame_stride (`int`): distance of a clip's frames in the video, in frames.
    fps (`float`, optional): frames a second that a video is brought to first; None keeps its own rate.
    image_size (`int`): height and width of a frame. The generator takes only those sizes that give its last
        map the same size (for 112: 107 to 114).
    num_channels (`int`): channels of a frame.

    Encoders (query and key encoder are alike):

    arch (`str`): "r2plus1d_18", "r3d_18", or "mc3_18", whose convolutions see time in the first stage only.
    widths (`list[int]`): channels of each stage; each stage after the first halves height and width (and
        time, but for mc3_18). The last one is the size of the features.
    depths (`list[int]`): residual blocks of each stage.
    stem_width (`int`): r2plus1d_18: channels between the spatial and the temporal convolution of the stem.
    dim (`int`): size of the embeddings that are compared.
    mlp (`bool`): the projection has a hidden layer, as in MoCo v2; without, it is one linear layer.

    Contrast:

    queue_size (`int`): keys that are remembered as negatives. A batch, over all processes, may be as large.
    momentum (`float`): share of the key encoder that stays at every step.
    temperature (`float`): divides the inner products.
    temporal_decay (`float` or "adversarial"): base t of the weight t^age of a key that was enqueued `age`
        forward passes ago; 1 turns it off. "adversarial" takes exp(loss_g) of the forward pass before, and 1
        for the first of each epoch, as the later "VideoMoCo-plus" does.
    decay_mode (`str`): "logit" scales a key's inner product, as the official code does; "exp" scales its
        term in the softmax's denominator, as the method is described: then an old key is forgotten, not
        just made orthogonal.
    shuffle_batch_norm (`bool`): several processes exchange the clips of the key encoder, so that a query and
        its key are normalised with other clips' statistics. Nothing to do with one process, or with
        synchronised statistics.
    key_batch_splits (`int`): the key encoder takes a process's clips in so many shuffled parts, each with
        statistics of its own: what shuffling does, on a single device.
    synchronize_batch_norm (`bool`): BatchNorm statistics over all processes. The published training has
        statistics for each process, which shuffling presumes.

    Temporally adversarial examples:

    dropped_frames (`str`): which frames the query clip loses: "generator" (those with the lowest scores),
        "random", or "none" (plain MoCo, with decay).
    drop_ratio (`float`): share of the frames that is dropped.
    num_dropped_frames (`int`, optional): their number instead.
    adversarial_start_epoch (`int`): epochs, counted from 0, before this one train the encoder alone, on whole
        clips.
    adversarial_start_step (`int`, optional): optimiser steps instead, for streams, which have no epochs.
    generator_hidden (`int`): size of the generator's LSTM, both directions together.
    generator_features (`int`, optional): values of the generator's last map; None computes them from
        image_size. Saved with the model, as the LSTM's weights depend on it.
    generator_loss_weight (`float`): weight of the distance that the generator enlarges.
    generator_contrastive_grad (`bool`): the generator also receives the contrastive loss's gradient, as it
        does in the official code.

    Classifier:

    freeze_norm_stats (`bool`): BatchNorm keeps the running statistics of pre-training (its weights are
        trained), as in the official fine-tuning.
    """

    model_type = "videomoco"

    num_frames: int = 32
    frame_stride: int = 1
    fps: int | float | None = None
    image_size: int = 112
    num_channels: int = 3

    arch: Literal["r2plus1d_18", "r3d_18", "mc3_18"] = "r2plus1d_18"
    widths: list[int] | tuple[int, ...] = (64, 128, 256, 512)
    depths: list[int] | tuple[int, ...] = (2, 2, 2, 2)
    stem_width: int = 45
    dim: int = 128
    mlp: bool = False

    queue_size: int = 65536
    momentum: int | float = 0.999
    temperature: int | float = 0.07
    temporal_decay: int | float | Literal["adversarial"] = 0.99999
    decay_mode: Literal["logit", "exp"] = "logit"
    shuffle_batch_norm: bool = True
    key_batch_splits: int = 1
    synchronize_batch_norm: bool = False

    dropped_frames: Literal["generator", "random", "none"] = "generator"
    drop_ratio: int | float = 0.25
    num_dropped_frames: int | None = None
    adversarial_start_epoch: int = 100
    adversarial_start_step: int | None = None
    generator_hidden: int = 128
    generator_features: int | None = None
    generator_loss_weight: int | float = 100.0
    generator_contrastive_grad: bool = True

    freeze_norm_stats: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        """Fill in the fields that depend on others."""
        for name in ("widths", "depths"):
            if isinstance(getattr(self, name), tuple):  # lists, as they come back from JSON
                setattr(self, name, list(getattr(self, name)))
        if self.generator_features is None and type(self.image_size) is int:
            self.generator_features = max(1, generator_map_side(self.image_size)) ** 2
        super().__post_init__(**kwargs)

    @classmethod
    def moco(cls, **overrides: Any) -> "VideoMoCoConfig":
        """Plain MoCo for video: no frames are dropped and keys do not decay."""
        return cls(**({"dropped_frames": "none", "temporal_decay": 1.0} | overrides))

    @classmethod
    def plus(cls, **overrides: Any) -> "VideoMoCoConfig":
        """VideoMoCo-plus: the generator's success sets how fast keys decay."""
        return cls(**({"temporal_decay": "adversarial"} | overrides))

    @property
    def hidden_size(self) -> int:
        """Size of the features."""
        return self.widths[-1]

    def dropped_frame_count(self, frames: int) -> int:
        """How many frames a clip of `frames` frames loses."""
        return self.num_dropped_frames or max(1, round(self.drop_ratio * frames))

    def validate_architecture(self) -> None:
        """Refuse sizes that cannot work, before anything is built."""
        for name in ("num_frames", "image_size"):
            check_range(name, getattr(self, name), 1, 65536)
        for name in ("widths", "depths"):
            sizes = getattr(self, name)
            if not 1 <= len(sizes) <= 8:
                raise ValueError(f"{name} has {len(sizes)} stages; give 1 to 8")
            for size in sizes:
                check_range(name, size, 1, LARGEST_WIDTH if name == "widths" else LARGEST_COUNT)
        if len(self.widths) != len(self.depths):
            raise ValueError("widths and depths differ in their number of stages")
        for name in ("num_channels", "stem_width", "dim", "generator_hidden"):
            check_range(name, getattr(self, name), 1, LARGEST_WIDTH)
        if self.generator_hidden % 2:
            raise ValueError(
                f"generator_hidden={self.generator_hidden} must be even: two directions share it"
            )
        check_range("generator_features", self.generator_features or 1, 1, LARGEST_WIDTH**2)
        check_range("queue_size", self.queue_size, 1, 2**24)
        for name in ("frame_stride", "key_batch_splits"):
            check_range(name, getattr(self, name), 1, LARGEST_COUNT)
        for name in ("adversarial_start_epoch", "adversarial_start_step"):
            check_range(name, getattr(self, name) or 0, 0, 2**24)
        if self.num_dropped_frames is not None:
            check_range("num_dropped_frames", self.num_dropped_frames, 1, 65536)
        check_range("drop_ratio", self.drop_ratio, 1e-6, 1)
        check_range("momentum", self.momentum, 0, 1)
        check_range("temperature", self.temperature, 1e-6, 1e6)
        check_range("generator_loss_weight", self.generator_loss_weight, 0, 1e6)
        if self.fps is not None:
            check_range("fps", self.fps, 1e-3, 65536)
        if self.temporal_decay != "adversarial":
            check_range("temporal_decay", self.temporal_decay, 1e-6, 1)
        elif self.dropped_frames != "generator":
            raise ValueError(
                "temporal_decay='adversarial' needs the generator: set dropped_frames='generator'"
            )


def generator_map_side(size: int) -> int:
    """Height (or width) of the generator's last map for frames of that height: three unpadded convolutions
    take a pixel each, three poolings halve what is left."""
    return (size - 3) // 2 // 2 // 2


__all__ = ["VideoMoCoConfig", "generator_map_side"]
