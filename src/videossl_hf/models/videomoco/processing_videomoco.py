"""Clips as VideoMoCo takes them: 32 consecutive frames at the video's own rate, ImageNet normalisation."""

from typing import Any

from ...data.processor_base import VideoSSLProcessor
from ...data.video_processing import VideoSSLVideoProcessor
from ...errors import ConfigurationError
from .configuration_videomoco import VideoMoCoConfig

__all__ = ["VideoMoCoProcessor", "VideoMoCoVideoProcessor"]


class VideoMoCoVideoProcessor(VideoSSLVideoProcessor):
    """The middle of the video: 32 consecutive frames, short side 128, centre 112 x 112.

    The authors' test crop is 224 x 224 out of frames of the file's own size, which must be larger than that:
    `do_resize=False, crop_size=224, num_clips=10` gives it, with their ten clips a video.
    """

    num_frames = 32
    size = {"shortest_edge": 128}  # noqa: RUF012
    crop_size = {"height": 112, "width": 112}  # noqa: RUF012
    image_mean = [0.485, 0.456, 0.406]  # noqa: RUF012
    image_std = [0.229, 0.224, 0.225]  # noqa: RUF012


class VideoMoCoProcessor(VideoSSLProcessor):
    """Videos to `pixel_values_videos`.

    Args:
        video_processor: default `VideoMoCoVideoProcessor()`.
    """

    def __init__(self, video_processor: Any = None, **kwargs: Any) -> None:
        super().__init__(video_processor=video_processor or VideoMoCoVideoProcessor(), **kwargs)

    @classmethod
    def from_config(cls, config: VideoMoCoConfig, **settings: Any) -> "VideoMoCoProcessor":
        """A processor that feeds models of this configuration.

        Args:
            config: gives frames, their distance, and image size.
            settings: any setting of the video processor.

        Raises:
            ConfigurationError: a setting that it does not have.
        """
        known = VideoMoCoVideoProcessor.valid_kwargs.__annotations__.keys()
        if unknown := settings.keys() - known:
            raise ConfigurationError(
                f"unknown processor setting {', '.join(sorted(unknown))}; known are "
                + ", ".join(sorted(known))
            )
        fitting: dict[str, Any] = {
            "num_frames": config.num_frames,
            "frame_stride": config.frame_stride,
            "fps": config.fps,
            "size": {"shortest_edge": round(config.image_size * 8 / 7)},
            "crop_size": {"height": config.image_size, "width": config.image_size},
        }
        return cls(VideoMoCoVideoProcessor(**(fitting | settings)))
