"""One check of what is installed: a torchvision that cannot be imported breaks transformers in obscure
ways."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from .errors import DependencyError

__all__ = ["check_torchvision"]


def check_torchvision() -> None:
    """Import torchvision if it is installed, and say what to do if that fails.

    Nothing here uses torchvision, but transformers imports it whenever it is installed; one that was built
    for another torch then surfaces as "Could not import module 'PreTrainedModel'" or "operator
    torchvision::nms does not exist".

    Raises:
        DependencyError: torchvision is installed and cannot be imported.
    """
    if find_spec("torchvision") is None:
        return
    try:
        import torchvision  # noqa: F401
    except Exception as error:
        raise DependencyError(
            f"torchvision {_version('torchvision')} is installed but cannot be imported with torch "
            f"{_version('torch')} ({error}), and transformers fails with it. It is not needed: `pip "
            "uninstall torchvision`, or install the build that belongs to this torch"
        ) from error


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(unknown version)"
