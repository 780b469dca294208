from __future__ import annotations

from typing import Any

from common.model_checks import ClassifierChecks, ModelChecks
from models import tiny_tvts
from videossl_hf.models.tvts.modeling_tvts import (
    TVTSForPreTraining,
    TVTSForVideoClassification,
    TVTSModel,
    TVTSVideoModel,
)


def silent_at_the_start(model: Any) -> set[str]:
    """Attention over time starts with values of zero: only its values and the last bias learn at first."""
    return {
        name
        for name, _ in model.named_parameters()
        if "temporal_attention.proj.weight" in name or "temporal_norm" in name
    }


class TestTVTSModel(ModelChecks):
    model_class = TVTSModel

    def make_config(self) -> Any:
        return tiny_tvts.make_config()

    def make_inputs(self, batch: int) -> dict[str, Any]:
        return tiny_tvts.make_inputs("Model", batch)


class TestTVTSModelWithClip(ModelChecks):
    model_class = TVTSModel

    def make_config(self) -> Any:
        return tiny_tvts.make_v2_config()

    def make_inputs(self, batch: int) -> dict[str, Any]:
        return tiny_tvts.make_inputs("Model", batch)

    def parameters_without_gradient(self, model: Any) -> set[str]:
        return silent_at_the_start(model)


class TestTVTSVideoModel(ModelChecks):
    model_class = TVTSVideoModel

    def make_config(self) -> Any:
        return tiny_tvts.make_config(interpolate_positions=True, image_size=48, num_frames=4)

    def make_inputs(self, batch: int) -> dict[str, Any]:
        return tiny_tvts.make_inputs("VideoModel", batch)


class TestTVTSForPreTraining(ModelChecks):
    model_class = TVTSForPreTraining
    is_feature_model = False  # a contrastive loss compares the samples of a batch
    has_hidden_states = False
    has_attentions = False

    def make_config(self) -> Any:
        return tiny_tvts.make_config()

    def make_inputs(self, batch: int) -> dict[str, Any]:
        return tiny_tvts.make_inputs("ForPreTraining", batch)


class TestTVTSForVideoClassification(ClassifierChecks):
    model_class = TVTSForVideoClassification
    pretraining_class = TVTSForPreTraining
    base_class = TVTSModel
    objective_keys = ("sorting_head",)

    def make_config(self) -> Any:
        return tiny_tvts.make_config()

    def make_inputs(self, batch: int) -> dict[str, Any]:
        return tiny_tvts.make_inputs("ForVideoClassification", batch)
