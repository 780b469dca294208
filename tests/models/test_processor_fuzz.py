"""Processors from strangers: a ValueError at once or a harmless attribute; nothing imported or built."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from common.tiny import tiny
from models.tiny_vimpac import make_dvae_config
from videossl_hf import DVAEProcessor
from videossl_hf.registry import METHODS

PARTS = ("video_processor", "feature_extractor")
SIZES = {
    *("num_frames", "num_clips", "fps", "frame_stride", "size", "crop_size", "num_crops", "resample"),
    *("num_mel_bins", "sampling_rate", "audio_seconds", "window_length", "hop_length", "n_fft"),
}


@pytest.fixture(scope="module", params=[*METHODS, "dvae"])
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[type, Path]:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "dvae":
        processor: Any = DVAEProcessor.from_config(make_dvae_config())
    else:
        processor = tiny(request.param).make_processor()
    processor.save_pretrained(folder)
    return type(processor), folder


def load(saved: tuple[type, Path], part: str, change: dict[str, Any]) -> Any:
    """Load after a change of one part's settings, and watch the clock and the imported modules."""
    processor_class, folder = saved
    path = folder / "processor_config.json"
    text = path.read_text()
    settings = json.loads(text)
    settings[part] |= change
    before, started = set(sys.modules), time.process_time()
    try:
        path.write_text(json.dumps(settings))
        return processor_class.from_pretrained(folder)
    finally:
        path.write_text(text)
        assert time.process_time() - started < 1
        # A tokenizer's class is looked for among those of transformers.
        assert [name for name in set(sys.modules) - before if not name.startswith("transformers.")] == []


def settings_of(saved: tuple[type, Path]) -> list[tuple[str, str, Any]]:
    text = (saved[1] / "processor_config.json").read_text()
    found = json.loads(text)
    return [
        (part, name, found[part][name])
        for part in PARTS
        for name in found.get(part, {})
        if name in SIZES and found[part][name] is not None
    ]


def test_absurd_sizes_are_refused_when_they_are_read(saved: tuple[type, Path]) -> None:
    load(saved, "video_processor", {})
    names = settings_of(saved)
    assert len(names) > 5
    for part, name, value in names:
        for size in (10**9, -(10**9), 0, 10**30):
            change = dict.fromkeys(value, size) if isinstance(value, dict) else size
            if name == "resample" and size == 0:
                continue  # "nearest"
            with pytest.raises(ValueError, match=name.replace("crop_", "")):
                load(saved, part, {name: change})


def test_wrong_types_are_refused_when_they_are_read(saved: tuple[type, Path]) -> None:
    for part, name, _ in settings_of(saved):
        for wrong in ("eight", "os.system", [["x"]]):
            with pytest.raises(ValueError):  # noqa: PT011 - whichever of several checks is first
                load(saved, part, {name: wrong})


def test_unknown_keys_name_nothing_that_is_imported(saved: tuple[type, Path]) -> None:
    names = {"future_option": 3, "module": "os.system", "path": "/etc/passwd", "model": "evil/repo"}
    load(saved, "video_processor", names)
    with pytest.raises(ValueError, match="backend"):
        load(saved, "video_processor", {"backend": "evil/repo"})
