"""What `videossl evaluate` and `videossl extract` have in common: naming a model, data, and how to look at
it."""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import nn

from ..data.datasets import load_videos
from ..data.stored_codes import read_codes_manifest
from ..errors import InputError
from .baselines import BASELINES
from .clips import PreparedClips
from .features import ANSWERS, OF_BACKBONE
from .folds import Fold, official_folds
from .loading import default_device, load_model, load_processor, quiet_libraries
from .processes import local_device
from .splits import ExtractedSplit, extract_split

__all__ = ["FeatureSource", "add_input_arguments"]


def add_input_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that say which features are meant."""
    parser.add_argument("model", help=f"a folder, an id on the Hub, or a baseline: {', '.join(BASELINES)}")
    parser.add_argument("--data", required=True, help="a folder, a Parquet file or an id on the Hub")
    parser.add_argument("--data-revision", help="branch, tag or commit of data on the Hub")
    parser.add_argument("--revision", help="branch, tag or commit of a model on the Hub")
    parser.add_argument("--processor", help="whose processor to take; needed for a baseline (default: MODEL)")
    parser.add_argument("--views", default="1x1", help="clips x crops of each video, features averaged (1x1)")
    parser.add_argument(
        "--modality", choices=("video", "audio"), default="video", help="what to look at (video)"
    )
    parser.add_argument("--batch-size", type=int, default=32, help="clips through the network at a time (32)")
    parser.add_argument(
        "--num-workers", type=int, default=0, help="processes that decode beside the model (0)"
    )
    parser.add_argument(
        "--on-error", choices=("raise", "skip"), default="raise", help="a file that cannot be decoded"
    )
    parser.add_argument("--random-weights", action="store_true", help="the same network, freshly initialised")
    parser.add_argument("--seed", type=int, default=0, help="of random weights and of what is drawn (0)")
    parser.add_argument("--device", help="cpu, cuda, ... (default: the accelerator where there is one)")
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="run the code that lies beside the weights"
    )


class FeatureSource:
    """A model and the way it looks at the splits of a dataset, from the command line's arguments.

    Args:
        args: of a parser with `add_input_arguments`.

    Raises:
        InputError: there is no such model or processor.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        if args.model in BASELINES and not args.processor:
            raise InputError(
                f"the baseline {args.model} needs --processor MODEL: it sees the clips as that model would"
            )
        self.device = local_device(torch.device(args.device) if args.device else default_device())
        self.processor = load_processor(
            args.processor or args.model,
            revision=None if args.processor else args.revision,
            trust_remote_code=args.trust_remote_code,
        )
        self._networks: dict[str, Any] = {}
        self._official: tuple[Any, list[Fold]] | None = None

    def clips(self, split: str, modality: str | None = None) -> PreparedClips:
        """A split as the model sees it."""
        folds = self._folds()
        with quiet_libraries():
            dataset = (
                folds[0] if folds else load_videos(self.args.data, split, revision=self.args.data_revision)
            )
        return PreparedClips(
            self.processor,
            dataset,
            views=self.args.views,
            modality=modality or self.args.modality,
            codes=read_codes_manifest(self.args.data, self.args.data_revision),
        )

    def official_folds(self) -> list[Fold] | None:
        """Which rows of the clips each official fold uses, where the arguments ask for official folds."""
        folds = self._folds()
        return folds[1] if folds else None

    def _folds(self) -> tuple[Any, list[Fold]] | None:
        if getattr(self.args, "folds", None) != "official":
            return None
        if self._official is None:
            with quiet_libraries():
                self._official = official_folds(self.args.data)
        return self._official

    def network(self, space: str) -> nn.Module:
        """The model that gives features, the pre-training model that has the shared space, or the classifier
        that gives probabilities."""
        space = "features" if space in OF_BACKBONE else space
        if space not in self._networks:
            self._networks[space] = self._load(space)
        return self._networks[space]

    def extract(
        self, split: str, clips: PreparedClips, space: str = "features", **settings: Any
    ) -> ExtractedSplit:
        """Features of a split; settings are those of `extract_features`."""
        return extract_split(
            split,
            self.network(space),
            clips,
            space=space,
            batch_size=self.args.batch_size,
            num_workers=self.args.num_workers,
            on_error=self.args.on_error,
            **settings,
        )

    def _load(self, space: str) -> Any:
        model = load_model(
            self.args.model,
            revision=self.args.revision,
            random_weights=self.args.random_weights,
            seed=self.args.seed,
            for_pretraining=space == "shared",
            for_classification=space in ANSWERS,
            trust_remote_code=self.args.trust_remote_code,
        )
        return model.to(self.device)
