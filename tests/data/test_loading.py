from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from media import sweep, write_media
from videossl_hf.data.ledger import Ledger, read_ledger
from videossl_hf.data.loading import SampleLoader
from videossl_hf.errors import ConfigurationError, DataError, DecodeError, NoAudioError, OutputError


class Numbers:
    """Samples 0 to 99 of which every one can be asked for, like a SeededDataset."""

    def __len__(self) -> int:
        return 100

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {
            "video": {"path": f"{index}.mp4", "bytes": None},
            "sample_index": index,
            "sample_seed": 1000 + index,
            "sample_epoch": 2,
        }


def decoder(*bad: int) -> Any:
    def decode(sample: dict[str, Any], generator: torch.Generator) -> tuple[int, float]:
        if sample["sample_index"] in bad:
            raise DecodeError(sample["video"]["path"], "it is damaged")
        return sample["sample_index"], torch.rand((), generator=generator).item()

    return decode


BATCH = [Numbers()[index] for index in range(8)]


def test_results_come_in_order_each_with_its_own_random_numbers() -> None:
    together = SampleLoader().load_batch(BATCH, decoder())
    assert [index for index, _ in together] == list(range(8))
    assert len({draw for _, draw in together}) == 8
    assert SampleLoader().load_batch(BATCH[5:6], decoder()) == together[5:6]


def test_policy_raise_stops_at_the_first_bad_sample_and_names_it() -> None:
    with pytest.raises(DecodeError) as caught:
        SampleLoader("raise").load_batch(BATCH, decoder(3))
    assert "3.mp4" in caught.value.__notes__[0]


def test_a_bad_sample_is_replaced_by_another_of_the_dataset_and_listed(tmp_path: Path) -> None:
    loader = SampleLoader("skip", ledger=tmp_path / "run" / "bad.jsonl", replacements=Numbers())
    results = loader.load_batch(BATCH, decoder(3))
    (entry,) = read_ledger(tmp_path / "run" / "bad.jsonl")
    replacement = results[3][0]
    assert [index for index, _ in results] == [0, 1, 2, replacement, 4, 5, 6, 7]
    assert replacement != 3
    assert entry == {
        "key": "3.mp4",
        "index": 3,
        "reason": "DecodeError: cannot decode 3.mp4: it is damaged",
        "epoch": 2,
        "replaced_by": f"{replacement}.mp4",
        "worker": 0,
        "rank": 0,
    }


def test_the_replacement_depends_on_the_seed_alone() -> None:
    first = SampleLoader("skip", replacements=Numbers()).load_batch(BATCH, decoder(3))
    alone = SampleLoader("skip", replacements=Numbers()).load_batch(BATCH[3:4], decoder(3))
    assert alone == first[3:4]


def test_without_a_dataset_a_good_sample_of_the_batch_stands_in_with_other_draws() -> None:
    results = SampleLoader("skip").load_batch(BATCH, decoder(0, 3))
    assert results == SampleLoader("skip").load_batch(BATCH, decoder(0, 3))
    for position in (0, 3):
        index, draw = results[position]
        assert index not in (0, 3)
        assert draw != results[index][1]


def test_bad_replacements_are_listed_too(tmp_path: Path) -> None:
    loader = SampleLoader(
        "skip", ledger=tmp_path / "bad.jsonl", replacements=Numbers(), max_bad_share=1.0, max_tries=100
    )
    results = loader.load_batch(BATCH[:1], decoder(*range(90)))
    entries = read_ledger(tmp_path / "bad.jsonl")
    assert results[0][0] >= 90
    assert entries[0]["index"] == 0
    assert len(entries) > 1
    assert {entry["replaced_by"] for entry in entries} == {f"{results[0][0]}.mp4"}
    assert loader.num_bad == len(entries)


@pytest.mark.parametrize("replacements", [None, Numbers()])
def test_an_all_broken_set_stops_at_once_with_everything_listed(tmp_path: Path, replacements: Any) -> None:
    loader = SampleLoader("skip", ledger=tmp_path / "bad.jsonl", replacements=replacements)
    with pytest.raises(DataError, match="seems to be broken"):
        loader.load_batch(BATCH, decoder(*range(100)))
    assert read_ledger(tmp_path / "bad.jsonl")[0]["replaced_by"] is None


def test_the_run_stops_above_the_stated_share_and_not_below() -> None:
    def run(bad: int) -> None:
        loader = SampleLoader("skip", max_bad_share=0.1, min_count=20)
        numbers = Numbers()
        for start in range(0, 96, 8):
            samples = [numbers[index] for index in range(start, start + 8)]
            loader.load_batch(samples, decoder(*range(0, 100, 100 // bad)))

    run(5)
    with pytest.raises(DataError, match="max_bad_share"):
        run(25)


def test_faults_of_the_program_are_never_skipped() -> None:
    def decode(sample: dict[str, Any], generator: torch.Generator) -> None:
        raise TypeError("a bug")

    with pytest.raises(TypeError):
        SampleLoader("skip").load_batch(BATCH, decode)


@pytest.mark.parametrize(
    "settings",
    [
        {"policy": "ignore"},
        {"max_bad_share": 1.5},
        {"max_tries": 0},
        {"min_count": 0},
        {"cache": "gpu"},
        {"cache": "disk"},
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        SampleLoader(**settings)


def test_samples_without_a_seed_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="SeededDataset"):
        SampleLoader().load_batch([{"video": {}}], decoder())


def test_sound_comes_from_the_audio_column_or_else_the_video(clip_with_sound: Path, tmp_path: Path) -> None:
    silent = write_media(tmp_path / "silent.mp4")
    track = write_media(tmp_path / "track.wav", num_frames=0, sound=sweep(1.0, 8000), sample_rate=8000,
                        sound_codec="pcm_s16le")  # fmt: skip
    loader = SampleLoader()

    def sound(sample: dict[str, Any]) -> Any:
        with loader.open(sample) as video:
            return loader.audio(sample, video, 0.25, 0.5, 8000)

    own = sound({"video": str(clip_with_sound)})
    assert own.shape == (4000,)
    assert own.any()
    other = sound({"video": str(silent), "audio": {"path": str(track), "bytes": None}})
    assert abs(other.astype(int) - sweep(1.0, 8000)[2000:6000].astype(int)).max() < 300
    with pytest.raises(NoAudioError):
        sound({"video": str(silent), "audio": None})


def test_lines_of_several_writers_never_mix(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: Ledger(path).append([{"key": f"{n}" * 200}] * 3), range(40)))
    lines = path.read_text().splitlines()
    assert len(lines) == 120
    assert all(json.loads(line) for line in lines)


def test_a_ledger_that_cannot_be_written_is_an_error_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="ledger"):
        SampleLoader(ledger=tmp_path / "file" / "bad.jsonl")
    assert read_ledger(tmp_path / "none.jsonl") == []
