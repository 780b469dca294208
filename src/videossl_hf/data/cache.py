"""Decoded frames and sound, kept so that a file is decoded once and not once an epoch.

What is kept: all frames of a video at the storage size (uint8), their times, and the beginning of its sound
(int16), enough for every span of one length that starts within the first second. Whoever reads through the
cache gets, bit for bit, what reading the file would give.

- "memory": inside the process. Every data-loading worker has its own and decodes for itself, so worth it with
  few workers (that live on between epochs: `persistent_workers`); the least recently used entries go first.
- "disk": one safetensors file an entry in a folder that all processes share and later runs find again.
  Nothing is ever removed: delete the folder when it is no longer needed.

Meant for collections of clips of a few seconds. Videos of more than 64 MB of decoded frames pass by the
cache, and so do sound files beside a video and sources that have no identity (URLs, file objects).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import ConfigurationError, DecodeError, OutputError
from .audio_reader import PREROLL
from .reader import VideoInfo, VideoReader

__all__ = ["CachedVideo", "MediaCache", "fetched"]

Arrays = dict[str, np.ndarray]

_FORMAT = 1
_LARGEST_ENTRY = 64 * 2**20
# Where reading the sound begins later, the reader seeks. Some AAC decoders fill in noise that then differs in
# the last bit from what decoding from the start gives, so such spans are always read anew.
_SEEKLESS = 2 * PREROLL


class _Store(Protocol):
    def get(self, key: str) -> Arrays | None: ...

    def put(self, key: str, arrays: Arrays) -> None: ...


class _MemoryStore:
    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.size = 0
        self.entries: OrderedDict[str, Arrays] = OrderedDict()

    def get(self, key: str) -> Arrays | None:
        if key in self.entries:
            self.entries.move_to_end(key)
        return self.entries.get(key)

    def put(self, key: str, arrays: Arrays) -> None:
        self.entries[key] = arrays
        self.size += _size(arrays)
        while self.size > self.max_bytes:
            _, removed = self.entries.popitem(last=False)
            self.size -= _size(removed)


class _DiskStore:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot create the cache folder {folder}: {error.strerror}") from error

    def get(self, key: str) -> Arrays | None:
        from safetensors.numpy import load_file

        try:
            return load_file(self._path(key))
        except FileNotFoundError:
            return None

    def put(self, key: str, arrays: Arrays) -> None:
        """Write under another name first: no reader ever sees half a file."""
        from safetensors.numpy import save_file

        path = self._path(key)
        try:
            path.parent.mkdir(exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
            os.close(descriptor)
            try:
                save_file(arrays, name)
                Path(name).replace(path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise OutputError(f"cannot write to the cache folder {self.folder}: {error.strerror}") from error

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"


class MediaCache:
    """Opens videos, and keeps what was decoded.

    Args:
        kind: "none", "memory" or "disk".
        folder: where "disk" keeps its files.
        max_bytes: limit of "memory" in each process.

    Raises:
        ConfigurationError: an unknown kind, or "disk" without a folder.
        OutputError: the folder cannot be created.
    """

    def __init__(
        self, kind: str = "none", folder: str | Path | None = None, max_bytes: int = 2 * 2**30
    ) -> None:
        if kind not in ("none", "memory", "disk"):
            raise ConfigurationError(f"cache must be 'none', 'memory' or 'disk', got {kind!r}")
        self._store: _Store | None = None
        if kind == "memory":
            self._store = _MemoryStore(max_bytes)
        elif kind == "disk":
            if folder is None:
                raise ConfigurationError("cache 'disk' needs a folder: set cache_dir")
            self._store = _DiskStore(Path(folder))

    @contextmanager
    def open(self, cell: Any, short_side: int | None = None) -> Iterator[CachedVideo]:
        """A video to read frames and sound from.

        Args:
            cell: any source of `VideoReader`, or a cell whose path only datasets can open ("zip://a.mp4::hf://...").
            short_side: frames come scaled down to this short side in pixels; smaller ones and None stay.
        """
        with contextlib.ExitStack() as stack:
            yield CachedVideo(fetched(cell), short_side, self._store, stack)


class CachedVideo:
    """One video, opened when something is asked for that the cache does not hold."""

    def __init__(
        self, source: Any, short_side: int | None, store: _Store | None, stack: contextlib.ExitStack
    ) -> None:
        self._source = source
        self._short_side = short_side
        self._identity = _identity(source)
        self._store = store
        self._stack = stack
        self._open_reader: VideoReader | None = None
        self._arrays: Arrays | None = None
        self._checked = False

    @property
    def info(self) -> VideoInfo:
        """Facts of the file; height and width are those before scaling."""
        arrays = self._whole()
        if arrays is None:
            return self._reader.info
        return VideoInfo(**json.loads(arrays["info"].tobytes()))

    @property
    def frame_times(self) -> np.ndarray:
        """(frames,) float64: seconds since the first frame."""
        arrays = self._whole()
        return self._reader.frame_times if arrays is None else arrays["times"]

    def frames(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """(len(indices), height, width, 3) uint8 RGB."""
        arrays = self._whole()
        numbers = np.asarray(indices)
        if arrays is None or not ((numbers >= 0) & (numbers < len(arrays["frames"]))).all():
            return self._reader.frames(indices, self._size)  # which refuses frames that do not exist
        return arrays["frames"][numbers]

    def audio(self, start: float, seconds: float, sample_rate: int) -> np.ndarray:
        """(round(seconds * sample_rate),) int16, from `start` seconds after the first frame."""
        arrays = None
        if 0 <= start <= _SEEKLESS:
            settings = ("audio", seconds, sample_rate)
            arrays = self._kept(settings, lambda: self._decode_sound(seconds, sample_rate))
        if arrays is None:
            return self._reader.audio(start, seconds, sample_rate)
        # The reader rounds times on the container's clock to samples, and cuts every span out of one track.
        origin = arrays["start_time"].item()
        first = round((origin + start) * sample_rate) - round(origin * sample_rate)
        return arrays["audio"][first : first + round(seconds * sample_rate)].copy()

    @property
    def _reader(self) -> VideoReader:
        if self._open_reader is None:
            self._open_reader = self._stack.enter_context(VideoReader(self._source))
        return self._open_reader

    @property
    def _size(self) -> int | None:
        info = self._reader.info
        if self._short_side is None or self._short_side >= min(info.height, info.width):
            return None
        return self._short_side

    def _whole(self) -> Arrays | None:
        """Everything of the video but its sound, or None where that is not cached."""
        if not self._checked:
            self._checked = True
            self._arrays = self._kept(("frames", self._short_side), self._decode_frames)
        return self._arrays

    def _kept(self, settings: tuple[Any, ...], decode: Callable[[], Arrays | None]) -> Arrays | None:
        if self._store is None or self._identity is None:
            return None
        key = hashlib.blake2b(repr((_FORMAT, self._identity, settings)).encode(), digest_size=20).hexdigest()
        arrays = self._store.get(key)
        if arrays is None:
            try:
                arrays = decode()
            except DecodeError:
                return None  # damaged somewhere: reading only what is asked for decides
            if arrays is not None:
                self._store.put(key, arrays)
        return arrays

    def _decode_frames(self) -> Arrays | None:
        info = self._reader.info
        scale = 1.0 if self._size is None else self._size / min(info.height, info.width)
        if info.num_frames * info.height * info.width * 3 * scale**2 > _LARGEST_ENTRY:
            return None
        return {
            "frames": self._reader.frames(np.arange(info.num_frames), self._size),
            "times": np.array(self._reader.frame_times),
            "info": np.frombuffer(json.dumps(asdict(info)).encode(), np.uint8),
        }

    def _decode_sound(self, seconds: float, sample_rate: int) -> Arrays:
        """Enough for every span of this length that starts within the first `_SEEKLESS` seconds."""
        return {
            "audio": self._reader.audio(0.0, _SEEKLESS + seconds + 2 / sample_rate, sample_rate),
            "start_time": np.array([self._reader.start_time]),
        }


def fetched(cell: Any) -> Any:
    """The cell, or its bytes where its path is an address that only datasets' file systems can open."""
    path = cell.get("path") if isinstance(cell, Mapping) and cell.get("bytes") is None else None
    if path is None or "://" not in str(path) or str(path).startswith(("http://", "https://", "hf://")):
        return cell
    import fsspec

    try:
        with fsspec.open(path, "rb") as file:
            return {"bytes": file.read(), "path": path}
    except Exception as error:  # whatever the file system's client raises
        raise DecodeError(path, f"it cannot be fetched: {error}") from error


def _identity(source: Any) -> str | None:
    """What changes whenever the content of a source does; None where that cannot be known."""
    if isinstance(source, Mapping):
        source = source.get("path") if source.get("bytes") is None else source["bytes"]
    if isinstance(source, bytes):
        return hashlib.blake2b(source, digest_size=20).hexdigest()
    if isinstance(source, str) and re.match(r"hf://[^:]+@[0-9a-f]{40}/[^:]+$", source):
        return source  # a commit never changes
    if isinstance(source, (str, Path)) and "://" not in str(source):
        path = Path(source).absolute()
        with contextlib.suppress(OSError):
            status = path.stat()
            return f"{path}|{status.st_mtime_ns}|{status.st_size}"
    return None


def _size(arrays: Arrays) -> int:
    return sum(array.nbytes for array in arrays.values())
