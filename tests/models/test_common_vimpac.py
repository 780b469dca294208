from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from common.model_checks import ClassifierChecks, ModelChecks
from models import tiny_vimpac
from videossl_hf.models.vimpac.modeling_dvae import DVAEModel
from videossl_hf.models.vimpac.modeling_vimpac import (
    VIMPACForPreTraining,
    VIMPACForVideoClassification,
    VIMPACModel,
)


class TestVIMPACModel(ModelChecks):
    model_class = VIMPACModel

    def make_config(self) -> Any:
        return tiny_vimpac.make_config()

    def make_inputs(self, batch: int) -> dict[str, Any]:
        return tiny_vimpac.make_inputs("Model", batch)


class TestVIMPACModelWithTheOtherOptions(TestVIMPACModel):
    def make_config(self) -> Any:
        return tiny_vimpac.make_config(
            layout="T|H,W",
            pre_norm=True,
            halve_att=True,
            halve_mlp=True,
            positions="space_time",
            pooling="mean",
            ignore_padding=True,
        )


class TestVIMPACForPreTraining(ModelChecks):
    model_class = VIMPACForPreTraining
    is_feature_model = False  # a contrastive loss compares the samples of a batch
    has_hidden_states = False
    has_attentions = False

    def make_config(self) -> Any:
        return tiny_vimpac.make_config()

    def make_inputs(self, batch: int) -> dict[str, Any]:
        return tiny_vimpac.make_inputs("ForPreTraining", batch)


class TestVIMPACForVideoClassification(ClassifierChecks):
    model_class = VIMPACForVideoClassification
    pretraining_class = VIMPACForPreTraining
    base_class = VIMPACModel
    objective_keys = ("token_head", "projection")

    @pytest.fixture
    def model(self, config: Any) -> Any:
        """With a classifier that is not at its start, zero, where no gradient reaches anything else."""
        torch.manual_seed(0)
        model = self.model_class(copy.deepcopy(config)).eval()
        torch.nn.init.normal_(model.classifier.weight)
        return model

    def make_config(self) -> Any:
        return tiny_vimpac.make_config()

    def make_inputs(self, batch: int) -> dict[str, Any]:
        return tiny_vimpac.make_inputs("ForVideoClassification", batch)


class TestDVAEModel(ModelChecks):
    model_class = DVAEModel
    has_hidden_states = False
    has_attentions = False

    def make_config(self) -> Any:
        return tiny_vimpac.make_dvae_config(freeze=False, use_decoder=False)

    def make_inputs(self, batch: int) -> dict[str, Any]:
        frames = [
            torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(index)) for index in range(batch)
        ]
        return {"pixel_values_videos": torch.stack(frames)}
