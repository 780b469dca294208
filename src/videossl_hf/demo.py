"""`videossl demo`: from nothing to a pre-trained, evaluated and packed model, with a report to look at.

It writes Sounding Shapes, pre-trains a small STiCA with the same command and recipe that a user would call,
scores it beside the same network with random weights and beside hand-made features, packs it, loads the pack
in a process that has no videossl_hf, and writes a page of pictures. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from safetensors.torch import load_file, save_file

from .data.datasets import load_videos
from .data.sounding_shapes import SoundingShapes, write_sounding_shapes
from .demo_report import DemoFindings, write_report
from .errors import ConfigurationError, OutputError, VideoSSLError
from .evaluation.clips import BadSample, PreparedClips, PreparedSample
from .evaluation.loading import load_model, load_processor, quiet_libraries
from .evaluation.protocols import (
    Outcome,
    cross_modal_protocol,
    knn_protocol,
    linear_protocol,
    retrieval_protocol,
)
from .evaluation.results import Result, write_results
from .evaluation.splits import ExtractedSplit, extract_split, make_result

__all__ = ["DemoError", "DemoSettings", "add_arguments", "run", "run_demo"]

TRAINED, RANDOM, HAND_MADE = "pre-trained", "random weights", "frame difference"
_REPOSITORY = Path(__file__).parents[2]
_RECIPE = Path("training/recipes/stica/smoke.yaml")

# Runs without site hooks of ours: `videossl_hf` cannot be imported, only the code in the folder is at hand.
_RELOAD = """
import sys
sys.modules["videossl_hf"] = None
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel
folder, inputs, outputs, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
model = AutoModel.from_pretrained(folder, trust_remote_code=True)
with torch.no_grad():
    found = model(**load_file(inputs))
save_file({name: value.contiguous() for name, value in found.items()}, outputs)
"""


class DemoError(VideoSSLError, RuntimeError):
    """A stage of the demonstration failed; what was finished is kept."""


@dataclass(frozen=True)
class DemoSettings:
    """What the demonstration does.

    Attributes:
        output: folder of everything it writes.
        clips: generated training clips; a quarter of it for validation and for test each.
        steps: of the pre-training.
        seed: of training and of random weights.
        overrides: further recipe keys, as on the command line of `videossl pretrain`.
    """

    output: Path
    clips: int = 1200
    steps: int = 300
    seed: int = 0
    overrides: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.clips < 48 or self.steps < 1:
            raise ConfigurationError(
                "the demo needs at least 48 training clips (it scores on a quarter of that) and one step, "
                f"got {self.clips} clips and {self.steps} steps"
            )


@dataclass
class Stopwatch:
    """Seconds by stage, announced as the stages go by."""

    console: Console
    total: int
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str, announcement: str) -> Iterator[None]:
        """Announce a stage, and say what it took when it is over."""
        self.console.print(f"[bold cyan]{len(self.seconds) + 1}/{self.total}[/] [bold]{announcement}[/]")
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started
        self.console.print(f"    [dim]{self.seconds[name]:.0f} s[/]")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `videossl demo`."""
    parser.add_argument("--output", type=Path, default=Path("outputs/demo"), help="folder (outputs/demo)")
    parser.add_argument("--clips", type=int, default=1200, help="training clips to generate (1200)")
    parser.add_argument("--steps", type=int, default=300, help="of the pre-training (300)")
    parser.add_argument("--seed", type=int, default=0, help="of training and random weights (0)")
    parser.add_argument(
        "overrides", nargs=argparse.REMAINDER, metavar="--section.key VALUE", help="keys of the recipe"
    )


def run(args: argparse.Namespace) -> None:
    """Run the demonstration."""
    run_demo(DemoSettings(args.output, args.clips, args.steps, args.seed, tuple(args.overrides)))


def run_demo(settings: DemoSettings, console: Console | None = None) -> DemoFindings:
    """All stages; one that was broken off goes on where it stopped, a finished one starts afresh.

    Raises:
        ConfigurationError: the recipes are not at hand.
        DemoError: the training or the reload failed.
        OutputError: the folder cannot be written.
    """
    console = console or Console()
    root = _find_repository()
    output = settings.output
    report, training = output / "report.html", output / "training"
    try:
        output.mkdir(parents=True, exist_ok=True)
        if report.exists():
            report.unlink()
            shutil.rmtree(training, ignore_errors=True)
    except OSError as error:
        raise OutputError(f"cannot write to {output}: {error}") from error

    watch = Stopwatch(console, total=5)
    with watch.stage("data", "Writing Sounding Shapes: moving shapes whose sound follows them"):
        quarter = settings.clips // 4
        data = write_sounding_shapes(
            output / "sounding-shapes",
            SoundingShapes(settings.clips, quarter, quarter),
            processes=os.cpu_count() or 1,
            show_progress=console.is_terminal,
        )
    with watch.stage("pre-training", "Pre-training STiCA without labels"):
        _pretrain(root, data, training, settings)
    with watch.stage("scoring", "Scoring it on held-out clips, beside random weights and hand-made features"):
        scored = _Scores(training, data, settings.seed, console)
        results = scored.all_results()
        write_results(output / "results.json", results)
    with watch.stage("packing", "Packing it, and loading the pack where videossl_hf is not installed"):
        package = _pack(training, output / "model", results)
        identical = _reload(package, scored.example_inputs())
    with watch.stage("report", "Drawing the report"):
        findings = scored.findings(_read_log(training), identical, watch.seconds, settings.steps)
        write_report(findings, report)
    console.print(_summary(findings, watch.seconds, report, package))
    return findings


def _find_repository() -> Path:
    for root in (_REPOSITORY, Path.cwd()):
        if (root / _RECIPE).is_file() and (root / "training/pretrain.py").is_file():
            return root
    raise ConfigurationError(
        f"the demo needs the repository's training/ folder ({_RECIPE}), which an installed package does not "
        "hold: clone the repository and run `make demo` in it"
    )


def _pretrain(root: Path, data: Path, output: Path, settings: DemoSettings) -> None:
    """The command of the README, as a process of its own."""
    threads = os.environ.get("OMP_NUM_THREADS", str(os.cpu_count() or 1))
    command = [
        *(sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1", "--num_machines", "1"),
        *("--mixed_precision", "no", "--dynamo_backend", "no", "--num_cpu_threads_per_process", threads),
        *(str(root / "training/pretrain.py"), str(root / _RECIPE)),
        *("--data.train", str(data), "--training.output_dir", str(output)),
        *("--training.max_steps", str(settings.steps), "--training.seed", str(settings.seed)),
        *settings.overrides,
    ]
    code = subprocess.run(command).returncode
    if code:
        raise DemoError(f"the pre-training ended with exit code {code}; its messages stand above")


class _Scores:
    """Features of all models, what the protocols make of them, and what the report shows of them."""

    def __init__(self, folder: Path, data: Path, seed: int, console: Console) -> None:
        self.folder, self.data, self.seed = folder, data, seed
        self.processor = load_processor(str(folder))
        with quiet_libraries():
            self.datasets = {
                split: load_videos(str(data), split) for split in ("train", "validation", "test")
            }
        self.models = {
            TRAINED: load_model(str(folder), for_pretraining=True),
            RANDOM: load_model(str(folder), for_pretraining=True, random_weights=True, seed=seed),
            HAND_MADE: load_model("frame-difference"),
        }
        shown = console.is_terminal
        clips = {
            split: PreparedClips(self.processor, dataset, keep=True)
            for split, dataset in self.datasets.items()
        }
        self.sound = PreparedClips(self.processor, self.datasets["test"], modality="audio", keep=True)
        self.splits = {
            name: {
                split: extract_split(
                    split,
                    model,
                    part,
                    num_workers=os.cpu_count() or 1,
                    progress=f"    {split}, {name}" if shown else None,
                )
                for split, part in clips.items()
            }
            for name, model in self.models.items()
        }
        trained = self.models[TRAINED]
        self.shared = {
            "video": extract_split("test", trained, clips["test"], space="shared"),
            "sound": extract_split("test", trained, self.sound, space="shared"),
        }
        self.outcomes: dict[str, dict[str, Outcome]] = {}

    def all_results(self) -> list[Result]:
        """kNN and linear probe of every model, retrieval and cross-modal retrieval of the trained one."""
        results = []
        for name, splits in self.splits.items():
            self.outcomes[name] = {}
            for protocol in ("knn", "linear", "retrieval"):
                started = time.perf_counter()
                outcome = self.outcomes[name][protocol] = _score(protocol, splits)
                used = ("train", "validation") if protocol == "linear" else ("train",)
                others = {split: splits[split] for split in used}
                results.append(self._result(name, outcome, splits["test"], others, started))
        for direction, queries, gallery in (
            ("video to sound", "video", "sound"),
            ("sound to video", "sound", "video"),
        ):
            started = time.perf_counter()
            outcome = cross_modal_protocol(
                self.shared[queries].table.features, self.shared[gallery].table.features, ks=(1, 5, 10)
            )
            outcome.protocol["direction"] = direction
            self.outcomes[TRAINED][direction] = outcome
            others = {"gallery": self.shared[gallery]}
            results.append(self._result(TRAINED, outcome, self.shared[queries], others, started))
        return results

    def _result(
        self,
        name: str,
        outcome: Outcome,
        test: ExtractedSplit,
        others: dict[str, ExtractedSplit],
        started: float,
    ) -> Result:
        notes: dict[str, Any] = {"id": HAND_MADE if name == HAND_MADE else str(self.folder.parent / "model")}
        if name == RANDOM:
            notes["random_weights"] = True
        seconds = time.perf_counter() - started
        return make_result(
            outcome, self.models[name], str(self.data), test, others, seed=self.seed, seconds=seconds, **notes
        )

    def example_inputs(self) -> dict[str, torch.Tensor]:
        """Four test clips with their sound, as the model takes them."""
        count = min(4, len(self.datasets["test"]))
        clips = {
            "pixel_values_videos": self.splits[TRAINED]["test"].clips,
            "input_features": self.sound,
        }
        return {name: torch.cat([_inputs(part[row]) for row in range(count)]) for name, part in clips.items()}

    def findings(
        self, log: list[dict[str, Any]], identical: bool, seconds: dict[str, float], steps: int
    ) -> DemoFindings:
        """What the report tells."""
        figures = {
            title: {name: found[protocol].figures["top1"] for name, found in self.outcomes.items()}
            for title, protocol in (("k nearest neighbours", "knn"), ("linear probe", "linear"))
        }
        return DemoFindings(
            figures=figures,
            outcomes=self.outcomes,
            tables={
                name: (splits["train"].table, splits["test"].table) for name, splits in self.splits.items()
            },
            shared=(self.shared["video"].table, self.shared["sound"].table),
            datasets=(self.datasets["train"], self.datasets["test"]),
            spectrograms=self.sound,
            log=log,
            recipe=(self.folder / "recipe.yaml").read_text(encoding="utf-8"),
            identical=identical,
            seconds=dict(seconds),
            steps=steps,
            seed=self.seed,
        )


def _score(protocol: str, splits: dict[str, ExtractedSplit]) -> Outcome:
    train, validation, test = (splits[split].table for split in ("train", "validation", "test"))
    if protocol == "knn":
        return knn_protocol(train, test, k=min(10, len(train)))
    if protocol == "linear":
        return linear_protocol(train, test, validation)
    return retrieval_protocol(train, test, ks=(1, 5))


def _inputs(sample: PreparedSample | BadSample) -> torch.Tensor:
    if isinstance(sample, BadSample):
        raise sample.error
    return sample.inputs


def _pack(training: Path, package: Path, results: list[Result]) -> Path:
    """The folder to publish: weights, code, processor, recipe and the results of these weights."""
    shutil.rmtree(package, ignore_errors=True)
    with quiet_libraries():
        load_model(str(training), for_pretraining=True).save_pretrained(package)
        load_processor(str(training)).save_pretrained(package)
    shutil.copy(training / "recipe.yaml", package)
    write_results(package / "results.json", [result for result in results if result.model["id"] != HAND_MADE])
    return package


def _reload(package: Path, inputs: dict[str, torch.Tensor]) -> bool:
    """Whether a process without this package computes the same from the pack, bit for bit.

    Raises:
        DemoError: the pack does not load.
    """
    with quiet_libraries(), torch.no_grad():
        model = load_model(str(package))
        expected = model(**inputs)
    with TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("inputs.safetensors", "outputs.safetensors")]
        save_file({name: value.contiguous() for name, value in inputs.items()}, files[0])
        command = [
            sys.executable,
            "-c",
            _RELOAD,
            str(package),
            *map(str, files),
            str(torch.get_num_threads()),
        ]
        environment = os.environ | {"HF_HOME": folder, "HF_HUB_OFFLINE": "1"}
        process = subprocess.run(command, env=environment, capture_output=True, text=True)
        if process.returncode:
            reason = process.stderr.strip()[-2000:]
            raise DemoError(f"{package} does not load without videossl_hf: {reason}")
        found = load_file(files[1])
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


def _read_log(training: Path) -> list[dict[str, Any]]:
    lines = (training / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _summary(findings: DemoFindings, seconds: dict[str, float], report: Path, package: Path) -> Panel:
    """One screen: the figures, what they are worth, and where everything lies."""
    table = Table(box=None, padding=(0, 3, 0, 0), header_style="dim")
    table.add_column("")
    for heading in findings.figures:
        table.add_column(f"{heading} %", justify="right")
    for name in (TRAINED, RANDOM, HAND_MADE):
        style = "bold green" if name == TRAINED else ""
        table.add_row(name, *(str(panel[name]) for panel in findings.figures.values()), style=style)
    gains = [f"{panel[TRAINED].value - panel[RANDOM].value:+.1f}" for panel in findings.figures.values()]
    table.add_row("gain over random", *gains)
    equal = "[green]bit for bit the same[/]" if findings.identical else "[red]OTHER NUMBERS[/]"
    lines = (
        f"Top-1 on {findings.samples} held-out clips of 12 motions; chance is 8.3 %.",
        "In brackets: bootstrap 95 % intervals over the clips.",
        f"One seed ({findings.seed}): others give other figures; `make smoke-stica SEEDS=3` runs three.",
        f"Loaded again without this package: {equal}.",
        f"{sum(seconds.values()) / 60:.1f} minutes in all.",
        "",
        f"report  {report}",
        f"model   {package}",
    )
    return Panel(Group(table, "", *lines), title="STiCA on Sounding Shapes", expand=False, padding=(1, 2))
