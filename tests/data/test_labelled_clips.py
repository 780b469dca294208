"""Batches of labelled clips for classifiers of any method."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from media import write_media
from videossl_hf.data.labelled_clips import LabelledClipAugmentation, LabelledClipCollator
from videossl_hf.data.video_processing import VideoSSLVideoProcessor
from videossl_hf.errors import ConfigurationError

PLAIN = {"do_normalize": False, "crop_size": {"height": 16, "width": 16}, "num_frames": 2, "frame_stride": 2}


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """Four clips of four classes."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(4):
        write_media(folder / f"{number}.mp4", seed=number, num_frames=8)
    return [{"video": str(folder / f"{n}.mp4"), "label": n, "sample_seed": n} for n in range(4)]


def batch(samples: list[dict], **augmentation: object) -> dict[str, torch.Tensor]:
    config = SimpleNamespace(num_labels=4)
    settings = LabelledClipAugmentation(decode_short_side=24, **augmentation)  # type: ignore[arg-type]
    return LabelledClipCollator(config, VideoSSLVideoProcessor(**PLAIN), settings)(samples)


def test_without_blending_labels_are_class_numbers(samples: list[dict]) -> None:
    assert batch(samples)["labels"].tolist() == [0, 1, 2, 3]


def test_smoothed_labels_are_probabilities_of_the_same_clips(samples: list[dict]) -> None:
    plain, smooth = batch(samples), batch(samples, label_smoothing=0.2)
    assert torch.equal(plain["pixel_values_videos"], smooth["pixel_values_videos"])
    torch.testing.assert_close(smooth["labels"], 0.8 * torch.eye(4) + 0.05)


def test_mixed_up_clips_are_mixed_as_their_labels_say(samples: list[dict]) -> None:
    clips = batch(samples)["pixel_values_videos"]
    mixed = batch(samples, blend_probability=1.0, cutmix_probability=0.0)
    expected = torch.einsum("bc,c...->b...", mixed["labels"], clips)
    torch.testing.assert_close(mixed["pixel_values_videos"], expected, rtol=0, atol=1e-5)
    assert (mixed["labels"].amax(dim=1) < 1).any()


def test_cut_clips_hold_as_much_of_each_other_as_their_labels_say(samples: list[dict]) -> None:
    clips = batch(samples)["pixel_values_videos"]
    cut = batch(samples, blend_probability=1.0, cutmix_probability=1.0)
    own = (cut["pixel_values_videos"] == clips).all(dim=2).float().mean(dim=(1, 2, 3))
    torch.testing.assert_close(own, cut["labels"].diagonal(), rtol=0, atol=0.02)


def test_a_batch_is_the_same_whenever_its_seeds_are(samples: list[dict]) -> None:
    settings = {"blend_probability": 1.0, "label_smoothing": 0.1}
    first, second = batch(samples, **settings), batch(samples, **settings)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("settings", [{"blend_probability": 1.5}, {"mixup_alpha": 0.0}])
def test_settings_out_of_range_are_refused(settings: dict) -> None:
    with pytest.raises(ConfigurationError):
        LabelledClipAugmentation(**settings)


@pytest.mark.parametrize("setting", ["temporal_views", "decode_short_side"])
def test_sizes_below_one_are_refused(setting: str) -> None:
    with pytest.raises(ConfigurationError, match="must be at least 1"):
        LabelledClipAugmentation(**{setting: -1})
