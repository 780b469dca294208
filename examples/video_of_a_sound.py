"""Which video of a folder goes with a sound? For models that were pre-trained on both (STiCA).

    python examples/video_of_a_sound.py MODEL FOLDER SOUND --top 5

MODEL is the folder or id of a pre-training checkpoint: its projection heads span the space in which clips and
sounds are compared. SOUND is a sound file, or a video whose sound is meant.
"""

import argparse

import torch
from transformers import AutoModelForPreTraining, AutoProcessor

from videossl_hf.data.datasets import load_videos  # any import of the package registers its models
from videossl_hf.evaluation.features import extract_features

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("model")
parser.add_argument("folder")
parser.add_argument("sound")
parser.add_argument("--top", type=int, default=5, help="how many to name (5)")
args = parser.parse_args()

model = AutoModelForPreTraining.from_pretrained(args.model).eval()
processor = AutoProcessor.from_pretrained(args.model)
videos = extract_features(model, processor, load_videos(args.folder, "train"), space="shared")
with torch.no_grad():
    sound = model.get_audio_embeddings(processor(audio=args.sound, return_tensors="pt")["input_features"])

similarity = (videos.features @ sound.T)[:, 0]
for place in torch.argsort(similarity, descending=True)[: args.top].tolist():
    print(f"{similarity[place]:.3f}  {videos.keys[place]}")
