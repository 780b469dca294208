"""CLIP's tokenizer, made of the one file of the package open_clip_torch that holds its vocabulary.

The package is installed without what it depends on, and never imported.
"""

from __future__ import annotations

import functools
import gzip
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from transformers import CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

FILE = "bpe_simple_vocab_16e6.txt.gz"
SIZE = 49408
SPECIAL = ["<|startoftext|>", "<|endoftext|>"]


def _vocabulary_file() -> Path:
    try:
        found = [Path(str(file.locate())) for file in files("open_clip_torch") or [] if file.name == FILE]
    except PackageNotFoundError as error:
        raise FileNotFoundError(
            "CLIP's vocabulary is missing: pip install --no-deps open_clip_torch (make install does that)"
        ) from error
    return found[0]


@functools.cache
def clip_tokenizer() -> CLIPTokenizer:
    """The tokenizer of OpenAI's CLIP: bytes, bytes that end a word, merges, start and end of text."""
    lines = gzip.decompress(_vocabulary_file().read_bytes()).decode("utf-8").split("\n")
    characters = list(bytes_to_unicode().values())
    pieces = [*characters, *(f"{character}</w>" for character in characters)]
    merges = [tuple(line.split()) for line in lines[1 : 1 + SIZE - len(pieces) - len(SPECIAL)]]
    pieces += ["".join(merge) for merge in merges] + SPECIAL
    return CLIPTokenizer(vocab={piece: index for index, piece in enumerate(pieces)}, merges=merges)
