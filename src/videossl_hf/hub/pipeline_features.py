"""`pipeline("video-feature-extraction", model=...)`: the features that `AutoModel` gives, of videos of any
length.

>>> extract = pipeline("video-feature-extraction", model="videossl/stica-k400")
>>> extract("clip.mp4")["features"][:2]
[0.31, -0.02]
>>> extract("film.mp4", window_seconds=10, batch_size=8)[1]
{'start': 10.0, 'end': 20.0, 'features': [...]}
"""

from __future__ import annotations

from typing import Any

from ..errors import InputError
from .pipeline_windows import Row, Settings, VideoPipeline, take

__all__ = ["VideoFeatureExtractionPipeline"]


class VideoFeatureExtractionPipeline(VideoPipeline):
    """Features of videos, and of their sound where the model hears.

    Its calls take, besides those of `VideoPipeline`:

        audio: also give `audio_features`, of each video's own sound.
        return_tensors: tensors in place of lists of numbers.
    """

    def _sanitize_parameters(self, **settings: Any) -> tuple[Settings, Settings, Settings]:
        sound, form = take(settings, "audio"), take(settings, "return_tensors")
        if sound.get("audio") and not getattr(self.processor, "feature_extractor", None):
            raise InputError(f"{type(self.model).__name__} does not hear: leave audio out")
        before, forward, after = super()._sanitize_parameters(**settings)
        return before | sound, forward, after | form

    def _forward(self, input_tensors: Row) -> Row:
        output = self.model(**input_tensors)
        rows = {"features": output.pooler_output}
        if "input_features" in input_tensors:
            rows["audio_features"] = output.audio_pooler_output
        return rows

    def describe(self, row: Row, settings: Settings) -> dict[str, Any]:
        """The vectors of one window, by name."""
        as_tensors = settings.get("return_tensors", False)
        return {name: value.float() if as_tensors else value.tolist() for name, value in row.items()}
