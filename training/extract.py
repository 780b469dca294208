"""Write features to safetensors files: `python training/extract.py MODEL --data D --output FOLDER`."""

from __future__ import annotations

import sys

from videossl_hf.cli import main

if __name__ == "__main__":
    sys.exit(main(["extract", *sys.argv[1:]]))
