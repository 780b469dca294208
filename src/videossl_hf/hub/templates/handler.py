"""Serves the model of this repository on Hugging Face Inference Endpoints.

A request is JSON, `{"inputs": VIDEO, "parameters": {...}}` with a video as base64 text, data URI or http(s)
URL, or the bytes of the video themselves. The answer is what the pipelines of this model give: classes of a
classifier, classes among `candidate_labels` for a model that reads, features otherwise. What is wrong with a
request is a ValueError, which an endpoint answers with status 400 and `{"error": message}`.
"""

from __future__ import annotations

import base64
import binascii
import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, AutoModelForVideoClassification, AutoProcessor
from transformers.dynamic_module_utils import get_class_from_dynamic_module

LARGEST_VIDEO = 512 * 2**20  # bytes
SECONDS_TO_WAIT = 30  # for a server that a URL names
MOST_AT_A_TIME = 16  # windows through the model; a request may ask for fewer


class EndpointHandler:
    """Loads the model once; may be called from several threads at the same time."""

    def __init__(self, path: str = "") -> None:
        """Read the model in a folder, with the code that lies there beside this file."""
        folder = Path(path or Path(__file__).parent)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        is_classifier = config["architectures"][0].endswith("ForVideoClassification")
        auto_class: Any = AutoModelForVideoClassification if is_classifier else AutoModel
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = auto_class.from_pretrained(folder, trust_remote_code=True).to(device)
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
        self.pipelines = {
            task: get_class_from_dynamic_module(entry["impl"], str(folder))(
                model=model, processor=processor, task=task, device=device
            )
            for task, entry in config["custom_pipelines"].items()
            if entry["pt"] == [auto_class.__name__]
        }

    def __call__(self, data: Any) -> Any:
        """Answer one request.

        Raises:
            ValueError: says what is wrong with it.
        """
        if not isinstance(data, dict) or "inputs" not in data:
            raise ValueError('a request is {"inputs": VIDEO, "parameters": {...}}, or the bytes of a video')
        parameters = data.get("parameters") or {}
        if not isinstance(parameters, dict):
            raise ValueError("parameters must be an object of names and values")
        pipe = self.pipelines[self._task(parameters)]
        batch_size = parameters.pop("batch_size", 1) if "window_seconds" in parameters else 1
        if type(batch_size) is not int or not 1 <= batch_size <= MOST_AT_A_TIME:
            raise ValueError(f"batch_size must be a whole number from 1 to {MOST_AT_A_TIME}")
        try:
            return pipe(_video(data["inputs"]), batch_size=batch_size, **parameters)
        except (OSError, TypeError, ValueError) as error:  # a damaged video, a parameter of the wrong kind
            raise ValueError(str(error)) from error

    def _task(self, parameters: dict[str, Any]) -> str:
        """What to do with a request."""
        if "windowed-video-classification" in self.pipelines:
            return "windowed-video-classification"
        if "candidate_labels" not in parameters:
            return "video-feature-extraction"
        if "zero-shot-video-classification" not in self.pipelines:
            raise ValueError("this model does not read: leave candidate_labels out")
        return "zero-shot-video-classification"


def _video(inputs: Any) -> bytes:
    """The content of a video file."""
    if isinstance(inputs, (bytes, bytearray)):
        return bytes(inputs)
    if not isinstance(inputs, str):
        raise ValueError(
            f"inputs must be the bytes of a video, base64 text or a URL, got {type(inputs).__name__}"
        )
    if inputs.startswith(("http://", "https://")):
        return _download(inputs)
    text = inputs.partition(",")[2] if inputs.startswith("data:") else inputs
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("inputs is neither an http(s) URL nor base64 text") from error


def _download(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=SECONDS_TO_WAIT) as response:
            content = response.read(LARGEST_VIDEO + 1)
    except (urllib.error.URLError, TimeoutError, ValueError) as error:
        raise ValueError(f"cannot download {url}: {error}") from error
    if len(content) > LARGEST_VIDEO:
        raise ValueError(f"{url} is larger than {LARGEST_VIDEO:,} bytes")
    return content
