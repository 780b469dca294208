from ...data.processor_base import VideoSSLProcessor
from ...data.video_processing import VideoSSLVideoProcessor

__all__ = ["HUMProcessor", "HUMVideoProcessor"]


class HUMVideoProcessor(VideoSSLVideoProcessor):
    num_frames = 4
    size = {"shortest_edge": 16}  # noqa: RUF012
    crop_size = {"height": 16, "width": 16}  # noqa: RUF012


class HUMProcessor(VideoSSLProcessor):
    """Video alone."""
