from __future__ import annotations

import torch
import torch.nn.functional as F

from videossl_hf.evaluation.clips import PreparedClips
from videossl_hf.evaluation.cost import clip_cost, flop_counter


def test_fused_attention_counts_as_its_matrix_products_do_forward_and_backward():
    query, key, value = (torch.randn(2, 3, 5, 4, requires_grad=True) for _ in range(3))
    with flop_counter() as fused:
        output = F.scaled_dot_product_attention(query, key, value)
    products = 2 * (2 * 3 * 5 * 5 * 4) * 2  # two operations per multiply-add, scores and values
    assert fused.get_total_flops() == products
    with flop_counter() as both:
        F.scaled_dot_product_attention(query, key, value).sum().backward()
    assert both.get_total_flops() > 2 * products
    assert output.shape == query.shape


def test_the_cost_of_a_clip_is_that_of_one_view(tiny, test_clips):
    once, thrice = (
        clip_cost(tiny.model.stica, PreparedClips(tiny.processor, test_clips, views=views))
        for views in ("1x1", "3x1")
    )
    assert once == thrice
    assert once["parameters"] == sum(parameter.numel() for parameter in tiny.model.stica.parameters())
    assert once["gflop_per_clip"] > 0
