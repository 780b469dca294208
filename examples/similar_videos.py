"""Which videos of a folder look most like a given one?

    python examples/similar_videos.py MODEL FOLDER QUERY --top 5

MODEL is a folder or an id on the Hub: of this package, or a video model of transformers. FOLDER holds videos,
in one folder a class or not. With --cache the features of the folder are kept, and a further query is
answered at once.
"""

import argparse

import torch
from torch.nn.functional import normalize

from videossl_hf.data.datasets import load_videos
from videossl_hf.evaluation.features import extract_features
from videossl_hf.evaluation.loading import load_model, load_processor

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("model")
parser.add_argument("folder")
parser.add_argument("query")
parser.add_argument("--top", type=int, default=5, help="how many to name (5)")
parser.add_argument("--cache", help="folder for the features")
args = parser.parse_args()

model, processor = load_model(args.model), load_processor(args.model)
videos = load_videos(args.folder, "train")
gallery = extract_features(model, processor, videos, cache_dir=args.cache, progress="Looking at the folder")
query = extract_features(model, processor, [{"video": args.query}])

similarity = (normalize(gallery.features) @ normalize(query.features).T)[:, 0]
for place in torch.argsort(similarity, descending=True)[: args.top].tolist():
    print(f"{similarity[place]:.3f}  {gallery.keys[place]}")
