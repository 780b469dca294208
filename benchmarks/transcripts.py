"""Preparing a transcript of an hour, ours beside the official alignment, on this CPU.

    python benchmarks/transcripts.py --official TVTS_CHECKOUT --packages FOLDER

The official code cleans and aligns the whole transcript for every clip drawn from a video; here it is done
once, when data is prepared. One official call is timed, and counted as often as clips are drawn. Both sides
must say the same.
"""

from __future__ import annotations

import argparse
import copy
import random
import time
from collections.abc import Callable
from typing import Any

from checkouts import add_checkout_arguments, has_checkout
from official_tvts import NEEDED, load_transcript_code
from videossl_hf.data.transcripts.readers import parse_transcript

WORDS_PER_SECOND = 2.5


def make_annotation(seconds: int, seed: int = 0) -> dict[str, Any]:
    """An annotation in YT-Temporal's form: raw words with times, and the same words written properly, a few
    of them left out, added or spelt otherwise."""
    draw = random.Random(seed)
    letters = "etaoinshrdlucmfwypvbg"
    vocabulary = ["".join(draw.choices(letters, k=draw.randint(1, 9))) for _ in range(3000)]
    weights = [1 / (rank + 5) for rank in range(len(vocabulary))]
    raw = draw.choices(vocabulary, weights, k=round(seconds * WORDS_PER_SECOND))
    written = []
    for number, word in enumerate(raw):
        chance = draw.random()
        if chance > 0.03:
            written.append(word.capitalize() + "." if number % 12 == 0 else word)
        if chance > 0.97:
            written.append(draw.choice(vocabulary))
    return {
        "subtitles": [{"word": word, "time": number / WORDS_PER_SECOND} for number, word in enumerate(raw)],
        "denoised": [{"cleanasr": " ".join(written[at : at + 50])} for at in range(0, len(written), 50)],
        "info": {"duration": seconds},
    }


def seconds_of(call: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of a call, and what it returns."""
    start = time.process_time()
    result = call()
    return time.process_time() - start, result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_checkout_arguments(parser, NEEDED)
    parser.add_argument("--seconds", type=int, default=3600, help="length of the transcript (3600)")
    parser.add_argument("--samples", type=int, default=20, help="clips drawn from the video (20)")
    arguments = parser.parse_args()
    if not has_checkout(arguments, NEEDED):
        return
    code = load_transcript_code(arguments)

    def official(annotation: dict[str, Any]) -> list[str]:
        annotation = copy.deepcopy(annotation)  # the official code cleans in place
        words = code.clean_subtitles(annotation["subtitles"])
        written = [
            word for part in annotation["denoised"] for word in code.ftfy.ftfy(part["cleanasr"]).split(" ")
        ]
        return code.align_using_dtw([word["word"] for word in words], written)

    official(make_annotation(20))  # compiles what tslearn leaves to be compiled
    annotation = make_annotation(arguments.seconds)
    ours, words = seconds_of(lambda: parse_transcript(annotation))
    theirs, texts = seconds_of(lambda: official(annotation))
    assert [word.text for word in words] == texts, "the two alignments differ"
    print(
        f"{len(words)} words: ours {ours:.2f} s, once; official {theirs:.2f} s, for each clip that is drawn."
        f" {arguments.samples} clips: {arguments.samples * theirs / ours:.0f}x"
    )


if __name__ == "__main__":
    main()
