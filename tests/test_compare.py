"""`videossl compare`: from results files to tables, charts and a page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from evaluation.test_comparison import hits, store
from media import write_media
from videossl_hf.cli import main
from videossl_hf.evaluation.clip_values import read_clip_values, write_clip_values
from videossl_hf.evaluation.results import read_results

FEW_SHOT = {"name": "few_shot", "shots": [1], "draws": 2, "modality": "video"}


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that a comparison of two models wrote; the videos of the clips are at hand."""
    folder = tmp_path_factory.mktemp("compare")
    data = folder / "shapes"
    for number in range(40):
        (data / "test" / f"c{number % 2}").mkdir(parents=True, exist_ok=True)
    first = write_media(data / "test/c0/clip 0.mp4", num_frames=6)
    for number in range(1, 40):
        (data / f"test/c{number % 2}/clip {number}.mp4").symlink_to(first)
    runs = []
    for name, share, gflop in (("good", 0.9, 2.0), ("bad", 0.3, 0.5)):
        path = folder / f"{name}.json"
        notes = {"gflop_per_clip": gflop, "parameters": int(1e6 * gflop)}
        store(path, hits(share), model=name, weights=name, **notes)
        for results in [read_results(path)]:
            kept = read_clip_values(path, results[0])
            keys = [f"c{number % 2}/clip {number}.mp4" for number in range(40)]
            write_clip_values(path, results[0], type(kept)(keys, *list(vars(kept).values())[1:]))
        text = path.read_text().replace('"id": "shapes"', f'"id": "{data}"')
        path.write_text(text)
        few = store(folder / f"{name}-few.json", hits(share / 2), model=name, weights=name, protocol=FEW_SHOT,
                    clips=False)  # fmt: skip
        few.write_text(few.read_text().replace('"top1"', '"linear@1"'))
        runs += [f"{name}={path}", f"{name}={few}"]
    assert main(["compare", *runs, "--reference", "bad", "--output", str(folder / "out")]) == 0
    return folder / "out"


def test_the_table_has_figures_with_intervals_and_the_paired_test(compared: Path) -> None:
    text = (compared / "comparison.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| good")]
    assert re.search(r"\| \d+\.\d \[\d+\.\d, \d+\.\d\] \* \|", rows[0])
    assert "| against bad | figure |" in text
    assert re.search(r"\| good \| kNN top-1 \| \+\d+\.\d \[.*\] \| \d+ : 0 \| < 0\.001 \|", text)


def test_the_page_is_one_file_that_tells_the_finding_and_shows_everything(compared: Path) -> None:
    page = (compared / "report.html").read_text()
    assert re.search(r"<h1>good comes first with \d+\.\d % by kNN top-1</h1>", page)
    assert "Clip by clip that is more than luck" in page
    for heading in ("Side by side", "Is the difference luck?", "What it costs", "How many labels it takes",
                    "What lies close together", "Where the first errs", "What they disagree on",
                    "Everything"):  # fmt: skip
        assert f"<h2>{heading}</h2>" in page, heading
    assert page.count("data:image/webp") == 8, "clips that the models disagree on"
    assert not re.search(r'(src|href)="(?!data:|#)', page), "nothing lies beside the page"
    assert "<script" not in page


def test_charts_lie_beside_the_page(compared: Path) -> None:
    names = {path.stem for path in compared.glob("*.png")}
    assert names >= {"figures", "map", "confusion", "labels_linear", "cost_gflop_per_clip", "cost_parameters"}
    assert (compared / "comparison.html").read_text().startswith('<div class="card')


def test_a_single_run_without_clips_still_makes_a_page(tmp_path: Path) -> None:
    path = store(tmp_path / "results.json", hits(0.5), clips=False)
    assert main(["compare", str(path), "--output", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out/report.html").read_text()
    assert "One model alone" in page
    assert "What lies close together" not in page


def test_a_reference_that_is_no_row_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = store(tmp_path / "results.json", hits(0.5))
    assert main(["compare", str(path), "--reference", "x", "--output", str(tmp_path)]) == 1
    assert "there is no row 'x': the rows are model" in capsys.readouterr().err


def test_places_of_a_map_keep_neighbours_together() -> None:
    from videossl_hf.visualize.feature_map import plane_of, spread_rows

    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(30) % 3
    places = torch.as_tensor(plane_of(torch.eye(3)[labels] + 0.05 * torch.randn(30, 3, generator=generator)))
    nearest = torch.cdist(places, places).fill_diagonal_(9).argmin(dim=1)
    assert (labels[nearest] == labels).double().mean() > 0.9
    rows = spread_rows(places.numpy(), labels.tolist())
    assert labels[rows].tolist() == [0, 1, 2]
