"""`pipeline("zero-shot-video-classification", model=...)`: classes that are named when the model is used.

Works with every model whose `get_video_features` and `get_text_features` lie in one space, and whose
processor takes videos and texts.

>>> classify = pipeline("zero-shot-video-classification", model="videossl/tvts-base-yttemporal")
>>> classify("clip.mp4", candidate_labels=["pouring", "cutting"], hypothesis_template="a person {}")
[{'score': 0.93, 'label': 'cutting'}, {'score': 0.07, 'label': 'pouring'}]
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..evaluation.text_features import class_features
from .pipeline_windows import Row, Settings, VideoPipeline, take

__all__ = ["ZeroShotVideoClassificationPipeline"]

_USUAL_TEMPERATURE = 0.01  # CLIP's


class ZeroShotVideoClassificationPipeline(VideoPipeline):
    """Says which of the given labels fits a video best.

    The cosines of video and labels, divided by the temperature that the model was trained with, go through a
    softmax over the labels. Its calls take, besides those of `VideoPipeline`:

        candidate_labels: names of the classes.
        hypothesis_template: what they are put into, such as "a person {}"; of several the mean counts.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in ("get_video_features", "get_text_features"):
            if not hasattr(self.model, name):
                raise InputError(
                    f"{type(self.model).__name__} has no {name}: it cannot compare videos with texts"
                )
        self._classes: tuple[Any, Tensor] | None = None

    def _sanitize_parameters(self, **settings: Any) -> tuple[Settings, Settings, Settings]:
        own = {
            name: (value,) if isinstance(value, str) else tuple(value)
            for name, value in take(settings, "candidate_labels", "hypothesis_template").items()
        }
        if not all(isinstance(text, str) for texts in own.values() for text in texts):
            raise InputError("candidate_labels and hypothesis_template are texts")
        before, forward, after = super()._sanitize_parameters(**settings)
        return before, forward | own, after | take(own.copy(), "candidate_labels")

    def _forward(
        self,
        input_tensors: Row,
        candidate_labels: tuple[str, ...] = (),
        hypothesis_template: tuple[str, ...] = ("{}",),
    ) -> Row:
        classes = self._class_features(candidate_labels, hypothesis_template)
        videos = F.normalize(self.model.get_video_features(**input_tensors).float(), dim=1)
        temperature = getattr(self.model.config, "temperature", _USUAL_TEMPERATURE)
        return {"logits": videos @ classes.to(videos.device).T / temperature}

    def _class_features(self, labels: tuple[str, ...], templates: tuple[str, ...]) -> Tensor:
        """Those of the call before, if it had the same labels: a text tower may cost as much as a video's."""
        if not labels:
            raise InputError("give candidate_labels, the names of the classes")
        kept = self._classes  # read once: calls from several threads may have different labels
        if kept is None or kept[0] != (labels, templates):
            found = class_features(self.model, self.processor, labels, templates)
            kept = self._classes = (labels, templates), found
        return kept[1]

    def describe(self, row: Row, settings: Settings) -> list[dict[str, Any]]:
        """Labels with their probabilities, best first."""
        scores = row["logits"].softmax(dim=-1)
        order = scores.argsort(descending=True, stable=True).tolist()
        return [
            {"score": scores[place].item(), "label": settings["candidate_labels"][place]} for place in order
        ]
