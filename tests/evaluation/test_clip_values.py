from __future__ import annotations

import pytest
import torch

from videossl_hf.errors import DataError, OutputError
from videossl_hf.evaluation.clip_values import ClipValues, read_clip_values, write_clip_values
from videossl_hf.evaluation.results import Figure, Result


def result(k=10):
    return Result(
        model={"id": "me/model", "weights": "abc"},
        data={"id": "shapes", "split": "test", "fingerprint": "d1"},
        protocol={"name": "knn", "k": k},
        views="1x1",
        seed=0,
        figures={"top1": Figure(50.0, 10.0, 90.0, 2)},
        wall_time=1.0,
    )


def clips(**changes):
    settings = {
        "keys": ["a/1.mp4", "b/2.mp4"],
        "values": {"top1": torch.tensor([100.0, 0.0])},
        "labels": torch.tensor([0, 1]),
        "predictions": torch.tensor([0, 0]),
        "label_names": ["a", "b"],
    }
    return ClipValues(**(settings | changes))


def test_what_was_written_of_a_result_is_read_again(tmp_path):
    path = tmp_path / "results.json"
    write_clip_values(path, result(), clips())
    write_clip_values(path, result(k=5), clips(predictions=None, label_names=None))
    found = read_clip_values(path, result())
    assert (found.keys, found.label_names) == (["a/1.mp4", "b/2.mp4"], ["a", "b"])
    assert torch.equal(found.values["top1"], torch.tensor([100.0, 0.0]))
    assert found.predictions.tolist() == [0, 0]
    assert read_clip_values(path, result(k=5)).predictions is None
    assert read_clip_values(path, result(k=7)) is None
    assert len(list((tmp_path / "results.clips").iterdir())) == 2


def test_what_cannot_be_read_or_written_is_named(tmp_path):
    path = write_clip_values(tmp_path / "results.json", result(), clips())
    path.write_bytes(b"x" * 40)
    with pytest.raises(DataError, match="evaluate again"):
        read_clip_values(tmp_path / "results.json", result())
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        write_clip_values(tmp_path / "file" / "results.json", result(), clips())
