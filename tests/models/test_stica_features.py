from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from models.stica_batches import tiny_clips, tiny_config, tiny_sound
from videossl_hf.errors import InputError
from videossl_hf.models.stica.configuration_stica import STiCAConfig
from videossl_hf.models.stica.modeling_stica import (
    STiCAForPreTraining,
    STiCAForVideoClassification,
    STiCAModel,
    STiCAVideoModel,
)
from videossl_hf.models.stica.pooling_stica import STiCAPooling


@torch.no_grad()
def test_each_modality_alone_gives_what_both_give_together() -> None:
    model = STiCAModel(tiny_config()).eval()
    clips, sound = tiny_clips(), tiny_sound()
    both = model(clips, sound)
    assert both.last_hidden_state.shape == (2, 2 * 3 * 3, 24)
    assert both.audio_last_hidden_state.shape == (2, 2 * 2, 16)
    assert torch.equal(model.get_video_features(clips), both.pooler_output)
    assert torch.equal(model.get_audio_features(sound), both.audio_pooler_output)
    assert model(clips).audio_pooler_output is None
    assert model(input_features=sound).pooler_output is None
    with pytest.raises(InputError, match="give pixel_values_videos"):
        model()


@torch.no_grad()
def test_tokens_of_the_map_run_over_time_first() -> None:
    model = STiCAVideoModel(tiny_config(pooling_layers=0)).eval()
    clips = tiny_clips(frames=16, size=64)
    output = model(clips)
    feature_map = model.video_model.feature_map(clips)
    assert feature_map.shape == (2, 24, 2, 4, 4)
    assert torch.equal(output.last_hidden_state[:, 16 + 4 + 1], feature_map[:, :, 1, 1, 1])
    torch.testing.assert_close(output.pooler_output, feature_map.mean((2, 3, 4)))
    torch.testing.assert_close(model.get_video_features(clips), output.pooler_output)


@torch.no_grad()
def test_pooling_reads_the_first_token_and_treats_the_others_as_a_set() -> None:
    torch.manual_seed(0)
    pooling = STiCAPooling(_with_attention(tiny_config())).eval()
    tokens = torch.randn(3, 5, 24)
    pooled = pooling.attend(tokens)
    torch.testing.assert_close(pooling.attend(tokens[:, [0, 3, 1, 4, 2]]), pooled)
    assert not torch.allclose(pooling.attend(tokens[:, [1, 0, 2, 3, 4]]), pooled)


@torch.no_grad()
def test_positions_tell_tokens_apart_and_their_table_has_an_end() -> None:
    pooling = STiCAPooling(
        _with_attention(tiny_config(pooling_position=True, pooling_position_size=5))
    ).eval()
    tokens = torch.randn(3, 5, 24)
    assert not torch.allclose(pooling.attend(tokens[:, [0, 3, 1, 4, 2]]), pooling.attend(tokens))
    with pytest.raises(InputError, match="6 tokens"):
        pooling.attend(torch.randn(3, 6, 24))


def _with_attention(config: STiCAConfig) -> STiCAConfig:
    config._attn_implementation = "eager"
    return config


@torch.no_grad()
def test_clips_of_other_sizes_than_the_configured_one_work() -> None:
    model = STiCAVideoModel(tiny_config()).eval()
    for frames, size in ((1, 32), (7, 50), (30, 33)):
        assert model(tiny_clips(1, frames=frames, size=size)).pooler_output.isfinite().all()


def test_classifier_options_act_in_the_published_order() -> None:
    torch.manual_seed(0)
    model = STiCAForVideoClassification(
        tiny_config(classifier_normalize=True, classifier_batch_norm=True, num_labels=5)
    )
    with torch.no_grad():
        model.classifier_norm.running_mean.normal_()
        model.eval()
        output = model(tiny_clips())
        expected = model.classifier(model.classifier_norm(F.normalize(output.pooler_output, dim=-1)))
    torch.testing.assert_close(output.logits, expected)


def test_classifier_starts_orthogonal_without_bias() -> None:
    model = STiCAForVideoClassification(tiny_config(num_labels=5))
    weight = model.classifier.weight.detach()
    torch.testing.assert_close(weight @ weight.T, torch.eye(5), atol=1e-5, rtol=0)
    assert model.classifier.bias.eq(0).all()


def test_labels_may_be_classes_or_probabilities() -> None:
    model = STiCAForVideoClassification(tiny_config(num_labels=3)).eval()
    clips = tiny_clips()
    hard = model(clips, labels=torch.tensor([2, 0]))
    soft = model(clips, labels=torch.tensor([[0.0, 0, 1], [1, 0, 0]]))
    torch.testing.assert_close(hard.loss, soft.loss)
    with pytest.raises(InputError, match="labels have shape"):
        model(clips, labels=torch.zeros(2, 4))


def test_classifier_learns_ten_times_faster_than_what_was_pretrained() -> None:
    class Optimizer:
        lr = 0.0025

    model = STiCAForVideoClassification(tiny_config())
    groups = model.parameter_groups(Optimizer())
    assert {group["name"]: group["lr"] for group in groups} == pytest.approx(
        {"classifier": 0.0025, "backbone": 0.00025, "pooling": 0.00025}
    )
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


def test_there_is_no_sound_tower_in_a_classifier_and_its_configuration_says_so() -> None:
    config = tiny_config()
    model = STiCAForVideoClassification(config)
    assert model.stica.audio_model is None
    assert not model.config.use_audio
    assert config.use_audio
    with pytest.raises(InputError, match="no sound tower"):
        model.stica(input_features=tiny_sound())


def test_heads_and_sound_stem_keep_the_initialisation_of_torch() -> None:
    model = STiCAForPreTraining(tiny_config(projection_hidden=512, audio_widths=[64, 8, 12, 16]))
    layers = [
        model.video_projection.fc1,
        model.audio_projection.fc2,
        model.stica.audio_model.backbone.stem.conv,
    ]
    for layer in layers:
        bound = layer.weight[0].numel() ** -0.5
        assert layer.weight.abs().max() <= bound
        assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)
    assert model.video_projection.fc2.bias.abs().max() > 0


def test_other_layers_start_as_published() -> None:
    model = STiCAForPreTraining(tiny_config(video_widths=[64, 64], video_depths=[1, 1], pooling_ffn=256))
    convolution = model.stica.video_model.backbone.stages[0][0].conv1.spatial.weight
    fan_out = convolution.shape[0] * 9
    assert convolution.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)
    linear = model.stica.video_model.pooling.layers[0].feed_forward[0]
    assert linear.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert linear.bias.eq(0).all()
