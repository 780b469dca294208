from ...nn.base_config import VideoSSLConfig

__all__ = ["HUMConfig"]


class HUMConfig(VideoSSLConfig):
    model_type = "hum"

    hidden_size: int = 8
    num_frames: int = 4

    def validate_architecture(self) -> None:
        if not 1 <= self.hidden_size <= 4096:
            raise ValueError(f"hidden_size={self.hidden_size} is out of range; give 1 to 4096")
