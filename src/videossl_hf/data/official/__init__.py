"""Data sets of the field by their official annotation files, one file a family.

A YAML file says where one lies, and is a source like any folder (`load_videos("ucf101.yaml", "train")`,
`--data ucf101.yaml`):

    dataset: ucf101                  # one of OFFICIAL_SETS
    videos: UCF-101                  # folder of the videos, in any subfolders
    annotations: ucfTrainTestlist    # folder of the official annotation
    fold: 1                          # where the set has several
    missing: error                   # or skip: videos that the annotation names and the folder lacks

Paths are relative to the YAML file.
"""

from __future__ import annotations

from .source import OFFICIAL_SETS, count_folds, read_official

__all__ = ["OFFICIAL_SETS", "count_folds", "read_official"]
