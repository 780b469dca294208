from __future__ import annotations

from typing import Any

from common.model_checks import ClassifierChecks, ModelChecks
from models import tiny_stica
from videossl_hf import (
    STiCAForPreTraining,
    STiCAForVideoClassification,
    STiCAModel,
    STiCAVideoModel,
)


class TestSTiCAModel(ModelChecks):
    model_class = STiCAModel

    def make_config(self) -> Any:
        return tiny_stica.make_config()

    def make_inputs(self, batch: int) -> dict[str, Any]:
        return tiny_stica.make_inputs("Model", batch)


class TestSTiCAVideoModel(ModelChecks):
    model_class = STiCAVideoModel

    def make_config(self) -> Any:
        return tiny_stica.make_config(pooling_full_qkv=True, pooling_position=True)

    def make_inputs(self, batch: int) -> dict[str, Any]:
        return tiny_stica.make_inputs("VideoModel", batch)


class TestSTiCAForPreTraining(ModelChecks):
    model_class = STiCAForPreTraining
    is_feature_model = False  # a contrastive loss compares the samples of a batch
    has_hidden_states = False
    has_attentions = False

    def make_config(self) -> Any:
        return tiny_stica.make_config(projection_dropout=0.0)

    def make_inputs(self, batch: int) -> dict[str, Any]:
        return tiny_stica.make_inputs("ForPreTraining", batch)


class TestSTiCAForVideoClassification(ClassifierChecks):
    model_class = STiCAForVideoClassification
    pretraining_class = STiCAForPreTraining
    base_class = STiCAModel
    objective_keys = ("video_projection", "audio_projection", "crop_step")

    def make_config(self) -> Any:
        return tiny_stica.make_config()

    def make_inputs(self, batch: int) -> dict[str, Any]:
        return tiny_stica.make_inputs("ForVideoClassification", batch)
