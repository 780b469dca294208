from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from videossl_hf.data.datasets import load_videos
from videossl_hf.data.reader import VideoReader
from videossl_hf.data.sounding_shapes import (
    CLASS_NAMES,
    ClipSettings,
    SoundingShapes,
    draw_clip,
    folder,
    render_frames,
    render_sound,
    write_sounding_shapes,
)
from videossl_hf.errors import ConfigurationError, OutputError

TINY = SoundingShapes(train=12, validation=3, test=4, clips=ClipSettings(size=32, seed=5))
QUIET = {"processes": 1, "show_progress": False}


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    return write_sounding_shapes(tmp_path_factory.mktemp("shapes") / "set", TINY, **QUIET)


def contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_the_set_loads_with_labels_facts_and_transcripts(written):
    assert [len(load_videos(str(written), split)) for split in ("train", "validation", "test")] == [12, 3, 4]
    dataset = load_videos(str(written), "train")
    assert set(dataset.features["label"].names) == set(CLASS_NAMES)
    row = dataset[3]
    drawn = draw_clip(TINY.clips, "train", 3)
    assert dataset.features["label"].int2str(row["label"]) == drawn.motions[0].name
    assert row["speed"] == pytest.approx(drawn.motions[0].speed, abs=1e-6)
    assert row["transcript"] == drawn.words
    assert row["caption"].split() == [word["text"] for word in row["transcript"]]


def test_the_datasets_library_alone_loads_it_too(written, tmp_path):
    import datasets as hf

    loaded = hf.load_dataset(str(written), cache_dir=str(tmp_path))
    assert {split: len(part) for split, part in loaded.items()} == {"train": 12, "validation": 3, "test": 4}
    assert "transcript" in loaded["train"].column_names


def test_the_tokenizer_beside_the_clips_knows_every_word_that_is_told(written):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(written / "tokenizer")
    for split in ("train", "validation", "test"):
        for caption in load_videos(str(written), split)["caption"]:
            numbers = tokenizer(caption)["input_ids"]
            assert tokenizer.unk_token_id not in numbers
            assert len(numbers) == len(caption.split()) + 2
            assert tokenizer.decode(numbers, skip_special_tokens=True) == caption
    both = tokenizer(["Now it GROWS", "it flies away indeed"], padding=True)
    words = both["input_ids"]
    assert words[0][:5] == tokenizer("now it grows")["input_ids"]
    assert words[0][0] == words[1][0] == tokenizer.cls_token_id
    assert words[1].count(tokenizer.unk_token_id) == 3
    assert both["attention_mask"][0] == [1, 1, 1, 1, 1, 0]


def test_a_set_of_before_gets_its_tokenizer(written, tmp_path):
    shutil.copytree(written, tmp_path / "set")
    shutil.rmtree(tmp_path / "set/tokenizer")
    write_sounding_shapes(tmp_path / "set", TINY, **QUIET)
    assert contents(tmp_path / "set") == contents(written)


def test_frames_and_sound_read_back_are_those_that_were_drawn(written):
    for index in range(12):
        draws = draw_clip(TINY.clips, "train", index)
        frames, sound = render_frames(draws, TINY.clips), render_sound(draws, TINY.clips)
        with VideoReader(written / "train" / f"{index:06d}.mp4") as video:
            seen, heard = video.frames(range(16)), video.audio(0.0, 2.0, 24000)
            assert (len(video), video.info.fps) == (16, 8)
        assert np.abs(seen.astype(int) - frames).mean() < 6
        # The cross-correlation of what was made and what is heard peaks within 10 ms of no shift at all.
        spectrum = np.fft.rfft(heard, 2**17) * np.fft.rfft(sound, 2**17).conj()
        shift = int(np.argmax(np.fft.irfft(spectrum)))
        assert min(shift, 2**17 - shift) < 240
        assert np.corrcoef(heard, sound)[0, 1] > 0.8


def test_the_number_of_processes_changes_no_byte(written, tmp_path):
    write_sounding_shapes(tmp_path / "set", TINY, processes=2, show_progress=False)
    assert contents(tmp_path / "set") == contents(written)


def test_a_complete_set_is_used_again(written):
    before = {path: path.stat().st_mtime_ns for path in written.rglob("*")}
    write_sounding_shapes(written, TINY, **QUIET)
    after = {path: path.stat().st_mtime_ns for path in written.rglob("*") if path != written}
    assert all(before[path] == changed for path, changed in after.items())


def test_a_run_that_was_broken_off_continues(written, tmp_path, monkeypatch):
    writes = []

    def break_off(path, *rest, **options):
        writes.append(path.name)
        if len(writes) == 8:
            raise KeyboardInterrupt
        write_video(path, *rest, **options)

    write_video = folder.write_video
    monkeypatch.setattr(folder, "write_video", break_off)
    with pytest.raises(KeyboardInterrupt):
        write_sounding_shapes(tmp_path / "set", TINY, **QUIET)
    write_sounding_shapes(tmp_path / "set", TINY, **QUIET)
    assert len(writes) == 8 + 5 + 3 + 4, "the seven clips that were there are kept"
    assert contents(tmp_path / "set") == contents(written)


def test_a_set_with_other_settings_is_refused_by_name(written):
    other = SoundingShapes(train=12, validation=3, test=4, clips=ClipSettings(size=48, seed=5))
    with pytest.raises(OutputError, match="size is 32 there, 48 asked for"):
        write_sounding_shapes(written, other, **QUIET)


def test_a_folder_with_other_files_and_one_that_cannot_be_made_are_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(OutputError, match="other files"):
        write_sounding_shapes(tmp_path, TINY, **QUIET)
    with pytest.raises(OutputError, match="cannot write"):
        write_sounding_shapes(tmp_path / "thesis.tex" / "set", TINY, **QUIET)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_damaged_manifest_is_an_error_that_says_what_to_do(tmp_path):
    (tmp_path / "sounding_shapes.json").write_text("{")
    with pytest.raises(OutputError, match=r"damaged.*delete"):
        write_sounding_shapes(tmp_path, TINY, **QUIET)


def test_card_and_manifest_state_the_settings(written):
    card = (written / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0")
    assert "32x32 pixels, 8 frames a second, 2 seconds" in card
    assert "| validation | 3 |" in card
    assert "`grow` and `shrink`" in card
    manifest = json.loads((written / "sounding_shapes.json").read_text())
    assert (manifest["train"], manifest["size"], manifest["nuisance"], manifest["seed"]) == (12, 32, "mid", 5)


def test_sequences_are_written_with_their_motions_and_word_times(tmp_path):
    dataset = SoundingShapes(train=2, clips=ClipSettings(size=24, motions=3))
    write_sounding_shapes(tmp_path / "set", dataset, **QUIET)
    row = load_videos(str(tmp_path / "set"), "train")[0]
    assert "label" not in row
    assert len({motion["label"] for motion in row["motions"]}) == len(row["sentences"]) == 3
    with VideoReader(row["video"]) as video:
        assert video.info.duration == pytest.approx(6.0)
    assert 4 < row["transcript"][-1]["end"] <= 6
    assert "3 different motions" in (tmp_path / "set" / "README.md").read_text()


@pytest.mark.parametrize("counts", [{"train": 0}, {"train": -1, "test": 3}])
def test_a_set_without_clips_is_refused(counts):
    with pytest.raises(ConfigurationError, match="not all 0"):
        SoundingShapes(**counts)
