"""The sound of Sounding Shapes: a harmonic tone that follows the trajectory, and nothing else of the picture.

The pitch rises with the height above the motion's own point (an octave a canvas height), the level with the
distance to its right (24 dB a canvas width), and the tone brightens as a shape that changes its size grows. A
circle is thus heard as vibrato and tremolo a quarter turn apart, whose order tells its sense. Fundamental,
timbre, loudness and noise are drawn apart from the picture; where a shape starts, what it looks like, and the
size of a shape that keeps its size cannot be heard. Speed and phase are shared by picture and sound, so that
a clip can be told from others of its class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .motions import Motion, offsets, states

__all__ = ["Voice", "draw_voice", "synthesize"]

HARMONICS = 8
LEVEL_DB = 24.0
TILT_RANGE = 1.2
CONTROL_RATE = 1000  # values a second at which pitch, level and tilt are computed
LOUDNESS = 0.04  # root mean square of a tone without gain, full scale 1


@dataclass(frozen=True)
class Voice:
    """How a clip sounds, whatever moves in it.

    Attributes:
        fundamental: Hz at the motion's own point, 220 to 505.
        tilt: harmonic h has amplitude h ** -tilt, 0.8 to 1.6 at medium size.
        size: stands in for the size of shapes that keep theirs, so that the tilt tells nothing of one moment.
        phases: of the harmonics, in turns.
        gain: dB, -6 to 6.
        signal_to_noise: dB, 8 to 25.
        noise_seed: of the white noise.
    """

    fundamental: float
    tilt: float
    size: float
    phases: tuple[float, ...]
    gain: float
    signal_to_noise: float
    noise_seed: int


def draw_voice(generator: torch.Generator) -> Voice:
    """Draw a voice, independently of picture and motion."""
    pitch, tilt, size, gain, noise, *phases = torch.rand(5 + HARMONICS, generator=generator).tolist()
    return Voice(
        fundamental=220.0 * 2 ** (1.2 * pitch),
        tilt=0.8 + 0.8 * tilt,
        size=size,
        phases=tuple(phases),
        gain=12.0 * gain - 6.0,
        signal_to_noise=8.0 + 17.0 * noise,
        noise_seed=int(torch.randint(2**31, (), generator=generator)),
    )


def synthesize(motions: Sequence[Motion], voice: Voice, seconds: float, sample_rate: int) -> np.ndarray:
    """The sound of motions back to back.

    Args:
        motions: one motion, or several in a row.
        voice: how it sounds.
        seconds: of each motion.
        sample_rate: samples a second.

    Returns:
        int16 array (round(len(motions) * seconds * sample_rate),).
    """
    height, right, size = _controls(motions, voice, seconds)
    frequency = voice.fundamental * 2.0**height
    number = np.arange(1, HARMONICS + 1)[:, None]
    amplitudes = np.exp(-np.log(number) * (voice.tilt - TILT_RANGE * (size - 0.5)))
    amplitudes /= np.sqrt(np.square(amplitudes).sum(axis=0) / 2)  # the tilt does not change the level
    amplitudes *= LOUDNESS * 10 ** ((LEVEL_DB * right + voice.gain) / 20)
    amplitudes *= number * frequency < sample_rate / 2  # what is above would be heard as another pitch

    total = seconds * len(motions)
    control_times = np.linspace(0.0, total, len(height))
    times = np.arange(round(total * sample_rate)) / sample_rate
    turns = np.cumsum(np.interp(times, control_times, frequency)) / sample_rate
    first = np.exp(2j * np.pi * turns)
    harmonic = np.ones_like(first)
    tone = np.zeros(len(times))
    for amplitude, phase in zip(amplitudes, voice.phases, strict=True):
        harmonic *= first  # e^(i number angle), for less than a sine each
        tone += np.interp(times, control_times, amplitude) * (harmonic * np.exp(2j * np.pi * phase)).imag

    generator = torch.Generator().manual_seed(voice.noise_seed)
    noise = torch.randn(len(tone), generator=generator).numpy()
    noise *= np.sqrt(np.mean(np.square(tone))) * 10 ** (-voice.signal_to_noise / 20)
    return np.rint(np.clip(tone + noise, -1.0, 1.0) * 32767).astype(np.int16)


def _controls(motions: Sequence[Motion], voice: Voice, seconds: float) -> np.ndarray:
    """(3, values): height and rightward distance from the motion's point, and the size that is heard."""
    clock = np.linspace(0.0, len(motions), round(CONTROL_RATE * seconds * len(motions)) + 1)
    number = np.minimum(clock.astype(int), len(motions) - 1)
    curves = np.empty((3, len(clock)))
    for index, motion in enumerate(motions):
        here = number == index
        w = clock[here] - index - 0.5
        right, height, _ = offsets(motion, w)
        changes_size = motion.name in ("grow", "shrink")
        size = states(motion, w)[2] if changes_size else np.full(len(w), voice.size)
        curves[:, here] = height, right, size
    return curves
