"""Trains the toy method on numbers instead of clips, in processes that can be killed.

    python run_toy.py FOLDER '[{"output": "a", "steps": 9}, {"output": "b", "kill_at": 5}, {"output": "b"}]'

does these runs one after the other, each in fresh processes (forked, so that libraries are imported once),
and prints how each ended as a JSON list ("done", "killed" or "failed"). A run writes into its output folder:
end.pt (weights, buffers, optimiser, schedule, random state, log), seen-RANK.txt (the samples of every step)
and decoded-RANK.txt (the samples that were decoded).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))

from toy import register_toy
from transformers import TrainerCallback, TrainingArguments

from videossl_hf.data.seeds import mix_seeds
from videossl_hf.registry import find_class
from videossl_hf.training.checkpoints import choose_checkpoint
from videossl_hf.training.recipe import OptimizerRecipe, ScheduleRecipe
from videossl_hf.training.trainer import VideoSSLTrainer

SAMPLES = 20


class Numbers:
    """Map-style or streamed: sample `index` with the seed of (run, epoch, index)."""

    def __init__(self, streaming: bool) -> None:
        self.streaming = streaming
        self._epoch = torch.zeros((), dtype=torch.int64)
        if not streaming:  # workers that live on must learn of it; those of a stream count for themselves
            self._epoch.share_memory_()

    @property
    def epoch(self) -> int:
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        if self.streaming:
            raise TypeError("a stream has no length")
        return SAMPLES

    def __getitem__(self, index: int) -> dict[str, int]:
        return {"sample_index": index, "sample_seed": mix_seeds(3, self.epoch, index)}

    def __iter__(self) -> Iterator[dict[str, int]]:
        generator = torch.Generator().manual_seed(mix_seeds(4, self.epoch))
        for index in torch.randperm(SAMPLES, generator=generator).tolist():
            if index % int(os.environ.get("WORLD_SIZE", "1")) == int(os.environ.get("RANK", "0")):
                yield self[index]


class Collator:
    """ "Decodes" a sample into noise of its own seed, and writes down that it did."""

    def __init__(self, ledger: Path) -> None:
        self.ledger = ledger

    def __call__(self, samples: list[dict[str, int]]) -> dict[str, torch.Tensor]:
        with self.ledger.open("a") as file:
            file.writelines(f"{sample['sample_index']} {sample['sample_seed']}\n" for sample in samples)
        clips = [
            torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(s["sample_seed"]))
            for s in samples
        ]
        return {
            "pixel_values_videos": torch.stack(clips),
            "seeds": torch.tensor([sample["sample_seed"] for sample in samples]),
        }


class Watcher(TrainerCallback):
    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.settings.get("kill_at"):
            os.kill(os.getpid(), signal.SIGKILL)


class WatchedTrainer(VideoSSLTrainer):
    seen: Path

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        with self.seen.open("a") as file:
            file.write(f"{self.state.global_step + 1} {inputs.pop('seeds').tolist()}\n")
        return super().compute_loss(model, inputs, *args, **kwargs)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.state.global_step == self.settings.get("kill_while_saving"):
            os.kill(os.getpid(), signal.SIGKILL)


def monitor(model: Any) -> dict[str, float]:
    """Draws random numbers and would move BatchNorm's statistics, if the trainer let it."""
    clips = torch.randn(8, 4, 3, 8, 8)
    return {"eval_spread": model.base_model(pixel_values_videos=clips).pooler_output.std().item()}


def main(output: Path, settings: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    register_toy(output.with_name(output.name + "-package"))
    output.mkdir(parents=True, exist_ok=True)
    rank = os.environ.get("RANK", "0")
    args = TrainingArguments(
        str(output),
        max_steps=settings.get("steps", 9),
        per_device_train_batch_size=settings.get("batch_size", 3),
        gradient_accumulation_steps=settings.get("accumulation", 1),
        dataloader_num_workers=settings.get("workers", 0),
        save_steps=settings.get("save_steps", 2),
        logging_steps=3,
        eval_strategy="steps",
        eval_steps=2,
        eval_on_start=True,
        save_total_limit=None,
        use_cpu=True,
        bf16=settings.get("bf16", False),
        max_grad_norm=0,
        disable_tqdm=True,
        remove_unused_columns=False,
        logging_nan_inf_filter=False,
        ddp_find_unused_parameters=False,
        report_to=[],
    )
    torch.manual_seed(0)
    model = find_class("toy", "ForPreTraining")(find_class("toy", "Config")(**settings.get("model", {})))
    streaming = settings.get("streaming", False)
    trainer = WatchedTrainer(
        model=model,
        args=args,
        optimizer_recipe=OptimizerRecipe(name=settings.get("optimizer", "adamw"), lr=1e-2, weight_decay=0.01),
        schedule_recipe=ScheduleRecipe(name="cosine", warmup_steps=3),
        monitor=monitor,
        streaming=streaming,
        keep_checkpoints=settings.get("keep", 2),
        callbacks=[Watcher(settings)],
        train_dataset=Numbers(streaming),
        eval_dataset=Numbers(False),
        data_collator=Collator(output / f"decoded-{rank}.txt"),
    )
    trainer.seen = output / f"seen-{rank}.txt"
    trainer.settings = settings
    with trainer.seen.open("a") as file:
        file.write("0 start\n")
    trainer.train(resume_from_checkpoint=choose_checkpoint(output, settings.get("resume", "auto")))
    if args.world_size != settings.get("processes", 1):
        raise RuntimeError(f"{args.world_size} processes")
    if trainer.is_world_process_zero():
        end = {
            "model": model.state_dict(),
            "optimizer": trainer.optimizer.state_dict(),
            "schedule": trainer.lr_scheduler.state_dict(),
            "random": torch.random.get_rng_state(),
            "log": [
                {k: v for k, v in entry.items() if k not in NOT_COMPARED}
                for entry in trainer.state.log_history
            ],
        }
        torch.save(end, output / "end.pt")


NOT_COMPARED = {
    "clips_per_second", "data_wait_share", "peak_memory_gib", "train_runtime", "train_samples_per_second",
    "train_steps_per_second", "train_loss", "total_flos",
}  # fmt: skip


def run(folder: Path, settings: dict[str, Any]) -> str:
    """One run in `processes` forked processes; when one of them is killed, so are the others."""
    world_size = settings.get("processes", 1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    children = []
    for rank in range(world_size):
        child = os.fork()
        if child == 0:
            if world_size > 1:
                os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)}
                os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            try:
                main(folder / settings["output"], settings)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(child)
    statuses = []
    while children:
        child, status = os.wait()
        children.remove(child)
        statuses.append(status)
        if status == signal.SIGKILL:
            for other in children:
                os.kill(other, signal.SIGKILL)
    return "killed" if signal.SIGKILL in statuses else "failed" if any(statuses) else "done"


if __name__ == "__main__":
    print(json.dumps([run(Path(sys.argv[1]), settings) for settings in json.loads(sys.argv[2])]))
