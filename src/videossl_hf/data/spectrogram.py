"""Log-mel filter banks of a waveform, computed with plain torch operations.

The recipe is that of python_speech_features 0.6 (`logfbank`), which STiCA and GDT use: pre-emphasis, frames
without a window function, power spectrum divided by the FFT length, triangular HTK-mel filters whose edges
are rounded down to FFT bins, natural logarithm with exact zeros replaced by the float64 machine epsilon.
Everything runs in float64, vectorised over clips and frames; the filter matrix is built once per setting.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch

from ..errors import ConfigurationError, InputError

__all__ = ["LogMelSpectrogram", "mel_filter_matrix"]

_EPSILON = torch.finfo(torch.float64).eps


@lru_cache(maxsize=16)
def mel_filter_matrix(
    num_mel_bins: int, n_fft: int, sample_rate: int, f_min: float, f_max: float
) -> torch.Tensor:
    """Triangular HTK-mel filters with edges rounded down to FFT bins.

    Neighbouring edges that fall on the same bin leave a filter empty (38 of 257 at 24 kHz and 1,024 points).

    Returns:
        (n_fft // 2 + 1, num_mel_bins) float64 on the CPU, cached and shared: do not write to it.
    """
    # numpy throughout: an edge one unit in the last place lower would be rounded down to another bin.
    low, high = 2595.0 * np.log10(1.0 + np.array([f_min, f_max]) / 700.0)
    hertz = 700.0 * (10.0 ** (np.linspace(low, high, num_mel_bins + 2) / 2595.0) - 1.0)
    edges = np.floor((n_fft + 1) * hertz / sample_rate)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    bins = np.arange(n_fft // 2 + 1)[:, None]
    rising = (bins - left) / np.maximum(centre - left, 1.0)
    falling = (right - bins) / np.maximum(right - centre, 1.0)
    filters = np.where((bins >= left) & (bins < centre), rising, 0.0)
    return torch.from_numpy(np.where((bins >= centre) & (bins < right), falling, filters))


class LogMelSpectrogram:
    """Waveform to log-mel filter-bank energies.

    The defaults are STiCA's: 257 filters up to 12 kHz, frames of 20 ms every 10 ms at 24 kHz; one second
    gives 257 x 99 and two seconds 257 x 199.

    Args:
        sample_rate: samples per second of the waveform.
        num_mel_bins: number of filters.
        window_length: frame length in samples; at most `n_fft`.
        hop_length: distance of frames in samples.
        n_fft: FFT length; frames are zero-padded to it.
        f_min: lower edge of the first filter in Hz.
        f_max: upper edge of the last filter in Hz, at most half the sample rate.
        preemphasis: x[t] - preemphasis * x[t - 1]; 0 switches it off. The first sample is kept.
        window: "boxcar" (none) or "hann".
        waveform_scale: factor on the waveform before everything else; 1 / 32768 turns int16 into [-1, 1].
        log_offset: added to every energy before the logarithm; 0 replaces only exact zeros, by 2.2e-16.

    Raises:
        ConfigurationError: settings that contradict each other.
    """

    def __init__(
        self,
        sample_rate: int = 24000,
        num_mel_bins: int = 257,
        window_length: int = 480,
        hop_length: int = 240,
        n_fft: int = 1024,
        f_min: float = 0.0,
        f_max: float = 12000.0,
        preemphasis: float = 0.97,
        window: str = "boxcar",
        waveform_scale: float = 1.0,
        log_offset: float = 0.0,
    ) -> None:
        if min(sample_rate, num_mel_bins, window_length, hop_length) < 1:
            raise ConfigurationError(
                "sample_rate, num_mel_bins, window_length and hop_length must be at least 1"
            )
        if window_length > n_fft:
            raise ConfigurationError(
                f"window_length {window_length} is longer than n_fft {n_fft}: raise n_fft"
            )
        if not 0 <= f_min < f_max <= sample_rate / 2:
            raise ConfigurationError(
                f"need 0 <= f_min < f_max <= {sample_rate / 2} Hz, got {f_min} and {f_max}"
            )
        if window not in ("boxcar", "hann"):
            raise ConfigurationError(f"window must be 'boxcar' or 'hann', got {window!r}")
        if log_offset < 0:
            raise ConfigurationError(f"log_offset must not be negative, got {log_offset}")
        self.sample_rate = sample_rate
        self.num_mel_bins = num_mel_bins
        self.window_length = window_length
        self.hop_length = hop_length
        self.n_fft = n_fft
        self.f_min = f_min
        self.f_max = f_max
        self.preemphasis = preemphasis
        self.window = window
        self.waveform_scale = waveform_scale
        self.log_offset = log_offset

    def num_steps(self, num_samples: int) -> int:
        """Number of frames that a waveform of `num_samples` gives; a last part frame counts (zero-padded)."""
        return 1 + max(0, math.ceil((num_samples - self.window_length) / self.hop_length))

    def __call__(self, waveform: torch.Tensor) -> torch.Tensor:
        """Transform a batch of waveforms.

        Args:
            waveform: (..., samples), integer or float, in the scale of 16-bit integers (not [-1, 1]).

        Returns:
            (..., num_mel_bins, steps) float32 on the waveform's device.

        Raises:
            InputError: no sample at all.
        """
        if waveform.ndim == 0 or waveform.shape[-1] == 0:
            raise InputError(f"a waveform needs at least one sample, got shape {tuple(waveform.shape)}")
        signal = waveform.to(torch.float64) * self.waveform_scale
        if self.preemphasis:
            tail = signal[..., 1:] - self.preemphasis * signal[..., :-1]
            signal = torch.cat([signal[..., :1], tail], dim=-1)
        steps = self.num_steps(signal.shape[-1])
        missing = (steps - 1) * self.hop_length + self.window_length - signal.shape[-1]
        signal = torch.nn.functional.pad(signal, (0, max(missing, 0)))
        frames = signal.unfold(-1, self.window_length, self.hop_length)
        if self.window == "hann":
            frames = frames * torch.hann_window(self.window_length, dtype=torch.float64, device=signal.device)
        spectrum = torch.fft.rfft(frames, n=self.n_fft)
        power = (spectrum.real.square() + spectrum.imag.square()) / self.n_fft
        filters = mel_filter_matrix(self.num_mel_bins, self.n_fft, self.sample_rate, self.f_min, self.f_max)
        energy = power @ filters.to(signal.device) + self.log_offset
        energy = torch.where(energy == 0, _EPSILON, energy)
        return energy.log().transpose(-1, -2).contiguous().float()
