"""Score the features of a model: `python training/evaluate.py MODEL --data D --protocol knn linear`."""

from __future__ import annotations

import sys

from videossl_hf.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
