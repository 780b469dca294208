"""The processes of `accelerate launch` that extract features together."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

__all__ = ["Processes", "local_device"]

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """Which process this is, of how many.

    Attributes:
        rank: 0 is the main one.
        count: of all.
        state: accelerate's, where there are several.
    """

    rank: int = 0
    count: int = 1
    state: Any = None

    @classmethod
    def of_this_run(cls, device: torch.device) -> Processes:
        """Those that the launcher's environment names; a process that was started alone is one.

        Args:
            device: of the model, which decides by what means they wait for each other.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        from accelerate import PartialState

        state = PartialState(cpu=device.type == "cpu")
        return cls(state.process_index, state.num_processes, state)

    @property
    def is_main(self) -> bool:
        """Whether this process reports."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """What this process does of them: every `count`-th."""
        if self.state is None:
            return list(items)
        every: list[list[T]] = [list(items) if self.is_main else []]
        torch.distributed.broadcast_object_list(
            every
        )  # one list for all, whatever each has seen of the folder
        return every[0][self.rank :: self.count]

    def wait(self) -> None:
        """Until all are here."""
        if self.state is not None:
            self.state.wait_for_everyone()


def local_device(device: torch.device) -> torch.device:
    """The accelerator of this process, where the launcher started one a device."""
    rank = os.environ.get("LOCAL_RANK")
    if rank is None or device.type == "cpu" or device.index is not None:
        return device
    return torch.device(device.type, int(rank))
