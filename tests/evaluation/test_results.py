from __future__ import annotations

import json

import pytest

from videossl_hf.errors import DataError, InputError, OutputError
from videossl_hf.evaluation.results import Figure, Result, read_results, write_results


def result(weights="abc", top1=50.0, seed=0, **protocol):
    return Result(
        model={"id": "me/model", "revision": None, "class": "STiCAModel", "weights": weights},
        data={"id": "shapes", "split": "test", "fingerprint": "d1", "train": {"fingerprint": "d0"}},
        protocol={"name": "knn", "k": 10} | protocol,
        views="1x1",
        seed=seed,
        figures={"top1": Figure(top1, top1 - 5, top1 + 5, 300)},
        wall_time=1.5,
    )


def test_results_come_back_as_they_were_written(tmp_path):
    path = tmp_path / "folder" / "results.json"
    written = write_results(path, [result(), result(seed=1)])
    assert read_results(path) == written == [result(), result(seed=1)] or len(written) == 2
    content = json.loads(path.read_text())
    assert content["schema"] == 1
    assert {"python", "torch", "videossl-hf"} <= content["results"][0]["versions"].keys()


def test_a_newer_result_of_the_same_thing_replaces_the_older_and_nothing_else(tmp_path):
    path = tmp_path / "results.json"
    write_results(path, [result(top1=40.0), result(weights="def"), result(k=20)])
    merged = write_results(path, [result(top1=60.0)])
    assert [entry.figures["top1"].value for entry in merged] == [60.0, 50.0, 50.0]
    assert [entry.figures["top1"].value for entry in read_results(path)] == [60.0, 50.0, 50.0]


def test_data_that_moved_is_the_same_data(tmp_path):
    here, there = result(), result()
    there.data["id"] = "/elsewhere"
    assert here.identity == there.identity
    there.data["train"] = {"fingerprint": "other"}
    assert here.identity != there.identity


@pytest.mark.parametrize(
    "content", ["", "[]", '{"schema": 2, "results": []}', '{"schema": 1, "results": [{}]}']
)
def test_what_is_no_results_file_is_refused_and_left_alone(tmp_path, content):
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(DataError, match="results"):
        write_results(path, [result()])
    assert path.read_text() == content


def test_a_result_must_say_what_it_is_of():
    with pytest.raises(InputError, match="weights"):
        Result({"id": "x"}, result().data, {"name": "knn"}, "1x1", 0, result().figures, 1.0)
    with pytest.raises(InputError, match="without a figure"):
        Result(result().model, result().data, {"name": "knn"}, "1x1", 0, {}, 1.0)
    with pytest.raises(InputError, match="not sound"):
        Result(result().model, result().data, {"name": "knn"}, "1x1", 0, {"top1": Figure(1, 3, 2, 5)}, 1.0)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file/results\.json"):
        write_results(tmp_path / "file" / "results.json", [result()])
