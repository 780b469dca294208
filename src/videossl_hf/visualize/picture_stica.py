"""Which sound fits which moment, as STiCA hears and sees a clip: a map of its sound against its frames."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForPreTraining

from ..errors import NoAudioError
from ..evaluation.loading import load_processor, quiet_libraries
from .film_strip import film_strip, motion_print
from .similarity import similarity_picture
from .spectrogram_image import spectrogram_image

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["EXPLANATION", "painter", "sound_vision_map"]

EXPLANATION = (
    "Rows are moments of the clip, columns are sounds: the bluer a cell, the better the two fit. The best "
    "sound of each moment is ringed, green where it is its own. Without sound: the frames."
)
MOST_MOMENTS = 8


def painter(name: str, revision: str | None = None) -> Callable[[np.ndarray, Tensor, Any], Image]:
    """A function that draws clips: frames as they are shown, as the model takes them, and the clip itself.

    A clip without sound, and weights without the space that both share, give the film strip of the frames.

    Args:
        name: folder or Hub id; a pre-training's has the shared space.
        revision: of a Hub id.
    """
    with quiet_libraries():
        model, info = AutoModelForPreTraining.from_pretrained(
            name, revision=revision, output_loading_info=True
        )
        processor = load_processor(name, revision=revision)
    model.eval()
    hears = model.audio_projection is not None and not any(
        "_projection." in key for key in info["missing_keys"]
    )

    def paint(frames: np.ndarray, pixel_values_videos: Tensor, clip: Any) -> Image:
        if not hears:
            return film_strip(frames)
        try:
            return sound_vision_map(model, processor, clip)
        except NoAudioError:
            return film_strip(frames)

    return paint


@torch.no_grad()
def sound_vision_map(model: Any, processor: Any, clip: Any) -> Image:
    """Moments of a clip in rows, their sounds in columns; the stronger a cell, the better the two fit.

    Moments are as long as the sound that the model takes; the best sound of each is ringed, green where it is
    its own.

    Args:
        model: a STiCAForPreTraining in evaluation mode.
        processor: of the model.
        clip: a file, in any form.

    Raises:
        NoAudioError: it has no sound.
    """
    from PIL import Image

    heard = processor.feature_extractor
    seconds = heard.audio_seconds
    sound = {"audio_seconds": seconds, "audio_sampling_rate": heard.sampling_rate}
    windows = list(processor.video_processor.windows(clip, seconds, seconds / 2, **sound))
    chosen = np.linspace(0, len(windows) - 1, min(len(windows), MOST_MOMENTS)).round().astype(int)
    windows = [windows[place] for place in chosen]
    inputs = processor(videos=[window.video for window in windows], audio=True)
    # One at a time: a map of a long clip costs no more memory than a clip.
    seen = torch.cat([model.get_video_embeddings(row[None]) for row in inputs["pixel_values_videos"]])
    sounds = torch.cat([model.get_audio_embeddings(row[None]) for row in inputs["input_features"]])
    picture = similarity_picture(
        seen @ sounds.T,
        [f"{window.start:.1f} s" for window in windows],
        row_images=[np.asarray(motion_print(window.video.clips[0].numpy(), size=96)) for window in windows],
        column_images=[spectrogram_image(features[0]) for features in inputs["input_features"]],
    )
    return Image.open(io.BytesIO(picture.png)).convert("RGB")
