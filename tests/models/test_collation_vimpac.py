"""VIMPAC's training batches: clips and masks by seed, the same from files and from stored codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.media import make_clip
from models import tiny_vimpac
from videossl_hf.data.loading import SampleLoader
from videossl_hf.data.reader import VideoReader
from videossl_hf.data.stored_codes import CodeView, cut_frames, frames_shown
from videossl_hf.errors import ConfigurationError, DataError, InputError
from videossl_hf.models.vimpac.clips_vimpac import PADDING, frame_step, random_clips
from videossl_hf.models.vimpac.collation_vimpac import VIMPACAugmentation, VIMPACCollator
from videossl_hf.models.vimpac.masking_vimpac import find_masked_positions
from videossl_hf.models.vimpac.modeling_vimpac import VIMPACForPreTraining
from videossl_hf.models.vimpac.processing_vimpac import VIMPACProcessor

PAD = tiny_vimpac.CODES + 1


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("media") / "clip.mp4", count=24)


def sample(seed: int, **columns: Any) -> dict[str, Any]:
    """As a `SeededDataset` tags it."""
    return {"video": None, "sample_seed": seed, "sample_epoch": 0, "sample_index": seed} | columns


def collator(augmentation: VIMPACAugmentation | None = None, **settings: Any) -> VIMPACCollator:
    config = tiny_vimpac.make_config(**settings)
    processor = VIMPACProcessor.from_config(config, tiny_vimpac.make_tokenizer())
    return VIMPACCollator(config, processor, augmentation)


def stored_codes(path: Path, fps: float) -> np.ndarray:
    """All codes of a file, as they would be kept."""
    processor = tiny_vimpac.make_processor()
    with VideoReader(path) as reader:
        numbers = frames_shown(reader.frame_times, 1 / reader.info.fps, fps)
        frames = reader.frames(numbers, tiny_vimpac.SIZE)
    squares = cut_frames(frames, CodeView(tiny_vimpac.SIZE), tiny_vimpac.SIZE)
    return processor.tokenizer_model.encode(squares).numpy().astype(np.int16)


def test_files_and_stored_codes_give_one_batch(clip: Path) -> None:
    codes = stored_codes(clip, 12.0)
    from_files = collator()([sample(seed, video=str(clip)) for seed in range(3)])
    from_codes = collator()([sample(seed, codes=codes) for seed in range(3)])
    assert from_files.keys() == from_codes.keys()
    for name, value in from_files.items():
        same = torch.equal(value, from_codes[name]) if torch.is_tensor(value) else value == from_codes[name]
        assert same, name
    augmentation = VIMPACAugmentation(codes_fps=24.0)
    slower = collator(augmentation)([sample(1, video=str(clip))])
    kept = collator(augmentation)([sample(1, codes=stored_codes(clip, 24.0))])
    assert torch.equal(slower["input_codes"], kept["input_codes"])


def test_a_batch_is_what_the_model_takes(clip: Path) -> None:
    batch = collator()([sample(seed, video=str(clip)) for seed in range(3)])
    assert batch["input_codes"].shape == batch["mask"].shape == (3, 5, 4, 4)
    assert not torch.equal(batch["input_codes"], batch["second_input_codes"])
    assert not torch.equal(batch["mask"], batch["second_mask"])
    masks = torch.cat([batch["mask"], batch["second_mask"]])
    assert torch.equal(batch["masked_positions"], find_masked_positions(masks))
    assert batch["has_padding"] is False
    assert VIMPACForPreTraining(tiny_vimpac.make_config())(**batch).loss.isfinite()


def test_without_a_tokeniser_pixels_go_to_a_model_that_has_one(clip: Path) -> None:
    config = tiny_vimpac.make_config()
    samples = [sample(seed, video=str(clip)) for seed in range(2)]
    pixels = VIMPACCollator(config, VIMPACProcessor.from_config(config))(samples)
    assert pixels["pixel_values_videos"].shape == (2, 5, 3, 32, 32)
    torch.manual_seed(0)
    model = VIMPACForPreTraining(config, tokenizer_model=tiny_vimpac.make_tokenizer()).eval()
    assert torch.equal(model(**pixels).loss, model(**collator()(samples)).loss)


def test_each_clip_of_a_file_can_have_its_own_colours(clip: Path) -> None:
    """Off by default, when both clips of a video show one ground."""
    config = tiny_vimpac.make_config(num_frames=2)
    processor = VIMPACProcessor.from_config(config)  # no tokeniser: the batch holds the pixels
    samples = [sample(seed, video=str(clip)) for seed in range(2)]

    def means(**settings: float) -> torch.Tensor:
        """Mean colour (clips, batch, channels)."""
        batch = VIMPACCollator(config, processor, VIMPACAugmentation(**settings))(samples)
        clips = [batch["pixel_values_videos"], batch["second_pixel_values_videos"]]
        return torch.stack([pixels.mean(dim=(1, 3, 4)) for pixels in clips])

    plain, turned = means(), means(hue=0.5, brightness=0.4)
    assert (plain[0] - plain[1]).abs().max() < 0.05 < (turned[0] - turned[1]).abs().max()
    assert torch.equal(turned, means(hue=0.5, brightness=0.4))
    gray = means(gray_probability=1.0)
    assert torch.allclose(gray, gray[..., :1].expand_as(gray), atol=1e-3)


def test_colours_of_stored_codes_cannot_be_changed() -> None:
    codes = np.zeros((9, 4, 4), np.int16)
    with pytest.raises(ConfigurationError, match=r"stored codes.*use_codes"):
        collator(VIMPACAugmentation(hue=0.1))([sample(0, codes=codes)])
    with pytest.raises(ConfigurationError, match="hue must lie"):
        VIMPACAugmentation(hue=0.7)
    with pytest.raises(ConfigurationError, match="gray_probability must lie"):
        VIMPACAugmentation(gray_probability=2)


def test_a_sample_depends_on_its_seed_alone() -> None:
    codes = np.random.default_rng(0).integers(0, tiny_vimpac.CODES, (40, 4, 4)).astype(np.int16)
    collate = collator()
    together = collate([sample(seed, codes=codes) for seed in (5, 6, 7)])
    alone = collate([sample(6, codes=codes)])
    for name in ("input_codes", "second_input_codes", "mask", "second_mask"):
        assert torch.equal(together[name][1], alone[name][0])
        assert not torch.equal(together[name][0], together[name][1])


def test_short_videos_are_padded() -> None:
    batch = collator()([sample(0, codes=np.zeros((3, 4, 4), np.int16))])
    assert (batch["input_codes"][0, 3:] == PAD).all()
    assert not batch["input_codes"][0, :3].any()
    assert batch["has_padding"] is True


def test_the_second_clip_can_be_kept_near_the_first() -> None:
    codes = np.broadcast_to(np.arange(20, dtype=np.int16)[:, None, None], (20, 4, 4))
    collate = collator(VIMPACAugmentation(largest_distance=2 / 12))
    batch = collate([sample(seed, codes=codes) for seed in range(40)])
    first, second = (batch[name][:, 0, 0, 0] for name in ("input_codes", "second_input_codes"))
    assert (first - second).abs().max() == 2
    assert len(first.unique()) > 8


def test_mask_task_alone_takes_one_clip() -> None:
    batch = collator(contrastive_weight=0.0)([sample(0, codes=np.zeros((9, 4, 4), np.int16))])
    assert not [name for name in batch if name.startswith("second")]
    assert VIMPACForPreTraining(tiny_vimpac.make_config(contrastive_weight=0.0))(**batch).loss.isfinite()


@pytest.mark.parametrize(
    ("codes", "error", "names"),
    [
        (np.zeros((9, 4, 5), np.int16), DataError, "4 x 5"),
        (np.full((9, 4, 4), 24, np.int16), InputError, "another"),
        (np.zeros((0, 4, 4), np.int16), InputError, "shape"),
    ],
)
def test_codes_that_do_not_fit_are_bad_samples(codes: np.ndarray, error: type, names: str) -> None:
    with pytest.raises(error, match=names):
        collator()([sample(0, codes=codes)])
    loader = SampleLoader("skip", max_bad_share=0.9)
    config = tiny_vimpac.make_config()
    tolerant = VIMPACCollator(config, VIMPACProcessor.from_config(config), None, loader)
    good = np.zeros((9, 4, 4), np.int16)
    assert tolerant([sample(0, codes=codes), sample(1, codes=good)])["input_codes"].shape[0] == 2


def test_codes_and_files_are_not_mixed(clip: Path) -> None:
    config = tiny_vimpac.make_config()
    collate = VIMPACCollator(config, VIMPACProcessor.from_config(config))
    with pytest.raises(DataError, match="some have none"):
        collate([sample(0, codes=np.zeros((9, 4, 4), np.int16)), sample(1, video=str(clip))])


def test_refuses_settings_that_contradict_the_model() -> None:
    processor = VIMPACProcessor.from_config(tiny_vimpac.make_config(num_frames=4))
    with pytest.raises(ConfigurationError, match="num_frames"):
        VIMPACCollator(tiny_vimpac.make_config(), processor)
    with pytest.raises(ConfigurationError, match="largest_distance"):
        VIMPACAugmentation(largest_distance=-1)
    with pytest.raises(ConfigurationError, match="codes_fps"):
        VIMPACAugmentation(codes_fps=0)


def test_stored_frames_are_those_on_show() -> None:
    times = np.arange(10) / 10
    assert frames_shown(times, 0.1, 5.0).tolist() == [0, 2, 4, 6, 8]
    assert frames_shown(times, 0.1, 20.0).tolist() == [
        0,
        0,
        1,
        1,
        2,
        2,
        3,
        3,
        4,
        4,
        5,
        5,
        6,
        6,
        7,
        7,
        8,
        8,
        9,
        9,
    ]
    assert frames_shown(times[:1], 0.1, 2.0).tolist() == [0]
    assert (frame_step(16, 2), frame_step(16, 5), frame_step(2, 16)) == (8, 3, 1)


def test_starts_reach_from_the_first_to_the_last_frame_that_fits() -> None:
    ends = [random_clips(12, 5, 2, 1, draw)[0].tolist() for draw in (min, max)]
    assert ends == [[0, 2, 4, 6, 8], [3, 5, 7, 9, 11]]
    assert random_clips(4, 5, 1, 1, max)[0].tolist() == [0, 1, 2, 3, PADDING]
