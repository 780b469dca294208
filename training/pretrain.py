"""Pre-train a method: `accelerate launch training/pretrain.py RECIPE [--section.key value ...]`."""

from __future__ import annotations

import sys

from videossl_hf.cli import main

if __name__ == "__main__":
    sys.exit(main(["pretrain", *sys.argv[1:]]))
