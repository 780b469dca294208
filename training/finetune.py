"""Train a classifier: `accelerate launch training/finetune.py RECIPE [--section.key value ...]`."""

from __future__ import annotations

import sys

from videossl_hf.cli import main

if __name__ == "__main__":
    sys.exit(main(["finetune", *sys.argv[1:]]))
