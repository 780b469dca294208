from dataclasses import dataclass

import torch

from ...data.loading import SampleLoader
from ...data.reader import VideoReader
from .configuration_toy import ToyConfig
from .processing_toy import ToyProcessor

__all__ = ["ToyAugmentation", "ToyCollator"]


@dataclass
class ToyAugmentation:
    noise: float = 0.1


class ToyCollator:
    def __init__(
        self, config: ToyConfig, processor: ToyProcessor, augmentation: ToyAugmentation, loader: SampleLoader
    ) -> None:
        self.augmentation = augmentation
        self.loader = loader

    def __call__(self, samples: list[dict]) -> dict[str, torch.Tensor]:
        clips = torch.stack(self.loader.load_batch(samples, self._decode))
        return {"pixel_values_videos": clips}

    def _decode(self, sample: dict, generator: torch.Generator) -> torch.Tensor:
        with VideoReader(sample["video"]) as reader:
            start = int(torch.randint(len(reader) - 3, (), generator=generator))
            frames = torch.from_numpy(reader.frames(range(start, start + 4), size=(8, 8)))
        clip = frames.permute(0, 3, 1, 2).float() / 255
        return clip + self.augmentation.noise * torch.randn(clip.shape, generator=generator)
