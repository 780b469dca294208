"""STiCA's preprocessing, stage by stage, against recordings of the official code (kind `aug`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from videossl_hf.data.augment import ClipAugmentation, augment_clips, normalize_clips
from videossl_hf.data.clip_draw import ClipDraw
from videossl_hf.data.colour import (
    SWAPPED_LUMA,
    adjust_brightness,
    adjust_contrast,
    adjust_saturation,
    gaussian_blur,
    luminance,
)
from videossl_hf.data.official_draws import draw_official_box, draw_official_clip
from videossl_hf.data.sampling import (
    span_indices,
    stica_clip_span,
    three_crop_positions,
)
from videossl_hf.data.spatial_crop import resize_frames, resized_crop, short_side_size
from videossl_hf.data.spec_augment import fill_masks
from videossl_hf.data.spectrogram import LogMelSpectrogram

MEAN, STD = 0.45, 0.225
AREA, RATIO = (0.14, 1.0), (3 / 4, 4 / 3)
IMAGE_TOLERANCE, SPECTROGRAM_TOLERANCE = 1e-5, 1e-3


def check(meta: dict[str, Any], tensors: dict[str, torch.Tensor]) -> dict[str, float]:
    """Compare every recorded output with ours.

    Args:
        meta: the case's `meta` object.
        tensors: the case's tensors, named `input.*` and `output.*`.

    Returns:
        Largest absolute difference of every output.
    """
    recorded = {name.removeprefix("output."): t for name, t in tensors.items() if name.startswith("output.")}
    inputs = {name.removeprefix("input."): t for name, t in tensors.items() if name.startswith("input.")}
    ours: dict[str, torch.Tensor] = {}
    ours |= _image_stages(meta, inputs)
    ours |= _whole_chain(meta, inputs)
    ours |= _temporal(meta, inputs)
    ours |= _spectrograms(meta, inputs)
    assert recorded.keys() <= ours.keys(), f"outputs nobody compares: {recorded.keys() - ours.keys()}"
    differences = {}
    for name, reference in recorded.items():
        result = ours[name]
        assert result.shape == reference.shape, f"{name}: {result.shape} instead of {reference.shape}"
        differences[name] = (result.double() - reference.double()).abs().max().item()
        if not reference.is_floating_point():
            limit = 0.0
        else:
            limit = SPECTROGRAM_TOLERANCE if name.startswith("spec") else IMAGE_TOLERANCE
        assert differences[name] <= limit, f"{name} is off by {differences[name]:.2g}, more than {limit}"
    return differences


def _image_stages(meta: dict[str, Any], inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    size = meta["crop"]
    frames = inputs["frames"].permute(0, 3, 1, 2)
    box = tuple(inputs["rrc_ijhw"].tolist())
    brightness, contrast, saturation = inputs["jitter_alphas"].tolist()

    def augment(**choices: Any) -> torch.Tensor:
        draw = ClipDraw(box, **choices)
        return augment_clips([frames], [draw], size, mean=MEAN, std=STD, legacy=True)[0]

    cropped = augment()[None]
    normalised = normalize_clips(frames / 255, MEAN, STD)
    short = resize_frames(normalised[:1], short_side_size(*frames.shape[-2:], meta["short_side"]))
    ours = {
        "rrc": resized_crop([normalised], [box], (size, size))[0],
        "rrc_flip": augment(flip=True),
        "brightness": adjust_brightness(cropped, brightness)[0],
        "contrast": adjust_contrast(cropped, contrast, SWAPPED_LUMA)[0],
        "saturation": adjust_saturation(cropped, saturation, SWAPPED_LUMA)[0],
        "grayscale": luminance(cropped, SWAPPED_LUMA).expand_as(cropped)[0],
        "gaussian_blur": gaussian_blur(cropped, 0.1, 2.0, kernel_size=11)[0],
        "short_side": short,
    }
    for name, choices in {
        "brightness": {"jitter": (("brightness", brightness),)},
        "contrast": {"jitter": (("contrast", contrast),)},
        "saturation": {"jitter": (("saturation", saturation),)},
        "grayscale": {"gray": True},
        "gaussian_blur": {"blur": (0.1, 2.0)},
    }.items():
        assert torch.equal(augment(**choices), ours[name]), f"{name} differs between function and chain"
    for index, (top, left) in enumerate(three_crop_positions(*short.shape[-2:], size).tolist()):
        ours[f"uniform_crop{index}"] = short[..., top : top + size, left : left + size]
    return ours


def _whole_chain(meta: dict[str, Any], inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    frames = inputs["frames"].permute(0, 3, 1, 2)
    height, width = frames.shape[-2:]
    generator = torch.Generator().manual_seed(meta["seed"])
    boxes = [draw_official_box(height, width, AREA, RATIO, generator) for _ in range(8)]
    draw = draw_official_clip(
        ClipAugmentation(legacy_augmentations=True),
        height,
        width,
        meta["crop"],
        torch.Generator().manual_seed(meta["seed"]),
        np.random.RandomState(meta["seed"]),
    )
    clip = augment_clips([frames], [draw], meta["crop"], mean=MEAN, std=STD, legacy=True)[0]
    return {"rrc_params_seeded": torch.tensor(boxes), "clip_augmentation_seeded": clip.transpose(0, 1)}


def _temporal(meta: dict[str, Any], inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    total, length, samples = int(inputs["temporal_num_frames"]), meta["clip_size_src"], meta["num_samples"]
    spans = [stica_clip_span(total, length, clip_index=index, num_clips=10) for index in range(10)]
    rows = [span_indices(total, start, start + length - 1, samples) for start in (0.0, 3.7)]
    return {
        "temporal_test_starts": torch.tensor(spans, dtype=torch.float64),
        "temporal_indices": torch.from_numpy(np.stack(rows)),
    }


def _spectrograms(meta: dict[str, Any], inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    track = inputs["wav"]
    ours = {}
    for index, (seconds, kind, standardised, start, volume) in enumerate(meta["spec_calls"]):
        samples = round(seconds * 24000)
        first = max(0, min(int(start * 24000), len(track) - samples))
        transform = LogMelSpectrogram(num_mel_bins=257 if kind == 2 else 40)
        spectrogram = transform(track[None, first : first + samples].double() * volume)
        ours[f"spec{index}"] = (spectrogram - 1.93) / 17.89 if standardised else spectrogram
    (frequency_width, frequency, _), (time_width, time, _) = inputs["spec_masks"].tolist()
    ours["spec0_masked"] = fill_masks(
        ours["spec0"][None], [[("frequency", frequency, frequency_width), ("time", time, time_width)]]
    )[0]
    return ours
