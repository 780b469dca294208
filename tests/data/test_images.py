"""Images are videos of one frame: in a folder with metadata, in a column `image`, and in training batches."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import datasets as hf
import numpy as np
import pytest
from PIL import Image

from videossl_hf.data.datasets import load_videos
from videossl_hf.data.reader import VideoReader
from videossl_hf.errors import DecodeError


def picture() -> np.ndarray:
    ramp = np.zeros((40, 50, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(50) * 5, np.arange(40)[:, None] * 6
    return ramp


def encoded(kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture()).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("kind", "suffix", "off_by"), [("JPEG", "jpg", 3), ("PNG", "png", 0), ("WEBP", "webp", 4)]
)
def test_an_image_is_read_as_one_frame_from_a_file_and_from_bytes(
    tmp_path: Path, kind: str, suffix: str, off_by: float
) -> None:
    path = tmp_path / f"100%03d.{suffix}"  # FFmpeg would read such a name as that of a numbered sequence
    path.write_bytes(encoded(kind))
    for source in (path, path.read_bytes(), {"bytes": None, "path": str(path)}):
        with VideoReader(source) as video:
            assert (len(video), video.info.height, video.info.width) == (1, 40, 50)
            off = np.abs(video.frames([0])[0].astype(int) - picture())
            assert off.mean() <= off_by


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_damaged_image_is_a_decode_error(kind: str) -> None:
    content = encoded(kind)
    with pytest.raises(DecodeError), VideoReader(content[: len(content) // 3]) as video:
        video.frames([0])


def test_captioned_images_load_as_videos(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded("JPEG"))
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "a.jpg", "caption": "a ramp"}))
    cell = {"bytes": encoded("PNG"), "path": None}
    columns = hf.Dataset.from_dict({"image": [cell], "caption": ["a ramp"]}).cast_column("image", hf.Image())
    columns.to_parquet(str(tmp_path / "parquet" / "train.parquet"))
    for source, streaming in ((tmp_path, False), (tmp_path / "parquet", False), (tmp_path / "parquet", True)):
        (row,) = load_videos(str(source), "train", streaming=streaming)
        assert row["caption"] == "a ramp"
        with VideoReader(row["video"]) as video:
            assert len(video) == 1
