"""The objective: who learns from which loss, what shuffling changes, and what captions leave out."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from models.tiny_tvts import SCRIPTS, clips, make_config, make_inputs, make_v2_config, texts
from videossl_hf.errors import ConfigurationError, InputError
from videossl_hf.models.tvts.configuration_tvts import TVTSConfig
from videossl_hf.models.tvts.modeling_tvts import TVTSForPreTraining, TVTSForVideoClassification, TVTSModel
from videossl_hf.models.tvts.objective_tvts import contrastive_loss, cosine_similarities, sorting_loss


@pytest.fixture(scope="module")
def model() -> TVTSForPreTraining:
    torch.manual_seed(0)
    return TVTSForPreTraining(make_config()).eval()


def gradients(model: torch.nn.Module, loss: torch.Tensor) -> set[str]:
    model.zero_grad()
    loss.backward(retain_graph=True)
    return {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}


def test_sorting_never_teaches_the_text_tower_and_contrast_never_the_sorting_head(
    model: TVTSForPreTraining,
) -> None:
    output = model(**make_inputs("ForPreTraining", 3))
    sorting, contrast = gradients(model, output.loss_sorting), gradients(model, output.loss_contrastive)
    assert {name.split(".")[0] for name in sorting} == {"tvts", "sorting_head"}
    assert {".".join(name.split(".")[:2]) for name in sorting if name.startswith("tvts")} == {
        "tvts.video_model"
    }
    towers = {".".join(name.split(".")[:2]) for name in contrast}
    assert towers == {
        "tvts.video_model", "tvts.text_model", "tvts.video_projection", "tvts.text_projection",
    }  # fmt: skip


def test_the_loss_is_contrast_plus_twice_sorting(model: TVTSForPreTraining) -> None:
    output = model(**make_inputs("ForPreTraining", 3))
    torch.testing.assert_close(output.loss, output.loss_contrastive + 2 * output.loss_sorting)
    config = make_config(contrastive_weight=0.1, sorting_weight=3.0)
    other = TVTSForPreTraining(config).eval()
    other.load_state_dict(model.state_dict())
    weighted = other(**make_inputs("ForPreTraining", 3))
    torch.testing.assert_close(weighted.loss, 0.1 * output.loss_contrastive + 3 * output.loss_sorting)


@torch.no_grad()
def test_shuffled_scripts_with_their_places_give_the_same_loss_and_permuted_answers(
    model: TVTSForPreTraining,
) -> None:
    inputs = make_inputs("ForPreTraining", 4)
    places = torch.stack(
        [torch.randperm(SCRIPTS, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    )
    rows = torch.arange(4)[:, None]
    shuffled = inputs | {name: inputs[name][rows, places] for name in ("input_ids", "attention_mask")}
    one, two = model(**inputs), model(**shuffled, script_positions=places)
    assert not torch.equal(places, torch.arange(SCRIPTS).expand_as(places))
    for name in ("loss", "loss_sorting", "loss_contrastive", "accuracy_sorting", "accuracy_sorting_all"):
        torch.testing.assert_close(two[name], one[name], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(two.sorting_logits, one.sorting_logits[rows, places], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(model(**shuffled).loss_sorting, one.loss_sorting)


@torch.no_grad()
def test_the_scripts_of_a_sample_stay_together(model: TVTSForPreTraining) -> None:
    """A wrong flattening would mix samples that differ."""
    batch = texts(3)
    together = model.tvts(**batch)
    for sample in range(3):
        alone = model.tvts(**{name: value[sample : sample + 1] for name, value in batch.items()})
        torch.testing.assert_close(together.text_embeds[sample], alone.text_embeds[0], rtol=1e-4, atol=1e-5)
        for script in range(SCRIPTS):
            one = model.tvts(**{name: value[sample, script][None] for name, value in batch.items()})
            found = together.text_pooler_output[sample, script]
            torch.testing.assert_close(found, one.text_pooler_output[0], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_text_of_a_clip_is_the_mean_of_its_projected_scripts(model: TVTSForPreTraining) -> None:
    output = model.tvts(**texts(2))
    rectified = output.text_pooler_output.clamp_min(0)
    projected = (
        rectified @ model.tvts.text_projection.linear.weight.T + model.tvts.text_projection.linear.bias
    )
    torch.testing.assert_close(output.text_embeds, projected.mean(1))
    assert torch.equal(model.tvts.get_text_features(**texts(2)), output.text_embeds)


def test_padding_has_no_say(model: TVTSForPreTraining) -> None:
    batch = {name: value[:, 0] for name, value in texts(3).items()}
    other = batch | {"input_ids": torch.where(batch["attention_mask"] == 1, batch["input_ids"], 7)}
    with torch.no_grad():
        torch.testing.assert_close(
            model.tvts.get_text_features(**other), model.tvts.get_text_features(**batch), rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("frames", [2, 4])
def test_captions_are_compared_and_not_sorted(model: TVTSForPreTraining, frames: int) -> None:
    captions = {name: value[:, 0] for name, value in texts(3).items()}
    output = model(clips(3, frames), **captions)
    assert output.loss_sorting is None
    assert output.sorting_logits is None
    torch.testing.assert_close(output.loss, output.loss_contrastive)
    assert not any(name.startswith("sorting_head") for name in gradients(model, output.loss))
    as_one_script = {name: value[:, None] for name, value in captions.items()}
    torch.testing.assert_close(model(clips(3, frames), **as_one_script).loss, output.loss)


def test_a_model_for_captions_alone_has_no_sorting_head() -> None:
    model = TVTSForPreTraining(make_config(num_scripts=1, sorting_heads=3))
    assert model.sorting_head is None
    assert model(clips(2), **texts(2, scripts=1)).loss_sorting is None


def test_the_number_of_scripts_is_the_configurations(model: TVTSForPreTraining) -> None:
    with pytest.raises(InputError, match="2 scripts"):
        model(clips(2), **texts(2, scripts=2))
    with pytest.raises(InputError, match="script_positions"):
        model(**make_inputs("ForPreTraining", 2), script_positions=torch.zeros(2, 2, dtype=torch.int64))
    five = TVTSForPreTraining(make_config(num_scripts=5)).eval()
    assert five(clips(2), **texts(2, scripts=5)).sorting_logits.shape == (2, 5, 5)


def test_accuracy_counts_a_clip_only_when_all_its_scripts_are_in_place() -> None:
    logits = torch.eye(3).expand(2, 3, 3)
    found = sorting_loss(logits, torch.tensor([[0, 1, 2], [0, 2, 1]]))
    torch.testing.assert_close(found.accuracy, torch.tensor(4 / 6))
    torch.testing.assert_close(found.accuracy_all, torch.tensor(0.5))


def test_cosines_of_zero_vectors_are_zero_and_scale_does_not_count() -> None:
    videos = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    torch.testing.assert_close(
        cosine_similarities(videos, 7 * videos), torch.tensor([[1.0, 0.0], [0.0, 0.0]]), rtol=1e-6, atol=1e-7
    )


def test_contrast_is_the_sum_of_both_directions() -> None:
    videos, scripts = torch.randn(4, 5), torch.randn(4, 5)
    scores = cosine_similarities(videos, scripts) / 0.05
    own = torch.arange(4)
    one, other = (torch.nn.functional.cross_entropy(x, own) for x in (scores, scores.T))
    torch.testing.assert_close(contrastive_loss(videos, scripts, 0.05).loss, one + other)


def test_training_drops_patches_and_a_generator_fixes_which(model: TVTSForPreTraining) -> None:
    inputs = make_inputs("ForPreTraining", 2)
    del inputs["keep_indices"]
    torch.testing.assert_close(model(**inputs).mask_ratio, torch.tensor(0.0))
    one, two, other = (model(**inputs, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    torch.testing.assert_close(one.mask_ratio, torch.tensor(0.75))
    assert torch.equal(one.loss, two.loss)
    assert not torch.equal(one.loss, other.loss)
    training = copy.deepcopy(model).train()
    torch.testing.assert_close(training(**inputs).mask_ratio, torch.tensor(0.75))


def test_frozen_text_blocks_stay_frozen_after_loading(tmp_path: Any) -> None:
    config = make_v2_config(trainable_text_layers=1)
    TVTSForPreTraining(config).save_pretrained(tmp_path)
    for model in (TVTSForPreTraining(config), TVTSForPreTraining.from_pretrained(tmp_path).train()):
        frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
        assert frozen
        assert all(".encoder.layers.0." in name for name in frozen)
        for name, parameter in model.named_parameters():
            assert parameter.requires_grad != (".encoder.layers.0." in name), name
    assert all(
        p.requires_grad for p in TVTSForPreTraining(make_v2_config(trainable_text_layers=None)).parameters()
    )


def test_the_second_version_compares_and_sorts_with_the_same_text_vectors() -> None:
    model = TVTSForPreTraining(make_v2_config()).eval()
    output = model.tvts(clips(2), **texts(2))
    assert torch.equal(output.text_embeds, output.text_pooler_output.mean(1))
    assert torch.equal(output.video_embeds, output.pooler_output)
    assert output.video_embeds.shape == (2, 16)
    assert model(clips(2), **texts(2)).sorting_logits.shape == (2, SCRIPTS, SCRIPTS)
    without_class = TVTSForPreTraining(make_v2_config(sort_class_token=False)).eval()
    without_class.load_state_dict(model.state_dict())
    assert not torch.allclose(
        without_class(clips(2), **texts(2)).sorting_logits, model(clips(2), **texts(2)).sorting_logits
    )


def test_new_parts_of_the_second_version_learn_faster_than_clip() -> None:
    model = TVTSForPreTraining(make_v2_config())
    optimizer = SimpleNamespace(lr=1e-4, weight_decay=0.05, decay_norm_and_bias=False)
    groups = model.parameter_groups(optimizer)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert len(groups) == 4
    for group in groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            is_new = "temporal_attention" in name or "temporal_norm" in name or "sorting_head" in name
            assert group["lr"] == pytest.approx(1e-4 if is_new else 1e-7), name
            assert group["weight_decay"] == (0.05 if parameter.ndim > 1 else 0.0), name
    (group,) = TVTSForPreTraining(make_config()).parameter_groups(
        SimpleNamespace(lr=1e-4, weight_decay=0.0, decay_norm_and_bias=True)
    )
    assert group["lr"] == 1e-4


def test_towers_can_be_asked_one_by_one() -> None:
    model = TVTSModel(make_config()).eval()
    video = model(clips(2))
    assert video.text_embeds is None
    assert torch.equal(model.get_video_features(clips(2)), video.video_embeds)
    assert model(**{name: value[:, 0] for name, value in texts(2).items()}).last_hidden_state is None
    with pytest.raises(InputError, match="input_ids"):
        model()
    with pytest.raises(InputError, match="attention_mask"):
        model(input_ids=texts(2)["input_ids"], attention_mask=torch.ones(2, 3))
    with pytest.raises(InputError, match="input_ids"):
        model(input_ids=torch.zeros(4, dtype=torch.int64))


def test_a_classifier_has_no_text_tower() -> None:
    classifier = TVTSForVideoClassification(make_config())
    assert classifier.config.use_text is False
    assert not [name for name in classifier.state_dict() if "text" in name or "video_projection" in name]
    with pytest.raises(InputError, match="no text tower"):
        classifier.tvts(input_ids=torch.zeros(1, 3, dtype=torch.int64))
    with pytest.raises(InputError, match="no text tower"):
        classifier.tvts.get_video_features(clips(1))
    with pytest.raises(InputError, match="labels"):
        classifier(clips(2), labels=torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ConfigurationError, match="use_text"):
        TVTSForPreTraining(classifier.config)


@pytest.mark.parametrize("tower", ["bert", "roberta", "xlm-roberta"])
def test_other_text_towers_give_one_vector_a_text(tower: str) -> None:
    sizes = {
        "vocab_size": 16, "hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 32, "max_position_embeddings": 20,
    }  # fmt: skip
    model = TVTSModel(make_config(text_tower=tower, text_settings=sizes)).eval()
    assert model(**texts(2)).text_pooler_output.shape == (2, SCRIPTS, 24)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_without_text_states_the_last_text_block_computes_the_vector_alone(
    attention: str, checkpointing: bool
) -> None:
    model = TVTSModel(make_config(attn_implementation=attention)).train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    ids, mask = texts(2).values()
    mask[:, :, -2:] = 0
    results, lengths = [], []
    norm = model.text_model.transformer.layer[-1].output_layer_norm
    norm.register_forward_hook(lambda *call: lengths.append(call[2].shape[1]))
    for with_states in (True, False):
        output = model(input_ids=ids, attention_mask=mask, with_text_states=with_states)
        assert (output.text_last_hidden_state is not None) == with_states
        model.zero_grad()
        output.text_embeds.square().sum().backward()
        gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        results.append((output.text_pooler_output.detach(), gradients))
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-6)
    assert set(lengths) == {ids.shape[-1], 1}


def test_the_text_tower_has_the_published_epsilon() -> None:
    model = TVTSModel(make_config())
    norms = [m.eps for m in model.text_model.modules() if isinstance(m, torch.nn.LayerNorm)]
    assert set(norms) == {1e-12}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"image_size": 30}, "patch_size"),
        ({"num_frames": 7}, "tubelet_size"),
        ({"mask_ratio": 0.99}, "mask_ratio"),
        ({"num_attention_heads": 5}, "num_attention_heads"),
        ({"sorting_heads": 5}, "sorting_heads"),
        ({"attention_type": "divided"}, "tube"),
        ({"text_settings": {"dim": 32, "n_heads": 2}}, "sorting head"),
        (
            {"num_scripts": 1, "use_projection": False, "text_settings": {"dim": 32, "n_heads": 2}},
            "use_projection",
        ),
        ({"text_settings": {"dim": 10**9}}, "dim"),
        ({"text_settings": {"n_layers": 10**6}}, "n_layers"),
        ({"text_settings": {"vocab_size": -1}}, "vocab_size"),
        ({"text_settings": {"dim": 24, "n_heads": 5}}, "heads"),
        ({"text_settings": {"width": 3}}, "width"),
        ({"text_settings": {"id2label": {}}}, "id2label"),
        ({"text_settings": {"dim": "wide"}}, "dim"),
        ({"text_settings": {"dim": [1]}}, "dim"),
        ({"text_settings": 3}, "text_settings"),
        ({"text_tower": "gpt2"}, "text_tower"),
        ({"temperature": 0.0}, "temperature"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        make_config(**settings)


def test_the_defaults_are_the_papers() -> None:
    config, second = TVTSConfig(), TVTSConfig.v2()
    assert (config.num_kept, config.num_places, config.temperature, config.sorting_weight) == (
        49,
        196,
        0.05,
        2.0,
    )
    assert (second.num_kept, second.token_size, second.num_frames) == (98, 512, 12)
    with pytest.raises(ValueError, match="base_patch16"):
        TVTSConfig.v2("tiny")
