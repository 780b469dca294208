from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from distributed import run_processes
from videossl_hf.nn.contrastive import gather_keys, info_nce, symmetric_info_nce
from videossl_hf.nn.distributed import all_reduce_sum, gather


def _unit(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(
        torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1
    )


def test_info_nce_is_the_cross_entropy_of_the_formula() -> None:
    queries, keys = _unit(4, 8), _unit(6, 8, seed=1)
    terms = info_nce(queries, keys, 0.2, first_positive=1)
    scores = queries @ keys.T / 0.2
    expected = torch.stack([scores[row].logsumexp(0) - scores[row, row + 1] for row in range(4)]).mean()
    torch.testing.assert_close(terms.loss, expected)
    share = sum(int(scores[row].argmax()) == row + 1 for row in range(4)) / 4
    assert terms.accuracy == share


def test_many_pairs_at_once_equal_each_alone() -> None:
    queries, keys = _unit(3, 4, 8), _unit(3, 4, 8, seed=1)
    together = info_nce(queries, keys, 0.1)
    alone = [info_nce(query, key, 0.1) for query, key in zip(queries, keys, strict=True)]
    torch.testing.assert_close(together.loss, torch.stack([terms.loss for terms in alone]))


def test_symmetric_loss_sends_gradients_to_queries_only() -> None:
    first, second = _unit(4, 8).requires_grad_(), _unit(4, 8, seed=1).requires_grad_()
    symmetric_info_nce(first, second, 0.1).loss.backward()
    expected = first.detach().requires_grad_()
    (0.5 * info_nce(expected, second.detach(), 0.1).loss).backward()
    torch.testing.assert_close(first.grad, expected.grad)


def test_loss_does_not_lose_precision_under_autocast() -> None:
    queries, keys = _unit(4, 8).float(), _unit(4, 8, seed=1).float()
    with torch.autocast("cpu", torch.bfloat16):
        half = info_nce(queries, keys, 0.07).loss
    torch.testing.assert_close(half, info_nce(queries, keys, 0.07).loss)


def _collectives_of_rank(rank: int) -> dict[str, Tensor]:
    """Runs in a process of its own."""
    x = (torch.arange(6.0).view(2, 3) + 10 * rank).requires_grad_()
    weight = torch.arange(1.0, 13.0).view(2, 2, 3) * (rank + 1)
    gathered = gather(x, with_gradient=True)
    (gathered * weight).sum().backward()
    total = x.detach().clone().requires_grad_()
    (all_reduce_sum(total) * (rank + 1)).sum().backward()
    return {
        "gathered": gathered.detach(),
        "gradient": x.grad,
        "sum_gradient": total.grad,
        "keys": gather_keys(x),
        "detached": torch.tensor(gather(x).requires_grad),
    }


def test_collectives_across_processes_carry_values_and_gradients() -> None:
    ranks = run_processes(_collectives_of_rank, 2)
    x = torch.stack([torch.arange(6.0).view(2, 3) + 10 * rank for rank in range(2)])
    weights = torch.arange(1.0, 13.0).view(2, 2, 3) * 3
    for rank, found in enumerate(ranks):
        torch.testing.assert_close(found["gathered"], x)
        torch.testing.assert_close(found["gradient"], weights[rank])
        torch.testing.assert_close(found["sum_gradient"], torch.full((2, 3), 3.0))
        torch.testing.assert_close(found["keys"], x.flatten(0, 1))
        assert not found["detached"]


def test_one_process_gathers_itself() -> None:
    x = _unit(2, 3).requires_grad_()
    assert gather(x, with_gradient=True).requires_grad
    assert torch.equal(gather_keys(x), x)
    assert not gather_keys(x).requires_grad
