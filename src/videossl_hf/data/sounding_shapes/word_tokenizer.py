"""A tokenizer of whole words, for text towers that learn from the spoken descriptions alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .transcript import VOCABULARY

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["SPECIAL_TOKENS", "word_tokenizer"]

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
"""Numbers 0 to 3, named as BERT names them; the words follow."""


def word_tokenizer(words: Sequence[str] = VOCABULARY) -> PreTrainedTokenizerFast:
    """Words to numbers, between [CLS] and [SEP]; capitals do not count.

    Args:
        words: the vocabulary, in lower case; the first one has the number 4.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.normalizers import Lowercase
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    pad, unknown, first, last = SPECIAL_TOKENS
    numbers = {word: number for number, word in enumerate((*SPECIAL_TOKENS, *words))}
    tokenizer = Tokenizer(WordLevel(numbers, unk_token=unknown))
    tokenizer.normalizer, tokenizer.pre_tokenizer = Lowercase(), Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single=f"{first} $A {last}", special_tokens=[(token, numbers[token]) for token in (first, last)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=pad, unk_token=unknown, cls_token=first, sep_token=last
    )
