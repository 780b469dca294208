from __future__ import annotations

import math

import pytest
import torch

from videossl_hf.data.spectrogram import LogMelSpectrogram, mel_filter_matrix
from videossl_hf.errors import ConfigurationError, InputError


def noise(seconds: float, rate: int = 24000, clips: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return (3000 * torch.randn(clips, int(seconds * rate), generator=generator)).to(torch.int16)


@pytest.mark.parametrize(("seconds", "steps"), [(1, 99), (2, 199), (3, 299), (4, 399)])
def test_default_shapes_are_those_of_the_paper(seconds: int, steps: int) -> None:
    assert LogMelSpectrogram()(noise(seconds)).shape == (1, 257, steps)


def test_38_filters_are_empty_and_hold_the_logarithm_of_epsilon() -> None:
    spectrogram = LogMelSpectrogram()(noise(1))[0]
    empty = (spectrogram == math.log(torch.finfo(torch.float64).eps)).all(dim=1)
    assert int(empty.sum()) == 38
    assert torch.equal(empty, mel_filter_matrix(257, 1024, 24000, 0.0, 12000.0).sum(dim=0) == 0)


def test_values_follow_the_formula_written_as_loops() -> None:
    """One frame, computed sample by sample and filter by filter."""
    transform = LogMelSpectrogram(num_mel_bins=6, window_length=40, hop_length=20, n_fft=64)
    wave = noise(40 / 24000)[0].double()
    emphasised = [wave[0], *(wave[t] - 0.97 * wave[t - 1] for t in range(1, 40))]
    power = []
    for k in range(33):
        real = sum(x * math.cos(2 * math.pi * k * t / 64) for t, x in enumerate(emphasised))
        imaginary = sum(x * math.sin(2 * math.pi * k * t / 64) for t, x in enumerate(emphasised))
        power.append((real**2 + imaginary**2) / 64)
    top = 2595 * math.log10(1 + 12000 / 700)
    edges = [math.floor(65 * 700 * (10 ** (top * i / 7 / 2595) - 1) / 24000) for i in range(8)]
    for band in range(6):
        low, middle, high = edges[band : band + 3]
        energy = sum(power[k] * (k - low) / (middle - low) for k in range(low, middle))
        energy += sum(power[k] * (high - k) / (high - middle) for k in range(middle, high))
        assert transform(wave)[band, 0].item() == pytest.approx(math.log(energy), abs=1e-5)


def test_scale_of_the_waveform_shifts_every_filled_value_by_a_constant() -> None:
    wave = noise(0.5)
    difference = LogMelSpectrogram()(wave) - LogMelSpectrogram(waveform_scale=1 / 32768)(wave)
    filled = mel_filter_matrix(257, 1024, 24000, 0.0, 12000.0).sum(dim=0) > 0
    assert torch.allclose(difference[:, filled], torch.tensor(2 * math.log(32768)), atol=1e-4)


def test_settings_of_the_small_recipe_give_100_steps_of_two_seconds() -> None:
    transform = LogMelSpectrogram(
        16000, 40, window_length=400, hop_length=320, n_fft=512, f_min=60, f_max=8000, preemphasis=0.0,
        window="hann", waveform_scale=1 / 32768, log_offset=1e-5,
    )  # fmt: skip
    silence = transform(torch.zeros(32000, dtype=torch.int16))
    assert silence.shape == (40, 100)
    assert torch.allclose(silence, torch.tensor(math.log(1e-5)))


def test_batches_and_integer_types_do_not_change_the_values() -> None:
    waves = noise(0.3, clips=3)
    together = LogMelSpectrogram()(waves)
    assert together.dtype == torch.float32
    for wave, row in zip(waves, together, strict=True):
        assert torch.equal(LogMelSpectrogram()(wave.float()), row)


def test_a_waveform_shorter_than_one_window_gives_one_step() -> None:
    transform = LogMelSpectrogram()
    assert transform(noise(0.001)).shape == (1, 257, 1)
    assert transform.num_steps(24) == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"window_length": 2048},
        {"f_max": 12001.0},
        {"f_min": 500.0, "f_max": 400.0},
        {"window": "kaiser"},
        {"log_offset": -1.0},
        {"hop_length": 0},
    ],
)
def test_contradicting_settings_are_refused(settings: dict) -> None:
    with pytest.raises(ConfigurationError):
        LogMelSpectrogram(**settings)


def test_an_empty_waveform_is_refused() -> None:
    with pytest.raises(InputError, match="at least one sample"):
        LogMelSpectrogram()(torch.zeros(2, 0))
