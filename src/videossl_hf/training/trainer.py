"""The training loop: transformers' Trainer with exact resume, averaged loss parts, and hooks for what methods
need.
"""

from __future__ import annotations

import contextlib
import logging
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import CommitOperationAdd, HfApi
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.trainer_utils import HubStrategy
from transformers.utils.hub import PushInProgress

from ..data.alternating import AlternatingDataset
from ..errors import CheckpointError, ConfigurationError, NonFiniteLossError
from .batches import AlternatingBatchSampler, EndlessStream, EpochBatchSampler, SkippingCollator
from .callbacks import LogBeforeSaving, MethodHooks, MetricsFile, Throughput
from .checkpoints import SEAL, prune_checkpoints, remove_checkpoint, seal_checkpoint
from .moments import take_over_moments
from .optimization import make_optimizer, make_scheduler, scale_learning_rate
from .recipe import OptimizerRecipe, ScheduleRecipe

__all__ = ["BEST_FOLDER", "VideoSSLTrainer"]

logger = logging.getLogger(__name__)

BEST_FOLDER = "best"
_NOT_A_STEP = torch.iinfo(torch.int64).max
_PUBLISHED = {".safetensors", ".json", ".py", ".txt", ".model", ".md"}
_ONLY_FOR_RESUME = ("optimizer", "scheduler", "scaler", "rng_state", "trainer_state", "training_args", SEAL)


class LossParts:
    """Sums of every scalar that a model's output holds, kept on the device until somebody asks for the
    mean.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}  # not every batch has every part: captions are not sorted
        self._first_bad_step: Tensor | None = None

    def add(self, outputs: Any, step: int) -> None:
        """Take up one forward's outputs; never waits for the device."""
        for name, value in outputs.items():
            if isinstance(value, Tensor) and value.ndim == 0:
                value = value.detach().float()
                self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
                self._counts[name] = self._counts.get(name, 0) + 1
        loss = outputs["loss"].detach()
        if self._first_bad_step is None:
            self._first_bad_step = torch.full((), _NOT_A_STEP, dtype=torch.int64, device=loss.device)
        bad = self._first_bad_step
        self._first_bad_step = torch.where(torch.isfinite(loss), bad, bad.clamp(max=step))

    def drain(self, gather: Callable[[Tensor], Tensor]) -> tuple[dict[str, float], int | None]:
        """Means since the last call over steps and processes, and the first step whose loss was not finite.

        Args:
            gather: stacks a tensor of each process along its first dimension.
        """
        if self._first_bad_step is None:
            return {}, None
        names = sorted(self._sums)
        sums = torch.stack([self._sums[name].double() / self._counts[name] for name in names])
        means = gather(sums[None]).mean(dim=0).tolist()
        first_bad_step = int(gather(self._first_bad_step[None]).min())
        self._sums, self._counts, self._first_bad_step = {}, {}, None
        return dict(zip(names, means, strict=True)), None if first_bad_step == _NOT_A_STEP else first_bad_step


class VideoSSLTrainer(Trainer):
    """Trainer for any model whose forward returns an output with `loss`; it knows no method by name.

    What differs from `transformers.Trainer`:

    - Sample order is a function of seed and epoch; resume skips or replays samples without decoding them, and
      streams resume exactly, too. `train_dataset` is map-style (`SeededDataset`, or `AlternatingDataset`
      for data sets that take turns) or, with `streaming=True`, this process's share of a stream
      (`SeededStream`).
    - Checkpoints are sealed when complete (`checkpoints.py`); weights that do not fit are an error, not a
      warning.
    - Every scalar of the model's output is averaged on the device and logged beside `loss`; NaN stops the run
      at the next log line, before anything is saved.
    - Optimiser and schedule come from a recipe; a model may define `parameter_groups(optimizer_config)`,
      `after_optimizer_step(step, max_steps)` and `before_epoch(epoch)`.
    - `evaluate()` runs the monitor given, without a trace in the random state or in the model.
    - What is published holds no pickles and no paths of this machine, but for what `hub_strategy` asks to
      resume with.

    Args:
        optimizer_recipe, schedule_recipe: see `recipe.py`.
        processor: saved with the model. (Not Trainer's `processing_class`, which would want a tokenizer of
            it.)
        monitor: called with the bare model; returns figures such as {"eval_knn_top1": 0.42}. Every process
            calls it.
        streaming: `train_dataset` is a stream.
        keep_checkpoints: so many complete checkpoints stay.
        moments_from: folder of a run whose optimiser's moments this one takes over.
        keep_best: a figure of the monitor, such as "eval_top1": the model with the highest so far, the first
            of equals, lies in the folder `best` of the run.
        published: further files that are published with the model: name in the repository -> what gives the
            content of that moment.

    Raises:
        ConfigurationError: several GPUs in one process (torch's DataParallel).
    """

    # Trainer assigns these without saying of what type.
    optimizer: Any
    lr_scheduler: Any
    control: Any

    def __init__(
        self,
        *,
        model: PreTrainedModel,
        args: TrainingArguments,
        optimizer_recipe: OptimizerRecipe,
        schedule_recipe: ScheduleRecipe,
        processor: Any = None,
        monitor: Callable[[nn.Module], dict[str, float]] | None = None,
        streaming: bool = False,
        keep_checkpoints: int = 2,
        moments_from: str | None = None,
        keep_best: str | None = None,
        published: dict[str, Callable[[], bytes]] | None = None,
        callbacks: list[TrainerCallback] | None = None,
        **kwargs: Any,
    ) -> None:
        if args.n_gpu > 1:
            raise ConfigurationError(
                f"{args.n_gpu} GPUs are visible to one process, and torch's DataParallel cannot compute "
                "losses over a whole batch: start one process a GPU (`accelerate launch --multi_gpu "
                f"--num_processes {args.n_gpu} ...`), or choose one (`CUDA_VISIBLE_DEVICES=0`)"
            )
        self.optimizer_recipe = optimizer_recipe
        self.schedule_recipe = schedule_recipe
        self.processor = processor
        self.monitor = monitor
        self.streaming = streaming
        self.keep_checkpoints = keep_checkpoints
        self.moments_from = moments_from
        self.keep_best = keep_best
        self.published = published or {}
        self.steps_to_replay = 0
        self._loss_parts = LossParts()
        super().__init__(model=model, args=args, **kwargs)
        # Our losses are means over a batch, whatever keyword arguments forward takes.
        self.model_accepts_loss_kwargs = False
        for unwanted in (PrinterCallback, ProgressCallback):
            self.remove_callback(unwanted)
        self.throughput = Throughput(self.get_total_train_batch_size(args))
        metrics_file = MetricsFile(Path(args.output_dir) / "metrics.jsonl")
        for callback in (MethodHooks(), LogBeforeSaving(), metrics_file, self.throughput, *(callbacks or ())):
            self.add_callback(callback)

    # ---- data ----

    def get_train_dataloader(self) -> DataLoader:
        """Batches of this process; see `batches.py`. Moving them to the device is the step's work."""
        args = self.args
        common: dict[str, Any] = {
            "num_workers": args.dataloader_num_workers,
            "persistent_workers": args.dataloader_num_workers > 0,
            "prefetch_factor": args.dataloader_prefetch_factor if args.dataloader_num_workers else None,
            "pin_memory": args.dataloader_pin_memory and torch.cuda.is_available(),
            # Of its own, so that starting an epoch draws nothing from the state that the model's dropout
            # uses.
            "generator": torch.Generator().manual_seed(args.seed),
        }
        if self.streaming:
            first_batch = self.steps_to_replay * args.gradient_accumulation_steps
            stream = EndlessStream(self.train_dataset, args.per_device_train_batch_size, first_batch)
            return DataLoader(
                stream,
                batch_size=args.per_device_train_batch_size,
                collate_fn=SkippingCollator(self.data_collator),
                **common,
            )
        self._sampler = self._batch_sampler()
        return DataLoader(
            self.train_dataset, batch_sampler=self._sampler, collate_fn=self.data_collator, **common
        )

    def _batch_sampler(self) -> EpochBatchSampler | AlternatingBatchSampler:
        args = self.args
        share = {"rank": args.process_index, "world_size": args.world_size}
        if isinstance(self.train_dataset, AlternatingDataset):
            return AlternatingBatchSampler(
                [len(dataset) for dataset in self.train_dataset.datasets],
                args.per_device_train_batch_size,
                args.seed,
                batches_per_step=args.gradient_accumulation_steps,
                **share,
            )
        return EpochBatchSampler(
            len(self.train_dataset), args.per_device_train_batch_size, args.seed, **share
        )

    def _run_epoch(self, *, train_dataloader: DataLoader, epoch: int, **kwargs: Any) -> None:
        # Before the loader's workers start: they copy what is set here.
        if not self.streaming:
            self._sampler.set_epoch(epoch)
            if hasattr(self.train_dataset, "set_epoch"):
                self.train_dataset.set_epoch(epoch)
        super()._run_epoch(train_dataloader=train_dataloader, epoch=epoch, **kwargs)

    def _prepare_input(self, data: Any) -> Any:
        if isinstance(data, Tensor):  # from pinned memory the step need not wait for the copy
            return data.to(self.args.device, non_blocking=True)
        return super()._prepare_input(data)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """As in Trainer, with a stopwatch."""
        with self.throughput.waiting_for_data():
            return super().get_batch_samples(*args, **kwargs)

    # ---- optimisation ----

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The recipe's optimiser, with lr scaled to the run's batch."""
        if self.optimizer is None:
            batch_size = self.get_total_train_batch_size(self.args)
            scaled = scale_learning_rate(self.optimizer_recipe, batch_size)
            self.optimizer = make_optimizer(self.model if model is None else model, scaled)
            if self.moments_from is not None and not self.steps_to_replay:
                take_over_moments(self.optimizer, self.model, self.moments_from)
        return self.optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """The recipe's schedule, stepped once per optimiser step."""
        if self.lr_scheduler is None:
            self.lr_scheduler = make_scheduler(
                optimizer or self.optimizer, self.schedule_recipe, num_training_steps, self._steps_per_epoch
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    @property
    def _steps_per_epoch(self) -> int | None:
        """Optimiser steps in an epoch; None for a stream."""
        if self.streaming:
            return None
        return math.ceil(len(self._batch_sampler()) / self.args.gradient_accumulation_steps)

    @property
    def _planned_steps(self) -> int:
        """Optimiser steps of the whole run."""
        if self.args.max_steps > 0:
            return self.args.max_steps
        return math.ceil(self.args.num_train_epochs * (self._steps_per_epoch or 0))

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The model's own loss; its parts are remembered for the next log line."""
        outputs = model(**inputs)
        if outputs.get("loss") is None:
            raise ConfigurationError(
                f"{type(self.model).__name__} returned no loss for inputs {', '.join(sorted(inputs))}"
            )
        if model.training:
            self._loss_parts.add(outputs, self.state.global_step + 1)
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    # ---- figures ----

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Complete a training line with the loss's parts and the throughput, and stop at a loss that is not
        finite.

        Raises:
            NonFiniteLossError: on every process, before a checkpoint is written.
        """
        if "learning_rate" in logs:
            parts, first_bad_step = self._loss_parts.drain(self.accelerator.gather)
            if first_bad_step is None and not math.isfinite(logs.get("grad_norm", 0.0)):
                first_bad_step = self.state.global_step
            if first_bad_step is not None:
                raise NonFiniteLossError(
                    f"the loss or its gradient is NaN or infinite since step {first_bad_step}. Nothing was "
                    "saved after it: resume from the last checkpoint with a lower optimizer.lr, a longer "
                    "warm-up, training.max_grad_norm, or without training.bf16"
                )
            logs = {**logs, **{name: value for name, value in parts.items() if name != "loss"}}
            logs.update(self.throughput.read())
        super().log(logs, start_time)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Run the monitor, log its figures and return them. Leaves random state and model as they were."""
        if self.monitor is None:
            return {}
        model = self.accelerator.unwrap_model(self.model)
        with _undisturbed(model):
            figures = self.monitor(model)
        self._save_if_best(figures)
        self.log(figures)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, figures)
        return figures

    def _save_if_best(self, figures: dict[str, float]) -> None:
        """The log says what was best before, so that a run that goes on decides as an unbroken one does."""
        name = self.keep_best
        if name is not None and self.state.global_step > 0:
            before = [entry[name] for entry in self.state.log_history if name in entry and entry["step"] > 0]
            if figures[name] > max(before, default=-math.inf):
                self.save_model(str(Path(self.args.output_dir) / BEST_FOLDER), _internal_call=True)

    # ---- checkpoints ----

    def train(self, resume_from_checkpoint: str | Path | None = None, **kwargs: Any) -> Any:
        """Train from the start, or on from a checkpoint that `checkpoints.verify_checkpoint` has passed."""
        if resume_from_checkpoint is not None:
            resume_from_checkpoint = str(resume_from_checkpoint)
            self.steps_to_replay = int(resume_from_checkpoint.rstrip("/").rsplit("-", 1)[-1])
            self.args.eval_on_start = False  # the run before has logged it
            if self.steps_to_replay >= self._planned_steps:  # Trainer would take one step more
                self._load_from_checkpoint(resume_from_checkpoint)
                self.state = TrainerState.load_from_json(
                    str(Path(resume_from_checkpoint) / TRAINER_STATE_NAME)
                )
                return None
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        output_dir = Path(self.args.output_dir)
        folder = output_dir / f"checkpoint-{self.state.global_step}"
        if self.is_world_process_zero():
            remove_checkpoint(folder)  # an unfinished one of an earlier run
        self.accelerator.wait_for_everyone()
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.is_world_process_zero():
            seal_checkpoint(folder, self.state.global_step, self.args.world_size)
            self._publish_checkpoint(folder)
            prune_checkpoints(output_dir, self.keep_checkpoints)
        self.accelerator.wait_for_everyone()

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            folder = Path(output_dir or self.args.output_dir)
            (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle with paths, which nothing reads
            if self.processor is not None:
                self.processor.save_pretrained(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        with _as_checkpoint_error(resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with _as_checkpoint_error(checkpoint):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        missing, unexpected = load_result.missing_keys, load_result.unexpected_keys
        if missing or unexpected:
            raise RuntimeError(f"missing keys {missing[:5]}, unexpected keys {unexpected[:5]}")

    # ---- publishing ----

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Trainer's moment comes before the checkpoint is sealed; `_publish_checkpoint` has ours."""

    def _publish_checkpoint(self, folder: Path) -> None:
        if not self.args.push_to_hub or self.args.hub_strategy == HubStrategy.END:
            return
        self._finish_current_push()
        message = f"Training in progress, step {self.state.global_step}"
        operations = self._model_files(folder)
        if self.args.hub_strategy != HubStrategy.EVERY_SAVE:
            target = "last-checkpoint" if self.args.hub_strategy == HubStrategy.CHECKPOINT else folder.name
            operations |= {f"{target}/{name}": path for name, path in _files(folder).items()}
        self.push_in_progress = PushInProgress([self._commit(operations, message, run_as_future=True)])

    def _finish_current_push(self) -> None:
        super()._finish_current_push()
        for job in getattr(getattr(self, "push_in_progress", None), "jobs", ()):
            if job.exception() is not None:  # the run goes on: the next checkpoint is pushed again
                logger.warning("publishing a checkpoint failed: %s", job.exception())

    def push_to_hub(self, commit_message: str | None = "End of training", **kwargs: Any) -> Any:
        """Save the final model into `output_dir` and publish it with the recipe and the training log."""
        self.save_model(_internal_call=True)
        if self.is_world_process_zero():
            self._finish_current_push()
            self._commit(self._model_files(Path(self.args.output_dir)), commit_message or "End of training")
        self.accelerator.wait_for_everyone()

    def _model_files(self, folder: Path) -> dict[str, Path | bytes]:
        """What a user needs: weights, settings, code and card (nothing of subfolders), and `published`."""
        model: dict[str, Path | bytes] = {
            name: path
            for name, path in _files(folder).items()
            if "/" not in name and path.suffix in _PUBLISHED and not name.startswith((*_ONLY_FOR_RESUME, "."))
        }
        return model | {name: content() for name, content in self.published.items()}

    def _commit(self, files: dict[str, Path | bytes], message: str, run_as_future: bool = False) -> Any:
        if self.hub_model_id is None:
            self.init_hf_repo()
        operations = [
            CommitOperationAdd(name, content if isinstance(content, bytes) else str(content))
            for name, content in sorted(files.items())
        ]
        where = {"token": self.args.hub_token, "revision": self.args.hub_revision}
        commit: Any = HfApi().create_commit
        return commit(
            self.hub_model_id, operations, commit_message=message, run_as_future=run_as_future, **where
        )


def _files(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


@contextlib.contextmanager
def _as_checkpoint_error(checkpoint: str | None) -> Iterator[None]:
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:  # the libraries raise a dozen kinds for files that do not fit
        raise CheckpointError(
            f"{checkpoint} does not fit this run: {error}. Resume with the recipe that made the checkpoint"
        ) from error


@contextlib.contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards every module's mode and all random states are as
    before.
    """
    modes = {module: module.training for module in model.modules()}
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 (libraries may draw from it)
    model.eval()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    try:
        with torch.random.fork_rng(devices), torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
