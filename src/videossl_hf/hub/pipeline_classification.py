"""`pipeline("windowed-video-classification", model=...)`: a classifier over videos of any length.

Without `window_seconds` it says what `pipeline("video-classification")` of transformers says; that one knows
no windows.

>>> classify = pipeline("windowed-video-classification", model="me/stica-shapes-classifier")
>>> classify("film.mp4", window_seconds=2, stride_seconds=1, top_k=1)[3]
{'start': 3.0, 'end': 5.0, 'classes': [{'score': 0.97, 'label': 'bounce'}]}
"""

from __future__ import annotations

from typing import Any

from ..errors import InputError
from .pipeline_windows import Row, Settings, VideoPipeline, take

__all__ = ["WindowedVideoClassificationPipeline"]


class WindowedVideoClassificationPipeline(VideoPipeline):
    """Classes of videos, best first; takes `top_k` (5) besides the settings of `VideoPipeline`."""

    def _sanitize_parameters(self, **settings: Any) -> tuple[Settings, Settings, Settings]:
        own = take(settings, "top_k")
        if type(own.get("top_k", 1)) is not int or own.get("top_k", 1) < 1:
            raise InputError(f"top_k must be a whole number of at least 1, got {own['top_k']!r}")
        before, forward, after = super()._sanitize_parameters(**settings)
        return before, forward, after | own

    def _forward(self, input_tensors: Row) -> Row:
        return {"logits": self.model(**input_tensors).logits}

    def describe(self, row: Row, settings: Settings) -> list[dict[str, Any]]:
        """Names of the classes with their probabilities."""
        scores = row["logits"].float().softmax(dim=-1)
        best = scores.argsort(descending=True, stable=True)[: settings.get("top_k", 5)].tolist()
        names = self.model.config.id2label
        return [{"score": scores[place].item(), "label": names[place]} for place in best]
