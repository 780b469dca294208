from ...data.processor_base import VideoSSLProcessor
from ...data.video_processing import VideoSSLVideoProcessor
from .configuration_toy import ToyConfig

__all__ = ["ToyProcessor", "ToyVideoProcessor"]


class ToyVideoProcessor(VideoSSLVideoProcessor):
    num_frames = 4
    size = {"height": 8, "width": 8}  # noqa: RUF012
    crop_size = {"height": 8, "width": 8}  # noqa: RUF012


class ToyProcessor(VideoSSLProcessor):
    @classmethod
    def from_config(cls, config: ToyConfig, **settings: object) -> "ToyProcessor":
        return cls(ToyVideoProcessor(**settings))
