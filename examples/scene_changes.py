"""Where does a long video change? Each window of it is compared with the one before.

    python examples/scene_changes.py MODEL VIDEO --window 2 --stride 1

MODEL is a folder or an id on the Hub. The video is read once, window by window, however long it is.
"""

import argparse
from itertools import pairwise

from torch.nn.functional import cosine_similarity
from transformers import pipeline

import videossl_hf  # noqa: F401  makes its pipelines and models known to transformers

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("model")
parser.add_argument("video")
parser.add_argument("--window", type=float, default=2.0, help="seconds that are looked at together (2)")
parser.add_argument("--stride", type=float, default=1.0, help="seconds from one window to the next (1)")
args = parser.parse_args()

extract = pipeline("video-feature-extraction", model=args.model)
windows = extract(args.video, window_seconds=args.window, stride_seconds=args.stride, return_tensors=True)
for before, after in pairwise(windows):
    change = 1 - cosine_similarity(before["features"], after["features"], dim=0).item()
    print(f"{after['start']:8.1f} s  {change:.3f}  {'#' * round(40 * change)}")
