"""VideoMoCo's augmentations with recorded draws, against the official code on kornia 0.4 (kind `augment`)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from parity.goldens import Golden, assert_close
from videossl_hf.data.augment import crop_clips, normalize_clips
from videossl_hf.data.clip_draw import ClipDraw
from videossl_hf.data.recolour import SHIFTED_COLOURS, recolour_clips
from videossl_hf.models.videomoco.collation_videomoco import GRAY_FIRST, JITTER_FIRST
from videossl_hf.models.videomoco.processing_videomoco import VideoMoCoVideoProcessor

NAMES = ("brightness", "contrast", "saturation", "hue")
TOLERANCE = 2e-5


def check_augment(golden: Golden) -> None:
    """Both versions, the jitter alone, and the crop that comes before them."""
    crop_size = golden.record["args"]["crop"]
    blur_kernel = int(0.1 * golden.record["args"]["crop_arg"]) // 2 * 2 + 1
    frames = golden.input("frames_uint8").permute(0, 3, 1, 2)
    box = tuple(golden.input("crop_ijhw").tolist())
    ours = {
        "to_tensor": (frames / 255).transpose(0, 1),
        "resized_crop": crop_clips([frames], [ClipDraw(box)], crop_size)[0].transpose(0, 1),
        "v1": augmented(golden, "v1", GRAY_FIRST, blur_kernel),
        "v2_all_applied": augmented(golden, "v2", JITTER_FIRST, blur_kernel),
        "v1_jitter_only_frames": recoloured(golden, "v1", ("jitter",), blur_kernel),
    }
    for name, expected in golden.outputs().items():
        assert_close(name, ours[name], expected, atol=TOLERANCE)


def frame_draws(golden: Golden, version: str) -> list[ClipDraw]:
    """One draw a frame: what was recorded for it, and nothing for steps that have no record."""

    def recorded(name: str) -> list[float] | None:
        key = f"input.{version}.{name}"
        return golden.tensors[key].tolist() if key in golden.tensors else None

    order = recorded("jitter.order") or []
    factors = {name: recorded(f"jitter.{name}_factor") for name in NAMES}
    sigma = recorded("sigma")
    clips = golden.input("clips")
    count = clips.shape[0] * clips.shape[2]
    gray, flip, jitter = (
        recorded(f"{step}.batch_prob") or [0] * count for step in ("gray", "flip", "jitter")
    )
    return [
        ClipDraw(
            box=(0, 0, *clips.shape[-2:]),
            gray=bool(gray[frame]),
            flip=bool(flip[frame]),
            jitter=tuple((NAMES[i], factors[NAMES[i]][frame]) for i in order) if jitter[frame] else (),
            blur=None if sigma is None else (sigma, sigma),
        )
        for frame in range(count)
    ]


def recoloured(golden: Golden, version: str, steps: tuple[str, ...], blur_kernel: int) -> Tensor:
    """(batch * frames, channels, height, width), not normalised."""
    frames = golden.input("clips").transpose(1, 2).flatten(0, 1).unsqueeze(1).clone()
    draws = frame_draws(golden, version)
    recolour_clips(frames, draws, steps=steps, colours=SHIFTED_COLOURS, blur_kernel=blur_kernel)
    return frames.squeeze(1)


def augmented(golden: Golden, version: str, steps: tuple[str, ...], blur_kernel: int) -> Tensor:
    """(batch, channels, frames, height, width), normalised with the processor's mean and deviation."""
    frames = recoloured(golden, version, steps, blur_kernel)
    mean, std = VideoMoCoVideoProcessor.image_mean, VideoMoCoVideoProcessor.image_std
    clips = normalize_clips(frames, mean, std).unflatten(0, (len(golden.input("clips")), -1))
    return clips.transpose(1, 2)


CHECKS: dict[str, Callable[[Golden], None]] = {"augment": check_augment}
