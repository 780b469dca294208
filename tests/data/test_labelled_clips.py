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


def test_colours_change_with_the_probability_asked_for_and_places_do_not(samples: list[dict]) -> None:
    plain, coloured = batch(samples), batch(samples, jitter_probability=1.0, contrast=0, saturation=0)
    for before, after in zip(plain["pixel_values_videos"], coloured["pixel_values_videos"], strict=True):
        factor = after.sum() / before.sum()  # brightness alone: one factor for the whole clip
        torch.testing.assert_close(after, (factor * before).clamp(0, 1), rtol=0, atol=0.05)
        assert not torch.equal(after, before)
        assert 0.5 < factor < 1.5
    assert torch.equal(
        batch(samples, jitter_probability=0.0)["pixel_values_videos"], plain["pixel_values_videos"]
    )


def test_an_erased_box_is_noise_in_every_frame_and_the_rest_stays(samples: list[dict]) -> None:
    clips, erased = (
        batch(samples, **settings)["pixel_values_videos"] for settings in ({}, {"erase_probability": 1.0})
    )
    changed = (clips != erased).any(dim=2)  # (clips, frames, height, width)
    assert changed.any(dim=(1, 2, 3)).all()
    for clip, frames in zip(erased, changed, strict=True):
        assert torch.equal(frames[0], frames[1]), "the box is that of the clip"
        rows, columns = frames[0].any(dim=1), frames[0].any(dim=0)
        assert frames[0][rows][:, columns].all(), "a box has no holes"
        noise = clip[..., rows, :][..., columns]
        assert not torch.equal(noise[0], noise[1])
        assert noise.min() < 0  # normal, not a colour
    assert torch.equal(
        clips[~changed[:, :, None].expand_as(clips)], erased[~changed[:, :, None].expand_as(clips)]
    )


def test_segments_give_a_frame_of_each_part_of_the_video(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Every frame of each half is drawn sooner or later, and none of the other half."""
    file = tmp_path_factory.mktemp("segments") / "clip.mp4"
    write_media(file, num_frames=8)
    config, processor = SimpleNamespace(num_labels=4), VideoSSLVideoProcessor(**PLAIN)
    collator = LabelledClipCollator(config, processor, LabelledClipAugmentation(frames="segments"))
    info, generator = SimpleNamespace(num_frames=8, fps=12.0), torch.Generator().manual_seed(0)
    drawn = [collator._frame_numbers(info, 0.5, generator).tolist() for _ in range(60)]
    assert {first for first, _ in drawn} == {0, 1, 2, 3}
    assert {second for _, second in drawn} == {4, 5, 6, 7}
    clips = collator([{"video": str(file), "label": 1, "sample_seed": seed} for seed in range(8)])
    assert clips["pixel_values_videos"].shape == (8, 2, 3, 16, 16)


def test_random_operations_change_whole_clips_before_they_are_cut(samples: list[dict]) -> None:
    plain, changed = (batch(samples, random_operations=count)["pixel_values_videos"] for count in (0, 8))
    assert all(not torch.equal(before, after) for before, after in zip(plain, changed, strict=True))
    assert changed.min() >= 0
    assert changed.max() <= 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frames": "all"}, 'frames must be "view" or "segments"'),
        ({"random_magnitude": 11}, r"random_magnitude must lie in \[0, 10\]"),
        ({"random_operations": -1}, "must not be negative"),
        ({"hue": 0.6}, "hue must lie in"),
        ({"erase_probability": 2}, "erase_probability must lie in"),
        ({"jitter_probability": -1}, "jitter_probability must lie in"),
    ],
)
def test_meaningless_settings_name_themselves(settings: dict, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        LabelledClipAugmentation(**settings)
