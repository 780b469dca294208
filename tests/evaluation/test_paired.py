from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from videossl_hf.errors import InputError
from videossl_hf.evaluation.paired import compare_pairs, mcnemar_exact


def binomial_p(wins: int, losses: int) -> float:
    """Two-sided, by counting all outcomes of fair coins."""
    from math import comb

    n, k = wins + losses, min(wins, losses)
    return min(1.0, 2 * sum(comb(n, i) for i in range(k + 1)) / 2**n)


@given(wins=st.integers(0, 60), losses=st.integers(0, 60))
def test_the_exact_test_counts_coins(wins, losses):
    assert mcnemar_exact(wins, losses) == pytest.approx(binomial_p(wins, losses), rel=1e-9)


def test_large_counts_do_not_overflow():
    assert mcnemar_exact(30_000, 30_000) == 1
    assert 0 < mcnemar_exact(1050, 950) < 0.05


def test_a_model_that_is_right_where_the_other_is_wrong_is_better():
    first = torch.tensor([100.0] * 30 + [0.0] * 10)
    second = torch.tensor([100.0] * 15 + [0.0] * 20 + [100.0] * 5)
    found = compare_pairs(first, second)
    assert (found.only_first, found.only_second, found.samples) == (15, 5, 40)
    assert found.difference == pytest.approx(25)
    assert found.low < found.difference < found.high
    assert found.p == pytest.approx(binomial_p(15, 5))
    back = compare_pairs(second, first)
    assert (back.difference, back.p) == (-found.difference, found.p)


def test_a_model_does_not_differ_from_itself():
    values = torch.rand(50, generator=torch.Generator().manual_seed(0))
    for own in (values, (values > 0.5).double()):
        found = compare_pairs(own, own)
        assert (found.difference, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_values_that_are_no_hits_are_exchanged_at_random():
    from scipy.stats import permutation_test

    generator = torch.Generator().manual_seed(1)
    first = torch.rand(12, generator=generator, dtype=torch.float64) + 0.15
    second = torch.rand(12, generator=generator, dtype=torch.float64)
    expected = permutation_test(
        (first.numpy(), second.numpy()),
        lambda x, y, axis: (x - y).mean(axis),
        permutation_type="samples",
        n_resamples=2**12,
        vectorized=True,
    ).pvalue
    assert compare_pairs(first, second).p == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("pair", [(torch.ones(3), torch.ones(4)), (torch.ones(0), torch.ones(0))])
def test_models_on_other_clips_are_not_compared(pair):
    with pytest.raises(InputError, match="one value a clip"):
        compare_pairs(*pair)
