from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.tiny_videomoco import clips, make_batch, make_config, make_inputs, make_model
from videossl_hf.errors import InputError
from videossl_hf.models.videomoco.generator_videomoco import drop_frames, lowest_frames
from videossl_hf.models.videomoco.modeling_videomoco import (
    VideoMoCoForPreTraining,
    VideoMoCoForVideoClassification,
)


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


# Dropping frames


def test_a_dropped_frame_holds_its_own_mean_and_others_stay_as_they_are() -> None:
    video, dropped = clips(2), torch.tensor([[0, 5], [2, 7]])
    fake = drop_frames(video, torch.zeros(2, 8), dropped)
    for sample in range(2):
        for frame in range(8):
            expected = video[sample, frame]
            if frame in dropped[sample]:
                expected = expected.mean().expand_as(expected)
                torch.testing.assert_close(fake[sample, frame], expected)
            else:
                assert torch.equal(fake[sample, frame], expected)


def test_scores_receive_the_sum_of_their_frames_gradient_and_clips_none() -> None:
    video, scores = clips(2).requires_grad_(), torch.rand(2, 8, requires_grad=True)
    upstream = clips(2, seed=3)
    drop_frames(video, scores, lowest_frames(scores.detach(), 2)).backward(upstream)
    torch.testing.assert_close(scores.grad, upstream.sum((2, 3, 4)))
    assert video.grad is None


def test_the_lowest_scores_are_dropped() -> None:
    scores = torch.tensor([[0.3, 0.1, 0.4, 0.2], [0.1, 0.2, 0.3, 0.4]])
    assert lowest_frames(scores, 2).tolist() == [[1, 3], [0, 1]]
    output = make_model().eval()(**make_batch())
    kept = torch.ones_like(output.scores, dtype=torch.bool).scatter(1, output.dropped_frames, False)
    for sample in range(4):
        assert output.scores[sample, ~kept[sample]].max() <= output.scores[sample, kept[sample]].min()


def test_random_frames_are_drawn_anew_and_fixed_by_a_generator() -> None:
    model, batch = make_model(dropped_frames="random"), make_batch(32)
    model.queue.keys, model.queue.ages = torch.zeros(8, 64), torch.zeros(64, dtype=torch.int64)

    def drawn(seed: int) -> Tensor:
        return model(**batch, generator=torch.Generator().manual_seed(seed)).dropped_frames

    first = drawn(1)
    assert torch.equal(first, drawn(1))
    assert not torch.equal(first, drawn(2))
    assert all(len(set(row)) == 2 and set(row) <= set(range(8)) for row in first.tolist())
    assert len({tuple(row) for row in first.tolist()}) > 10
    output = model(**batch)
    assert output.scores is None
    assert output.loss_g is None
    assert model.generator is None


@pytest.mark.parametrize("shape", [(2,), (3, 2)])
def test_frames_to_drop_must_fit_the_batch(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="dropped_frames has shape"):
        make_model()(**make_batch(4), dropped_frames=torch.zeros(shape, dtype=torch.int64))


# One backward pass


@pytest.mark.parametrize("contrastive", [True, False])
def test_one_backward_pass_gives_what_two_would(contrastive: bool) -> None:
    model = make_model(generator_contrastive_grad=contrastive).double()
    batch = {name: value.double() for name, value in make_batch().items()}
    plain = copy.deepcopy(model)
    output = model(**batch)
    found = gradients(model, output.loss)

    video, second = batch.values()
    scores = plain.generator(video)
    fake = drop_frames(video, scores, lowest_frames(scores.detach(), 2))
    real_embeds = plain.projection(plain.videomoco.encoder(video)[1])
    fake_embeds = plain.projection(plain.videomoco.encoder(fake)[1])
    keys = plain.key_projection(plain.key_encoder(second)[1])
    queue = plain.queue.keys * 0.99999**plain.queue.ages
    logits = torch.cat([(fake_embeds * keys).sum(1, keepdim=True), fake_embeds @ queue], 1) / 0.07
    loss_d = F.cross_entropy(logits, torch.zeros(4, dtype=torch.int64))
    loss_g = -100 * (fake_embeds - real_embeds).abs().mean()

    def of(loss: Tensor, part: nn.Module) -> dict[str, Tensor]:
        names = [(name, p) for name, p in part.named_parameters() if p.requires_grad]
        values = torch.autograd.grad(loss, [p for _, p in names], retain_graph=True)
        return {name: value for (name, _), value in zip(names, values, strict=True)}

    expected = {f"generator.{name}": value for name, value in of(loss_g, plain.generator).items()}
    if contrastive:
        for name, value in of(loss_d, plain.generator).items():
            expected[f"generator.{name}"] = expected[f"generator.{name}"] + value
    for part in ("videomoco", "projection"):
        expected |= {f"{part}.{name}": value for name, value in of(loss_d, getattr(plain, part)).items()}
    assert found.keys() == expected.keys()
    largest = max(value.abs().max() for value in expected.values())
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=0, atol=float(1e-9 * value.abs().max() + 1e-13 * largest)
        )
    torch.testing.assert_close(output.loss_d, loss_d)
    torch.testing.assert_close(output.loss_g, loss_g)
    torch.testing.assert_close(output.loss, loss_d + loss_g)
    torch.testing.assert_close(output.loss_g, -100 * output.embedding_distance)


def test_all_but_the_loss_is_free_of_the_graph() -> None:
    output = make_model()(**make_batch())
    assert output.loss.requires_grad
    assert not any(value.requires_grad for name, value in output.items() if name != "loss")


def test_gradient_reaches_neither_keys_nor_key_encoder() -> None:
    model = make_model()
    gradients(model, model(**make_batch()).loss)
    keys = [*model.key_encoder.parameters(), *model.key_projection.parameters()]
    assert all(p.grad is None and not p.requires_grad for p in keys)


def test_the_whole_clip_is_seen_before_the_one_with_dropped_frames() -> None:
    model, batch = make_model(), make_inputs("ForPreTraining", 4)
    norm = model.videomoco.encoder.backbone.stem.norm
    other = copy.deepcopy(model)
    model(**batch)
    assert norm.num_batches_tracked == 2
    fake = drop_frames(batch["pixel_values_videos"], torch.zeros(4, 8), batch["dropped_frames"])
    for video in (batch["pixel_values_videos"], fake):
        other.videomoco.encoder(video)
    assert torch.equal(norm.running_mean, other.videomoco.encoder.backbone.stem.norm.running_mean)


def test_automatic_half_precision_keeps_losses_scores_and_queue_in_single() -> None:
    model, batch = make_model(), make_inputs("ForPreTraining", 4)
    expected = copy.deepcopy(model)(**batch)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(**batch)
    output.loss.backward()
    for name in ("loss", "loss_d", "loss_g", "logits", "scores", "query_embeds", "key_embeds"):
        assert output[name].dtype == torch.float32, name
    assert all(buffer.dtype != torch.bfloat16 for buffer in model.buffers())
    assert F.cosine_similarity(output.logits.flatten(), expected.logits.flatten(), 0) > 0.99


# Momentum, queue and stages


def test_the_key_encoder_moves_after_a_step_and_only_then() -> None:
    model = make_model(momentum=0.9)
    pairs = model._parameter_pairs()
    assert len(pairs) == len(list(model.key_encoder.parameters())) + len(
        list(model.key_projection.parameters())
    )
    assert all(torch.equal(query, key) for query, key in pairs)
    with torch.no_grad():
        for query, _ in pairs:
            query.add_(torch.randn_like(query))
    before = [key.clone() for _, key in pairs]
    model(**make_batch())
    assert all(torch.equal(key, old) for (_, key), old in zip(pairs, before, strict=True))
    model.after_optimizer_step(1, 10)
    for (query, key), old in zip(pairs, before, strict=True):
        torch.testing.assert_close(key, 0.9 * old + 0.1 * query)


def test_a_loaded_model_keeps_its_key_encoder_frozen_and_apart(tmp_path: Any) -> None:
    model = make_model()
    with torch.no_grad():
        for parameter in model.key_encoder.parameters():
            parameter.add_(1)
    model.save_pretrained(tmp_path)
    loaded = VideoMoCoForPreTraining.from_pretrained(tmp_path).train()
    assert not any(p.requires_grad for p in loaded.key_encoder.parameters())
    assert all(p.requires_grad for p in loaded.videomoco.parameters())
    assert torch.equal(
        loaded.key_encoder.backbone.stem.norm.weight, model.key_encoder.backbone.stem.norm.weight
    )
    model.videomoco.save_pretrained(tmp_path / "encoder")
    fresh = VideoMoCoForPreTraining.from_pretrained(tmp_path / "encoder")
    for query, key in fresh._parameter_pairs():
        assert torch.equal(query, key)
    for query, key in zip(fresh.videomoco.encoder.buffers(), fresh.key_encoder.buffers(), strict=True):
        assert torch.equal(query, key)


def test_keys_are_enqueued_once_a_forward_pass_in_training_and_never_in_evaluation() -> None:
    model = make_model(queue_size=10)
    for step in range(1, 4):
        keys = model(**make_batch(4, seed=2 * step)).key_embeds
        places = (torch.arange(4) + 4 * (step - 1)) % 10
        assert torch.equal(model.queue.keys[:, places], keys.T)
        assert model.queue.pointer == 4 * step % 10
    assert model.queue.ages.tolist() == [1, 1, 3, 3, 2, 2, 2, 2, 1, 1]
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.eval()(**make_batch())
    assert all(torch.equal(before[name], buffer) for name, buffer in model.named_buffers())


def test_a_batch_larger_than_the_queue_is_refused() -> None:
    with pytest.raises(InputError, match="raise queue_size, or lower the batch size"):
        make_model(queue_size=3)(**make_batch(4))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_accumulated_passes_age_the_queue_once_each_and_add_up(checkpointing: bool) -> None:
    model = make_model(queue_size=8, temporal_decay=0.9)
    other = copy.deepcopy(model)
    if checkpointing:
        model.activation_checkpointing_enable()
    batches = [make_inputs("ForPreTraining", 4) | make_batch(4, seed) for seed in (0, 2, 4)]
    for batch in batches:
        (model(**batch).loss / 3).backward()
    assert model.queue.ages.tolist() == [1, 1, 1, 1, 2, 2, 2, 2]
    assert model.queue.pointer == 4
    summed = {name: torch.zeros_like(p) for name, p in other.named_parameters() if p.requires_grad}
    for batch in batches:
        for name, gradient in gradients(other, other(**batch).loss / 3).items():
            summed[name] += gradient
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, summed[name], rtol=1e-5, atol=1e-7)
    for (name, buffer), expected in zip(model.named_buffers(), other.buffers(), strict=True):
        assert torch.equal(buffer, expected), name


def test_the_first_stage_is_plain_momentum_contrast() -> None:
    model = make_model(adversarial_start_epoch=2)
    plain = make_model(dropped_frames="none")
    plain.load_state_dict(model.state_dict(), strict=False)
    for epoch in (0, 1):
        model.before_epoch(epoch)
        output, expected = model(**make_batch(seed=epoch)), plain(**make_batch(seed=epoch))
        assert torch.equal(output.loss, expected.loss)
        assert torch.equal(output.loss, output.loss_d)
        assert output.scores is None
        assert output.loss_g is None
        assert output.whole_query_embeds is None
    assert not any(name.startswith("generator") for name in gradients(model, output.loss))
    model.before_epoch(2)
    output = model(**make_batch())
    assert output.dropped_frames.shape == (4, 2)
    assert any(name.startswith("generator") for name in gradients(model, output.loss))
    with pytest.raises(InputError, match="whole clips"):
        plain(**make_inputs("ForPreTraining", 4))


def test_a_resumed_run_knows_its_stage(tmp_path: Any) -> None:
    model = make_model(adversarial_start_step=3)
    stages = []
    for step in range(1, 6):
        stages.append(model.adversarial)
        model.after_optimizer_step(step, 10)
        if step == 4:
            model.save_pretrained(tmp_path)
    assert stages == [False, False, False, True, True]
    resumed = VideoMoCoForPreTraining.from_pretrained(tmp_path)
    resumed.before_epoch(0)
    assert resumed.adversarial


def test_adversarial_decay_follows_the_generator_and_starts_anew_with_each_epoch(tmp_path: Any) -> None:
    model = make_model(temporal_decay="adversarial", generator_loss_weight=5.0)
    model.before_epoch(0)
    decay = torch.tensor(1.0)
    for step in range(4):
        batch = make_batch(seed=2 * step)
        queue, ages = model.queue.keys.clone(), model.queue.ages.clone()
        output = model(**batch)
        expected = output.query_embeds @ (queue * decay**ages) / 0.07
        torch.testing.assert_close(output.logits[:, 1:], expected)
        decay = output.loss_g.exp()
        assert 0 < decay < 1
    model.save_pretrained(tmp_path)
    resumed = VideoMoCoForPreTraining.from_pretrained(tmp_path)
    resumed.before_epoch(0)
    torch.testing.assert_close(resumed.previous_loss_g.exp(), decay)
    resumed.before_epoch(1)
    assert resumed.previous_loss_g == 0
    assert resumed.current_epoch == 1


def test_parts_of_the_key_batch_have_statistics_of_their_own() -> None:
    model = make_model(key_batch_splits=2)
    batch, order = make_batch(4), torch.tensor([2, 0, 3, 1])
    other = copy.deepcopy(model)
    found = model(**batch, permutation=order).key_embeds
    second = batch["second_pixel_values_videos"]
    for part in order.chunk(2):
        torch.testing.assert_close(found[part], other.key_projection(other.key_encoder(second[part])[1]))
    assert model.key_encoder.backbone.stem.norm.num_batches_tracked == 2
    drawn = [
        copy.deepcopy(model)(**batch, generator=torch.Generator().manual_seed(seed)).key_embeds
        for seed in range(8)
    ]
    assert len({tuple(keys.flatten().tolist()) for keys in drawn}) > 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"second_pixel_values_videos": None}, "two views"),
        ({"second_pixel_values_videos": clips(3)}, "4 and 3 clips"),
        ({"pixel_values_videos": clips(4)[:, 0]}, "pixel_values_videos has shape"),
        ({"second_pixel_values_videos": clips(4).int()}, "second_pixel_values_videos is torch.int32"),
    ],
    ids=["one view", "batches", "frames", "type"],
)
def test_inputs_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_model()(**make_batch(4) | change)


def test_another_queue_size_is_an_error_that_names_it(tmp_path: Any) -> None:
    make_model(queue_size=12).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"queue\.keys is \(8, 12\), expected \(8, 20\)"):
        VideoMoCoForPreTraining.from_pretrained(tmp_path, queue_size=20)


# Classifier


@pytest.mark.parametrize("frozen", [True, False])
def test_fine_tuning_can_keep_the_running_statistics(frozen: bool) -> None:
    torch.manual_seed(0)
    model = VideoMoCoForVideoClassification(make_config(freeze_norm_stats=frozen)).train()
    norm = model.videomoco.encoder.backbone.stem.norm
    before = norm.running_mean.clone()
    found = gradients(model, model(clips(2), labels=torch.tensor([0, 1])).loss)
    assert model.training
    assert torch.equal(norm.running_mean, before) == frozen
    assert found["videomoco.encoder.backbone.stem.norm.weight"].any(), "affine parameters are trained"
    expected = copy.deepcopy(model).eval()(clips(2)).logits
    assert torch.equal(model(clips(2)).logits, expected) == frozen


def test_a_classifier_begins_small() -> None:
    model = VideoMoCoForVideoClassification(make_config(num_labels=200))
    assert model.classifier.weight.detach().std() == pytest.approx(0.01, rel=0.1)
    assert not model.classifier.bias.any()
