"""What the video tower sees: kept patches, positions, shorter, longer and other clips."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.tiny_tvts import FRAMES, clips, make_config, make_v2_config
from videossl_hf.errors import InputError
from videossl_hf.models.tvts.encoder_tvts import draw_kept
from videossl_hf.models.tvts.modeling_tvts import TVTSForPreTraining, TVTSVideoModel
from videossl_hf.nn.drop_path import DropPath, drop_path_rates
from videossl_hf.nn.tubelet_embedding import TubeletEmbedding

CPU = torch.device("cpu")


def perturbed(config: Any) -> TVTSVideoModel:
    torch.manual_seed(1)
    model = TVTSVideoModel(config).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture(scope="module")
def model() -> TVTSVideoModel:
    return perturbed(make_config())


def test_patches_are_those_of_a_convolution() -> None:
    embedding = TubeletEmbedding(3, 10, tubelet_size=2, patch_size=8)
    video = torch.randn(2, 4, 3, 16, 24)
    expected = torch.nn.functional.conv3d(
        video.transpose(1, 2), embedding.weight, embedding.bias, stride=(2, 8, 8)
    )
    everything = embedding(video)
    torch.testing.assert_close(everything, expected.flatten(3).permute(0, 2, 3, 1), rtol=1e-4, atol=1e-5)
    kept = torch.tensor([[[4, 0], [1, 5]], [[3, 3], [2, 0]]])
    chosen = everything.gather(2, kept[..., None].expand(-1, -1, -1, 10))
    torch.testing.assert_close(embedding(video, kept), chosen, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_kept_patches_come_in_the_order_of_their_list_with_the_class_token_first(
    model: TVTSVideoModel,
) -> None:
    video, kept = clips(2), torch.rand(2, 4, 16).argsort(-1)[..., :5]
    order = torch.tensor([3, 0, 4, 1, 2])
    one = model(video, keep_indices=kept).last_hidden_state
    other = model(video, keep_indices=kept[..., order]).last_hidden_state
    assert one.shape == (2, 1 + 4 * 5, 24)
    torch.testing.assert_close(other[:, 0], one[:, 0], rtol=1e-4, atol=1e-5)
    expected = one[:, 1:].unflatten(1, (4, 5))[:, :, order]
    torch.testing.assert_close(other[:, 1:].unflatten(1, (4, 5)), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_keeping_all_patches_in_any_order_changes_no_clip_feature(model: TVTSVideoModel) -> None:
    permuted = torch.rand(2, 4, 16).argsort(-1)
    expected = model(clips(2)).pooler_output
    torch.testing.assert_close(
        model(clips(2), keep_indices=permuted).pooler_output, expected, rtol=1e-4, atol=1e-5
    )


@torch.no_grad()
def test_dropped_patches_have_no_say(model: TVTSVideoModel) -> None:
    video, kept = clips(1), torch.zeros(1, 4, 1, dtype=torch.int64)
    other = video.clone()
    other[..., 8:] += 1.0
    one, two = (model(x, keep_indices=kept).last_hidden_state for x in (video, other))
    assert torch.equal(one, two)
    assert not torch.allclose(model(video).pooler_output, model(other).pooler_output)


@torch.no_grad()
def test_a_shorter_clip_takes_the_first_rows_of_the_temporal_table(model: TVTSVideoModel) -> None:
    before = model(clips(1)[:, :4]).pooler_output
    changed = perturbed(make_config())
    changed.video_model.embeddings.temporal_positions[:, 2:].normal_()
    assert torch.equal(changed(clips(1)[:, :4]).pooler_output, before)
    changed.video_model.embeddings.temporal_positions[:, 1].normal_()
    assert not torch.allclose(changed(clips(1)[:, :4]).pooler_output, before)


@torch.no_grad()
def test_other_sizes_and_longer_clips_are_refused_unless_tables_may_be_stretched(
    model: TVTSVideoModel,
) -> None:
    larger, longer = torch.randn(1, FRAMES, 3, 48, 40), torch.cat([clips(1), clips(1)], dim=1)
    with pytest.raises(InputError, match="interpolate_positions"):
        model(larger)
    with pytest.raises(InputError, match="16 frames"):
        model(longer)
    stretching = TVTSVideoModel(make_config(interpolate_positions=True)).eval()
    stretching.load_state_dict(model.state_dict())
    assert torch.equal(stretching(clips(1)).pooler_output, model(clips(1)).pooler_output)
    assert stretching(larger).last_hidden_state.shape[1] == 1 + 4 * 6 * 5
    assert stretching(longer).last_hidden_state.shape[1] == 1 + 8 * 16


@pytest.mark.parametrize(
    ("video", "kept", "says"),
    [
        (torch.zeros(1, 8, 32, 32), None, "shape"),
        (torch.zeros(1, 8, 4, 32, 32), None, "shape"),
        (torch.zeros(1, 8, 3, 32, 32, dtype=torch.uint8), None, "uint8"),
        (torch.zeros(1, 7, 3, 32, 32), None, "multiple"),
        (torch.zeros(1, 8, 3, 32, 32), torch.zeros(1, 3, 2, dtype=torch.int64), "kept"),
        (torch.zeros(1, 8, 3, 32, 32), torch.zeros(2, 4, 2, dtype=torch.int64), "kept"),
        (torch.zeros(1, 8, 3, 32, 32), torch.zeros(1, 4, 0, dtype=torch.int64), "kept"),
    ],
)
def test_says_what_is_wrong_with_an_input(
    model: TVTSVideoModel, video: torch.Tensor, kept: torch.Tensor | None, says: str
) -> None:
    with pytest.raises(InputError, match=says):
        model(video, keep_indices=kept)


@settings(max_examples=30)
@given(
    ratio=st.floats(0, 0.93),
    kind=st.sampled_from(["random", "tube"]),
    tubelets=st.integers(1, 5),
    seed=st.integers(0, 2**40),
)
def test_a_mask_keeps_different_places_and_is_a_function_of_its_generator(
    ratio: float, kind: str, tubelets: int, seed: int
) -> None:
    config = make_config(mask_ratio=ratio, mask_type=kind)
    first, again = (
        draw_kept(config, 3, tubelets, 16, torch.Generator().manual_seed(seed), CPU) for _ in range(2)
    )
    assert torch.equal(first, again)
    assert first.shape == (3, tubelets, int(16 * (1 - ratio)))
    assert ((first >= 0) & (first < 16)).all()
    assert all(len(set(row.tolist())) == len(row) for row in first.flatten(0, 1))
    if kind == "tube":
        assert torch.equal(first, first[:, :1].expand_as(first))


def test_tubelets_have_masks_of_their_own_unless_they_are_tubes() -> None:
    generator = torch.Generator().manual_seed(0)
    kept = draw_kept(make_config(), 2, 8, 196, generator, CPU)
    assert kept.shape[-1] == 49
    assert len({tuple(row) for row in kept.flatten(0, 1).tolist()}) == 16


@torch.no_grad()
def test_divided_attention_sees_no_other_frame_once_its_temporal_part_is_silent() -> None:
    """As it is initialised, except for the class token, which belongs to every frame."""
    layer = TVTSVideoModel(make_v2_config()).eval().video_model.layers[0]
    tokens = torch.randn(1, 1 + 4 * 6, 24)
    other = tokens.clone()
    other[:, 1 + 6 :].normal_()  # all frames but the first
    one, two = layer(tokens, 4), layer(other, 4)
    assert torch.equal(one[:, 1:7], two[:, 1:7])
    layer.temporal_attention.qkv.weight.normal_()
    layer.temporal_attention.proj.weight.normal_()  # with equal rows it would shift all channels alike
    assert not torch.allclose(layer(tokens, 4)[:, 1:7], layer(other, 4)[:, 1:7])


def test_divided_attention_takes_one_list_for_all_frames() -> None:
    model = TVTSVideoModel(make_v2_config()).eval()
    kept = torch.tensor([[3, 1, 7], [0, 2, 15]])
    with torch.no_grad():
        one = model(clips(2), keep_indices=kept).last_hidden_state
        two = model(clips(2), keep_indices=kept[:, None].expand(-1, 8, -1)).last_hidden_state
    assert one.shape == (2, 1 + 8 * 3, 16)
    assert torch.equal(one, two)


@torch.no_grad()
def test_a_tower_can_normalise_its_class_token_alone() -> None:
    model = perturbed(make_v2_config())
    other = TVTSVideoModel(make_v2_config(normalize_patch_tokens=False)).eval()
    other.load_state_dict(model.state_dict())
    one, two = model(clips(1)), other(clips(1))
    torch.testing.assert_close(one.pooler_output, two.pooler_output)
    assert not torch.allclose(one.last_hidden_state[:, 1:], two.last_hidden_state[:, 1:])


def test_norms_have_the_published_epsilons() -> None:
    for config, epsilon in ((make_config(), 1e-6), (make_v2_config(), 1e-5)):
        norms = [m for m in TVTSVideoModel(config).modules() if isinstance(m, torch.nn.LayerNorm)]
        assert norms
        assert {norm.eps for norm in norms} == {epsilon}


def test_drop_path_leaves_out_whole_samples_in_training_alone() -> None:
    assert drop_path_rates(0.2, 3) == [0.0, 0.1, 0.2]
    assert drop_path_rates(0.2, 1) == [0.0]
    layer = DropPath(0.5)
    branch = torch.ones(200, 3)
    torch.manual_seed(0)
    kept = layer(branch)
    assert set(kept.unique().tolist()) == {0.0, 2.0}
    assert (kept == kept[:, :1]).all()
    assert 60 < (kept[:, 0] > 0).sum() < 140
    assert torch.equal(layer.eval()(branch), branch)
    rates = [
        layer.drop_path.rate for layer in TVTSVideoModel(make_config(drop_path_rate=0.1)).video_model.layers
    ]
    assert rates == [0.0, 0.1]


def test_towers_start_as_published() -> None:
    divided = TVTSVideoModel(make_v2_config()).video_model
    attention = divided.layers[0].temporal_attention
    assert not attention.qkv.weight.any()
    assert (attention.proj.weight == 1).all()
    assert not attention.qkv.bias.any()
    assert not attention.proj.bias.any()
    joint = TVTSVideoModel(make_config()).video_model
    assert not joint.embeddings.temporal_positions.any()
    assert 0.01 < joint.layers[0].attention.qkv.weight.std() < 0.03
    assert joint.layers[0].attention.qkv.weight.abs().max() < 0.1
    assert not joint.layers[0].attention.qkv.bias.any()


def test_heads_start_as_torch_starts_them() -> None:
    torch.manual_seed(0)
    model = TVTSForPreTraining(make_config())
    for layer in (model.tvts.text_projection.linear, model.sorting_head.layers[0].mlp.fc1):
        bound = layer.in_features**-0.5
        assert 0.8 * bound < layer.weight.abs().max() <= bound
        assert 0 < layer.bias.abs().max() <= bound
    assert not model.sorting_head.type_embeddings.any()
