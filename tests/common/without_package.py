"""Run in a fresh process: load saved folders through transformers alone, compute, save them again.

python without_package.py WORK SOURCE TARGET MODE

WORK holds inputs.pt and clip.mp4. SOURCE holds one folder a kind of model. MODE "blocked" makes our package
impossible to import and passes trust_remote_code; "imported" imports it instead; "both" imports it and passes
trust_remote_code. Writes TARGET/results.pt and, beside it, what was loaded, saved again.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

PACKAGE = "videossl_hf"


class Blocked:
    """An import hook that finds our package nowhere."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.split(".")[0] == PACKAGE:
            raise ModuleNotFoundError(f"{name} must not be needed")


def main(work: Path, source: Path, target: Path, mode: str) -> None:
    if mode == "blocked":
        sys.meta_path.insert(0, Blocked())
    else:
        __import__(PACKAGE)
    import torch
    import transformers

    torch.set_num_threads(1)
    trust = {} if mode == "imported" else {"trust_remote_code": True}
    inputs = torch.load(work / "inputs.pt", weights_only=True)
    arguments = json.loads((work / "processor.json").read_text())
    results: dict[str, Any] = {}
    for name, tensors in inputs.items():
        model = getattr(transformers, name).from_pretrained(source / name, **trust).eval()
        with torch.no_grad():
            output = model(**tensors)
        results[name] = {key: value for key, value in output.items() if isinstance(value, torch.Tensor)}
        results[f"{name} module"] = type(model).__module__
        model.save_pretrained(target / name)
        processor = transformers.AutoProcessor.from_pretrained(source / name, **trust)
        processor.save_pretrained(target / name)
        results[f"{name} processor"] = dict(processor(**arguments))
    classifier = source / "AutoModelForVideoClassification"
    if classifier.is_dir():
        from transformers.models.auto.video_processing_auto import AutoVideoProcessor

        AutoVideoProcessor.from_pretrained(classifier, **trust)
        pipe = transformers.pipeline("video-classification", model=str(classifier), device="cpu", **trust)
        results["pipeline"] = pipe(str(work / "clip.mp4"), top_k=3)
    results["imported"] = PACKAGE in sys.modules
    torch.save(results, target / "results.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
