"""The twelve motions of Sounding Shapes: where the shape is, and how large, at every moment of a clip.

The state (x, y, size) lives on a torus: each of its three numbers is taken modulo 1, so the shape re-enters
on the other side, and a size that has grown to its largest starts again at the smallest. The start is uniform
on that torus, which makes the state at ANY single moment uniform whatever the motion: one frame says nothing
about the label.

Time `w` runs from -1/2 to 1/2 over a motion, and w -> -w plays it backwards: `left` with the same draws IS
`right` backwards. Five pairs are time reversals of each other and two motions are their own, so a feature
that ignores the order of frames cannot tell the two of a pair apart and cannot exceed 7/12 = 58.3 % top-1.

Units: x and y in canvas widths, y upwards; size is the position between the smallest and the largest radius.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ...errors import InputError

__all__ = [
    "CLASS_NAMES",
    "REVERSAL",
    "Motion",
    "chain_motions",
    "draw_motion",
    "moments",
    "offsets",
    "reverse_motion",
    "states",
]

CLASS_NAMES: tuple[str, ...] = (
    "left",
    "right",
    "up",
    "down",
    "up_right",
    "down_left",
    "clockwise",
    "counter",
    "grow",
    "shrink",
    "bounce",
    "shake",
)
"""The labels."""

_PAIRS = (
    ("left", "right"),
    ("up", "down"),
    ("up_right", "down_left"),
    ("clockwise", "counter"),
    ("grow", "shrink"),
)

REVERSAL: dict[str, str] = {
    **dict(_PAIRS),
    **{second: first for first, second in _PAIRS},
    "bounce": "bounce",
    "shake": "shake",
}
"""What each motion becomes when its frames are played backwards."""

TRAVEL = 0.75  # canvas widths that a straight motion of speed 1 covers
TURNS, TURN_RADIUS = 1.25, 0.2  # rounds of a circle, and its radius
HOPS, HOP_HEIGHT = 2.0, 0.3
SWINGS, SWING_WIDTH = 2.5, 0.15

_DIAGONAL = math.sqrt(0.5)
_DIRECTIONS = {
    "left": (-TRAVEL, 0.0, 0.0),
    "right": (TRAVEL, 0.0, 0.0),
    "up": (0.0, TRAVEL, 0.0),
    "down": (0.0, -TRAVEL, 0.0),
    "up_right": (TRAVEL * _DIAGONAL, TRAVEL * _DIAGONAL, 0.0),
    "down_left": (-TRAVEL * _DIAGONAL, -TRAVEL * _DIAGONAL, 0.0),
    "grow": (0.0, 0.0, 1.0),
    "shrink": (0.0, 0.0, -1.0),
}


@dataclass(frozen=True)
class Motion:
    """One motion with everything that is drawn for it. All but `name` is drawn alike for every label.

    Attributes:
        name: one of `CLASS_NAMES`.
        speed: factor on the motion's pace, uniform over [0.75, 1.25).
        phase: where in its cycle a circle, bounce or shake is at w = 0, in turns, uniform over [0, 1).
        x, y, size: the point of the torus that the motion happens about, uniform over [0, 1).
    """

    name: str
    speed: float
    phase: float
    x: float
    y: float
    size: float


def draw_motion(name: str, generator: torch.Generator) -> Motion:
    """Draw speed, phase and place; the same five draws whatever the name."""
    if name not in REVERSAL:
        raise InputError(f"unknown motion {name!r}: the motions are {', '.join(CLASS_NAMES)}")
    speed, phase, x, y, size = torch.rand(5, generator=generator, dtype=torch.float64).tolist()
    return Motion(name, 0.75 + 0.5 * speed, phase, x, y, size)


def moments(count: int) -> np.ndarray:
    """Times w of `count` equally spaced frames: the middles of as many equal parts of [-1/2, 1/2].

    They are exactly symmetric about 0, so playing the frames backwards is exactly w -> -w.
    """
    return (np.arange(count) - (count - 1) / 2) / count


def offsets(motion: Motion, w: np.ndarray) -> np.ndarray:
    """Displacement (x, y, size) from the motion's own point, not wrapped: array (3, moments)."""
    if motion.name in _DIRECTIONS:
        return np.outer(_DIRECTIONS[motion.name], motion.speed * w)
    moved = np.zeros((3, len(w)))
    if motion.name in ("clockwise", "counter"):
        sense = 1 if motion.name == "counter" else -1
        angle = 2 * np.pi * (sense * TURNS * motion.speed * w + motion.phase)
        moved[0], moved[1] = TURN_RADIUS * np.cos(angle), TURN_RADIUS * np.sin(angle)
    elif motion.name == "bounce":
        hop = (HOPS * motion.speed * w + motion.phase) % 1.0
        moved[1] = 4 * HOP_HEIGHT * hop * (1 - hop)
    else:
        moved[0] = SWING_WIDTH * np.sin(2 * np.pi * (SWINGS * motion.speed * w + motion.phase))
    return moved


def states(motion: Motion, w: np.ndarray) -> np.ndarray:
    """Points (x, y, size) of the torus at the times `w`: array (3, moments) with values in [0, 1)."""
    point = np.array([[motion.x], [motion.y], [motion.size]])
    return (point + offsets(motion, w)) % 1.0


def reverse_motion(motion: Motion) -> Motion:
    """The motion whose frames are those of `motion` in reverse order."""
    phase = {"bounce": -motion.phase % 1.0, "shake": (0.5 - motion.phase) % 1.0}.get(
        motion.name, motion.phase
    )
    return replace(motion, name=REVERSAL[motion.name], phase=phase)


def chain_motions(names: Sequence[str], generator: torch.Generator) -> tuple[Motion, ...]:
    """Motions back to back: each starts at the point of the torus where the one before it ended."""
    start, end = np.array([-0.5]), np.array([0.5])
    chain = [draw_motion(names[0], generator)]
    for name in names[1:]:
        motion = draw_motion(name, generator)
        place = (states(chain[-1], end) - offsets(motion, start))[:, 0] % 1.0
        x, y, size = place.tolist()
        chain.append(replace(motion, x=x, y=y, size=size))
    return tuple(chain)
