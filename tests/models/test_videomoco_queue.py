from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from videossl_hf.errors import InputError
from videossl_hf.models.videomoco.objective_videomoco import (
    KeyQueue,
    attach_gradient,
    contrast,
    draw_shuffle,
    encode_shuffled,
    shuffle_of,
)


def unit(rows: int, dim: int = 6, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def make_queue(size: int, ages: list[int] | None = None) -> KeyQueue:
    queue = KeyQueue(6, size)
    queue.keys.copy_(unit(size, seed=9).T)
    if ages is not None:
        queue.ages.copy_(torch.tensor(ages))
    return queue


@pytest.mark.parametrize("size", [1, 7, 10, 11])
def test_the_queue_is_a_ring_whatever_the_batches(size: int) -> None:
    queue = make_queue(size)
    keys, ages, pointer = [*queue.keys.T.clone()], [0] * size, 0
    for step, count in enumerate([1, 3, size, 4, 7, 2, 0, 5]):
        count = min(count, size)
        new = unit(count, seed=step)
        queue.enqueue(new)
        ages = [age + 1 for age in ages]
        for key in new:
            keys[pointer], ages[pointer] = key, 1
            pointer = (pointer + 1) % size
        assert torch.equal(queue.keys, torch.stack(keys, 1))
        assert queue.ages.tolist() == ages
        assert queue.pointer.tolist() == [pointer]


def test_more_keys_than_places_are_refused_and_change_nothing() -> None:
    queue = make_queue(4)
    before = {name: buffer.clone() for name, buffer in queue.named_buffers()}
    with pytest.raises(InputError, match="a batch of 5 keys, over all processes, does not fit a queue of 4"):
        queue.enqueue(unit(5))
    assert all(torch.equal(before[name], buffer) for name, buffer in queue.named_buffers())


def test_ages_do_not_overflow() -> None:
    queue = make_queue(3, ages=[40_000, 2**31, 5])
    queue.enqueue(unit(1))
    assert queue.ages.tolist() == [1, 2**31 + 1, 6]


@pytest.mark.parametrize("mode", ["logit", "exp"])
@pytest.mark.parametrize("decay", [1.0, 0.9, 0.3])
def test_old_keys_count_less(mode: str, decay: float) -> None:
    queue, queries, keys = make_queue(5, ages=[0, 1, 2, 30, 4]), unit(3, seed=1), unit(3, seed=2)
    found = contrast(queries, keys, queue, 0.2, math.log(decay), mode)
    rows = []
    for query, key in zip(queries, keys, strict=True):
        row = [query @ key / 0.2]
        for column, age in enumerate(queue.ages.tolist()):
            similarity = query @ queue.keys[:, column] / 0.2
            weight = decay**age
            row.append(weight * similarity if mode == "logit" else similarity + math.log(weight))
        rows.append(torch.stack(row))
    logits = torch.stack(rows)
    torch.testing.assert_close(found.logits, logits)
    torch.testing.assert_close(found.loss, -logits.log_softmax(1)[:, 0].mean())


def test_an_old_key_is_forgotten_by_exp_and_made_orthogonal_by_logit() -> None:
    queue, queries = make_queue(2, ages=[1, 10**6]), unit(2, seed=1)
    exp = contrast(queries, queries, queue, 0.1, math.log(0.99), "exp").logits.softmax(1)
    logit = contrast(queries, queries, queue, 0.1, math.log(0.99), "logit").logits
    assert exp[:, 2].max() == 0
    assert logit[:, 2].abs().max() == 0


def test_gradients_are_those_before_the_queue_changed() -> None:
    queue, keys = make_queue(5, ages=[3, 1, 2, 9, 4]), unit(4, seed=2)
    queries = unit(4, seed=1).requires_grad_()
    logits = torch.cat(
        [(queries * keys).sum(1, keepdim=True), queries @ (queue.keys * 0.9**queue.ages).clone()], 1
    )
    (expected,) = torch.autograd.grad(
        2.5 * F.cross_entropy(logits / 0.1, torch.zeros(4, dtype=torch.int64)), queries
    )
    found = contrast(queries, keys, queue, 0.1, math.log(0.9), "logit")
    queue.enqueue(keys)
    (2.5 * found.loss).backward()
    torch.testing.assert_close(queries.grad, expected)


def test_without_gradient_there_is_none() -> None:
    queue, queries = make_queue(5), unit(2).requires_grad_()
    with torch.no_grad():
        assert not contrast(queries, queries, queue, 0.1, 0.0, "logit").loss.requires_grad
    assert not contrast(queries.detach(), queries, queue, 0.1, 0.0, "logit").loss.requires_grad


def test_half_precision_does_not_reach_the_logits() -> None:
    queue, queries, keys = make_queue(64), unit(3, seed=1), unit(3, seed=2)
    expected = contrast(queries, keys, queue, 0.07, 0.0, "logit").logits
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(contrast(queries, keys, queue, 0.07, 0.0, "logit").logits, expected)


def test_accuracy_is_the_rank_of_the_own_key_among_all() -> None:
    queue = KeyQueue(6, 8)
    queue.keys.copy_(F.pad(torch.linspace(0.1, 0.8, 8)[None], (0, 0, 0, 5)))
    queries = F.pad(torch.ones(3, 1), (0, 5))
    keys = F.pad(torch.tensor([[0.9], [0.45], [0.25]]), (0, 5))  # 0, 4 and 6 of the queue are better
    found = contrast(queries, keys, queue, 1.0, 0.0, "logit")
    torch.testing.assert_close(found.accuracy_top1, torch.tensor(1 / 3))
    torch.testing.assert_close(found.accuracy_top5, torch.tensor(2 / 3))


def test_an_attached_gradient_adds_to_what_a_value_has() -> None:
    a, b = torch.tensor(2.0, requires_grad=True), torch.ones(3, requires_grad=True)
    value = attach_gradient(a.square(), b, torch.tensor([1.0, 2.0, 3.0]))
    assert value == 4
    (3 * value).backward()
    assert a.grad == 12
    assert b.grad.tolist() == [3.0, 6.0, 9.0]


@pytest.mark.parametrize("splits", [1, 2, 3, 9])
def test_shuffled_clips_come_back_in_their_order(splits: int) -> None:
    clips, parts = torch.randn(5, 2), []

    def encode(part: Tensor) -> Tensor:
        parts.append(part)
        return 2 * part

    device = torch.device("cpu")
    for shuffle in (
        draw_shuffle(5, device, torch.Generator().manual_seed(3)),
        shuffle_of(torch.tensor([3, 1, 4, 0, 2]), device),
    ):
        parts.clear()
        assert torch.equal(encode_shuffled(encode, clips, shuffle, splits), 2 * clips)
        assert len(parts) == min(splits, 5)
        assert not torch.equal(torch.cat(parts), clips)


@pytest.mark.parametrize("wrong", [[0, 0, 1], [1, 2, 3], [[0, 1]]], ids=str)
def test_what_is_no_permutation_is_refused(wrong: list) -> None:
    with pytest.raises(InputError, match="permutation"):
        shuffle_of(torch.tensor(wrong), torch.device("cpu"))
