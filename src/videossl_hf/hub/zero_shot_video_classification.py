"""`pipeline("zero-shot-video-classification", model=...)`: classes that are named when the model is used.

Works with every model whose `get_video_features` and `get_text_features` lie in one space, and whose
processor takes videos and texts.

>>> classify = pipeline("zero-shot-video-classification", model="videossl/tvts-base-yttemporal")
>>> classify("clip.mp4", candidate_labels=["pouring", "cutting"], hypothesis_template="a person {}")
[{'score': 0.93, 'label': 'cutting'}, {'score': 0.07, 'label': 'pouring'}]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from transformers import Pipeline

from ..errors import InputError
from ..evaluation.text_features import class_features

__all__ = ["ZeroShotVideoClassificationPipeline"]

_USUAL_TEMPERATURE = 0.01  # CLIP's


class ZeroShotVideoClassificationPipeline(Pipeline):
    """Says which of the given labels fits a video best.

    The cosines of video and labels, divided by the temperature that the model was trained with, go through a
    softmax over the labels.
    """

    _load_processor = True
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = False
    _load_tokenizer = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in ("get_video_features", "get_text_features"):
            if not hasattr(self.model, name):
                raise InputError(
                    f"{type(self.model).__name__} has no {name}: it cannot compare videos with texts"
                )
        self._classes: tuple[Any, Tensor] | None = None

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """Scores of all labels, best first: `[{"score", "label"}, ...]`; for a list of videos one such list
        each.

        Args:
            inputs: whatever the processor takes for a video, or a list of those.
            candidate_labels: names of the classes.
            hypothesis_template: what they are put into, such as "a person {}"; of several the mean counts.
            batch_size: videos through the model at a time.

        Raises:
            InputError: no labels, or a template without `{}`.
        """
        return super().__call__(inputs, **kwargs)

    def _sanitize_parameters(
        self,
        candidate_labels: Sequence[str] | None = None,
        hypothesis_template: str | Sequence[str] | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        settings: dict[str, Any] = {}
        if candidate_labels is not None:
            settings["candidate_labels"] = tuple(candidate_labels)
        if hypothesis_template is not None:
            one = isinstance(hypothesis_template, str)
            settings["templates"] = (hypothesis_template,) if one else tuple(hypothesis_template)
        return {}, settings, settings

    def preprocess(self, input_: Any) -> dict[str, Tensor]:
        """A video as the model takes it: one row of each input."""
        return dict(self.processor(videos=[input_], return_tensors="pt"))

    def _forward(
        self,
        input_tensors: dict[str, Tensor],
        candidate_labels: tuple[str, ...] = (),
        templates: tuple[str, ...] = ("{}",),
    ) -> dict[str, Tensor]:
        classes = self._class_features(candidate_labels, templates)
        videos = F.normalize(self.model.get_video_features(**input_tensors).float(), dim=1)
        temperature = getattr(self.model.config, "temperature", _USUAL_TEMPERATURE)
        return {"logits": videos @ classes.to(videos.device).T / temperature}

    def _class_features(self, labels: tuple[str, ...], templates: tuple[str, ...]) -> Tensor:
        """Those of the call before, if it had the same labels: a text tower may cost as much as a video's."""
        if not labels:
            raise InputError("give candidate_labels, the names of the classes")
        if self._classes is None or self._classes[0] != (labels, templates):
            self._classes = (labels, templates), class_features(self.model, self.processor, labels, templates)
        return self._classes[1]

    def postprocess(
        self,
        model_outputs: dict[str, Tensor],
        candidate_labels: tuple[str, ...] = (),
        templates: tuple[str, ...] = ("{}",),
    ) -> list[dict[str, Any]]:
        """Labels with their probabilities, best first."""
        scores = model_outputs["logits"][0].softmax(dim=-1)
        order = scores.argsort(descending=True, stable=True).tolist()
        return [{"score": scores[place].item(), "label": candidate_labels[place]} for place in order]
