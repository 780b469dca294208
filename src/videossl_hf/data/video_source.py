"""Opens a video or sound file wherever it lies, and turns every failure into one readable error.

A source is a path, an http(s) URL, a Hub address (hf://), bytes, a binary file object or a
`{"bytes", "path"}` cell of a Hugging Face `Video(decode=False)` / `Audio(decode=False)` column.

FFmpeg would also follow playlists and concatenation scripts, render text files as pictures and open any
protocol that a file names. A data set must not be able to do that, so only containers and protocols of a list
are opened. FFmpeg's own log stays as PyAV leaves it: silent, unless the program that imports us sets a level.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from ..errors import DecodeError, DependencyError, InputError, VideoSSLError

__all__ = ["Media", "MediaSource", "decode_errors", "load_pyav"]

# What the decoders themselves know to be wrong becomes an error instead of a concealed frame. The stricter
# "aggressive" refuses sound MPEG-4 files of common encoders.
STRICT_OPTIONS = {"err_detect": "explode+crccheck+bitstream+buffer+careful"}
# Damaged headers may claim any size; 8K video has 33 million pixels.
MAX_PIXELS = 1 << 26
CONTAINERS = (
    "mov,matroska,avi,mpeg,mpegts,mpegvideo,m4v,h264,hevc,obu,ivf,flv,asf,ogg,nut,mxf,dv,rm,gif,"
    "wav,w64,aiff,caf,au,mp3,aac,flac,ac3,eac3,amr,ape,wv,tta,"
    "jpeg_pipe,png_pipe,webp_pipe"
)
# Images are videos of one frame. By their path FFmpeg would take them for one of a numbered sequence.
IMAGE_EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp"})
URL_TIMEOUT = 20.0  # seconds without an answer


def load_pyav() -> Any:
    """Import PyAV, which is needed only where something is decoded."""
    try:
        import av
    except ImportError as error:
        raise DependencyError("reading video and sound needs PyAV: pip install av") from error
    return av


@contextmanager
def decode_errors(name: str) -> Iterator[None]:
    """Turn whatever FFmpeg, PyAV or a user's file object raises inside the block into a `DecodeError`.

    Errors of this package pass unchanged. FFmpeg's come as OSError, ValueError, EOFError, MemoryError and
    others without a common base, hence the broad net.
    """
    try:
        yield
    except VideoSSLError:
        raise
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DecodeError(name, reason[0].lower() + reason[1:]) from error


class MediaSource:
    """Where the encoded bytes come from; can be opened several times.

    Attributes:
        name: what error messages call it.
        path: the local file, or None. Only these have a key in caches.
    """

    def __init__(self, source: Any) -> None:
        self.path: Path | None = None
        self._target: str | bytes | BinaryIO
        self._options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
        self._timeout: tuple[float, float] | None = None
        label = None
        if isinstance(source, Mapping):
            data, label = source.get("bytes"), source.get("path")
            source = label if data is None else data
            if source is None:
                raise DecodeError("an empty cell", "it has neither bytes nor a path")
        if isinstance(source, (bytes, bytearray, memoryview)):
            self._target = bytes(source)
            self.name = _shorten(str(label)) if label else f"<{len(self._target):,} bytes>"
        elif isinstance(source, str) and source.split(":", 1)[0].lower() in ("http", "https"):
            self._target = source
            # A signed URL carries its secret in the query.
            self.name = _shorten(urlsplit(source)._replace(query="", fragment="").geturl())
            self._options["protocol_whitelist"] = "http,https,tcp,tls,httpproxy"
            self._timeout = (URL_TIMEOUT, URL_TIMEOUT)
        elif isinstance(source, str) and source.startswith("hf://"):
            from huggingface_hub import HfFileSystem

            self.name = _shorten(source)
            with decode_errors(self.name):  # a file that is read in ranges
                self._target = HfFileSystem().open(source, "rb")
        elif isinstance(source, (str, Path)):
            self.path = Path(source)
            self.name = _shorten(str(source))
            self._target = f"file:{source}"
        elif hasattr(source, "read"):
            self.name = _shorten(str(getattr(source, "name", None) or "<file object>"))
            seekable = hasattr(source, "seek") and (not hasattr(source, "seekable") or source.seekable())
            with decode_errors(self.name):
                self._target = source if seekable else source.read()
        else:
            raise InputError(
                "a video or sound source is a path, an http(s) URL, bytes, a binary file object or a "
                f'{{"bytes", "path"}} cell, got {type(source).__name__}'
            )

    def open(self, *, tolerant: bool = False, **options: str) -> Any:
        """A new `av.container.InputContainer`; `options` are FFmpeg's, in addition to our own.

        Raises:
            DecodeError: the file does not exist, is empty, or is no media file.
        """
        av = load_pyav()
        options = {**self._options, **({} if tolerant else STRICT_OPTIONS), **options}
        target = self._target
        if self.path is not None:
            # Also keeps away from pipes and devices, where reading may never end.
            if not self.path.is_file():
                exists = self.path.exists()
                raise DecodeError(self.name, "it is not a regular file" if exists else "no such file")
            if self.path.stat().st_size == 0:
                raise DecodeError(self.name, "the file is empty")
            if self.path.suffix.lower() in IMAGE_EXTENSIONS:
                with decode_errors(self.name):
                    target = self.path.read_bytes()
        if isinstance(target, bytes):
            if not target:
                raise DecodeError(self.name, "there are no bytes")
            target = io.BytesIO(target)
        with decode_errors(self.name):
            if not isinstance(target, str):
                target.seek(0)
            try:
                return av.open(
                    target,
                    options=options,
                    metadata_errors="ignore",
                    timeout=self._timeout,
                    buffer_size=1 << 16,
                )
            except (av.error.InvalidDataError, av.error.ArgumentError) as error:
                reason = "it is no video or sound file of a known kind, or its header is damaged"
                raise DecodeError(self.name, reason) from error


class Media:
    """An open source with at most one video and one sound stream; the two take turns.

    Attributes:
        source: what it was opened from.
        container: the `av.container.InputContainer`; another one after `restart`.
        tolerant: whether a container may be damaged; decoders always say when something is.
    """

    def __init__(self, source: MediaSource, *, tolerant: bool = False) -> None:
        self.source = source
        self.tolerant = tolerant
        self.container: Any = None
        self._at_start = False
        self.restart()

    @property
    def name(self) -> str:
        """What error messages call the source."""
        return self.source.name

    def restart(self) -> None:
        """Go to the start by opening the source anew, which no container format can get wrong."""
        if self._at_start:
            return
        self.close()
        self.container = self.source.open(tolerant=self.tolerant)
        try:
            for stream in self.container.streams:
                self._configure(stream)
        except BaseException:
            self.close()
            raise
        self._at_start = True

    def close(self) -> None:
        """Release the file; may be called twice."""
        if self.container is not None:
            self.container.close()
            self.container = None
        self._at_start = False

    def stream(self, kind: str) -> Any:
        """The first stream of a kind ("video" or "audio"), or None; cover pictures are no video."""
        cover = load_pyav().stream.Disposition.attached_pic
        for stream in self.container.streams:
            if stream.type == kind and not stream.disposition & cover:
                if stream.codec_context is None:
                    raise DecodeError(self.name, f"there is no decoder for its {kind} stream")
                return stream
        return None

    def seek(self, stream: Any, timestamp: int) -> None:
        """Go to the last keyframe not after a time in the stream's time base, and empty the decoders."""
        self._at_start = False
        self.container.seek(timestamp, stream=stream, backward=True)

    def packets(self, stream: Any) -> Iterator[Any]:
        """The packets of one stream from the current position on; others are not even read."""
        self._at_start = False
        discard = load_pyav().stream.Discard
        for other in self.container.streams:
            other.discard = discard.default if other.index == stream.index else discard.all
        for packet in self.container.demux(stream):
            # An empty packet tells a decoder that the stream has ended: containers use it for "nothing new".
            if packet.size:
                yield packet

    def _configure(self, stream: Any) -> None:
        context = stream.codec_context
        if context is None or stream.type not in ("video", "audio"):
            return
        # Data loaders have one process a core: more threads here cost 7-20 % in coordination.
        context.thread_count = 1
        options = dict(STRICT_OPTIONS)
        if stream.type == "video":
            context.thread_type = "SLICE"
            options["max_pixels"] = str(MAX_PIXELS)
        context.options = options


def _shorten(name: str, limit: int = 120) -> str:
    return name if len(name) <= limit else f"...{name[-limit:]}"
