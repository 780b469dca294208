from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.media import make_clip, moving_frames, tone
from common.processor_checks import ProcessorChecks
from models import tiny_stica
from videossl_hf import STiCAConfig, STiCAFeatureExtractor, STiCAProcessor, STiCAVideoProcessor
from videossl_hf.data.reader import VideoReader
from videossl_hf.data.writer import VideoWriter
from videossl_hf.errors import ConfigurationError, InputError, NoAudioError


class TestSTiCAProcessor(ProcessorChecks):
    def make_processor(self) -> STiCAProcessor:
        return tiny_stica.make_processor()

    def test_takes_the_track_that_goes_with_each_clip_from_the_same_file(
        self, processor: Any, clip: Path
    ) -> None:
        features = processor(videos=clip, audio=True)
        with VideoReader(clip) as reader:
            start = reader.frame_times[
                processor.video_processor.clip_indices(len(reader), reader.info.fps)[0, 0]
            ]
            sound = reader.audio(start, 1.0, 24000)
        assert features["input_features"].shape == (1, 1, tiny_stica.MELS, tiny_stica.STEPS)
        assert torch.equal(features["input_features"], processor(audio=sound)["input_features"])
        assert torch.equal(features["pixel_values_videos"], self.pixels(processor, clip))

    def test_several_clips_bring_their_sounds(self, processor: Any, clip: Path) -> None:
        features = processor(videos=[clip, clip], audio="track", num_clips=3)
        assert features["pixel_values_videos"].shape[:2] == (2, 3)
        sounds = features["input_features"]
        assert sounds.shape == (2, 3, 1, tiny_stica.MELS, tiny_stica.STEPS)
        assert not torch.equal(sounds[:, 0], sounds[:, 2])

    def test_a_video_without_sound_says_so(self, processor: Any, tmp_path: Path) -> None:
        silent = make_clip(tmp_path / "silent.mp4", sound=False)
        assert "input_features" not in processor(videos=silent)
        with pytest.raises(NoAudioError, match="no sound track"):
            processor(videos=silent, audio=True)

    def test_decoded_frames_have_no_track(self, processor: Any) -> None:
        with pytest.raises(InputError, match="no sound track"):
            processor(videos=moving_frames(8), audio=True)
        with pytest.raises(InputError, match="videos"):
            processor(audio=True)
        with pytest.raises(InputError, match="give videos, audio"):
            processor()

    def test_videos_and_waveforms_go_together(self, processor: Any) -> None:
        features = processor(videos=[moving_frames(8)] * 2, audio=[tone(1.0)] * 2, sampling_rate=24000)
        assert {name: len(value) for name, value in features.items()} == {
            "pixel_values_videos": 2,
            "input_features": 2,
        }

    def test_fits_its_configuration(self) -> None:
        processor = STiCAProcessor.from_config(STiCAConfig.gdt(), num_frames=16, time_pooling=3)
        assert processor.video_processor.num_frames == 16
        assert processor.feature_extractor.feature_std == 17.89
        assert (processor.feature_extractor.num_mel_bins, processor.feature_extractor.num_steps) == (40, 33)
        with pytest.raises(ConfigurationError, match="frames_number"):
            STiCAProcessor.from_config(STiCAConfig(), frames_number=3)


class TestSTiCAFeatureExtractor:
    def test_defaults_are_the_published_ones(self) -> None:
        features = STiCAFeatureExtractor()(tone(2.0))["input_features"]
        assert features.shape == (1, 1, 257, 199)
        # 38 filters of the published bank are empty: the logarithm of the smallest float64 step.
        assert ((features + 36.0437).abs() < 1e-4).all(-1).sum() == 38

    def test_short_sounds_are_padded_with_zeros_and_long_ones_cut(self) -> None:
        extractor = STiCAFeatureExtractor(audio_seconds=1.0)
        short = extractor(tone(0.5))["input_features"]
        assert short.shape[-1] == extractor.num_steps == 99
        assert not short[..., 49:].any()
        assert torch.equal(
            extractor(tone(1.7))["input_features"], extractor(tone(1.7)[:24000])["input_features"]
        )

    def test_the_smoke_settings_can_be_said(self, tmp_path: Path) -> None:
        extractor = STiCAFeatureExtractor(
            num_mel_bins=40,
            sampling_rate=16000,
            f_min=60.0,
            f_max=8000.0,
            window_length=400,
            hop_length=320,
            n_fft=512,
            preemphasis=0.0,
            window_function="hann",
            waveform_scale=1 / 32768,
            log_offset=1e-5,
            time_pooling=2,
            subtract_mean="clip",
            feature_std=2.0,
        )
        features = extractor(tone(2.0, 16000), sampling_rate=16000)["input_features"]
        assert features.shape == (1, 1, 40, 50)
        assert features.mean().abs() < 1e-4
        extractor.save_pretrained(tmp_path)
        loaded = STiCAFeatureExtractor.from_pretrained(tmp_path)
        assert loaded.to_json_string() == extractor.to_json_string()
        assert torch.equal(loaded(tone(2.0, 16000))["input_features"], features)

    def test_pooling_averages_neighbouring_steps(self) -> None:
        fine = STiCAFeatureExtractor(audio_seconds=1.0)(tone(1.0))["input_features"]
        coarse = STiCAFeatureExtractor(audio_seconds=1.0, time_pooling=4)(tone(1.0))["input_features"]
        torch.testing.assert_close(coarse, fine[..., :96].unflatten(-1, (24, 4)).mean(-1))

    def test_the_mean_of_a_bin_over_time_can_be_taken_away(self) -> None:
        plain = STiCAFeatureExtractor(audio_seconds=1.0)(tone(1.0))["input_features"]
        relative = STiCAFeatureExtractor(audio_seconds=1.0, subtract_mean="bin")(tone(1.0))["input_features"]
        torch.testing.assert_close(relative, plain - plain.mean(-1, keepdim=True))
        with pytest.raises(ConfigurationError, match="'clip', 'bin' or None"):
            STiCAFeatureExtractor(subtract_mean="mean")

    def test_reads_sound_files(self, tmp_path: Path) -> None:
        clip = make_clip(tmp_path / "clip.mp4")
        extractor = STiCAFeatureExtractor(audio_seconds=1.0)
        from_path, from_bytes = (extractor(source)["input_features"] for source in (clip, clip.read_bytes()))
        assert torch.equal(from_path, from_bytes)
        assert from_path.shape == (1, 1, 257, 99)

    def test_floats_are_scaled_only_when_told(self) -> None:
        integers = tone(1.0)
        extractor = STiCAFeatureExtractor(audio_seconds=1.0)
        expected = extractor(integers)["input_features"]
        assert torch.equal(extractor(integers.astype(np.float32))["input_features"], expected)
        unit = integers.astype(np.float32) / 32768
        with pytest.raises(InputError, match="unit_scale=True"):
            extractor(unit)
        torch.testing.assert_close(
            extractor(unit, unit_scale=True)["input_features"], expected, rtol=1e-4, atol=1e-4
        )

    @pytest.mark.parametrize(
        ("wrong", "names"),
        [
            (np.full(24000, np.nan, np.float32), "NaN"),
            (np.full(24000, np.inf, np.float32), "NaN or infinite"),
            (np.zeros((2, 2, 100), np.int16), "one channel"),
            (np.zeros(0, np.int16), "expected"),
            ([], "empty"),
        ],
    )
    def test_says_what_is_wrong_with_a_sound(self, wrong: Any, names: str) -> None:
        with pytest.raises(InputError, match=names):
            STiCAFeatureExtractor()(wrong)

    def test_another_rate_is_refused(self) -> None:
        with pytest.raises(InputError, match="44100"):
            STiCAFeatureExtractor()(tone(1.0), sampling_rate=44100)

    @pytest.mark.parametrize(
        "settings", [{"audio_seconds": 0}, {"time_pooling": 0}, {"f_min": 9.0, "f_max": 4.0}, {"n_fft": 100}]
    )
    def test_refuses_settings_that_contradict(self, settings: dict[str, Any]) -> None:
        with pytest.raises(ConfigurationError):
            STiCAFeatureExtractor(**settings)


def test_video_defaults_are_two_seconds_at_30_frames_a_second() -> None:
    processor = STiCAVideoProcessor()
    indices = processor.clip_indices(num_frames=600, fps=60.0)
    assert indices.shape == (1, 60)
    assert set(np.diff(indices[0])) == {2}
    assert abs(indices.mean() - 299.5) <= 1


def test_no_rate_counts_the_videos_own_frames_and_is_kept(tmp_path: Path) -> None:
    processor = STiCAVideoProcessor(fps=None, frame_stride=3, num_frames=5)
    processor.save_pretrained(tmp_path)
    loaded = STiCAVideoProcessor.from_pretrained(tmp_path)
    assert loaded.fps is None
    assert np.diff(loaded.clip_indices(100, fps=17.0)[0]).tolist() == [3] * 4


def test_uniform_clips_together_cover_the_video_evenly() -> None:
    processor = STiCAVideoProcessor(sampling="uniform", num_frames=4, num_clips=2)
    assert np.sort(processor.clip_indices(80).ravel()).tolist() == [5, 15, 25, 35, 45, 55, 65, 75]


def test_frames_that_are_not_evenly_spaced_are_taken_by_time(tmp_path: Path) -> None:
    # Ten frames in the first half second, then ten in five seconds.
    times = np.concatenate([np.arange(10) * 0.05, 0.5 + np.arange(10) * 0.5])
    frames = moving_frames(20)
    with VideoWriter(tmp_path / "vfr.mp4", height=48, width=64, fps=20) as writer:
        writer.add_frames(frames, times)
    settings = {"num_frames": 5, "size": 48, "crop_size": {"height": 48, "width": 64}}
    sampled = STiCAVideoProcessor(fps=1.0, **settings).sample(tmp_path / "vfr.mp4")
    assert np.diff(times[sampled.metadata.frames_indices]).tolist() == pytest.approx([1.0] * 4, abs=0.5)
    counted = STiCAVideoProcessor(fps=None, **settings).sample(tmp_path / "vfr.mp4")
    assert np.diff(counted.metadata.frames_indices).tolist() == [1] * 4
