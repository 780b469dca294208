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
from jinja2 import Environment, StrictUndefined

from ..errors import ConfigurationError, DataError, InputError, OutputError
from ..evaluation.fingerprint import model_fingerprint
from ..evaluation.results import Figure, Result, read_results
from ..models.vimpac.tokenizer_file_vimpac import TOKENIZER_FILE
from ..registry import COMPANIONS, METHODS, class_prefix, find_class, has_class
from .description import ModelDescription, describe_config, method_of
from .facts import method_facts, planned_checkpoint
from .origin import hub_license, read_origin
from .published_code import EXAMPLE_CLIP, custom_pipelines, lacks_tokenizer

__all__ = ["add_arguments", "check_figures", "read_config", "render_card", "render_planned_card", "run"]

NAMESPACE = "videossl"
TEMPLATES = Path(__file__).with_name("templates")
HUB = "https://huggingface.co"
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
    if not isinstance(values, dict):
        raise DataError(f"{path} holds no JSON object")
    known = {find_class(method, "Config").model_type: method for method in (*METHODS, *COMPANIONS)}
    if values.get("model_type") not in known:
        raise InputError(
            f"{path}: model type {values.get('model_type')!r} is none of {', '.join(sorted(known))}"
        )
    return find_class(known[values["model_type"]], "Config").from_dict(values)


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
    recipe = _read_recipe(folder)
    rows, baselines = _result_rows(folder, config)
    context = {
        "model_id": model_id,
        "origin": origin,
        "bare": lacks_tokenizer(config, folder),
        "tokenizer": TOKENIZER_FILE if (folder / TOKENIZER_FILE).exists() else None,
        "results": rows,
        "baselines": baselines,
        "procedure": _procedure(recipe),
        "runtime": _runtime(folder),
        "datasets": _hub_id(recipe.get("data", {}).get("train")),
        "base_model": _hub_id(recipe.get("training", {}).get("init_from")),
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
    if method in COMPANIONS:
        suffix = "Model"
    architectures = [f"{class_prefix(method)}{suffix}"]
    config = find_class(method, "Config")(**details["model"], architectures=architectures)
    context = {
        "model_id": f"{NAMESPACE}/{name}",
        "planned": {"recipe": None, "convert": None} | details | how | {"name": name},
        "datasets": details.get("datasets"),
        "base_model": details.get("base_model"),
    }
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
    absent: dict[str, Any] = {
        "planned": None,
        "origin": None,
        "bare": False,
        "tokenizer": None,
        "baselines": False,
        "procedure": [],
        "runtime": None,
    }
    context = absent | {"results": []} | context
    model_id, rows, planned = context["model_id"], context["results"], context["planned"]
    licensed: dict[str, Any] = hub_license(license)
    task = "video-classification" if description.labels else "feature-extraction"
    pipelines = {} if context["bare"] else custom_pipelines(config)
    data = ModelCardData(
        **licensed,
        library_name="transformers",
        pipeline_tag=task,
        tags=sorted(
            {"video", "videossl-hf", method, *facts.tags, *facts.modalities[1:], *pipelines} - {task}
        ),
        datasets=context["datasets"],
        base_model=context["base_model"],
        base_model_relation="finetune" if context["base_model"] else None,
        metrics=sorted({METRICS.get(row.name, row.name) for row in rows}) or None,
        model_name=model_id.split("/")[-1],
        eval_results=[_eval_result(row) for row in rows] or None,
        widget=None if planned or "/" not in model_id else [_widget(model_id)],
        inference={"parameters": _parameters(description)} if pipelines else None,
    )
    title = f"{facts.name}: {model_id.split('/')[-1]}"
    stated = license or ("to be stated with the weights" if planned else "not stated")
    context |= {"facts": facts, "description": description, "method": method, "example": EXAMPLE_CLIP}
    context["pipelines"] = pipelines
    context |= {"title": title, "license_text": stated, "card_data": data.to_yaml()}
    usage = [_fill(f"usage_{name}.md", context) for name in _usages(description, pipelines)]
    text = _fill("card.md", context | {"usage": "\n".join(usage)})
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def _fill(template: str, context: dict[str, Any]) -> str:
    source = (TEMPLATES / template).read_text(encoding="utf-8")
    return (
        Environment(undefined=StrictUndefined, keep_trailing_newline=True).from_string(source).render(context)
    )


def _usages(description: ModelDescription, pipelines: dict[str, Any]) -> list[str]:
    """The templates of how a model is used: one a task."""
    if description.codes:
        return ["codes"]
    texts = ["texts"] if "zero-shot-video-classification" in pipelines else []
    return ["classes" if description.labels else "features", *texts]


def _widget(model_id: str) -> dict[str, str]:
    return {"src": f"{HUB}/{model_id}/resolve/main/{EXAMPLE_CLIP}", "example_title": "a generated clip"}


def _parameters(description: ModelDescription) -> dict[str, Any]:
    """What a request to the model is made with."""
    return {"top_k": 5} if description.labels else {"window_seconds": 2}


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
    prefix = class_prefix(method)
    if class_name is None or not class_name.startswith(prefix):
        return None
    return model_fingerprint(find_class(method, class_name.removeprefix(prefix)).from_pretrained(folder))


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


def _read_recipe(folder: Path) -> dict[str, Any]:
    """The resolved recipe of a run, {} without one."""
    path = folder / "recipe.yaml"
    if not path.exists():
        return {}
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise DataError(f"{path} is not a resolved recipe: {error}") from error
    if not isinstance(recipe, dict) or not all(
        isinstance(recipe.get(key.split(".")[0], {}), dict) for key in RECIPE_KEYS
    ):
        raise DataError(f"{path} is not a resolved recipe")
    return recipe


def _procedure(recipe: dict[str, Any]) -> list[tuple[str, Any]]:
    """Lines of the training table."""
    values = {key: recipe.get(key.split(".")[0], {}).get(key.split(".")[1]) for key in RECIPE_KEYS}
    return [(RECIPE_KEYS[key], _public(value)) for key, value in values.items() if value is not None]


def _runtime(folder: Path) -> float | None:
    """Seconds that the last run of the training took, from its log."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return None
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return next((line["train_runtime"] for line in reversed(lines) if "train_runtime" in line), None)
    except (OSError, TypeError, ValueError) as error:
        raise DataError(f"{path} is not the log of a training: {error}") from error


def _hub_id(value: Any) -> list[str] | None:
    """An id on the Hub as a list; None for a folder of this machine."""
    if not isinstance(value, str) or Path(value).exists():
        return None
    owner, _, name = value.partition("/")
    is_id = re.fullmatch(r"[\w][\w.-]*/[\w][\w.-]*", value) is not None
    return [f"{owner}/{name}"] if is_id and owner not in ("data", "outputs") else None


def _public(value: Any) -> Any:
    """A value without the folders of the machine that it was used on."""
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value
