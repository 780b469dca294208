"""Clips a CPU-second: our reader beside torchcodec, decord and PyAV decoding everything, in one run.

    python benchmarks/decode.py [--starts 9] [--repeats 3] [--output results.json]

Each reader takes a clip of 16 frames, every fourth one, at a size, from generated ten-second 340x256 H.264
files (30 fps, crf 23, moving texture) with a keyframe every 250 or every 30 frames: random starts, the
readers one after another for every start, CPU time of the process with one thread, the best of the repeats,
the median over the starts. "exact" counts the right clips: for ours those that are bit for bit what
decoding everything gives, for the others, which scale in their own ways, those whose every frame is nearest
to its own.

"ours" finds the index of the file in the process-wide table, as from the second epoch on; "ours, first read"
makes it. The rivals keep nothing between two reads.

The rivals are no dependencies: one that is not installed is reported as such. torchcodec 0.13 (with Debian's
FFmpeg) and decord 0.6.0 are what can be had beside a CPU-only torch 2.13.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import av
import numpy as np

from videossl_hf.data import video_index
from videossl_hf.data.reader import VideoReader

NUM_FRAMES, STRIDE, CLIP = 300, 4, 16
HEIGHT, WIDTH = 256, 340
KEYS, SIZES = (250, 30), (128, 224)
Decode = Callable[[str, np.ndarray, int], np.ndarray]


def write_texture(path: Path, key_distance: int) -> None:
    """A noise texture that drifts, with some static grain: about 700 kb/s."""
    random = np.random.default_rng(0)
    coarse = random.uniform(0, 255, (2 * HEIGHT // 16, 2 * WIDTH // 16, 3))
    texture = np.kron(coarse, np.ones((16, 16, 1)))
    for axis in (0, 1):
        texture = (np.roll(texture, 4, axis) + texture + np.roll(texture, -4, axis)) / 3
    grain = random.normal(0, 6, (HEIGHT, WIDTH, 1))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        stream.options = {"crf": "23", "g": str(key_distance), "keyint_min": str(key_distance)}
        for number in range(NUM_FRAMES):
            top, left = number % HEIGHT, (2 * number) % WIDTH
            pixels = np.roll(texture, (-top, -left), (0, 1))[:HEIGHT, :WIDTH] + grain
            frame = av.VideoFrame.from_ndarray(np.clip(pixels, 0, 255).astype(np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def target(size: int) -> tuple[int, int]:
    return size, round(WIDTH * size / HEIGHT)


def ours(path: str, indices: np.ndarray, size: int) -> np.ndarray:
    with VideoReader(path) as video:
        return video.frames(indices, size)


def ours_first_read(path: str, indices: np.ndarray, size: int) -> np.ndarray:
    """As `ours`, but of a file that this process has not read before: its index is made first."""
    video_index._cache.clear()
    return ours(path, indices, size)


def pyav_decode_all(path: str, indices: np.ndarray, size: int) -> np.ndarray:
    """What a plain script does: decode the file, turn every frame into RGB at the size, pick the clip."""
    height, width = target(size)
    with av.open(path) as container:
        container.streams.video[0].codec_context.thread_count = 1
        reformatter = av.video.reformatter.VideoReformatter()
        frames = [
            reformatter.reformat(frame, width, height, "rgb24", threads=1).to_ndarray()
            for frame in container.decode(video=0)
        ]
    return np.stack([frames[i] for i in indices])


def reference(path: str, indices: np.ndarray, size: int) -> np.ndarray:
    """Everything decoded from the start, then scaled as our reader scales."""
    height, width = target(size)
    with av.open(path) as container, VideoReader(path) as video:
        frames = list(container.decode(video=0))
        clip = np.empty((len(indices), height, width, 3), dtype=np.uint8)
        for index, place in zip(indices, clip, strict=True):
            video._convert(frames[index], place)
    return clip


def torchcodec_reader(mode: str) -> Decode:
    from torchcodec.decoders import VideoDecoder
    from torchcodec.transforms import Resize

    def decode(path: str, indices: np.ndarray, size: int) -> np.ndarray:
        decoder = VideoDecoder(
            path,
            seek_mode=mode,
            num_ffmpeg_threads=1,
            dimension_order="NHWC",
            transforms=[Resize(size=target(size))],
        )
        return decoder.get_frames_at(indices.tolist()).data.numpy()

    return decode


def decord_reader() -> Decode:
    import decord

    def decode(path: str, indices: np.ndarray, size: int) -> np.ndarray:
        height, width = target(size)
        reader = decord.VideoReader(path, width=width, height=height, num_threads=1)
        return reader.get_batch(indices).asnumpy()

    return decode


def find_readers() -> tuple[dict[str, Decode], dict[str, str]]:
    """The readers that work here, and why the others do not."""
    readers: dict[str, Decode] = {
        "ours": ours,
        "ours, first read": ours_first_read,
        "PyAV decode-all": pyav_decode_all,
    }
    missing: dict[str, str] = {}
    rivals: dict[str, Callable[[], Decode]] = {
        "torchcodec exact": lambda: torchcodec_reader("exact"),
        "torchcodec approximate": lambda: torchcodec_reader("approximate"),
        "decord": decord_reader,
    }
    for name, make in rivals.items():
        package = name.split()[0]
        try:
            readers[f"{name} {version(package)}"] = make()
        except PackageNotFoundError:
            missing[name] = "not installed"
        except Exception as error:  # a build for another torch, FFmpeg libraries that are not there
            missing[name] = f"does not load: {str(error).strip().splitlines()[0][:100]}"
    return readers, missing


def cpu_seconds(decode: Decode, path: str, indices: np.ndarray, size: int) -> float:
    started = time.process_time()
    decode(path, indices, size)
    return time.process_time() - started


def is_same_clip(clip: np.ndarray, wanted: np.ndarray) -> bool:
    """Each frame is nearer to its own than to the other frames of the clip, whatever the scaling."""
    clip = clip.astype(np.float32)
    error = [[np.abs(frame - other).mean() for other in wanted] for frame in clip]
    return bool((np.argmin(error, axis=1) == np.arange(len(wanted))).all())


def measure(
    readers: dict[str, Decode], path: str, size: int, starts: list[int], repeats: int
) -> dict[str, dict]:
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    exact = dict.fromkeys(readers, 0)
    for start in starts:
        indices = start + STRIDE * np.arange(CLIP)
        wanted = reference(path, indices, size)
        best = dict.fromkeys(readers, float("inf"))
        for name, decode in readers.items():
            clip = decode(path, indices, size)
            same = np.array_equal(clip, wanted) if name.startswith("ours") else is_same_clip(clip, wanted)
            exact[name] += same
        for _ in range(repeats):
            VideoReader(path).close()  # what follows the first read finds the index in the table
            for name, decode in readers.items():
                best[name] = min(best[name], cpu_seconds(decode, path, indices, size))
        for name in readers:
            seconds[name].append(best[name])
    return {
        name: {
            "clips_per_cpu_second": round(statistics.median(1 / s for s in seconds[name]), 2),
            "exact": f"{exact[name]}/{len(starts)}",
        }
        for name in readers
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--starts", type=int, default=9, help="random clips per file")
    parser.add_argument("--repeats", type=int, default=3, help="of which the fastest counts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="also write the figures to this JSON file")
    args = parser.parse_args()

    readers, missing = find_readers()
    random = np.random.default_rng(args.seed)
    starts = random.integers(0, NUM_FRAMES - STRIDE * (CLIP - 1), args.starts).tolist()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for key_distance in KEYS:
            path = Path(folder) / f"key{key_distance}.mp4"
            write_texture(path, key_distance)
            rate = path.stat().st_size * 8 / (NUM_FRAMES / 30) / 1000
            for size in SIZES:
                figures = measure(readers, str(path), size, starts, args.repeats)
                results.append({"keyframe_distance": key_distance, "size": size, "readers": figures})
                print(f"\nkeyframe every {key_distance}, short side {size} ({rate:.0f} kb/s)")
                for name, row in figures.items():
                    ratio = figures["ours"]["clips_per_cpu_second"] / row["clips_per_cpu_second"]
                    speed = row["clips_per_cpu_second"]
                    print(
                        f"  {name:30s} {speed:6.1f} clips/CPU-s   exact {row['exact']:>5s}  ours {ratio:.2f}x"
                    )
    for name, reason in missing.items():
        print(f"  {name}: {reason}")
    if args.output:
        versions = {name: version(name) for name in ("av", "numpy")}
        report = {"starts": args.starts, "versions": versions, "missing": missing, "results": results}
        args.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
