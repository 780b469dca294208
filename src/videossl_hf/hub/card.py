"""Model cards, rendered from a run folder: its configuration, resolved recipe, results and origin.

No figure is written by hand. The table of results and the metadata for the Hub come from `results.json`, and
only from results of exactly these weights; `check_figures` refuses a card, edited or not, that claims a
percentage which no result holds.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..errors import ConfigurationError, DataError, InputError, OutputError
from ..evaluation.fingerprint import model_fingerprint
from ..evaluation.results import Figure, Result, read_results
from ..registry import METHODS, find_class, has_class
from .description import describe_config, method_of
from .facts import method_facts, planned_checkpoint
from .origin import hub_license, read_origin

__all__ = ["add_arguments", "check_figures", "read_config", "render_card", "render_planned_card", "run"]

NAMESPACE = "videossl"
TEMPLATE = Path(__file__).with_name("card_template.md")
RECIPE_KEYS = {
    "data.train": "training data",
    "data.validation": "validation data",
    "training.init_from": "started from",
    "training.max_steps": "steps",
    "training.epochs": "epochs",
    "training.batch_size": "clips per process and forward",
    "training.gradient_accumulation_steps": "forwards per step",
    "training.bf16": "bfloat16 autocast",
    "training.seed": "seed",
    "optimizer.name": "optimiser",
    "optimizer.lr": "learning rate",
    "optimizer.weight_decay": "weight decay",
    "schedule.name": "schedule",
}
METRICS = {"top1": "accuracy", "top5": "top-5 accuracy"}
# A percentage, or a number right after the name of a metric.
CLAIM = re.compile(r"(\d+(?:\.\d+)?)\s?%|(?:top-?\d|accuracy|recall|R@\d+)\W{1,12}(\d+\.\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class ResultRow:
    """One line of a card's table of results."""

    data: str
    protocol: str
    views: str
    name: str
    figure: Figure
    baseline: Figure | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `videossl card`."""
    parser.add_argument(
        "folder", nargs="?", type=Path, help="run folder; the card is written to its README.md"
    )
    parser.add_argument("--model-id", help="id that the card's examples name (default: the folder's name)")
    parser.add_argument("--license", help="licence of the weights, such as cc-by-nc-4.0")
    parser.add_argument("--planned", metavar="NAME", help="card of a checkpoint that is not trained yet")
    parser.add_argument("--output", type=Path, help="write to this file instead")
    parser.add_argument("--force", action="store_true", help="replace a README.md that is there already")


def run(args: argparse.Namespace) -> None:
    """`videossl card`: write a card and say where."""
    if (args.folder is None) == (args.planned is None):
        raise InputError("name a run folder or, with --planned, a checkpoint that is not trained yet")
    if args.planned:
        text, path = render_planned_card(args.planned), args.output or Path(f"model_cards/{args.planned}.md")
    else:
        text = render_card(args.folder, args.model_id or args.folder.resolve().name, args.license)
        path = args.output or args.folder / "README.md"
        if path.exists() and not args.force:
            raise OutputError(f"{path} is there already: --force replaces it, --output writes elsewhere")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error}") from error
    print(f"wrote {path}")


def read_config(folder: Path) -> Any:
    """The configuration of a saved model of this package.

    Raises:
        DataError: there is no config.json, or it is not JSON.
        InputError: it is not one of this package's.
    """
    path = folder / "config.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{folder} is not a saved model, its config.json cannot be read: {error}") from error
    for method in METHODS:
        config_class = find_class(method, "Config")
        if config_class.model_type == values.get("model_type"):
            return config_class.from_dict(values)
    raise InputError(
        f"{path}: model type {values.get('model_type')!r} is none of {', '.join(sorted(METHODS))}"
    )


def render_card(folder: str | Path, model_id: str, license: str | None = None) -> str:
    """Render the card of a run folder.

    Args:
        folder: a saved model, with recipe.yaml, results.json and origin.json where there are any.
        model_id: where the model is published.
        license: of the weights; converted ones state their own in origin.json.

    Raises:
        ConfigurationError: the licence contradicts the origin's, or results.json is of other weights.
        DataError: a file of the folder cannot be read.
    """
    folder = Path(folder)
    config, origin = read_config(folder), read_origin(folder)
    if origin and origin.license and license and hub_license(license) != hub_license(origin.license):
        raise ConfigurationError(
            f"the weights were converted under the licence {origin.license}, the card cannot say {license}"
        )
    license = (origin.license if origin else None) or license
    rows, baselines = _result_rows(folder, config)
    context = {
        "model_id": model_id,
        "origin": origin,
        "results": rows,
        "baselines": baselines,
        "procedure": _procedure(folder),
    }
    return _render(config, license, context)


def render_planned_card(name: str) -> str:
    """Render the card of a checkpoint that is planned and not trained: what it will be, how to make it.

    Raises:
        InputError: no such checkpoint is planned.
    """
    method, details = planned_checkpoint(name)
    if has_class(method, "ForPreTraining"):
        suffix, how = "ForPreTraining", {"script": "pretrain.py", "protocol": "knn"}
    else:
        suffix, how = "ForVideoClassification", {"script": "finetune.py", "protocol": "classify"}
    config = find_class(method, "Config")(**details["model"], architectures=[f"{METHODS[method]}{suffix}"])
    context = {"model_id": f"{NAMESPACE}/{name}", "planned": details | how | {"name": name}}
    return _render(config, None, context)


def check_figures(text: str, results: Sequence[Result]) -> None:
    """Refuse a card that claims a figure which no result holds.

    Raises:
        ConfigurationError: names the figures.
    """
    known = {"95"}  # of "95 % interval"
    for figure in (figure for result in results for figure in result.figures.values()):
        for value in (figure.value, figure.low, figure.high):
            known |= {f"{value:.0f}", f"{value:.1f}", f"{value:.2f}"}
    claimed = {percent or number for percent, number in CLAIM.findall(text)}
    indexed = getattr(ModelCard(text, ignore_metadata_errors=True).data, "eval_results", None) or []
    claimed |= {f"{result.metric_value:.1f}" for result in indexed}
    if unknown := sorted(claimed - known):
        raise ConfigurationError(
            f"the card claims {', '.join(unknown)}, which results.json does not hold: measure it with "
            "`videossl evaluate`, or take it out"
        )


def _render(config: Any, license: str | None, context: dict[str, Any]) -> str:
    method = method_of(config)
    facts, description = method_facts(method), describe_config(config)
    model_id, rows = context["model_id"], context.get("results") or []
    task = "video-classification" if description.labels else "feature-extraction"
    licensed: dict[str, Any] = hub_license(license)
    data = ModelCardData(
        **licensed,
        library_name="transformers",
        pipeline_tag=task,
        tags=["video", "videossl-hf", method, *facts.tags, *facts.modalities[1:]],
        metrics=sorted({METRICS.get(row.name, row.name) for row in rows}) or None,
        model_name=model_id.split("/")[-1],
        eval_results=[_eval_result(row) for row in rows] or None,
    )
    card = ModelCard.from_template(
        data,
        template_str=TEMPLATE.read_text(encoding="utf-8"),
        title=f"{facts.name}: {model_id.split('/')[-1]}",
        facts=facts,
        description=description,
        license_text=license or ("to be stated with the weights" if "planned" in context else "not stated"),
        **({"planned": None, "origin": None} | context),
    )
    return re.sub(r"\n{3,}", "\n\n", str(card)).rstrip() + "\n"


def _result_rows(folder: Path, config: Any) -> tuple[list[ResultRow], bool]:
    """Rows of the results of exactly the weights in a folder, beside the same figure of random weights."""
    path = folder / "results.json"
    if not path.exists():
        return [], False
    results = read_results(path)
    weights = {
        name: _weights_fingerprint(folder, config, name) for name in {r.model.get("class") for r in results}
    }
    own = [result for result in results if result.model["weights"] == weights[result.model.get("class")]]
    if results and not own:
        raise ConfigurationError(f"{path} holds no result of the weights in {folder}: evaluate them again")
    random = {_comparison(result): result for result in results if result.model.get("random_weights")}
    rows = []
    for result in own:
        baseline = random.get(_comparison(result))
        for name, figure in result.figures.items():
            row = ResultRow(
                data=f"{Path(str(result.data['id'])).name} ({result.data['split']})",
                protocol=_describe_protocol(result.protocol),
                views=result.views,
                name=name,
                figure=figure,
                baseline=baseline.figures.get(name) if baseline else None,
            )
            rows.append(row)
    return rows, any(row.baseline for row in rows)


def _weights_fingerprint(folder: Path, config: Any, class_name: str | None) -> str | None:
    method = method_of(config)
    if class_name is None or not class_name.startswith(METHODS[method]):
        return None
    return model_fingerprint(
        find_class(method, class_name.removeprefix(METHODS[method])).from_pretrained(folder)
    )


def _comparison(result: Result) -> str:
    parts = [result.data["fingerprint"], result.data["split"], result.protocol["name"], result.views]
    return json.dumps(parts)


def _describe_protocol(protocol: dict[str, Any]) -> str:
    settings = [f"{name} {value}" for name, value in protocol.items() if name != "name" and _is_short(value)]
    return f"{protocol['name']} ({', '.join(settings)})" if settings else str(protocol["name"])


def _is_short(value: Any) -> bool:
    return isinstance(value, int | float | str) and len(str(value)) < 20


def _eval_result(row: ResultRow) -> EvalResult:
    return EvalResult(
        task_type="video-classification",
        task_name=f"{row.protocol}, {row.views} views",
        dataset_type=row.data.split(" ")[0],
        dataset_name=row.data,
        metric_type=METRICS.get(row.name, row.name),
        metric_name=row.name,
        metric_value=round(row.figure.value, 2),
    )


def _procedure(folder: Path) -> list[tuple[str, Any]]:
    """Lines of the training table, from the resolved recipe."""
    path = folder / "recipe.yaml"
    if not path.exists():
        return []
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
        values = {key: recipe.get(key.split(".")[0], {}).get(key.split(".")[1]) for key in RECIPE_KEYS}
    except (OSError, AttributeError, yaml.YAMLError) as error:
        raise DataError(f"{path} is not a resolved recipe: {error}") from error
    return [(RECIPE_KEYS[key], _public(value)) for key, value in values.items() if value is not None]


def _public(value: Any) -> Any:
    """A value without the folders of the machine that it was used on."""
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value
