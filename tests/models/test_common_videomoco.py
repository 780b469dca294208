from __future__ import annotations

from typing import Any

from common.model_checks import ClassifierChecks, ModelChecks
from models import tiny_videomoco
from videossl_hf import VideoMoCoForPreTraining, VideoMoCoForVideoClassification, VideoMoCoModel


class TestVideoMoCoModel(ModelChecks):
    model_class = VideoMoCoModel
    has_attentions = False

    def make_config(self) -> Any:
        return tiny_videomoco.make_config(arch="r3d_18")

    def make_inputs(self, batch: int) -> dict[str, Any]:
        return tiny_videomoco.make_inputs("Model", batch)


class TestVideoMoCoForPreTraining(ModelChecks):
    model_class = VideoMoCoForPreTraining
    is_feature_model = False  # BatchNorm and the losses mix the samples of a batch
    has_hidden_states = False
    has_attentions = False

    def make_config(self) -> Any:
        return tiny_videomoco.make_config(mlp=True)

    def make_inputs(self, batch: int) -> dict[str, Any]:
        return tiny_videomoco.make_inputs("ForPreTraining", batch)

    def parameters_without_gradient(self, model: Any) -> set[str]:
        # The output that counts is the backward direction's first: nothing has come back to it yet.
        return {"generator.lstm.weight_hh_l0_reverse"}


class TestVideoMoCoForVideoClassification(ClassifierChecks):
    model_class = VideoMoCoForVideoClassification
    pretraining_class = VideoMoCoForPreTraining
    base_class = VideoMoCoModel
    has_attentions = False
    objective_keys = (
        "projection",
        "key_encoder",
        "key_projection",
        "queue",
        "generator",
        "current_epoch",
        "completed_steps",
        "previous_loss_g",
    )

    def make_config(self) -> Any:
        return tiny_videomoco.make_config(arch="mc3_18", freeze_norm_stats=False)

    def make_inputs(self, batch: int) -> dict[str, Any]:
        return tiny_videomoco.make_inputs("ForVideoClassification", batch)
