"""The files of a Space that demonstrates a model: the app, a gallery of generated clips, and this package.

No package index has videossl-hf, so its source lies in the Space, where `import videossl_hf` finds it.
"""

from __future__ import annotations

import json
import re
from importlib.metadata import requires
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi

from ..data.sounding_shapes.clips import ClipSettings, draw_clip, render_frames, render_sound
from ..data.writer import encode_video
from .verify import check_arrived

__all__ = ["plan_space", "push_space"]

PACKAGE = Path(__file__).parents[1]
SOURCES = (".py", ".yaml", ".md", ".css", ".html")
GRADIO = "6.31.0"
CLIPS = 24  # two of each motion
EXTRAS = ("viz",)


def plan_space(model_id: str, license: str) -> dict[str, Path | bytes]:
    """Path in the Space -> file or content.

    Args:
        model_id: of the model on the Hub.
        license: of the weights, as the model's card has it.
    """
    app = (Path(__file__).parent / "templates" / "app.py").read_text(encoding="utf-8")
    files: dict[str, Path | bytes] = {
        "README.md": _front_page(model_id, license).encode(),
        "app.py": app.replace("MODEL_ID", model_id).encode(),
        "requirements.txt": _requirements().encode(),
    }
    rows = []
    settings = ClipSettings(size=128, fps=12.0, seconds=3.0, nuisance="mid", seed=8)
    for index in range(CLIPS):
        draws = draw_clip(settings, "test", index)
        sound = render_sound(draws, settings)
        name = f"{index:02d}.mp4"
        files[f"gallery/{name}"] = encode_video(
            render_frames(draws, settings),
            settings.fps,
            sound=sound,
            sample_rate=settings.sample_rate,
            crf=24,
        )
        rows.append({"file_name": name, **draws.row()})
    files["gallery/metadata.jsonl"] = "".join(json.dumps(row) + "\n" for row in rows).encode()
    for path in sorted(PACKAGE.rglob("*")):
        if path.suffix in SOURCES and path.is_file() and not path.is_symlink():
            files[f"{PACKAGE.name}/{path.relative_to(PACKAGE).as_posix()}"] = path
    return files


def push_space(files: dict[str, Path | bytes], space: str, *, private: bool = False) -> str:
    """Publish the files in one commit and verify what arrived.

    Args:
        files: from `plan_space`.
        space: id of the Space; made if absent.
        private: whether a new one is private.

    Returns:
        The commit's hash.

    Raises:
        OutputError: a file that was downloaded again differs.
    """
    api = HfApi()
    api.create_repo(space, repo_type="space", space_sdk="gradio", private=private or None, exist_ok=True)
    operations = [
        CommitOperationAdd(name, source if isinstance(source, bytes) else str(source))
        for name, source in sorted(files.items())
    ]
    commit = api.create_commit(
        space, operations, repo_type="space", commit_message="Publish with videossl push --space"
    ).oid
    check_arrived(api, files, space, commit, repo_type="space")
    return commit


def _front_page(model_id: str, license: str) -> str:
    return f"""---
title: {model_id.split("/")[-1]}
emoji: 🎬
colorFrom: indigo
colorTo: yellow
sdk: gradio
sdk_version: {GRADIO}
app_file: app.py
license: {license}
models:
- {model_id}
pinned: false
---

Shows what [{model_id}](https://huggingface.co/{model_id}) makes of a clip: classes, the nearest clips of a
gallery, and the method's own picture. The clips of the gallery are generated. `videossl_hf/` is the source of
videossl-hf, Apache-2.0.
"""


def _requirements() -> str:
    """What the package needs at run time and for its pictures; gradio comes with the Space."""
    lines = []
    for line in requires("videossl-hf") or ():
        requirement, _, marker = line.partition(";")
        extra = re.search(r"extra == ['\"](\w+)['\"]", marker)
        if extra is None or extra[1] in EXTRAS:
            lines.append(requirement.strip())
    return "".join(f"{line}\n" for line in sorted(lines))
