from ...nn.base_config import VideoSSLConfig

__all__ = ["ToyConfig"]


class ToyConfig(VideoSSLConfig):
    model_type = "toy"

    hidden_size: int = 8
    num_channels: int = 3
    dropout: int | float = 0.2
    diverge_at: int | None = None

    def validate_architecture(self) -> None:
        if self.hidden_size < 2:
            raise ValueError(f"hidden_size={self.hidden_size} is too small; give 2 or more")
