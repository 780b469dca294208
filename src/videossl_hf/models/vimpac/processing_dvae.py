"""Videos as a tokeniser takes them: frames whose pixels are mapped away from 0 and 1."""

from typing import Any

from ...data.processor_base import VideoSSLProcessor
from ...data.video_processing import VideoSSLVideoProcessor
from ...errors import ConfigurationError
from .configuration_dvae import DVAEConfig

__all__ = ["DVAEProcessor", "DVAEVideoProcessor"]


class DVAEVideoProcessor(VideoSSLVideoProcessor):
    """Frames at two a second out of the middle, short side 128, centre 128 x 128, pixels in [0.1, 0.9]."""

    num_frames = 5
    fps = 2.0
    size = {"shortest_edge": 128}  # noqa: RUF012
    crop_size = {"height": 128, "width": 128}  # noqa: RUF012
    resample = 3
    image_mean = [-0.125, -0.125, -0.125]  # noqa: RUF012
    image_std = [1.25, 1.25, 1.25]  # noqa: RUF012


class DVAEProcessor(VideoSSLProcessor):
    """Videos to `pixel_values_videos` of a tokeniser.

    Args:
        video_processor: default `DVAEVideoProcessor()`.
    """

    def __init__(self, video_processor: Any = None, **kwargs: Any) -> None:
        super().__init__(video_processor=video_processor or DVAEVideoProcessor(), **kwargs)

    @classmethod
    def from_config(cls, config: DVAEConfig, **settings: Any) -> "DVAEProcessor":
        """A processor that feeds tokenisers of this configuration.

        Args:
            config: gives the range of the pixels.
            settings: any setting of the video processor, such as `crop_size`.

        Raises:
            ConfigurationError: a setting that it does not have.
        """
        known = DVAEVideoProcessor.valid_kwargs.__annotations__.keys()
        if unknown := settings.keys() - known:
            raise ConfigurationError(
                f"unknown processor setting {', '.join(sorted(unknown))}; known are "
                + ", ".join(sorted(known))
            )
        inner = 1 - 2 * config.pixel_margin
        of_config = {"image_mean": [-config.pixel_margin / inner] * 3, "image_std": [1 / inner] * 3}
        return cls(DVAEVideoProcessor(**(of_config | settings)))
