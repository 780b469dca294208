"""A demonstration of published models as a web page: the app of the Space that `videossl push --space` makes.

`Demonstration` answers for a clip and knows nothing of the page; `build_app` is the page, in gradio.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoConfig

from .data.video_folder import read_metadata
from .errors import DependencyError, InputError, VideoSSLError
from .evaluation.features import embed
from .evaluation.loading import load_model, load_processor
from .evaluation.text_features import class_features
from .hub.published_code import custom_pipelines
from .visualize.command import explanation, shown_frames, visualize
from .visualize.film_strip import film_strip

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["STYLE", "Answer", "Demonstration", "build_app"]

NEAREST = 4
EXAMPLES = 6
LOADED_AT_A_TIME = 2
USUAL_TEMPERATURE = 0.01  # of texts; CLIP's
TRANSCRIPTS = (".vtt", ".srt", ".json")
STYLE = """
#picture img { padding-top: 2.5rem; }
#nearest .grid-wrap { height: auto; min-height: 0; overflow: hidden; }
@media (max-width: 640px) {
  #nearest .grid-container { grid-template-columns: repeat(2, minmax(0, 1fr)); }
}
"""
"""Of the page: room for the picture's buttons; a gallery as high as its clips, two a row on a telephone."""


@dataclass(frozen=True)
class Answer:
    """What the page shows of a clip.

    Attributes:
        classes: name -> probability, or the share of votes.
        classes_from: where they come from, in words.
        nearest: clips of the gallery and what is written below them, the nearest first.
        picture: the method's own, or the frames that the model sees.
        caption: what is to be seen in it.
        note: why it is not the method's own; empty if it is.
        timing: seconds by what they were spent on, in words.
    """

    classes: dict[str, float]
    classes_from: str
    nearest: list[tuple[str, str]]
    picture: Image
    caption: str
    note: str
    timing: str


def _reads(config: Any) -> bool:
    """Whether a model compares clips with texts."""
    return "zero-shot-video-classification" in custom_pipelines(config)


class _Checkpoint:
    """A model with its processor, and the features of the gallery."""

    def __init__(self, name: str, gallery: Sequence[Path]) -> None:
        self.name = name
        config = AutoConfig.from_pretrained(name)
        architecture = (config.architectures or [""])[0]
        self.caption = explanation(config.model_type)
        self.reads = _reads(config)
        self.processor = load_processor(name)
        self.classifier = None
        if architecture.endswith("ForVideoClassification"):
            self.classifier = load_model(name, for_classification=True)
        self.model = load_model(name)
        self.gallery = torch.cat([self.features(self.inputs(path)) for path in gallery])

    def inputs(self, clip: str | Path) -> Tensor:
        """(1, ...) as the model takes a clip."""
        tensors = self.processor(videos=[str(clip)], return_tensors="pt", num_clips=1, num_crops=1)
        if self.model.main_input_name not in tensors:
            raise InputError(f"{self.name} has no tokeniser: publish it with one")
        return tensors[self.model.main_input_name]

    def features(self, inputs: Tensor) -> Tensor:
        """(1, width), of length 1."""
        return F.normalize(embed(self.model, inputs), dim=1)


class Demonstration:
    """Answers for clips by published models.

    Args:
        checkpoints: folders or Hub ids of models of this package; none of their code is run.
        gallery: folder of videos with a metadata.jsonl that gives each its `file_name` and `label`.

    Raises:
        InputError: no checkpoints, or no videos in the gallery.
    """

    def __init__(self, checkpoints: Sequence[str], gallery: Path) -> None:
        rows = read_metadata(gallery / "metadata.jsonl")
        if not checkpoints or not rows:
            raise InputError(f"a demonstration needs checkpoints and videos in {gallery}")
        self.checkpoints = list(checkpoints)
        self.clips = [gallery / row["file_name"] for row in rows]
        self.labels = [str(row["label"]) for row in rows]
        self._load = lru_cache(maxsize=LOADED_AT_A_TIME)(lambda name: _Checkpoint(name, self.clips))

    def answer(
        self, clip: str | Path, checkpoint: str, labels: str = "", transcript: str | Path | None = None
    ) -> Answer:
        """Look at a clip.

        Args:
            clip: a video file.
            checkpoint: one of the demonstration's.
            labels: names of classes, separated by commas, for models that read.
            transcript: a subtitle file of what is said, for the picture of TVTS.

        Raises:
            InputError: another checkpoint.
            DecodeError: the file is no video.
        """
        if checkpoint not in self.checkpoints:
            raise InputError(f"{checkpoint!r} is none of {', '.join(self.checkpoints)}")
        loaded = self._load(checkpoint)
        times = [time.perf_counter()]
        inputs = loaded.inputs(clip)
        times.append(time.perf_counter())
        similarities = (loaded.features(inputs) @ loaded.gallery.T)[0]
        names = [name.strip() for name in labels.split(",") if name.strip()]
        classes, source = self._classes(loaded, inputs, names, similarities)
        times.append(time.perf_counter())
        picture, note = _picture(loaded, Path(clip), transcript)
        times.append(time.perf_counter())
        spent = [after - before for before, after in pairwise(times)]
        order = similarities.argsort(descending=True)[:NEAREST].tolist()
        nearest = [(str(self.clips[row]), f"{self.labels[row]}, {similarities[row]:.2f}") for row in order]
        timing = "decoding {:.2f} s, model {:.2f} s, picture {:.2f} s".format(*spent)
        return Answer(classes, source, nearest, picture, loaded.caption, note, timing)

    def reads(self, checkpoint: str) -> bool:
        """Whether a checkpoint compares clips with texts, by its configuration alone."""
        return _reads(AutoConfig.from_pretrained(checkpoint))

    @torch.no_grad()
    def _classes(
        self, loaded: _Checkpoint, inputs: Tensor, names: Sequence[str], similarities: Tensor
    ) -> tuple[dict[str, float], str]:
        if names and loaded.reads:
            classes = class_features(loaded.model, loaded.processor, names)
            video = F.normalize(embed(loaded.model, inputs, space="text"), dim=1)
            temperature = getattr(loaded.model.config, "temperature", USUAL_TEMPERATURE)
            scores = (video @ classes.T / temperature).softmax(dim=1)[0]
            return dict(zip(names, scores.tolist(), strict=True)), "the names, read by the model"
        if loaded.classifier is not None:
            scores = embed(loaded.classifier, inputs, space="probabilities")[0]
            known = loaded.classifier.config.id2label
            return {str(known[place]): float(score) for place, score in enumerate(scores)}, "the classifier"
        votes = Counter(self.labels[row] for row in similarities.argsort(descending=True)[:NEAREST].tolist())
        shares = {name: count / votes.total() for name, count in votes.most_common()}
        return shares, f"the {votes.total()} nearest clips of the gallery"


def _picture(loaded: _Checkpoint, clip: Path, transcript: str | Path | None) -> tuple[Image, str]:
    """The method's own picture of a clip, or its frames and the reason."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / f"clip{clip.suffix}"  # a transcript is looked for beside the clip
        shutil.copyfile(clip, copy)
        try:
            if transcript is not None:
                kind = Path(transcript).suffix.lower()
                if kind not in TRANSCRIPTS:
                    raise InputError(f"a transcript is one of {', '.join(TRANSCRIPTS)}, got {kind or 'none'}")
                shutil.copyfile(transcript, copy.with_suffix(kind))
            return visualize(loaded.name, [str(copy)]), ""
        except VideoSSLError as error:
            frames = shown_frames(loaded.processor.video_processor, str(copy))
            return film_strip(frames).convert("RGB"), str(error).replace(str(copy), clip.name)


def build_app(checkpoints: Sequence[str], gallery: Path) -> Any:
    """The page: a `gradio.Blocks` to be launched.

    Args:
        checkpoints: see `Demonstration`.
        gallery: see `Demonstration`.

    Raises:
        DependencyError: gradio is not installed.
    """
    try:
        import gradio as gr
    except ImportError as error:
        raise DependencyError(
            'the demonstration needs gradio: install it with `pip install "videossl-hf[space]"`'
        ) from error
    demonstration = Demonstration(checkpoints, gallery)

    def look(
        clip: str | None, checkpoint: str, labels: str | None, transcript: str | None
    ) -> tuple[Any, ...]:
        if clip is None:
            raise gr.Error("choose or record a clip first")
        try:
            answer = demonstration.answer(clip, checkpoint, labels or "", transcript)
        except VideoSSLError as error:
            raise gr.Error(str(error)) from error
        caption = answer.caption
        if answer.note:
            caption = f"The frames that the model sees; no picture of the method's own: {answer.note}"
        below = f"Classes by {answer.classes_from}; {answer.timing}."
        return below, answer.classes, answer.nearest, answer.picture, caption

    def ask(checkpoint: str) -> Any:
        return gr.update(visible=demonstration.reads(checkpoint))

    first = demonstration.checkpoints[0]
    with gr.Blocks(title="videossl-hf") as app:
        gr.Markdown(
            "# What a video model sees\nA clip, its classes, what lies near it, and the method's own picture."
        )
        with gr.Row():
            with gr.Column():
                clip = gr.Video(show_label=False, sources=["upload", "webcam"], elem_id="clip")
                gr.Examples([str(path) for path in demonstration.clips[:EXAMPLES]], clip)
                checkpoint = gr.Dropdown(
                    demonstration.checkpoints, value=first, label="Checkpoint", elem_id="checkpoint"
                )
                with gr.Column(visible=demonstration.reads(first), elem_id="texts") as texts:
                    labels = gr.Textbox(
                        label="Names of classes, for this model to read", placeholder="pouring, cutting"
                    )
                    gr.Markdown("Transcript of what is said, for the picture of TVTS")
                    transcript = gr.File(show_label=False, file_types=list(TRANSCRIPTS), height=130)
                button = gr.Button("Look", variant="primary", elem_id="look")
            with gr.Column():
                below = gr.Markdown("Choose or record a clip, then press Look.", elem_id="below")
                classes = gr.Label(show_label=False, num_top_classes=5, elem_id="classes")
                gr.Markdown("### Nearest clips of the gallery\nWith their class and cosine similarity.")
                nearest = gr.Gallery(
                    show_label=False, columns=NEAREST, height="auto", buttons=[], elem_id="nearest"
                )
                gr.Markdown("### The method's picture")
                picture = gr.Image(show_label=False, buttons=["download", "fullscreen"], elem_id="picture")
                caption = gr.Markdown(elem_id="caption")
        checkpoint.change(ask, checkpoint, texts)
        answers = [below, classes, nearest, picture, caption]
        button.click(look, [clip, checkpoint, labels, transcript], answers)
    return app
