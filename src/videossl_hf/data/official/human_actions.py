"""UCF101 and HMDB51: lists of files for each of three folds."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from ...errors import DataError
from .annotation import AnnotatedVideo, Annotation, find, read_lines

__all__ = ["hmdb51", "ucf101"]


def ucf101(annotations: Path, split: str, fold: int) -> Annotation:
    """`classInd.txt` ("1 ApplyEyeMakeup"), `trainlist01.txt` ("ApplyEyeMakeup/v_..._g08_c01.avi 1"),
    `testlist01.txt` (the same without number).
    """
    classes = [_second_word(*line, annotations) for line in read_lines(find(annotations, "classInd.txt"))]
    entries = []
    for number, line in read_lines(annotations / f"{split}list{fold:02d}.txt"):
        path = PurePosixPath(line.split()[0])
        if path.parent.name not in classes:
            raise DataError(f"{split}list{fold:02d}.txt, line {number}: unknown class in {line!r}")
        entries.append(AnnotatedVideo(path.stem, {"label": path.parent.name}))
    return Annotation(entries, classes)


def _second_word(number: int, line: str, annotations: Path) -> str:
    words = line.split()
    if len(words) != 2 or not words[0].isdecimal():
        raise DataError(f"{annotations}/classInd.txt, line {number}: not a number and a class: {line!r}")
    return words[1]


def hmdb51(annotations: Path, split: str, fold: int) -> Annotation:
    """`brush_hair_test_split1.txt` and one such file for every class, with lines "NAME.avi 1" (1: train, 2:
    test, 0: in neither).
    """
    files = sorted(annotations.glob(f"*_test_split{fold}.txt"))
    if not files:
        raise DataError(f"{annotations} holds no files CLASS_test_split{fold}.txt")
    entries, classes = [], []
    wanted = {"train": "1", "test": "2"}[split]
    for file in files:
        label = re.sub(r"_test_split\d+$", "", file.stem)
        classes.append(label)
        for number, line in read_lines(file):
            name, _, use = line.rpartition(" ")
            if use not in ("0", "1", "2"):
                raise DataError(f"{file}, line {number}: not a name and 0, 1 or 2: {line!r}")
            if use == wanted:
                entries.append(AnnotatedVideo(PurePosixPath(name.strip()).stem, {"label": label}))
    return Annotation(entries, classes)
