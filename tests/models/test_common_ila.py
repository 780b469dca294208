from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from common.model_checks import ClassifierChecks, ModelChecks, perturb
from common.processor_checks import ProcessorChecks
from models import tiny_ila
from videossl_hf import ILAForVideoClassification, ILAModel

# The gradient of a bias in front of a BatchNorm is zero but for rounding, and may be so exactly.
BEFORE_BATCH_NORM = ("join.bias", "earlier.conv.bias", "later.conv.bias", "conv1.bias", "conv2.bias")


class ILAChecks(ModelChecks):
    """With weights of their own everywhere: at the start the alignment adds nothing, by design."""

    @pytest.fixture
    def model(self, config: Any) -> Any:
        torch.manual_seed(0)
        model = self.model_class(copy.deepcopy(config)).eval()
        perturb(model)
        return model

    def _backbone_key(self, model: Any) -> str:
        return next(name for name, _ in model.named_parameters() if name.endswith("visual_projection.weight"))

    def parameters_without_gradient(self, model: Any) -> set[str]:
        names = {name for name, _ in model.named_parameters()}
        biases = {name for name in names if name.endswith((*BEFORE_BATCH_NORM, "interactive.conv.bias"))}
        # A softmax does not see what is added to all its inputs.
        keys = {name for name in names if name.endswith("k_proj.bias")}
        return biases | keys | {"logit_scale"}  # the temperature compares clips with texts, in the classifier


class TestILAModel(ILAChecks):
    model_class = ILAModel

    def make_config(self) -> Any:
        return tiny_ila.make_config()

    def make_inputs(self, batch: int) -> dict[str, Any]:
        return tiny_ila.make_inputs("Model", batch)


class TestILAModelOfThePaper(ILAChecks):
    """Concatenated tokens, dense convolutions, no text."""

    model_class = ILAModel

    def make_config(self) -> Any:
        return tiny_ila.make_config(token_mode="concat", interactive_block="dense", head="linear")

    def make_inputs(self, batch: int) -> dict[str, Any]:
        return tiny_ila.make_inputs("VideoModel", batch)


class TestILAForVideoClassification(ILAChecks):
    """The text head, with everything trained."""

    model_class = ILAForVideoClassification

    def make_config(self) -> Any:
        return tiny_ila.make_config(freeze_backbone=False, freeze_text=False)

    def make_inputs(self, batch: int) -> dict[str, Any]:
        return tiny_ila.make_inputs("ForVideoClassification", batch)

    def training_inputs(self, batch: int) -> dict[str, Any]:
        return self.make_inputs(batch) | {"labels": torch.arange(batch) % len(tiny_ila.LABELS)}


class TestILAForVideoClassificationWithALinearHead(ILAChecks, ClassifierChecks):
    model_class = ILAForVideoClassification
    pretraining_class = ILAModel  # the method is supervised: its classifiers start from a backbone
    base_class = ILAModel
    head_keys = ("classifier.weight", "classifier.bias", "classifier_norm.weight", "classifier_norm.bias")

    def make_config(self) -> Any:
        return tiny_ila.make_config(head="linear", interactive_block="dense")

    def make_inputs(self, batch: int) -> dict[str, Any]:
        return tiny_ila.make_inputs("ForVideoClassification", batch)


class TestILAProcessor(ProcessorChecks):
    def make_processor(self) -> Any:
        return tiny_ila.make_processor()

    def test_short_clips_repeat_their_last_frame(self, processor: Any) -> None:
        """Here, as in the official code, short videos repeat frames where they fall."""
        frames = torch.arange(2)[:, None, None, None].expand(2, 40, 40, 3).to(torch.uint8) * 200
        pixels = self.pixels(processor, frames)
        bright = pixels.mean((0, 2, 3, 4)) > 0
        assert bright.tolist() == [False, False, False, True]
