"""Official annotation files, in the formats in which they are published, and the videos that they name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from media import write_media
from videossl_hf.data.datasets import load_videos
from videossl_hf.errors import DataError


class Place:
    """A folder with annotation files and empty videos, and its YAML file."""

    def __init__(self, folder: Path, dataset: str, **settings: Any) -> None:
        self.folder, self.path = folder, folder / "set.yaml"
        self.settings = {"dataset": dataset, "videos": "videos", "annotations": "lists", **settings}
        (folder / "lists").mkdir()
        (folder / "videos").mkdir()

    def annotation(self, name: str, content: Any) -> None:
        text = content if isinstance(content, str) else json.dumps(content)
        (self.folder / "lists" / name).write_text(text)

    def videos(self, *names: str) -> None:
        for name in names:
            path = self.folder / "videos" / name
            path.parent.mkdir(exist_ok=True, parents=True)
            path.touch()

    def load(self, split: str, **settings: Any) -> list[tuple[Any, ...]]:
        """(name of the video, class name or caption) of every row."""
        self.path.write_text(yaml.safe_dump(self.settings | settings))
        rows = load_videos(str(self.path), split)
        names = getattr(rows.features.get("label"), "names", None)
        return [
            (Path(row["video"]["path"]).name, names[row["label"]] if names else row["caption"])
            for row in rows
        ]

    def classes(self, split: str) -> list[str]:
        return load_videos(str(self.path), split).features["label"].names


def test_ucf101(tmp_path: Path) -> None:
    place = Place(tmp_path, "ucf101")
    place.annotation("classInd.txt", "1 HandstandPushups\n2 Archery\n")
    place.annotation("trainlist01.txt", "HandstandPushups/v_HandStandPushups_g08_c01.avi 1\r\n")
    place.annotation("testlist01.txt", "Archery/v_Archery_g01_c01.avi\n")
    place.annotation("trainlist03.txt", "Archery/v_Archery_g01_c01.avi 2\n\n")
    place.videos("HandstandPushups/v_HandStandPushups_g08_c01.avi", "Archery/v_Archery_g01_c01.mp4")
    assert place.load("train") == [("v_HandStandPushups_g08_c01.avi", "HandstandPushups")]
    assert place.load("test") == [("v_Archery_g01_c01.mp4", "Archery")]  # re-encoded under its name
    assert place.load("train", fold=3) == [("v_Archery_g01_c01.mp4", "Archery")]
    assert place.classes("train") == ["HandstandPushups", "Archery"]  # in the official order
    for settings, message in (({"fold": 4}, "folds 1 to 3"), ({"fold": 2}, "cannot read .*trainlist02")):
        with pytest.raises(DataError, match=message):
            place.load("train", **settings)
    with pytest.raises(DataError, match="no split 'validation': it has train, test"):
        place.load("validation")
    place.annotation("testlist01.txt", "Swimming/v_Swimming_g01_c01.avi\n")
    with pytest.raises(DataError, match="line 1: unknown class"):
        place.load("test")


def test_hmdb51(tmp_path: Path) -> None:
    place = Place(tmp_path, "hmdb51")
    place.annotation("wave_test_split1.txt", "a (1)_u_nm.avi 1 \nb.avi 2 \nc.avi 0 \n")
    place.annotation("brush_hair_test_split1.txt", "d.avi 2 \n")
    place.annotation("wave_test_split2.txt", "b.avi 1 \n")
    place.videos("wave/a (1)_u_nm.avi", "wave/b.avi", "wave/c.avi", "brush_hair/d.avi")
    assert place.load("train") == [("a (1)_u_nm.avi", "wave")]
    assert place.load("test") == [("d.avi", "brush_hair"), ("b.avi", "wave")]
    assert place.load("train", fold=2) == [("b.avi", "wave")]
    place.annotation("wave_test_split1.txt", "a.avi 3\n")
    with pytest.raises(DataError, match="line 1: not a name and 0, 1 or 2"):
        place.load("train")


def test_kinetics_whose_videos_vanish(tmp_path: Path) -> None:
    place = Place(tmp_path, "kinetics")
    heading = "label,youtube_id,time_start,time_end,split\n"
    place.annotation(
        "train.csv", heading + '"playing, loudly",aB-_1,3,13,train\nabseiling,x2,100,110,train\n'
    )
    place.annotation("val.csv", heading + "zumba,y3,0,10,val\n")
    place.videos("a/aB-_1_000003_000013.mp4", "y3_000000_000010.mkv")
    with pytest.raises(
        DataError, match=r"lacks 1 of the 2 videos .* such as x2_000100_000110; `missing: skip`"
    ):
        place.load("train")
    assert place.load("train", missing="skip") == [("aB-_1_000003_000013.mp4", "playing, loudly")]
    assert place.load("validation") == [("y3_000000_000010.mkv", "zumba")]
    assert place.classes("validation") == ["abseiling", "playing, loudly", "zumba"]
    place.annotation("val.csv", "label,youtube_id\nzumba,y3\n")
    with pytest.raises(DataError, match="has no column time_start, time_end; it has label, youtube_id"):
        place.load("validation")


def test_one_file_is_no_annotation_of_every_split(tmp_path: Path) -> None:
    """A table of the training videos must not be read as that of the test."""
    place = Place(tmp_path, "kinetics")
    place.annotation("train.csv", "label,youtube_id,time_start,time_end\nzumba,y3,0,10\n")
    place.videos("y3_000000_000010.mp4")
    with pytest.raises(DataError, match=r"there is no folder .*train\.csv"):
        place.load("test", annotations="lists/train.csv")


def test_something_something_and_diving48(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    place = Place(tmp_path / "a", "something-something-v2")
    place.annotation(
        "something-something-v2-labels.json", {"Holding something": "1", "Bending something": "0"}
    )
    rows = [
        {
            "id": "74225",
            "label": "holding a cup",
            "template": "Holding [something]",
            "placeholders": ["a cup"],
        }
    ]
    place.annotation("something-something-v2-train.json", rows)
    place.videos("74225.webm")
    assert place.load("train") == [("74225.webm", "Holding something")]
    assert place.classes("train") == ["Bending something", "Holding something"]
    assert load_videos(str(place.path), "train")[0]["caption"] == "holding a cup"
    place.annotation("something-something-v2-train.json", [{"id": "1", "template": "Flying"}])
    with pytest.raises(DataError, match="unknown class 'Flying'"):
        place.load("train")

    (tmp_path / "b").mkdir()
    place = Place(tmp_path / "b", "diving48")
    place.annotation(
        "Diving48_vocab.json", [["Back", "15som", "05Twis", "FREE"], ["Forward", "NoTwis", "PIKE"]]
    )
    place.annotation("Diving48_V2_test.json", [{"vid_name": "x_00001", "label": 1, "start_frame": 0}])
    place.videos("x_00001.mp4")
    assert place.load("test") == [("x_00001.mp4", "Forward-NoTwis-PIKE")]
    place.annotation("Diving48_V2_test.json", [{"vid_name": "x_00001", "label": 48}])
    with pytest.raises(DataError, match="no label from 0 to 1"):
        place.load("test")


def test_esc50_by_fold(tmp_path: Path) -> None:
    place = Place(tmp_path, "esc50")
    place.annotation(
        "esc50.csv",
        "filename,fold,target,category,esc10\n1-1-A-0.wav,1,0,dog,True\n2-2-A-5.wav,2,5,cat,False\n",
    )
    place.videos("1-1-A-0.wav", "2-2-A-5.wav")
    assert place.load("test") == [("1-1-A-0.wav", "dog")]
    assert place.load("train") == [("2-2-A-5.wav", "cat")]
    assert place.load("test", fold=2) == [("2-2-A-5.wav", "cat")]


def test_videos_with_sentences(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    place = Place(tmp_path / "a", "msrvtt")
    place.annotation(
        "MSRVTT_JSFUSION_test.csv", 'key,vid_key,video_id,sentence\nret0,m9,video9,"a man, cooking"\n'
    )
    place.annotation("MSRVTT_train.9k.csv", "video_id\nvideo0\n")
    sentences = [
        {"caption": f"{video} {n}", "video_id": video} for video in ("video0", "video9") for n in (1, 2)
    ]
    place.annotation("MSRVTT_data.json", {"sentences": sentences})
    place.videos("video0.mp4", "video9.mp4")
    assert place.load("test") == [("video9.mp4", "a man, cooking")]
    assert place.load("train") == [("video0.mp4", "video0 1"), ("video0.mp4", "video0 2")]

    place = Place(tmp_path / "b", "msvd")
    place.annotation("val_list.txt", "x_1_5\n")
    place.annotation("AllVideoDescriptions.txt", "# comment\n\nx_1_5 a dog runs\ny_0_2 a cat\n")
    place.videos("x_1_5.avi")
    assert place.load("validation") == [("x_1_5.avi", "a dog runs")]

    place = Place(tmp_path / "c", "didemo")
    parts = [{"video": "1@N_2.mov", "description": text, "times": [[0, 0]]} for text in ("first", "then ")]
    place.annotation("test_data.json", parts)
    place.videos("1@N_2.mov.mp4")
    assert place.load("test") == [("1@N_2.mov.mp4", "first then")]
    (place.folder / "videos/1@N_2.mov.mp4").rename(place.folder / "videos/1@N_2.mov")
    assert place.load("test") == [("1@N_2.mov", "first then")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "cannot read"),
        ("ucf101", "must hold the keys"),
        ("{dataset: ucf, videos: v, annotations: a}", "unknown dataset 'ucf': one of ucf101"),
        ("{dataset: ucf101, videos: v}", "annotations is missing"),
        ("{dataset: ucf101, videos: v, annotations: a, fould: 1}", "unknown key fould"),
        ("{dataset: ucf101, videos: v, annotations: a}", "there is no folder .*a"),
        ("{dataset: ucf101, videos: v, annotations: a, missing: ignore}", "missing must be error or skip"),
        ("{dataset: ucf101, videos: v, annotations: a, fold: one}", "folds 1 to 3, got 'one'"),
    ],
)
def test_a_wrong_file_is_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "set.yaml").write_text(text)
    with pytest.raises(DataError, match=message) as error:
        load_videos(str(tmp_path / "set.yaml"), "train")
    assert "set.yaml" in str(error.value)


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    place = Place(tmp_path, "esc50")
    place.annotation("esc50.csv", "filename,fold,target,category\na.wav,1,0,dog\n")
    place.videos("a.wav", "x/a.wav")
    with pytest.raises(DataError, match="have the same name"):
        place.load("test")


def test_a_real_video_is_read_through_it(tmp_path: Path) -> None:
    place = Place(tmp_path, "hmdb51")
    place.annotation("wave_test_split1.txt", "a.avi 1\n")
    write_media(tmp_path / "videos/a.mp4")
    place.load("train")
    row = load_videos(str(place.path), "train", streaming=True)
    assert next(iter(row))["label"] == 0
