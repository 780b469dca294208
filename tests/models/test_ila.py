"""What ILA promises beside the common checks: CLIP at the start, words for labels, steady evaluation."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import CLIPModel

from common.model_checks import perturb
from models import tiny_ila
from models.tiny_ila import FRAMES, LABELS, clips, make_config, make_tokenizer
from videossl_hf import ILAConfig, ILAForVideoClassification, ILAModel
from videossl_hf.errors import CheckpointError, ConfigurationError, InputError
from videossl_hf.models.ila.alignment_ila import interaction_masks
from videossl_hf.models.ila.text_ila import tokenize_labels
from videossl_hf.training.optimization import parameter_groups

SMALL = {"align_hidden": 16, "head_dim": 8, "num_frames": FRAMES}


def classifier(**overrides: Any) -> ILAForVideoClassification:
    torch.manual_seed(0)
    model = ILAForVideoClassification(make_config(**overrides)).eval()
    perturb(model)
    return model


@torch.no_grad()
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("saved", [False, True])
def test_a_fresh_model_is_clip_on_every_frame(activation: str, saved: bool, tmp_path: Path) -> None:
    clip = tiny_ila.make_clip(hidden_act=activation)
    if saved:
        clip.save_pretrained(tmp_path)
    model = ILAModel.from_clip(tmp_path if saved else clip, **SMALL)
    assert model.config.vision_config.hidden_act == activation
    videos, texts = clips(2), tiny_ila.texts(5)
    found = model(pixel_values_videos=videos, input_ids=texts)
    images = clip.get_image_features(videos.flatten(0, 1)).pooler_output
    assert (found.frame_embeds.flatten(0, 1) - images).abs().max() == 0
    assert (found.text_embeds - clip.get_text_features(texts).pooler_output).abs().max() == 0
    assert torch.equal(model.logit_scale, clip.logit_scale)


@torch.no_grad()
def test_concatenated_tokens_change_clip_and_other_sizes_interpolate_its_positions() -> None:
    clip = tiny_ila.make_clip()
    images = clip.get_image_features(clips(1).flatten(0, 1)).pooler_output
    concat = ILAModel.from_clip(clip, token_mode="concat", **SMALL)
    assert (concat(clips(1)).frame_embeds.flatten(0, 1) - images).abs().max() > 1e-4
    larger = ILAModel.from_clip(clip, image_size=56, **SMALL)
    assert larger(clips(1, side=56)).pooler_output.isfinite().all()
    with pytest.raises(CheckpointError, match="CLIP"):
        ILAModel.from_clip(torch.nn.Linear(2, 2))


def test_a_clip_of_other_towers_is_refused() -> None:
    with pytest.raises(CheckpointError, match="patch_embedding"):
        ILAModel.from_clip(
            tiny_ila.make_clip(), vision_config={**tiny_ila.VISION, "hidden_size": 48}, **SMALL
        )


def test_starts_a_classifier_of_words_from_a_folder_with_a_tokenizer(tmp_path: Path) -> None:
    tiny_ila.make_clip().save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    model = ILAForVideoClassification.from_clip(tmp_path, labels=LABELS, **SMALL)
    assert list(model.config.id2label.values()) == LABELS
    assert model(clips(2)).logits.shape == (2, len(LABELS))
    with pytest.raises(ConfigurationError, match="tokenizer"):
        ILAForVideoClassification.from_clip(tiny_ila.make_clip(), labels=LABELS, **SMALL)


@torch.no_grad()
def test_labels_are_words_whose_order_and_number_the_logits_follow() -> None:
    model = classifier()
    before = model(clips(2)).logits
    model.config.id2label = {0: LABELS[3], 1: LABELS[0]}
    torch.testing.assert_close(model(clips(2)).logits, before[:, [3, 0]])
    model.set_labels(["dive", *LABELS], make_tokenizer())
    torch.testing.assert_close(model(clips(2)).logits[:, 1:], before)


@torch.no_grad()
def test_never_answers_with_the_features_of_other_words() -> None:
    model = classifier()
    model(clips(1))
    model.config.id2label = dict(enumerate(["walk", "dive"]))
    with pytest.raises(ConfigurationError, match="dive"):
        model(clips(1))


@torch.no_grad()
def test_the_text_tower_runs_once_a_set_of_labels_at_the_longest_ones_length() -> None:
    model, lengths = classifier(), []
    model.ila.text_model.register_forward_pre_hook(lambda module, args: lengths.append(args[0].shape))
    first = model(clips(1)).logits
    model(clips(1))
    assert lengths == [(5, 6)]
    model.ila.text_projection.weight.mul_(-1)  # other weights, other features
    assert not torch.equal(model(clips(1)).logits, first)
    assert len(lengths) == 2


def test_loads_new_words_with_the_tokenizer_beside_the_weights(tmp_path: Path) -> None:
    classifier().save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    names = {"id2label": {0: "dive", 1: "walk"}, "label2id": {"dive": 0, "walk": 1}}
    model = ILAForVideoClassification.from_pretrained(tmp_path, **names)
    assert model(clips(1)).logits.shape == (1, 2)


def test_refuses_words_that_cannot_be_classes() -> None:
    config, tokenizer = make_config(), make_tokenizer()
    for labels, message in (
        (["walk", "walk"], "two classes"),
        (["antidisestablishment"], "shorten"),
        ([" "], "no word"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            tokenize_labels(labels, tokenizer, config)
    with pytest.raises(ConfigurationError, match="knows no words"):
        classifier(head="linear").set_labels(["walk"], tokenizer)


@torch.no_grad()
def test_evaluation_is_repeatable_and_leaves_all_statistics_alone() -> None:
    model = classifier()
    before = copy.deepcopy(model.state_dict())
    first = model(clips(2), labels=torch.tensor([0, 1]))
    second = model(clips(2), labels=torch.tensor([0, 1]))
    assert torch.equal(first.logits, second.logits)
    assert not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_frozen_batch_norms_keep_their_statistics_in_training() -> None:
    for frozen in (True, False):
        model = classifier(freeze_batch_norm=frozen).train()
        before = {name: value.clone() for name, value in model.named_buffers() if "running" in name}
        model(clips(2))
        after = dict(model.named_buffers())
        assert all(torch.equal(value, after[name]) == frozen for name, value in before.items())


def test_gradients_pass_through_a_frozen_tower_to_the_first_aligner(tmp_path: Path) -> None:
    classifier(classifier_dropout=0.0).save_pretrained(tmp_path)
    model = ILAForVideoClassification.from_pretrained(tmp_path).train()
    model(clips(2), labels=torch.tensor([0, 1])).loss.backward()
    for name, parameter in model.named_parameters():
        is_new = any(part in name for part in ("message", "alignment", "_proj.", "mit.", "prompts"))
        is_new = (
            is_new and "self_attn" not in name.replace("mit.layers.0.self_attn", "") and "text_" not in name
        )
        is_new = is_new and "visual_projection" not in name
        assert parameter.requires_grad == is_new, name
    assert model.ila.vision_model.encoder.layers[0].alignment.point_head.out.weight.grad.any()


def test_five_groups_learn_at_their_published_rates() -> None:
    model = classifier(freeze_backbone=False, freeze_text=False).train()
    groups = {
        group["name"]: group for group in parameter_groups(model, SimpleNamespace(lr=8e-6, weight_decay=3e-3))
    }
    published = {
        "aligner": (5e-4, 0.01),
        "skip": (8e-5, 0.001),
        "mit": (4e-4, 0.003),
        "prompt": (4e-4, 0.003),
    }
    for name, (rate, decay) in (published | {"clip": (8e-6, 0.003)}).items():
        assert groups[name]["lr"] == pytest.approx(rate)
        assert groups[name]["weight_decay"] == pytest.approx(decay)
        assert groups[f"{name}_no_decay"]["weight_decay"] == 0
        assert all(parameter.ndim > 1 for parameter in groups[name]["params"])
    frozen = classifier().train()
    assert not [
        g for g in frozen.parameter_groups(SimpleNamespace(lr=1, weight_decay=1)) if "clip" in g["name"]
    ]
    untrained = classifier(train_prompts=False).train()
    assert not any(p.requires_grad for name, p in untrained.named_parameters() if "prompts" in name)


@torch.no_grad()
def test_the_disturbance_decays_acts_in_training_alone_and_is_saved(tmp_path: Path) -> None:
    model = classifier(disturbance_decay_start_epoch=2)
    for epoch, expected in ((0, 0.2), (1, 0.2), (2, 0.1), (4, 0.025), (3, 0.05)):
        model.before_epoch(epoch)
        assert float(model.ila.disturbance) == pytest.approx(expected)
    plain = model.ila(clips(1), output_alignment=True).masks[0]
    disturbed = model.ila(clips(1), disturb=True, output_alignment=True).masks[0]
    assert not torch.equal(plain, disturbed)
    model.save_pretrained(tmp_path)
    loaded = ILAForVideoClassification.from_pretrained(tmp_path)
    assert torch.equal(loaded.ila.disturbance, model.ila.disturbance)


def test_the_loss_is_the_cross_entropy_and_the_weighted_alignment_of_all_blocks() -> None:
    for reduction, share in (("sum", 1.0), ("mean", 0.5)):
        model = classifier(align_loss_weight=0.3, align_loss_reduction=reduction)
        output = model(clips(2), labels=torch.tensor([0, 1]))
        torch.testing.assert_close(output.align_loss, share * sum(output.align_losses))
        torch.testing.assert_close(output.loss, output.ce_loss + 0.3 * output.align_loss)


def test_class_numbers_are_smoothed_in_training_alone_and_probabilities_never() -> None:
    model = classifier(freeze_batch_norm=True, label_smoothing=0.3, disturbance=0.0)
    labels = torch.tensor([0, 3])
    hard = torch.nn.functional.one_hot(labels, 5).float()
    smooth = 0.7 * hard + 0.3 / 5
    in_evaluation = model(clips(2), labels=labels).ce_loss
    model.train()
    torch.testing.assert_close(model(clips(2), labels=hard).ce_loss, in_evaluation)
    torch.testing.assert_close(model(clips(2), labels=labels).ce_loss, model(clips(2), labels=smooth).ce_loss)


@torch.no_grad()
def test_folding_batch_norms_changes_no_numbers() -> None:
    for block in ("depthwise", "dense"):
        model = classifier(interactive_block=block)
        folded = model.fold_batch_norms()
        assert not [m for m in folded.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
        torch.testing.assert_close(folded(clips(2)).logits, model(clips(2)).logits)
        assert [m for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]


@torch.no_grad()
def test_other_lengths_and_grids_work_and_impossible_ones_are_refused() -> None:
    model = ILAModel(make_config()).eval()
    for frames, side in ((2, 32), (7, 32), (4, 56), (3, 88)):
        output = model(clips(1, frames, side))
        assert output.last_hidden_state.shape == (1, frames * (1 + (side // 8) ** 2), 24)
    with pytest.raises(InputError, match="one frame"):
        model(clips(1, 1))
    with pytest.raises(InputError, match="multiple of 8"):
        model(clips(1, 4, 24))
    with pytest.raises(ValueError, match="image_size"):
        make_config(vision_config=tiny_ila.VISION | {"image_size": 24})


@torch.no_grad()
def test_reversed_frames_keep_their_own_features_where_nothing_joins_them() -> None:
    fresh = ILAModel(make_config()).eval()  # what alignment adds is zero
    forward, backward = fresh(clips(1)), fresh(clips(1).flip(1))
    torch.testing.assert_close(backward.frame_embeds.flip(1), forward.frame_embeds)
    perturb(fresh)
    assert (fresh(clips(1).flip(1)).frame_embeds.flip(1) - fresh(clips(1)).frame_embeds).abs().max() > 1e-4


def test_a_mask_is_one_around_its_point_and_falls_along_both_axes() -> None:
    mask = interaction_masks(torch.zeros(2), 14)
    assert (mask > 0).float().mean() == pytest.approx(0.73, abs=0.01)
    expected = torch.tensor([0, 0.1058, 0.3365, 0.5673, 0.7981, 1, 1])
    torch.testing.assert_close(mask[6, :7], expected, atol=1e-4, rtol=0)
    point = torch.tensor([0.4, -0.3])
    steps = [torch.tensor([x, y]) for x in (-0.2, 0.0, 0.2) for y in (-0.2, 0.0, 0.2)]
    nine = torch.stack([interaction_masks(point + step, 9) for step in steps]).mean(0)
    torch.testing.assert_close(interaction_masks(point, 9, shift=torch.tensor(0.2)), nine)


def test_presets_are_the_published_models() -> None:
    config = ILAConfig.from_preset("ila-large-patch14-336-16f-ssv2")
    assert (config.image_size, config.num_frames, config.head) == (336, 16, "linear")
    assert (config.interactive_block, config.projection_dim, config.num_labels) == ("dense", 768, 174)
    for name in ("ila-base-patch16-336-8f-k400", "ila-base-patch16-9f-k400", "ila"):
        with pytest.raises(ValueError, match="preset"):
            ILAConfig.from_preset(name)


def test_a_clip_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    CLIPModel(tiny_ila.make_clip().config).vision_model.save_pretrained(tmp_path)
    with pytest.raises((CheckpointError, ValueError)):
        ILAModel.from_clip(tmp_path)
