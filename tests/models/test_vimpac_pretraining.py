"""Pre-training, classification and loading of VIMPAC beyond the common checks."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from models import tiny_vimpac
from videossl_hf.errors import CheckpointError, ConfigurationError, InputError
from videossl_hf.models.vimpac.configuration_vimpac import VIMPACConfig
from videossl_hf.models.vimpac.masking_vimpac import NOT_MASKED, find_masked_positions
from videossl_hf.models.vimpac.modeling_vimpac import (
    VIMPACForPreTraining,
    VIMPACForVideoClassification,
    VIMPACModel,
)
from videossl_hf.models.vimpac.objective_vimpac import masked_token_loss, two_clip_loss
from videossl_hf.models.vimpac.positions_vimpac import interpolate_table

PAD, MASK = tiny_vimpac.CODES + 1, tiny_vimpac.CODES + 4


def pretraining(**settings: Any) -> VIMPACForPreTraining:
    torch.manual_seed(0)
    return VIMPACForPreTraining(tiny_vimpac.make_config(**settings))


def batch(size: int = 3) -> dict[str, Any]:
    return tiny_vimpac.make_inputs("ForPreTraining", size)


def test_the_loss_is_the_weighted_sum_of_its_parts() -> None:
    output = pretraining(token_loss_weight=0.5, contrastive_weight=3.0).eval()(**batch())
    expected = 0.5 * output.loss_tokens + 3 * output.loss_contrastive
    torch.testing.assert_close(output.loss, expected)


def test_scoring_hidden_places_alone_changes_nothing() -> None:
    model, inputs = pretraining().eval(), batch()
    output = model(**inputs)
    clips = torch.cat([inputs["input_codes"], inputs["second_input_codes"]])
    masks = torch.cat([inputs["mask"], inputs["second_mask"]])
    hidden = (masks != NOT_MASKED) & (clips != PAD)
    logits = model.token_logits(clips.masked_fill(hidden, MASK))
    torch.testing.assert_close(output.loss_tokens, F.cross_entropy(logits[hidden], clips[hidden]))
    right = (logits[hidden].argmax(-1) == clips[hidden]).float().mean()
    torch.testing.assert_close(output.accuracy_tokens, right)
    torch.testing.assert_close(output.mask_ratio, hidden.float().mean())
    torch.testing.assert_close(output.pad_ratio, (clips == PAD).float().mean())


def test_known_positions_and_no_padding_change_nothing() -> None:
    model = pretraining().eval()
    inputs = batch() | {
        "input_codes": tiny_vimpac.codes(3, padded=False),
        "second_input_codes": tiny_vimpac.codes(3, seed=1, padded=False),
    }
    positions = find_masked_positions(torch.cat([inputs["mask"], inputs["second_mask"]]))
    told = model(**inputs, masked_positions=positions, has_padding=False)
    torch.testing.assert_close(told.loss, model(**inputs).loss)


def test_masks_are_drawn_from_the_generator_when_none_are_given() -> None:
    model = pretraining().eval()
    inputs = {name: batch()[name] for name in ("input_codes", "second_input_codes")}
    losses = [model(**inputs, generator=torch.Generator().manual_seed(seed)).loss for seed in (1, 1, 2)]
    assert torch.equal(losses[0], losses[1])
    assert not torch.equal(losses[0], losses[2])


def test_clips_of_padding_give_no_token_loss_instead_of_nan() -> None:
    model = pretraining().train()
    inputs = batch()
    inputs |= {name: torch.full_like(inputs[name], PAD) for name in ("input_codes", "second_input_codes")}
    output = model(**inputs)
    assert output.loss_tokens == 0
    output.loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    ("switched_off", "part"), [("token_loss_weight", "tokens"), ("contrastive_weight", "contrastive")]
)
def test_a_loss_of_no_weight_has_no_head(switched_off: str, part: str) -> None:
    model = pretraining(**{switched_off: 0.0})
    output = model(**batch())
    assert getattr(output, f"loss_{part}") is None
    head = {"tokens": "token_head", "contrastive": "projection"}[part]
    assert not [name for name, _ in model.named_parameters() if name.startswith(head)]
    output.loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_mask_task_alone_needs_one_clip() -> None:
    inputs = {name: batch()[name] for name in ("input_codes", "mask")}
    assert pretraining(contrastive_weight=0.0)(**inputs).loss.isfinite()
    with pytest.raises(InputError, match="two clips"):
        pretraining()(**inputs)


def test_contrast_can_see_the_clips_without_masks() -> None:
    model, inputs = pretraining(contrastive_input="clean").eval(), batch()
    output = model(**inputs)
    cls = model.vimpac(torch.cat([inputs["input_codes"], inputs["second_input_codes"]])).pooler_output
    torch.testing.assert_close(output.video_embeds.flatten(0, 1), model.projection(cls))
    masked = copy.deepcopy(model)
    masked.config.contrastive_input = "masked"
    other = masked(**inputs)
    torch.testing.assert_close(output.loss_tokens, other.loss_tokens)
    assert not torch.allclose(output.video_embeds, other.video_embeds)
    alone = pretraining(contrastive_input="clean", token_loss_weight=0.0).eval()
    assert alone(**inputs).loss.isfinite()


def test_contrast_of_equal_clips_has_its_known_value() -> None:
    embeds = torch.eye(4)
    terms = two_clip_loss(embeds, embeds, temperature=0.2)
    expected = 2 * 0.2 * (torch.tensor(5.0).exp() + 6).log() - 2 * 0.2 * 5
    torch.testing.assert_close(terms.loss, expected)
    assert terms.accuracy == 1


def test_an_empty_token_loss_is_zero_with_a_gradient() -> None:
    logits = torch.zeros(0, 7, requires_grad=True)
    loss = masked_token_loss(logits, torch.zeros(0, dtype=torch.int64)).loss
    loss.backward()
    assert loss == 0


# Padding


def test_padding_is_never_attended_to() -> None:
    torch.manual_seed(0)
    model = VIMPACModel(tiny_vimpac.make_config(layout="T")).eval()
    codes = tiny_vimpac.codes(1)
    with torch.no_grad():
        before = model(codes)
        model.embeddings.codes.weight[PAD] += 5
        after = model(codes)
    real = (codes != PAD).flatten(1)[..., None]
    torch.testing.assert_close(before.last_hidden_state * real, after.last_hidden_state * real)
    torch.testing.assert_close(before.cls_hidden_state, after.cls_hidden_state)
    assert not torch.allclose(before.last_hidden_state, after.last_hidden_state)


def test_padded_rows_can_be_left_out_of_the_means() -> None:
    codes = tiny_vimpac.codes(1)
    for pooling in ("cls", "mean"):
        outputs = []
        for ignore in (False, True):
            torch.manual_seed(0)
            config = tiny_vimpac.make_config(pooling=pooling, ignore_padding=ignore, layout="H|W")
            outputs.append(VIMPACModel(config).eval()(codes).pooler_output)
        assert not torch.allclose(*outputs)
    # With height and width alone, whole padded frames are then as if they were not there.
    torch.manual_seed(0)
    config = tiny_vimpac.make_config(ignore_padding=True, layout="H|W", num_frames=3)
    shorter = VIMPACModel(config).eval()
    longer = VIMPACModel(tiny_vimpac.make_config(ignore_padding=True, layout="H|W")).eval()
    state = longer.state_dict()
    state["embeddings.positions.time"] = state["embeddings.positions.time"][:3]
    shorter.load_state_dict(state)
    torch.testing.assert_close(shorter(codes[:, :3]).pooler_output, longer(codes).pooler_output)


def test_a_frame_mask_pads_codes() -> None:
    torch.manual_seed(0)
    model = VIMPACModel(tiny_vimpac.make_config()).eval()
    codes, mask = tiny_vimpac.codes(2, padded=False), torch.tensor([[True] * 3 + [False] * 2, [True] * 5])
    padded = codes.clone()
    padded[0, 3:] = PAD
    assert torch.equal(model(codes, frame_mask=mask).pooler_output, model(padded).pooler_output)


# Pixels


def test_a_model_with_a_tokeniser_takes_pixels(tmp_path: Path) -> None:
    tokenizer = tiny_vimpac.make_tokenizer()
    pretraining().save_pretrained(tmp_path)
    pixels = torch.rand(2, tiny_vimpac.FRAMES, 3, tiny_vimpac.SIZE, tiny_vimpac.SIZE)
    for model_class in (VIMPACModel, VIMPACForVideoClassification):
        model = model_class.from_pretrained(tmp_path, tokenizer_model=tokenizer).eval()
        assert not [name for name in model.state_dict() if "tokenizer" in name]
        expected = model(input_codes=tokenizer.encode(pixels)).pooler_output
        assert torch.equal(model(pixel_values_videos=pixels).pooler_output, expected)
    model = VIMPACForPreTraining.from_pretrained(tmp_path, tokenizer_model=tokenizer).eval()
    masks = {name: batch(2)[name] for name in ("mask", "second_mask")}
    from_pixels = model(pixel_values_videos=pixels, second_pixel_values_videos=pixels.flip(1), **masks)
    codes = [tokenizer.encode(clip) for clip in (pixels, pixels.flip(1))]
    assert torch.equal(from_pixels.loss, model(*codes, **masks).loss)


def test_says_what_is_wrong_with_an_input() -> None:
    model, pixels = VIMPACModel(tiny_vimpac.make_config()), torch.rand(1, 5, 3, 32, 32)
    with pytest.raises(InputError, match="give input_codes"):
        model()
    with pytest.raises(InputError, match="tokeniser"):
        model(pixel_values_videos=pixels)
    with pytest.raises(InputError, match="num_frames or image_size"):
        model(tiny_vimpac.codes(1)[:, :4])
    with pytest.raises(InputError, match="float32"):
        model(tiny_vimpac.codes(1).float())
    with pytest.raises(InputError, match="vocabulary"):
        model(tiny_vimpac.codes(1) + 20)
    with pytest.raises(ConfigurationError, match="30 codes"):
        model.set_tokenizer_model(tiny_vimpac.make_tokenizer(vocab_size=30))
    with pytest.raises(InputError, match="mask of each"):
        pretraining()(**batch() | {"second_mask": None})


# Other sizes


@pytest.mark.parametrize("positions", ["axial", "space_time", "joint"])
def test_loads_for_other_clips_with_interpolated_positions(positions: str, tmp_path: Path) -> None:
    model = pretraining(positions=positions)
    model.save_pretrained(tmp_path)
    bigger = VIMPACModel.from_pretrained(tmp_path, num_frames=8, image_size=[48, 40])
    assert bigger.config.grid == (8, 6, 5)
    assert bigger(torch.zeros(1, 8, 6, 5, dtype=torch.int64)).pooler_output.shape == (1, 16)
    assert torch.equal(bigger.embeddings.positions.cls, model.vimpac.embeddings.positions.cls)
    config = tiny_vimpac.make_config(positions=positions, num_frames=8, image_size=[48, 40])
    by_config, info = VIMPACForPreTraining.from_pretrained(tmp_path, config=config, output_loading_info=True)
    assert not any(info.values())
    for name, table in bigger.embeddings.positions.tables().items():
        assert torch.equal(by_config.vimpac.embeddings.positions.tables()[name], table)
        assert table.requires_grad
    bigger.save_pretrained(tmp_path / "bigger")
    again = VIMPACModel.from_pretrained(tmp_path / "bigger")
    assert torch.equal(again.embeddings.positions(), bigger.embeddings.positions())


def test_interpolation_follows_the_grid_and_not_the_flattened_table() -> None:
    rows, columns = torch.meshgrid(torch.arange(4.0), torch.arange(6.0), indexing="ij")
    table = torch.stack([rows, columns], dim=-1).flatten(0, 1)
    resized = interpolate_table(table, [4, 6], [8, 3]).view(8, 3, 2)
    torch.testing.assert_close(resized[2:6, 1, 0], torch.tensor([0.75, 1.25, 1.75, 2.25]))
    torch.testing.assert_close(resized[0, :, 1], torch.tensor([0.5, 2.5, 4.5]))


# Options


def test_weights_start_as_published() -> None:
    torch.manual_seed(0)
    config = VIMPACConfig(num_hidden_layers=1, hidden_size=256, num_frames=64)
    embeddings = VIMPACModel(config).embeddings
    assert abs(embeddings.codes.weight.std() - 0.02) < 1e-3
    assert abs(embeddings.positions.time.std() - 0.02 / 3**0.5) < 1e-3
    space_time = VIMPACModel(VIMPACConfig(num_hidden_layers=1, positions="space_time", hidden_size=256))
    assert abs(space_time.embeddings.positions.places.std() - 0.02 / 2**0.5) < 1e-3
    pre_norm = VIMPACModel(VIMPACConfig(num_hidden_layers=3, hidden_size=128, pre_norm=True))
    for step in pre_norm.layers[1].steps:
        assert abs(step.output.weight.std() - 0.02 / 9**0.5) < 1e-3
        assert abs(step.qkv.weight.std() - 0.02) < 1e-3
    assert abs(pre_norm.layers[0].mlp.fc2.weight.std() - 0.02 / 9**0.5) < 1e-3
    assert isinstance(pre_norm.embeddings.norm, torch.nn.Identity)
    classifier = VIMPACForVideoClassification(tiny_vimpac.make_config()).classifier
    assert not classifier.weight.any()
    assert not classifier.bias.any()


def test_weight_decay_spares_what_the_official_code_spares() -> None:
    model = pretraining()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = model.parameter_groups(SimpleNamespace(decay_norm_and_bias=False))
    decayed, spared = ({names[id(p)] for p in group["params"]} for group in groups)
    assert spared == {
        name
        for name in names.values()
        if name.endswith("bias") or (name.startswith("vimpac.") and "norm." in name)
    }
    assert {
        "token_head.norm.weight",
        "projection.norms.0.weight",
        "vimpac.embeddings.cls",
        "vimpac.embeddings.codes.weight",
        "vimpac.embeddings.positions.time",
    } <= decayed
    assert groups[1]["weight_decay"] == 0
    (everything,) = model.parameter_groups(SimpleNamespace(decay_norm_and_bias=True))
    assert len(everything["params"]) == len(names)


def test_label_smoothing_is_that_of_torch() -> None:
    torch.manual_seed(0)
    model = VIMPACForVideoClassification(tiny_vimpac.make_config(label_smoothing=0.1)).eval()
    torch.nn.init.normal_(model.classifier.weight)
    labels = torch.tensor([1, 4])
    output = model(tiny_vimpac.codes(2), labels=labels)
    torch.testing.assert_close(output.loss, F.cross_entropy(output.logits, labels, label_smoothing=0.1))


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"layout": "T,X"}, "layout"),
        ({"layout": "T,"}, "layout"),
        ({"layout": "H|H"}, "layout"),
        ({"layout": "T|H|W"}, "attention_size"),
        ({"num_attention_heads": 3, "layout": "T"}, "num_attention_heads"),
        ({"image_size": 30}, "image_size"),
        ({"image_size": [32, 32, 32]}, "image_size"),
        ({"pad_code": 3}, "pad_code"),
        ({"mask_code": 8197}, "mask_code"),
        ({"mask_code": tiny_vimpac.CODES + 1}, "mask_code"),
        ({"token_loss_weight": 0.0, "contrastive_weight": 0.0}, "nothing"),
        ({"positions": "learned"}, "positions"),
    ],
)
def test_refuses_what_cannot_work(settings: dict[str, Any], names: str) -> None:
    with pytest.raises(ConfigurationError, match=names):
        tiny_vimpac.make_config(**settings)


def test_a_checkpoint_of_other_width_is_still_refused(tmp_path: Path) -> None:
    pretraining().save_pretrained(tmp_path)
    config = tiny_vimpac.make_config(hidden_size=8, num_frames=7)
    with pytest.raises(CheckpointError, match="other shapes"):
        VIMPACModel.from_pretrained(tmp_path, config=config)
