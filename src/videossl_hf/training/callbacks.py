"""What happens beside the training step: hooks of the model, logs on disk and in the terminal, throughput."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

__all__ = ["LogBeforeSaving", "MethodHooks", "MetricsFile", "Throughput", "TrainingDisplay", "peak_memory"]


class MethodHooks(TrainerCallback):
    """Calls what a model class asks of the loop, where it has it.

    `before_epoch(epoch)` before the first batch of an epoch (of the resumed one, too; once, with 0, for a
    stream); `after_optimizer_step(step, max_steps)` after every update of the weights, where the first step
    is 1.
    """

    def on_epoch_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        """Forward to `before_epoch`."""
        if hasattr(model, "before_epoch"):
            model.before_epoch(int(state.epoch or 0))

    def on_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        """Forward to `after_optimizer_step`."""
        if hasattr(model, "after_optimizer_step"):
            model.after_optimizer_step(state.global_step + 1, state.max_steps)


class LogBeforeSaving(TrainerCallback):
    """Logs at every checkpoint: no average runs across one, so that a resumed run logs what an unbroken one
    does.

    It is also where a loss that is not finite is noticed, before the checkpoint is written.
    """

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Runs after the trainer's own callback has decided whether to save."""
        if control.should_save:
            control.should_log = True


class MetricsFile(TrainerCallback):
    """Every log line as JSON in one file; a resumed run first drops the lines after its checkpoint."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start from the history that the checkpoint holds."""
        if state.is_world_process_zero:
            lines = [json.dumps(entry) + "\n" for entry in state.log_history]
            self.path.write_text("".join(lines), encoding="utf-8")

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Append the newest line."""
        if state.is_world_process_zero:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(state.log_history[-1]) + "\n")


def peak_memory() -> float:
    """Highest memory use so far in GiB: of the accelerator where there is one, else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


class Throughput(TrainerCallback):
    """Clips a second and the share of time spent waiting for data, between two log lines.

    Evaluation and saving do not count. On a GPU the log line itself waits for the device, so that the span is
    whole.

    Args:
        clips_per_step: over all processes.
    """

    def __init__(self, clips_per_step: int) -> None:
        self.clips_per_step = clips_per_step
        self._restart()

    def _restart(self) -> None:
        self._started = time.perf_counter()
        self._waited = 0.0
        self._steps = 0

    @contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """Wrap what fetches the next batches."""
        started = time.perf_counter()
        yield
        self._waited += time.perf_counter() - started

    def read(self) -> dict[str, float]:
        """The figures since the last reading, and a new span."""
        seconds = time.perf_counter() - self._started
        figures = {
            "clips_per_second": self._steps * self.clips_per_step / seconds,
            "data_wait_share": self._waited / seconds,
            "peak_memory_gib": peak_memory(),
        }
        self._restart()
        return figures

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Set-up does not count."""
        self._restart()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """One more step."""
        self._steps += 1

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Evaluation does not count (a log line has just been written when it starts, or is at hand)."""
        self._restart()

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Saving does not count."""
        self._restart()


class TrainingDisplay(TrainerCallback):
    """A progress bar in a terminal, one line a log entry elsewhere; on the first process only."""

    def __init__(self, console: Console, task: str = "training") -> None:
        self.console = console
        self.task_name = task
        self.progress: Progress | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Show the bar, at the step from which the run goes on."""
        if not state.is_world_process_zero:
            return
        if self.console.is_terminal:
            self.progress = Progress(
                TextColumn("[bold]{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[figures]}"),
                console=self.console,
            )
            self.task = self.progress.add_task(
                self.task_name, total=state.max_steps, completed=state.global_step, figures=""
            )
            self.progress.start()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Move the bar."""
        if self.progress is not None:
            self.progress.update(self.task, completed=state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Any = None,
        **kwargs: Any,
    ) -> None:
        """Show the figures."""
        if not state.is_world_process_zero or not logs:
            return
        names = [name for name in logs if name == "loss" or name.startswith("eval_")] + ["clips_per_second"]
        figures = "  ".join(f"{name} {logs[name]:.4g}" for name in names if name in logs)
        if not figures:
            return
        if self.progress is not None:
            self.progress.update(self.task, figures=figures)
            if any(name.startswith("eval_") for name in logs):
                self.progress.console.print(f"step {state.global_step}: {figures}", highlight=False)
        else:
            self.console.print(f"step {state.global_step}/{state.max_steps}: {figures}", highlight=False)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave the bar as it stands."""
        self.close()

    def close(self) -> None:
        """Give the terminal back, after an error too."""
        if self.progress is not None:
            self.progress.stop()
            self.progress = None
