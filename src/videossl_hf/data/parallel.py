"""Work on many items in several processes, in order, with a progress bar."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import torch
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ..errors import DataError, InputError

__all__ = ["map_in_processes", "progress_bar"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def progress_bar(show: bool = True) -> Progress:
    """A bar with count, time gone and time left; it draws nothing when `show` is False."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        disable=not show,
    )


def map_in_processes(
    function: Callable[[Item], Result], items: Sequence[Item], *, processes: int
) -> Iterator[Result]:
    """Yield `function(item)` of every item in order, computed by `processes` processes.

    Args:
        function: can be pickled (a function of a module, or a partial of one); each process receives it once.
        items: small things that say what to do.
        processes: 1 works in this process.

    Raises:
        DataError: a process died, for instance of a damaged file that crashes its decoder.
    """
    if processes < 1:
        raise InputError(f"processes must be at least 1, got {processes}")
    if processes == 1 or len(items) < 2:
        yield from map(function, items)
        return
    # Forked children start at once, as those of PyTorch's DataLoader do; outside Linux forking is unsafe.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    executor = ProcessPoolExecutor(
        min(processes, len(items)), mp_context=context, initializer=_start_worker, initargs=(function,)
    )
    try:
        chunk = max(1, min(16, len(items) // (4 * processes)))
        yield from executor.map(_work, items, chunksize=chunk)
    except BrokenProcessPool as error:
        raise DataError(
            "a worker process died: a file may have crashed its decoder, or memory ran out. "
            "What is finished is kept; run again with one process to see where it happens"
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


_worker_function: Callable[[Any], Any] | None = None


def _start_worker(function: Callable[[Any], Any]) -> None:
    global _worker_function
    _worker_function = function
    torch.set_num_threads(1)  # the processes share the cores


def _work(item: Any) -> Any:
    assert _worker_function is not None
    return _worker_function(item)
