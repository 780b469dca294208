from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.stica_batches import tiny_batch, tiny_clips, tiny_config, tiny_sound
from videossl_hf.errors import ConfigurationError, InputError
from videossl_hf.models.stica.modeling_stica import STiCAForPreTraining
from videossl_hf.models.stica.objective_stica import (
    PARTS,
    FeatureCrops,
    bits_needed,
    crop_comparisons,
    draw_crops,
    groups_of_view,
)
from videossl_hf.nn.feature_crop import counter_bits


def make_model(**overrides: Any) -> STiCAForPreTraining:
    torch.manual_seed(0)
    return STiCAForPreTraining(tiny_config(**overrides)).train()


def boxes(size: tuple[int, int, int] = (2, 2, 2), **overrides: Any) -> FeatureCrops:
    config = tiny_config(**overrides)
    return draw_crops(config, size, counter_bits(0, torch.tensor(0), bits_needed(config)))


def test_published_crops_need_13_head_evaluations_and_give_12_terms() -> None:
    comparisons = crop_comparisons(tiny_config())
    groups = [groups_of_view(comparisons, view) for view in (0, 1)]
    assert [len(own) for own in groups] == [5, 8]
    assert sum(entry.weight for entry in comparisons) == 12
    assert all(own[-1][1] == "full" for own in groups)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({}, {"space_large": 1, "space_small": 8, "time_large": 1, "time_small": 2}),
        ({"symmetric_crops": True}, {"space_large": 2, "space_small": 16, "time_large": 2, "time_small": 4}),
        ({"space_large_crops": 1}, {"space_small": 4, "time_large": 1, "time_small": 2}),
        ({"time_large_crops": 0}, {"space_large": 1, "space_small": 8}),
        ({"crop_space": "input"}, {"space_large": 1, "space_small": 8, "time_large": 1, "time_small": 2}),
        ({"space_large_crops": 0, "time_large_crops": 0}, {}),
        ({"objective": "gdt"}, {}),
    ],
)
def test_counts_of_comparisons_follow_the_configuration(overrides: dict, expected: dict[str, int]) -> None:
    counts: dict[str, float] = {}
    for entry in crop_comparisons(tiny_config(**overrides)):
        counts[entry.part] = counts.get(entry.part, 0) + entry.weight
    assert counts == expected


def test_small_crops_of_the_second_view_are_queries_and_large_ones_of_the_first_keys() -> None:
    small = [entry for entry in crop_comparisons(tiny_config()) if entry.part.endswith("small")]
    assert {entry.query[0] for entry in small} == {1}
    assert {(entry.key[0], entry.key[1]) for entry in small} == {(0, "space_large"), (0, "time_large")}


def test_loss_is_the_weighted_mean_of_its_parts() -> None:
    output = make_model(alpha=0.3)(**tiny_batch())
    sums = sum(output[f"loss_{part}"] * count for part, count in zip(PARTS, (1, 8, 1, 2), strict=True))
    torch.testing.assert_close(output.loss_crops, sums / 12)
    torch.testing.assert_close(output.loss, 0.7 * output.loss_crops + 0.3 * output.loss_cross_modal)


def test_crops_are_those_of_cropping_and_pooling_the_map_one_by_one() -> None:
    model = make_model().double().eval()
    views = [tiny_clips(3, seed, frames=32, size=112).double() for seed in (0, 1)]
    crops = [boxes((4, 7, 7)), boxes((4, 7, 7))]
    output = model(*views, tiny_sound(3).double(), crops=crops)
    encoder = model.stica.video_model
    maps = [encoder.feature_map(view) for view in views]

    def embed(view: int, kind: str, index: int) -> Tensor:
        crop = maps[view]
        box = getattr(crops[view], kind)[index].tolist()
        crop = (
            crop[..., box[0] : box[1], box[2] : box[3]]
            if kind.startswith("space")
            else crop[:, :, box[0] : box[1]]
        )
        tokens = F.adaptive_avg_pool3d(crop, (4, 1, 1)).flatten(2).transpose(1, 2)
        return model.video_projection(encoder.pooling.attend(tokens)[None])[0]

    def directed(query: Tensor, key: Tensor) -> Tensor:
        return F.cross_entropy(query @ key.T / 0.5, torch.arange(len(query)))

    terms = []
    for axis, small in (("space", 4), ("time", 1)):
        first, second = embed(1, f"{axis}_large", 1), embed(0, f"{axis}_large", 1)
        terms.append(0.5 * (directed(first, second) + directed(second, first)))
        for large in range(2):
            for index in range(small):
                terms.append(directed(embed(1, f"{axis}_small", index), embed(0, f"{axis}_large", large)))
    torch.testing.assert_close(output.loss_crops, torch.stack(terms).mean())


def test_crops_are_redrawn_every_training_step_and_reproduced_from_the_saved_step() -> None:
    model, batch = make_model(), tiny_batch()
    losses = []
    state = {key: value.clone() for key, value in model.state_dict().items()}
    for _ in range(3):
        model.load_state_dict(state | {"crop_step": model.crop_step})
        losses.append(model(**batch, generator=None).loss_crops)
    assert model.crop_step == 3
    assert len({float(loss.detach()) for loss in losses}) > 1
    model.load_state_dict(state | {"crop_step": torch.tensor(1)})
    assert torch.equal(model(**batch).loss_crops, losses[1])


def test_evaluation_and_explicit_crops_do_not_count_as_steps() -> None:
    model, batch = make_model(), tiny_batch()
    model(**batch, crops=[boxes(), boxes()])
    model.eval()(**batch)
    assert model.crop_step == 0


def test_a_generator_fixes_the_crops() -> None:
    model, batch = make_model().eval(), tiny_batch()
    losses = [model(**batch, generator=torch.Generator().manual_seed(seed)).loss_crops for seed in (0, 0, 1)]
    assert torch.equal(losses[0], losses[1])
    assert not torch.equal(losses[0], losses[2])


@pytest.mark.parametrize("size", [(4, 7, 7), (8, 8, 6), (1, 1, 1), (15, 4, 4)])
@pytest.mark.parametrize("legacy", [True, False])
def test_drawn_crops_lie_within_the_map(size: tuple[int, int, int], legacy: bool) -> None:
    config = tiny_config(legacy_crop_range=legacy)
    for step in range(20):
        crops = draw_crops(config, size, counter_bits(3, torch.tensor(step), bits_needed(config)))
        for part, edges in zip(PARTS, crops, strict=True):
            lengths = size[1:] if part.startswith("space") else size[:1]
            for axis, length in enumerate(lengths):
                start, end = edges[:, 2 * axis], edges[:, 2 * axis + 1]
                assert (start >= 0).all()
                assert (end <= length).all()
                assert (end > start).all()


def test_legacy_range_never_moves_the_large_crops_of_a_published_map() -> None:
    config = tiny_config(legacy_crop_range=True)
    for step in range(20):
        crops = draw_crops(config, (4, 7, 7), counter_bits(3, torch.tensor(step), bits_needed(config)))
        assert crops.space_large.tolist() == [[0, 6, 0, 6]] * 2
        assert crops.time_large.tolist() == [[0, 3]] * 2
        assert (crops.space_small[:, [1, 3]] < 7).all()


@pytest.mark.parametrize(
    "overrides",
    [
        {"alpha": 1.0},
        {"space_small_crops": 0, "space_large_crops": 1, "time_small_crops": 0, "time_large_crops": 0},
        {"space_small_crops": 0, "time_small_crops": 0, "time_large_crops": 0},
        {"symmetric_crops": True},
        {"concat_views": True},
        {"pooling_layers": 0},
        {"pooling_position": True, "pooling_full_qkv": True, "pooling_dropout": 0.1},
        {"pooling_tokens": 5},
        {"projection_hidden": None},
        {"projection_normalize": False},
        {"audio_depths": [2, 1, 1, 1]},
    ],
    ids=str,
)
def test_every_variant_trains_all_its_parameters(overrides: dict[str, Any]) -> None:
    model = make_model(**overrides)
    output = model(**tiny_batch())
    output.loss.backward()
    assert output.loss.isfinite()
    assert all(
        parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters()
    )


def test_alpha_one_is_the_cross_modal_loss() -> None:
    output = make_model(alpha=1.0)(**tiny_batch())
    torch.testing.assert_close(output.loss, output.loss_cross_modal)
    assert output.loss_crops.isfinite()


def test_without_crops_their_loss_is_left_out() -> None:
    output = make_model(space_large_crops=0, time_large_crops=0)(**tiny_batch())
    assert output.loss_crops is None
    assert output.accuracy_crops is None
    torch.testing.assert_close(output.loss, 0.5 * output.loss_cross_modal)


def test_batch_one_with_one_time_step_trains() -> None:
    model = make_model()
    clips = tiny_clips(1, frames=1, size=32)
    output = model(clips, clips, tiny_sound(1))
    output.loss.backward()
    assert output.loss == 0
    assert all(value.isfinite().all() for value in model.state_dict().values())


def test_joined_views_give_the_same_loss_in_evaluation() -> None:
    separate, joined = make_model().eval(), make_model(concat_views=True).eval()
    batch = tiny_batch()
    torch.testing.assert_close(separate(**batch).loss, joined(**batch).loss)


def test_gdt_compares_one_view_with_its_sound() -> None:
    model = make_model(objective="gdt")
    clips, sound = tiny_clips(4), tiny_sound(4)
    output = model(clips, input_features=sound)
    video, audio = output.video_embeds[0], output.audio_embeds[0]
    labels = torch.arange(4)
    expected = 0.5 * (
        F.cross_entropy(video @ audio.T / 0.07, labels) + F.cross_entropy(audio @ video.T / 0.07, labels)
    )
    torch.testing.assert_close(output.loss, expected)
    assert model.config.pooling_layers == 0


def test_input_crops_are_queries_against_both_views() -> None:
    model = make_model(crop_space="input", space_small_crops=3)
    small = torch.stack([tiny_clips(4, seed, size=32) for seed in (5, 6, 7)], dim=1)
    output = model(**tiny_batch(), small_pixel_values_videos=small)
    output.loss.backward()
    assert output.loss_space_small.isfinite()
    with pytest.raises(InputError, match="small_pixel_values_videos"):
        model(**tiny_batch())


def test_without_sound_only_crops_are_compared() -> None:
    model = make_model(use_audio=False, alpha=0.0)
    batch = tiny_batch()
    del batch["input_features"]
    output = model(**batch)
    assert output.loss_cross_modal is None
    torch.testing.assert_close(output.loss, output.loss_crops)
    with pytest.raises(ConfigurationError, match="use_audio"):
        make_model(use_audio=False)


def test_embeddings_are_those_that_the_loss_compares() -> None:
    model, batch = make_model().eval(), tiny_batch()
    output = model(**batch)
    clips, sound = batch["pixel_values_videos"], batch["input_features"]
    torch.testing.assert_close(model.get_video_embeddings(clips), output.video_embeds[0])
    torch.testing.assert_close(model.get_audio_embeddings(sound), output.audio_embeds[0])
    torch.testing.assert_close(output.audio_embeds.norm(dim=-1), torch.ones(2, 4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"second_pixel_values_videos": None}, "second_pixel_values_videos"),
        ({"second_pixel_values_videos": tiny_clips(3)}, "differ in shape"),
        ({"input_features": None}, "input_features"),
        ({"input_features": torch.randn(4, 40, 50)}, r"\(batch, 1, mel, time\)"),
        ({"pixel_values_videos": torch.randn(4, 16, 2, 48, 48)}, "3, height"),
    ],
    ids=["no second view", "views differ", "no sound", "sound without channel", "two channels"],
)
def test_inputs_that_do_not_fit_are_refused_with_what_to_do(change: dict[str, Any], message: str) -> None:
    batch = tiny_batch() | change
    if batch["pixel_values_videos"].shape[2] == 2:
        batch["second_pixel_values_videos"] = batch["pixel_values_videos"]
    with pytest.raises(InputError, match=message):
        make_model()(**batch)


def test_bfloat16_autocast_trains_to_nearly_the_same_loss() -> None:
    batch = tiny_batch(8)
    exact = make_model()(**batch).loss
    model = make_model()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(**batch).loss
    loss.backward()
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, exact, rtol=0.03, atol=0)
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
