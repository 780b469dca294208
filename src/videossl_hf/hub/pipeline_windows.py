"""What our pipelines have in common: whole videos or sliding windows with their times, in batches.

A pipeline says what the model makes of a batch (`_forward`) and what a user gets of one row (`describe`). It
is published beside the weights (`hub/published_code.py`), so it imports no more than it needs and leaves it
to the processor that it was given to take videos apart.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from types import GeneratorType
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import Pipeline
from transformers.pipelines.pt_utils import PipelineChunkIterator

from ..errors import InputError

__all__ = ["Settings", "VideoPipeline", "take"]

Row = dict[str, Tensor]
"""What the model says of one window or whole video, by the names of its outputs."""

Settings = dict[str, Any]


def take(settings: Settings, *names: str) -> Settings:
    """Those of some settings that a call gives, out of all that it gives."""
    found = {name: settings.pop(name, None) for name in names}
    return {name: value for name, value in found.items() if value is not None}


class VideoPipeline(Pipeline):
    """A pipeline over videos.

    Its calls take whatever the processor takes for a video, or a list of those, and:

        window_seconds: slide a window of this length over each video, and answer for each window with its
            `start` and `end` in seconds; without it there is one answer a video.
        stride_seconds: from one window to the next; by default one follows the other.
        batch_size: windows, or whole videos, that go through the model together.
        num_workers: 1 decodes in a process beside the model; more make no difference.
    """

    _load_processor = True
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = False
    _load_tokenizer = False

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """Answers for one video or several, see the class; lists for lists, generators for generators."""
        if isinstance(inputs, (list, GeneratorType, Dataset)):
            return super().__call__(inputs, **kwargs)
        return super().__call__([inputs], **kwargs)[0]

    @abstractmethod
    def describe(self, row: Row, settings: Settings) -> dict[str, Any] | list[dict[str, Any]]:
        """What a user gets for one window, under the settings of the call."""

    def _sanitize_parameters(self, **settings: Any) -> tuple[Settings, Settings, Settings]:
        given = take(settings, "window_seconds", "stride_seconds")
        if settings:
            raise InputError(f"{type(self).__name__} has no setting {', '.join(sorted(settings))}")
        if "stride_seconds" in given and "window_seconds" not in given:
            raise InputError("stride_seconds says how far windows move: give window_seconds, too")
        return given, {}, {}

    def preprocess(
        self,
        video: Any,
        window_seconds: float | None = None,
        stride_seconds: float | None = None,
        audio: bool = False,
    ) -> Iterator[dict[str, Any]]:
        """The windows of a video as the model takes them, one row of each input."""
        sound: dict[str, Any] = {"audio": True} if audio else {}
        if window_seconds is None:
            yield {"inputs": self._rows([video], sound), "span": None, "is_last": True}
            return
        length: dict[str, Any] = {}
        if audio:
            heard = self.processor.feature_extractor
            length = {"audio_seconds": heard.audio_seconds, "audio_sampling_rate": heard.sampling_rate}
        slide = self.processor.video_processor.windows(video, window_seconds, stride_seconds, **length)
        for window in slide:
            rows = self._rows([window.video], sound)
            yield {"inputs": rows, "span": (window.start, window.end), "is_last": window.is_last}

    def _rows(self, videos: list[Any], settings: Mapping[str, Any]) -> dict[str, Tensor]:
        return dict(self.processor(videos=videos, return_tensors="pt", **settings))

    def get_iterator(
        self,
        inputs: Any,
        num_workers: int,
        batch_size: int,
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> Iterator[Any]:
        """Answers in the order of the videos; a batch may hold windows of several."""
        windows = PipelineChunkIterator(inputs, self.preprocess, preprocess_params)
        batches = DataLoader(windows, batch_size=batch_size, num_workers=min(num_workers, 1), collate_fn=list)
        waiting: list[dict[str, Any]] = []
        for batch in batches:
            names = batch[0]["inputs"]
            stacked = {name: torch.cat([window["inputs"][name] for window in batch]) for name in names}
            outputs = self.forward(stacked, **forward_params)
            for place, window in enumerate(batch):
                row = {name: value[place] for name, value in outputs.items()}
                waiting.append({"row": row, "span": window["span"]})
                if window["is_last"]:
                    yield self.postprocess(waiting, **postprocess_params)
                    waiting = []

    def postprocess(self, model_outputs: Sequence[dict[str, Any]], **settings: Any) -> Any:
        """The answer for a whole video, or one for each of its windows with its times."""
        answers = []
        for output in model_outputs:
            answer = self.describe(output["row"], settings)
            if output["span"] is None:
                return answer
            start, end = output["span"]
            times = {"start": round(start, 3), "end": round(end, 3)}
            answers.append(times | (answer if isinstance(answer, dict) else {"classes": answer}))
        return answers
