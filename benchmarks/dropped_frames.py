"""Which frames VideoMoCo's generator drops: `python benchmarks/dropped_frames.py RUN... --data DATA`.

For every run folder: the share of test clips in which each frame is dropped, the number of different sets of
frames, and the share of clips with the commonest one. A generator that looks at the clip has many sets; one
that has collapsed drops the same frames whatever the clip. Writes results/videomoco-dropped-frames.json.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForPreTraining

from videossl_hf.data.datasets import load_videos
from videossl_hf.evaluation.loading import load_processor, quiet_libraries
from videossl_hf.models.videomoco.generator_videomoco import lowest_frames


def dropped_frames(folder: Path, data: str, split: str) -> dict[str, Any]:
    """Figures of one run."""
    with quiet_libraries(), torch.no_grad():
        model = AutoModelForPreTraining.from_pretrained(folder).eval()
        processor = load_processor(str(folder))
        videos = load_videos(data, split)
        count = model.config.dropped_frame_count(model.config.num_frames)
        sets: Counter[tuple[int, ...]] = Counter()
        for start in range(0, len(videos), 50):
            files = [cell["path"] for cell in videos[start : start + 50]["video"]]
            scores = model.generator(processor(videos=files)["pixel_values_videos"])
            sets.update(tuple(row) for row in lowest_frames(scores, count).tolist())
    shares = [
        sum(number for chosen, number in sets.items() if frame in chosen) / len(videos)
        for frame in range(model.config.num_frames)
    ]
    return {
        "run": folder.name,
        "clips": len(videos),
        "dropped": count,
        "share_of_clips_that_lose_each_frame": [round(share, 3) for share in shares],
        "different_sets": len(sets),
        "share_of_the_commonest_set": round(sets.most_common(1)[0][1] / len(videos), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, help="folders of pre-training runs")
    parser.add_argument("--data", required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--output", type=Path, default=Path("results/videomoco-dropped-frames.json"))
    arguments = parser.parse_args()
    rows = [dropped_frames(run, arguments.data, arguments.split) for run in arguments.runs]
    for row in rows:
        print(row)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(
        json.dumps({"split": arguments.split, "runs": rows}, indent=1) + "\n", encoding="utf-8"
    )
    print(f"written to {arguments.output}")


if __name__ == "__main__":
    main()
