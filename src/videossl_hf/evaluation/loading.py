"""Models and processors for an evaluation: by folder or Hub id, with trained or with random weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForPreTraining,
    AutoModelForVideoClassification,
    AutoProcessor,
)
from transformers.utils import logging
from transformers.utils.hub import extract_commit_hash

from ..errors import InputError
from .baselines import BASELINES, make_baseline
from .peers import PEERS, PeerModel, file_of, make_peer_processor, model_type, read_processor_settings

__all__ = ["default_device", "load_model", "load_processor", "quiet_libraries"]


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """No progress bars and no notes of transformers and datasets inside; their warnings come back after."""
    from datasets.utils import logging as datasets_logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    data_bars = datasets_logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets_logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
        if data_bars:
            datasets_logging.enable_progress_bar()


def default_device() -> torch.device:
    """The accelerator where there is one, else the CPU."""
    return torch.accelerator.current_accelerator() or torch.device("cpu")


def load_model(
    name: str,
    *,
    revision: str | None = None,
    random_weights: bool = False,
    seed: int = 0,
    for_pretraining: bool = False,
    for_classification: bool = False,
    trust_remote_code: bool = False,
) -> Any:
    """A `PreTrainedModel`, or the module of a baseline or of a peer (`peers.PEERS`), in eval mode on the CPU.

    Args:
        name: folder, Hub id, or the name of a baseline ("frame-difference", "raw-pixels").
        revision: of a Hub id.
        random_weights: take the configuration alone and initialise it anew.
        seed: of that initialisation.
        for_pretraining: with its projection heads, for what lies in the space that modalities share.
        for_classification: with its classifier.
        trust_remote_code: run the code that lies beside the weights, for methods this package does not have.

    Raises:
        InputError: there is no model of that name.
    """
    if name in BASELINES:
        if for_pretraining or for_classification or random_weights:
            raise InputError(f"the baseline {name} has neither weights nor heads")
        return make_baseline(name)
    auto_class: Any = AutoModelForPreTraining if for_pretraining else AutoModel
    if for_classification:
        auto_class = AutoModelForVideoClassification
    settings = {"revision": revision, "trust_remote_code": trust_remote_code}
    try:
        if not random_weights:
            with quiet_libraries():  # projection heads and classifiers that features do without are no news
                model = auto_class.from_pretrained(name, **settings).eval()
            model.config._commit_hash = _commit(name, revision)
            return _as_ours(model)
        config = AutoConfig.from_pretrained(name, **settings)
    except (OSError, ValueError) as error:
        raise _not_a_model(name, "model", error) from error
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = auto_class.from_config(config, trust_remote_code=trust_remote_code).eval()
    model.config._commit_hash = _commit(name, revision)
    return _as_ours(model)


def _commit(name: str, revision: str | None) -> str | None:
    """The commit that a name on the Hub stood for, told by where its file was put; None of a folder."""
    path = file_of(name, "config.json", revision)
    return None if path is None or Path(name).is_dir() else extract_commit_hash(str(path), None)


def _as_ours(model: Any) -> Any:
    return PeerModel(model) if model.config.model_type in PEERS else model


def load_processor(name: str, *, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """The processor saved with a model; for a peer ours, with the settings of its own.

    Raises:
        InputError: there is none.
    """
    try:
        if model_type(name, revision) in PEERS:
            config = AutoConfig.from_pretrained(name, revision=revision)
            return make_peer_processor(config, read_processor_settings(name, revision))
        return AutoProcessor.from_pretrained(name, revision=revision, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise _not_a_model(name, "processor", error) from error


def _not_a_model(name: str, what: str, error: Exception) -> InputError:
    if isinstance(error, InputError):
        return error
    path = Path(name)
    if path.is_dir():
        files = "config.json" if what == "model" else "processor_config.json"
        found = "is there but does not load" if (path / files).is_file() else "is missing"
        reason = f"the folder {name} holds no {what} that can be loaded ({files} {found})"
    elif path.exists():
        reason = f"{name} is a file; name the folder that holds config.json and model.safetensors"
    else:
        reason = f"{name} is neither a folder nor a model on the Hub that can be reached"
    return InputError(f"{reason}; a baseline is named {' or '.join(BASELINES)}. transformers says: {error}")
