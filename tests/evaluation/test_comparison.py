from __future__ import annotations

from pathlib import Path

import pytest
import torch

from videossl_hf.errors import DataError, InputError
from videossl_hf.evaluation.bootstrap import crossed_interval
from videossl_hf.evaluation.clip_values import ClipValues, write_clip_values
from videossl_hf.evaluation.comparison import compare_results, read_runs
from videossl_hf.evaluation.paired import compare_pairs
from videossl_hf.evaluation.results import Figure, Result, write_results

CLIPS = 40
NAMES = ["left", "right"]


def store(
    path: Path,
    hits,
    model="me/model",
    weights="w0",
    data="d0",
    source="shapes",
    clips=True,
    protocol=None,
    **notes,
) -> Path:
    """A result whose clips were hit as told, as `videossl evaluate` writes it."""
    values = 100.0 * torch.as_tensor(hits, dtype=torch.float64)
    figure = Figure(values.mean().item(), values.mean().item() - 10, values.mean().item() + 10, len(values))
    result = Result(
        model={"id": model, "weights": weights} | notes,
        data={"id": source, "split": "test", "fingerprint": data, "samples": len(values)},
        protocol=protocol or {"name": "knn", "k": 10, "modality": "video"},
        views="1x1",
        seed=0,
        figures={"top1": figure},
        wall_time=1.0,
    )
    write_results(path, [result])
    if clips:
        labels = torch.arange(len(values)) % 2
        predicted = torch.where(values > 0, labels, 1 - labels)
        features = torch.nn.functional.one_hot(predicted, 2) + 0.01 * torch.arange(len(values))[:, None]
        keys = [f"clip {row}" for row in range(len(values))]
        write_clip_values(
            path, result, ClipValues(keys, {"top1": values}, labels, predicted, NAMES, features)
        )
    return path


def hits(share: float, seed: int = 0) -> torch.Tensor:
    return torch.rand(CLIPS, generator=torch.Generator().manual_seed(seed)) < share


def test_rows_are_called_as_told_or_like_their_models(tmp_path):
    store(tmp_path / "results.json", hits(0.5), model="outputs/a")
    store(tmp_path / "b.json", hits(0.5), model="outputs/b", random_weights=True)
    store(tmp_path / "c.json", hits(0.5), model="elsewhere/a")
    entries = read_runs([str(tmp_path), f"mine={tmp_path / 'b.json'}", str(tmp_path / "c.json")])
    assert [entry.name for entry in entries] == ["outputs/a", "mine, random weights", "elsewhere/a"]


def test_only_what_answers_the_same_question_stands_in_one_column(tmp_path):
    path = tmp_path / "a.json"
    store(path, hits(0.5))
    store(path, hits(0.6), protocol={"name": "linear", "l2": 0.1, "modality": "video"})
    other = store(tmp_path / "b.json", hits(0.7), model="other", weights="w1")
    store(
        other, hits(0.7), model="other", weights="w1", protocol={"name": "knn", "k": 5, "modality": "video"}
    )
    store(other, hits(0.6), model="other", weights="w1",
          protocol={"name": "linear", "l2": 9.0, "modality": "video"})  # fmt: skip
    (comparison,) = compare_results(read_runs([str(path), str(other)]))
    assert [column.title for column in comparison.columns] == ["kNN top-1", "linear probe top-1", "kNN top-1"]
    assert comparison.rows == ["model", "other"]
    assert [sum(own == column for _, own in comparison.cells) for column in comparison.columns] == [2, 2, 1]


def test_models_are_tested_clip_by_clip_against_the_reference(tmp_path):
    first, second = hits(0.9), hits(0.4, 1)
    runs = [f"a={store(tmp_path / 'a.json', first)}", f"b={store(tmp_path / 'b.json', second, weights='w1')}"]
    (comparison,) = compare_results(read_runs(runs))
    tests = comparison.paired(comparison.main_columns[0], "a")
    assert tests == {"b": compare_pairs(100.0 * second, 100.0 * first)}


def test_runs_of_one_name_are_seeds_with_one_interval_over_both(tmp_path):
    seeds = [hits(0.5, seed) for seed in range(3)]
    runs = [
        f"a={store(tmp_path / f'{seed}.json', own, weights=f'w{seed}')}" for seed, own in enumerate(seeds)
    ]
    (comparison,) = compare_results(read_runs(runs))
    cell = comparison.cells["a", comparison.columns[0]]
    table = 100 * torch.stack(seeds).double()
    assert (cell.runs, cell.figure.value) == (3, pytest.approx(table.mean().item()))
    assert (cell.figure.low, cell.figure.high) == crossed_interval(table)
    assert torch.equal(cell.values, table.mean(dim=0))


def test_results_on_other_clips_are_never_side_by_side(tmp_path):
    here, there = (store(tmp_path / f"{name}.json", hits(0.5), data=name) for name in ("d0", "d1"))
    comparisons = compare_results(read_runs([str(here), str(there)]))
    assert [len(comparison.cells) for comparison in comparisons] == [1, 1]


def test_clips_are_called_by_as_much_of_their_path_as_tells_them_apart(tmp_path):
    folders = {"d0": "work/low/data", "d1": "work/mid/data"}
    paths = [store(tmp_path / f"{name}.json", hits(0.5), data=name, source=folders[name]) for name in folders]
    names = [comparison.data for comparison in compare_results(read_runs(list(map(str, paths))))]
    assert names == ["low/data, test", "mid/data, test"]
    assert compare_results(read_runs([str(paths[0])]))[0].data == "data, test"


@pytest.mark.parametrize(
    ("setting", "title"),
    [({"pooling": "mean"}, "mean of tokens"), ({"among_each_other": True}, "among each other")],
)
def test_another_way_to_ask_has_a_column_of_its_own(tmp_path, setting, title):
    protocol = {"name": "retrieval", "ks": [1], "modality": "video"}
    usual = store(tmp_path / "a.json", hits(0.5), protocol=protocol)
    other = store(tmp_path / "b.json", hits(0.7), protocol=protocol | setting)
    (comparison,) = compare_results(read_runs([f"one={usual}", f"one={other}"]))
    assert len(comparison.columns) == 2
    assert f"({title})" in comparison.columns[1].title


def test_without_clip_values_there_is_a_table_and_no_test(tmp_path):
    runs = [
        f"a={store(tmp_path / 'a.json', hits(0.5), clips=False)}",
        f"b={store(tmp_path / 'b.json', hits(0.6), weights='w1')}",
    ]
    (comparison,) = compare_results(read_runs(runs))
    assert len(comparison.cells) == 2
    assert comparison.paired(comparison.columns[0], "a") == {}


def test_what_cannot_be_compared_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot read results"):
        read_runs([str(tmp_path / "nothing.json")])
    (tmp_path / "results.json").write_text('{"schema": 1, "results": []}')
    with pytest.raises(DataError, match="holds no result"):
        read_runs([str(tmp_path)])
    with pytest.raises(InputError, match="nothing to compare"):
        compare_results([])
