"""`videossl push`: publish a run folder in one commit, and verify what arrived.

Only what a saved model consists of is published (`PUBLISHED`), whatever else lies in the folder: checkpoints,
optimiser states, `training_args.bin` and logs stay here. Pipelines, a handler for endpoints and an example
clip are added (`published_code.py`), and a card where there is none. Absolute paths in JSON and YAML files
are cut to their last part; symbolic links, weights that are not safetensors, and text that names this
machine's folders are refused. After the upload everything is downloaded again at the returned commit,
compared, and run (`verify.py`).
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import yaml
from huggingface_hub import CommitOperationAdd, HfApi, ModelCard
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from safetensors import SafetensorError, safe_open

from ..errors import CheckpointError, ConfigurationError, DataError, InputError
from ..evaluation.results import read_results
from ..models.vimpac.tokenizer_file_vimpac import TOKENIZER_FILE
from .card import check_figures, read_config, render_card
from .origin import hub_license, read_origin
from .published_code import (
    EXAMPLE_CLIP,
    HANDLER,
    custom_pipelines,
    example_clip,
    lacks_tokenizer,
    pipeline_code,
    requirements,
)
from .space_files import plan_space, push_space
from .verify import check_arrived, check_outputs

__all__ = ["Upload", "add_arguments", "plan_upload", "push", "run"]

PUBLISHED = (
    "config.json",
    "model.safetensors",
    "model-*-of-*.safetensors",
    "model.safetensors.index.json",
    TOKENIZER_FILE,
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.py",
    "README.md",
    "LICENSE",
    "recipe.yaml",
    "results.json",
    "origin.json",
)
# What transformers' Trainer writes as a model card when it publishes a run by itself.
AUTOMATIC_CARD = "This model card has been generated automatically"


@dataclass(frozen=True)
class Upload:
    """What would be published.

    Attributes:
        files: path in the repository -> the file, or its content where that differs from the file's.
        left_out: files of the folder that stay here.
        cut_paths: absolute paths that were cut to their last part.
    """

    files: dict[str, Path | bytes]
    left_out: list[str]
    cut_paths: list[str]

    def content(self, path: str) -> bytes:
        """The bytes to be published under a path."""
        source = self.files[path]
        return source if isinstance(source, bytes) else source.read_bytes()

    def size(self, path: str) -> int:
        """Bytes of a file."""
        source = self.files[path]
        return len(source) if isinstance(source, bytes) else source.stat().st_size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `videossl push`."""
    parser.add_argument("folder", type=Path, help="run folder or converted folder")
    parser.add_argument("repository", help="id on the Hub, such as me/stica-shapes; made if absent")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument(
        "--revision", default="main", help="branch to write to, made if absent (default: main)"
    )
    parser.add_argument("--license", help="licence of the weights, for a card that is rendered now")
    parser.add_argument(
        "--space", action="store_true", help="publish a Space of the same name, too, that demonstrates it"
    )
    parser.add_argument("--dry-run", action="store_true", help="list the files and send nothing")


def run(args: argparse.Namespace) -> None:
    """`videossl push`: list the files, publish and verify them."""
    upload = plan_upload(args.folder, args.repository, args.license)
    if args.space and lacks_tokenizer(read_config(args.folder), args.folder):
        raise InputError(
            f"a Space shows videos, and {args.folder} has no tokeniser ({TOKENIZER_FILE}) to make codes of "
            "them: save the processor with one, or leave --space out"
        )
    total = sum(map(upload.size, upload.files))
    print(f"{len(upload.files)} files, {total:,} bytes, for {args.repository}:")
    for path in sorted(upload.files):
        print(f"  {path}  {upload.size(path):,}")
    if upload.left_out:
        print(f"left out: {', '.join(upload.left_out)}")
    if upload.cut_paths:
        print(f"absolute paths cut to their last part: {', '.join(upload.cut_paths)}")
    space = plan_space(args.repository, _shown_license(upload)) if args.space else {}
    if space:
        print(f"{len(space)} files for the Space {args.repository}:")
        for path in sorted(space):
            print(f"  {path}")
    if args.dry_run:
        print("nothing was sent (--dry-run)")
        return
    commit = push(upload, args.repository, private=args.private, revision=args.revision)
    check_outputs(args.folder, args.repository, commit)
    print(f"published and verified: {args.repository} at revision {commit}")
    if space:
        commit = push_space(space, args.repository, private=args.private)
        print(f"published and verified: the Space {args.repository} at revision {commit}")


def plan_upload(folder: str | Path, repository: str, license: str | None = None) -> Upload:
    """Choose and check what a folder publishes; reads only, and asks nobody.

    Args:
        folder: a saved model.
        repository: its id on the Hub, which the card names.
        license: see `render_card`.

    Raises:
        DataError: the folder holds no saved model with processor and code.
        InputError: a symbolic link, or an id that the Hub does not take.
        CheckpointError: weights that are not safetensors.
        ConfigurationError: weights of an unknown licence, a card that claims unmeasured figures or another
            licence, or a text that names this machine's folders.
    """
    folder = Path(folder)
    _check_id(repository)
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}")
    chosen, left_out = _choose(folder)
    _check_complete(folder, chosen)
    files: dict[str, Path | bytes] = {name: folder / name for name in chosen}
    cut_paths: list[str] = []
    for name in chosen:
        if name.endswith(".safetensors"):
            _check_safetensors(folder / name)
        elif name.endswith((".json", ".yaml")):
            text = _without_absolute_paths(folder / name, cut_paths)
            if text is not None:
                files[name] = text.encode()
    _add_code(folder, files)
    files[EXAMPLE_CLIP] = example_clip()
    files["README.md"] = _card(folder, repository, license).encode()
    for name, source in files.items():
        if not name.endswith((".safetensors", ".mp4")):
            _check_private_text(name, source if isinstance(source, bytes) else source.read_bytes(), folder)
    return Upload(files, left_out, cut_paths)


def push(upload: Upload, repository: str, *, private: bool = False, revision: str = "main") -> str:
    """Publish files in one commit and verify them at it.

    Args:
        upload: from `plan_upload`.
        repository: id on the Hub; made if absent.
        private: whether a new repository is private.
        revision: branch, made if absent.

    Returns:
        The commit's hash.

    Raises:
        OutputError: a file that was downloaded again differs, or is missing.
        HfHubHTTPError: the Hub refuses.
    """
    api = HfApi()
    api.create_repo(repository, private=private or None, exist_ok=True)
    if revision != "main":
        api.create_branch(repository, branch=revision, exist_ok=True)
    operations = [
        CommitOperationAdd(name, source if isinstance(source, bytes) else str(source))
        for name, source in sorted(upload.files.items())
    ]
    commit = api.create_commit(
        repository, operations, commit_message="Publish with videossl push", revision=revision
    ).oid
    check_arrived(api, upload.files, repository, commit)
    return commit


def _shown_license(upload: Upload) -> str:
    """The licence that the card has."""
    card = ModelCard(upload.content("README.md").decode(), ignore_metadata_errors=True)
    return str(getattr(card.data, "license", None) or "other")


def _check_id(repository: str) -> None:
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise InputError(
            f"{repository!r} is no id of a repository, such as me/stica-shapes: {error}"
        ) from error


def _choose(folder: Path) -> tuple[list[str], list[str]]:
    """Names to publish, and entries of the folder that stay here."""
    chosen, left_out = [], []
    for path in sorted(folder.iterdir()):
        if not any(fnmatch(path.name, pattern) for pattern in PUBLISHED):
            left_out.append(f"{path.name}/" if path.is_dir() else path.name)
            continue
        if path.is_symlink() or not path.is_file():
            raise InputError(
                f"{path} is not a plain file (a symbolic link?): publish a folder with the files themselves"
            )
        chosen.append(path.name)
    return chosen, left_out


def _check_complete(folder: Path, chosen: list[str]) -> None:
    """A model, its processor and every file of code that the configuration names."""
    read_config(folder)
    auto_map = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("auto_map", {})
    modules = {f"{reference.split('.')[0]}.py" for reference in auto_map.values()}
    if not any(fnmatch(name, "model*.safetensors") for name in chosen):
        raise DataError(f"{folder} holds no weights (model.safetensors)")
    index = folder / "model.safetensors.index.json"
    if index.name in chosen:
        shards = set(json.loads(index.read_text(encoding="utf-8")).get("weight_map", {}).values())
        if absent := sorted(shards - set(chosen)):
            raise DataError(f"{index} names weights that do not lie beside it: {', '.join(absent)}")
    missing = [name for name in sorted({"processor_config.json", *modules}) if name not in chosen]
    if missing or not modules:
        raise DataError(
            f"{folder} lacks {', '.join(missing) or 'the code of the model'}: save model and processor into "
            "it with save_pretrained"
        )


def _add_code(folder: Path, files: dict[str, Path | bytes]) -> None:
    """Add the pipelines, and what an endpoint needs, to the files of a model that pipelines can use."""
    config = read_config(folder)
    pipelines = custom_pipelines(config)
    if not pipelines or lacks_tokenizer(config, folder):
        return
    for name, text in pipeline_code(pipelines).items():
        if name in files and (folder / name).read_text(encoding="utf-8") != text:
            raise ConfigurationError(
                f"{folder / name} is of another version of this package: load the model and the processor, "
                "and save them again with save_pretrained"
            )
        files.setdefault(name, text.encode())
    source = files["config.json"]
    settings = json.loads(source if isinstance(source, bytes) else source.read_text(encoding="utf-8"))
    settings["custom_pipelines"] = pipelines
    files["config.json"] = (json.dumps(settings, indent=2, sort_keys=True) + "\n").encode()
    files.setdefault("handler.py", HANDLER)
    files.setdefault("requirements.txt", requirements().encode())


def _check_safetensors(path: Path) -> None:
    try:
        with safe_open(path, framework="pt") as file:
            file.keys()
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a safetensors file: {error}") from error


def _is_absolute(value: str) -> bool:
    name = value.removeprefix("file://")
    posix = PurePosixPath(name)
    is_posix = (posix.is_absolute() and len(posix.parts) > 2) or name.startswith("~/")
    return "\n" not in value and (is_posix or re.match(r"[A-Za-z]:[\\/]", name) is not None)


def _without_absolute_paths(path: Path, cut: list[str]) -> str | None:
    """The file's text with absolute paths cut to their last part; None if it holds none.

    Paths that were cut are appended to `cut`.
    """

    def visit(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: visit(item) for key, item in value.items()}
        if isinstance(value, list):
            return [visit(item) for item in value]
        if isinstance(value, str) and _is_absolute(value):
            cut.append(value)
            return PureWindowsPath(value).name if "\\" in value else PurePosixPath(value).name
        return value

    read: Callable[[str], Any] = yaml.safe_load if path.suffix == ".yaml" else json.loads
    try:
        content = read(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    before = len(cut)
    content = visit(content)
    if len(cut) == before:
        return None
    if path.suffix == ".yaml":
        return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _check_private_text(name: str, content: bytes, folder: Path) -> None:
    """Refuse a text that holds a path of this machine: the folder, the home or the working directory."""
    places = {str(place) for place in (folder.resolve(), Path.home(), Path.cwd()) if len(place.parts) > 2}
    text = content.decode("utf-8", errors="replace")
    found = sorted(place for place in places if re.search(rf"{re.escape(place)}(?![\w-])", text))
    if found:
        raise ConfigurationError(
            f"{name} names {found[0]}, a folder of this machine: take it out before publishing"
        )


def _card(folder: Path, repository: str, license: str | None) -> str:
    """The folder's own card after a check of its figures and licence, or a new one."""
    origin, path = read_origin(folder), folder / "README.md"
    if origin and not (origin.license or license):
        raise ConfigurationError(
            f"nobody has stated the licence of these weights, converted from {origin.checkpoint}: "
            "find it out and pass --license"
        )
    text = path.read_text(encoding="utf-8") if path.exists() else AUTOMATIC_CARD
    if AUTOMATIC_CARD in text:
        return render_card(folder, repository, license)
    results = folder / "results.json"
    check_figures(text, read_results(results) if results.exists() else [])
    stated = (origin.license if origin else None) or license
    shown = getattr(ModelCard(text, ignore_metadata_errors=True).data, "license", None)
    if stated and shown != hub_license(stated)["license"]:
        raise ConfigurationError(
            f"README.md says licence {shown}, but the weights are under {stated}: correct it"
        )
    return text
