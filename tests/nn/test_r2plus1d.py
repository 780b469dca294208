from __future__ import annotations

import pytest
import torch
from torch import nn

from videossl_hf.nn.batch_norm import BatchNorm3d
from videossl_hf.nn.norm_relu_convolution import convolve
from videossl_hf.nn.r2plus1d import Conv2Plus1d, R2Plus1dStem, VideoResNet, VideoResNetBlock, factorized_width


@pytest.mark.parametrize(
    ("channels", "mid"),
    [((64, 64), 144), ((64, 128), 230), ((128, 256), 460), ((256, 512), 921), ((512, 512), 1152)],
)
def test_mid_widths_are_the_published_ones(channels: tuple[int, int], mid: int) -> None:
    assert factorized_width(*channels) == mid


@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (2, 1)])
@pytest.mark.parametrize("kernel", [3, 7])
def test_folded_convolutions_equal_the_three_dimensional_ones(strides: tuple[int, int], kernel: int) -> None:
    layer = Conv2Plus1d(
        4, 6, 5, space_kernel=kernel, space_stride=strides[0], time_stride=strides[1]
    ).double()
    x = torch.randn(2, 4, 5, 9, 8, dtype=torch.float64, requires_grad=True)
    plain = layer.temporal(torch.relu(layer.norm(layer.spatial(x))))
    expected = torch.autograd.grad(plain.square().sum(), [x, layer.spatial.weight, layer.temporal.weight])
    folded = layer(x)
    torch.testing.assert_close(folded, plain)
    found = torch.autograd.grad(folded.square().sum(), [x, layer.spatial.weight, layer.temporal.weight])
    torch.testing.assert_close(found, expected)


def test_every_stage_after_the_first_halves_all_axes_rounded_up() -> None:
    network = VideoResNet(R2Plus1dStem(3, 4, 3), [4, 6, 8, 10], [1, 2, 1, 1]).eval()
    assert network(torch.randn(1, 3, 30, 56, 56)).shape == (1, 10, 4, 4, 4)
    assert network(torch.randn(1, 3, 1, 32, 32)).shape == (1, 10, 1, 2, 2)


def test_stages_can_be_made_of_other_convolutions() -> None:
    class Cube(nn.Conv3d):
        def forward(self, x: torch.Tensor, norm: BatchNorm3d | None = None) -> torch.Tensor:
            return convolve(x, self.weight, self.stride, self.padding, norm)

    def cube(in_channels: int, out_channels: int, mid: int, stride: int, synchronized: bool) -> nn.Module:
        return Cube(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)

    network = VideoResNet(R2Plus1dStem(3, 4, 3), [4, 6], [1, 1], cube)
    assert isinstance(network.stages[1][0], VideoResNetBlock)
    assert network(torch.randn(1, 3, 4, 16, 16)).shape == (1, 6, 2, 4, 4)
