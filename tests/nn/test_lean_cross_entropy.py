"""The cross-entropy that keeps the scores alone equals torch's, in values and gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from videossl_hf.nn import lean_cross_entropy
from videossl_hf.nn.lean_cross_entropy import summed_cross_entropy


def make(dtype: torch.dtype, rows: int = 7, classes: int = 11) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    scores = (torch.randn(rows, classes, generator=generator, dtype=torch.float64) * 4).to(dtype)
    labels = torch.randint(classes, (rows,), generator=generator)
    labels[::3] = -100
    return scores.requires_grad_(), labels


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("rows", [0, 1, 7])
def test_it_is_torchs(dtype: torch.dtype, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lean_cross_entropy, "_PART", 25)  # two rows at a time
    found, wanted = [], []
    for results, lean in ((found, True), (wanted, False)):
        scores, labels = make(dtype, rows)
        wide = scores.to(torch.promote_types(dtype, torch.float32))
        loss = (
            summed_cross_entropy(scores, labels, -100)
            if lean
            else F.cross_entropy(wide, labels, ignore_index=-100, reduction="sum")
        )
        (0.3 * loss).backward()
        results += [loss.detach(), scores.grad]
    torch.testing.assert_close(found, wanted)


def test_gradients_are_those_of_finite_differences() -> None:
    scores, labels = make(torch.float64)
    assert torch.autograd.gradcheck(lambda x: summed_cross_entropy(x, labels, -100), (scores,))


def test_extreme_scores_stay_finite() -> None:
    scores = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    loss = summed_cross_entropy(scores, torch.tensor([1]), -100)
    loss.backward()
    assert loss == 2e4
    assert scores.grad.tolist() == [[1.0, -1.0, 0.0]]


def test_it_keeps_nothing_of_the_size_of_the_scores_but_them() -> None:
    scores, labels = make(torch.bfloat16, 30, 100)
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = summed_cross_entropy(scores, labels, -100)
    loss.backward()
    assert sum(sizes.values()) < scores.untyped_storage().nbytes() + 30 * 16
