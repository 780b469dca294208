from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from videossl_hf.data.datasets import load_videos
from videossl_hf.errors import DataError, InputError
from videossl_hf.evaluation.bootstrap import bootstrap_interval, crossed_interval, folds_interval
from videossl_hf.evaluation.folds import average_folds, official_folds, over_folds, stratified_folds
from videossl_hf.evaluation.protocols import knn_protocol, outcome_of
from videossl_hf.evaluation.table import FeatureTable


@given(
    sizes=st.lists(st.integers(2, 9), min_size=2, max_size=5),
    count=st.integers(2, 4),
    seed=st.integers(0, 99),
)
def test_every_clip_is_tested_once_and_every_class_is_spread_evenly(sizes, count, seed):
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    folds = stratified_folds(labels, count, seed)
    assert sorted(torch.cat([fold.test for fold in folds]).tolist()) == list(range(len(labels)))
    for fold in folds:
        assert sorted(fold.train.tolist() + fold.test.tolist()) == list(range(len(labels)))
        assert set(labels[fold.test].tolist()) <= set(labels[fold.train].tolist())
    tested = torch.stack([labels[fold.test].bincount(minlength=len(sizes)) for fold in folds])
    assert (tested.amax(dim=0) - tested.amin(dim=0)).max() <= 1
    assert tested.sum(dim=1).max() - tested.sum(dim=1).min() <= 1


@pytest.mark.parametrize(
    ("labels", "count", "error", "message"),
    [
        ([0, 0, 1, 1], 1, InputError, "between 2 and 4"),
        ([0, 0, 1, 1], 5, InputError, "between 2 and 4"),
        ([0, 0, -1, 1], 2, InputError, "a label"),
        ([0, 0, 1], 2, DataError, "class 1 has a single clip"),
    ],
)
def test_what_cannot_be_cut_into_folds_is_refused(labels, count, error, message):
    with pytest.raises(error, match=message):
        stratified_folds(labels, count)


def test_a_figure_is_the_mean_of_the_folds_and_covers_each_clip_once():
    hits = [torch.tensor([100.0, 0, 100, 100]), torch.tensor([0.0, 0])]
    outcomes = [
        outcome_of({"name": "knn", "l2": l2}, {"top1": own}, 0) for own, l2 in zip(hits, (1, 2), strict=True)
    ]
    averaged = average_folds(outcomes, [torch.tensor([0, 1, 2, 3]), torch.tensor([4, 5])])
    figure = averaged.figures["top1"]
    assert (figure.value, figure.samples) == (37.5, 6)
    assert figure.low < 37.5 < figure.high
    assert averaged.protocol == {"name": "knn", "l2": [1, 2]}
    assert averaged.values["top1"].tolist() == [100, 0, 100, 100, 0, 0]


def test_folds_that_test_the_same_clips_do_not_narrow_the_interval():
    values, rows = (torch.arange(100) % 2 * 100.0), torch.arange(100)
    once = bootstrap_interval(values)
    thrice = folds_interval([(values, rows)] * 3)
    assert thrice == pytest.approx(once, abs=1.5)
    disjoint = folds_interval([(values, rows + 100 * number) for number in range(3)])
    assert disjoint[1] - disjoint[0] < 0.7 * (once[1] - once[0])


def test_an_interval_over_draws_is_wider_than_over_samples_alone():
    generator = torch.Generator().manual_seed(0)
    samples = torch.rand(1, 200, generator=generator)
    draws = samples + 0.5 * torch.randn(8, 1, generator=generator)
    low, high = crossed_interval(draws)
    alone = bootstrap_interval(draws.mean(dim=0))
    assert high - low > 2 * (alone[1] - alone[0])


def test_a_protocol_over_folds_equals_running_it_fold_by_fold():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 5
    features = torch.randn(5, 6, generator=generator)[labels] + torch.randn(60, 6, generator=generator)
    table = FeatureTable(features, labels, list(map(str, range(60))), list("abcde"))
    folds = stratified_folds(labels, 3)
    outcome, rows = over_folds(lambda train, test: knn_protocol(train, test, k=5), table, folds)
    alone = [knn_protocol(table.select(fold.train), table.select(fold.test), k=5) for fold in folds]
    expected = sum(found.figures["top1"].value for found in alone) / 3
    assert outcome.figures["top1"].value == pytest.approx(expected)
    hits = outcome.scores.argmax(dim=1) == labels[rows]
    assert torch.equal(outcome.values["top1"], 100 * hits.double())


@pytest.fixture
def ucf(tmp_path, shapes):
    """Six clips in the official form: three folds, of which the second and third test the same clip."""
    names = [f"v_Left_g0{number}_c01" for number in range(1, 4)] + [f"v_Up_g0{n}_c01" for n in range(1, 4)]
    videos = sorted(shapes.rglob("train/*.mp4"))[:6] or sorted(shapes.rglob("*.mp4"))[:6]
    (tmp_path / "videos").mkdir()
    for name, video in zip(names, videos, strict=True):
        (tmp_path / "videos" / f"{name}.mp4").symlink_to(video)
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "classInd.txt").write_text("1 Left\n2 Up\n")
    for fold, tested in enumerate(([1], [2], [2]), 1):
        of = {split: [n for n in names if (int(n.split("_g0")[1][0]) in tested) == (split == "test")]
              for split in ("train", "test")}  # fmt: skip
        for split, own in of.items():
            lines = [f"{name.split('_')[1]}/{name}.avi" for name in own]
            (lists / f"{split}list{fold:02d}.txt").write_text("\n".join(lines) + "\n")
    path = tmp_path / "ucf.yaml"
    path.write_text("dataset: ucf101\nvideos: videos\nannotations: lists\n")
    return path


def test_official_folds_name_rows_of_one_list_of_all_videos(ucf):
    dataset, folds = official_folds(str(ucf))
    assert len(dataset) == 6
    names = [cell["path"] for cell in dataset["video"]]
    for number, fold in enumerate(folds, 1):
        for split, rows in (("train", fold.train), ("test", fold.test)):
            expected = load_videos(str(ucf), split, fold=number)
            assert [names[row] for row in rows.tolist()] == [cell["path"] for cell in expected["video"]]
            assert [dataset[row]["label"] for row in rows.tolist()] == expected["label"][:]
    assert [len(fold.test) for fold in folds] == [2, 2, 2]


def test_what_has_no_official_folds_says_so(tmp_path, shapes):
    with pytest.raises(DataError, match="no official folds"):
        official_folds(str(shapes))
    path = tmp_path / "k.yaml"
    path.write_text("dataset: kinetics\nvideos: v\nannotations: a\n")
    with pytest.raises(DataError, match="single official fold"):
        official_folds(str(path))
