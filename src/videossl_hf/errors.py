"""Every exception that this package raises on purpose, and what each one means."""

from __future__ import annotations

__all__ = [
    "CheckpointError",
    "ConfigurationError",
    "DataError",
    "DecodeError",
    "DependencyError",
    "InputError",
    "NoAudioError",
    "NoVideoError",
    "NonFiniteLossError",
    "OutputError",
    "RecipeError",
    "VideoSSLError",
]


class VideoSSLError(Exception):
    """Base of all errors of this package: `except VideoSSLError` catches them and nothing else."""


class DecodeError(VideoSSLError, OSError):
    """A media source that cannot be decoded exactly.

    Attributes:
        source: the path, URL or a short description of the bytes.
        reason: what is wrong, in words.
    """

    def __init__(self, source: object, reason: str) -> None:
        self.source = source
        self.reason = reason
        super().__init__(f"cannot decode {source}: {reason}")

    def __reduce__(self) -> tuple[type, tuple[object, str]]:
        # OSError pickles its message as the only argument; worker processes send these errors back.
        return type(self), (self.source, self.reason)


class NoVideoError(DecodeError):
    """The source is readable, but has no video stream (or one without a single frame)."""


class NoAudioError(DecodeError):
    """The source is readable, but has no audio stream (or one without a single sample)."""


class InputError(VideoSSLError, ValueError):
    """A tensor, array or argument whose shape, type or value does not fit."""


class DataError(VideoSSLError, ValueError):
    """A dataset that lacks what is asked of it: a column, a class, a split, enough good samples."""


class ConfigurationError(VideoSSLError, ValueError):
    """Settings that contradict each other."""


class RecipeError(ConfigurationError):
    """A recipe file or command line with an unknown key, a wrong type or a missing value."""


class CheckpointError(VideoSSLError, ValueError):
    """Weights that are damaged, or whose keys or shapes do not fit the model."""


class OutputError(VideoSSLError, OSError):
    """A folder or file that cannot be written."""


class DependencyError(VideoSSLError, ImportError):
    """An optional package that is needed here and is not installed (or is broken)."""


class NonFiniteLossError(VideoSSLError, FloatingPointError):
    """The loss or the gradient of a training became NaN or infinite; nothing was saved after that step."""
