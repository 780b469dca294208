"""Fine-tune a classifier with transformers' own Trainer, without this package's recipes.

    python examples/transformers_trainer.py MODEL FOLDER OUTPUT --steps 100

MODEL is a pre-trained folder or id, FOLDER has one folder a class. The models are plain `PreTrainedModel`s:
whatever trains one of those trains these. `videossl finetune` does the same with augmentation, exact resume
and a monitor.
"""

import argparse

import torch
from transformers import AutoModelForVideoClassification, AutoProcessor, Trainer, TrainingArguments

from videossl_hf.data.datasets import load_videos  # any import of the package registers its models

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("model")
parser.add_argument("folder")
parser.add_argument("output")
parser.add_argument("--steps", type=int, default=100, help="optimiser steps (100)")
parser.add_argument("--batch-size", type=int, default=8, help="clips a step (8)")
args = parser.parse_args()

videos = load_videos(args.folder, "train")
names = videos.features["label"].names
processor = AutoProcessor.from_pretrained(args.model)
model = AutoModelForVideoClassification.from_pretrained(
    args.model, id2label=dict(enumerate(names)), label2id={name: number for number, name in enumerate(names)}
)


def collate(samples: list[dict]) -> dict[str, torch.Tensor]:
    """Decode the middle clip of each video."""
    batch = processor(videos=[sample["video"] for sample in samples], return_tensors="pt")
    return {**batch, "labels": torch.tensor([sample["label"] for sample in samples])}


settings = TrainingArguments(
    args.output,
    max_steps=args.steps,
    per_device_train_batch_size=args.batch_size,
    learning_rate=1e-3,
    logging_steps=10,
    remove_unused_columns=False,  # the collator decodes: it needs the column `video`
    report_to=[],
)
trainer = Trainer(model, settings, train_dataset=videos, data_collator=collate)
trainer.train()
trainer.save_model()
processor.save_pretrained(args.output)  # as `processing_class` Trainer would ask it for a tokenizer
