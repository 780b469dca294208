"""Training a tokeniser: its losses, its schedules, both architectures, and its batches."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributions import Categorical, Laplace, kl_divergence

from common.media import make_clip
from models import tiny_vimpac
from videossl_hf.data.loading import SampleLoader
from videossl_hf.errors import ConfigurationError, InputError
from videossl_hf.models.vimpac.collation_dvae import DVAEAugmentation, DVAECollator
from videossl_hf.models.vimpac.modeling_dvae import DVAEForPreTraining, DVAEModel
from videossl_hf.models.vimpac.objective_dvae import (
    code_perplexity,
    cosine_ramp,
    divergence_from_uniform,
    logit_laplace_loss,
    relaxed_codes,
)
from videossl_hf.models.vimpac.patches_dvae import spread_out
from videossl_hf.models.vimpac.processing_dvae import DVAEProcessor

SHORT = {"temperature_steps": 10, "divergence_steps": 4}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_model(**settings: Any) -> DVAEForPreTraining:
    torch.manual_seed(0)
    return DVAEForPreTraining(tiny_vimpac.make_dvae_config(**(SHORT | settings))).train()


def frames(count: int = 4) -> torch.Tensor:
    """(1, count, 3, 16, 24): flat frames with one bright square each."""
    pictures = torch.full((1, count, 3, 16, 24), 40, dtype=torch.uint8)
    for index in range(count):
        pictures[:, index, :, 2 : 4 + index, 3 + 2 * index : 12 + 2 * index] = 220
    return pictures


# Losses


def test_pixels_are_scored_by_a_laplace_distribution_of_their_logits() -> None:
    pixels = torch.rand(2, 3, 4, 5, generator=seeded()) * 0.8 + 0.1
    mean, log_width = torch.randn(2, 2, 3, 4, 5, generator=seeded(1))
    # The density of the logits, times how fast they change with the pixel.
    density = Laplace(mean, log_width.exp()).log_prob(pixels.logit()) - (pixels * (1 - pixels)).log()
    loss = logit_laplace_loss(torch.cat([mean, log_width], 1), pixels)
    torch.testing.assert_close(loss, -density.mean())


def test_divergence_is_zero_for_equal_use_and_largest_for_certainty() -> None:
    logits = torch.randn(2, 7, 3, 3, generator=seeded())
    places = Categorical(logits=logits.movedim(1, -1))
    expected = kl_divergence(places, Categorical(logits=torch.zeros(7))).mean()
    torch.testing.assert_close(divergence_from_uniform(logits), expected)
    certain = torch.zeros(1, 7, 1, 1)
    certain[:, 3] = 1e3
    assert float(divergence_from_uniform(certain)) == pytest.approx(math.log(7), abs=1e-6)


def test_mixtures_become_codes_with_the_probabilities_of_the_logits() -> None:
    logits = torch.log(torch.tensor([0.5, 0.3, 0.2]))[None, :, None, None].expand(1, 3, 100, 100)
    noise = torch.rand(logits.shape, generator=seeded())
    sharp = relaxed_codes(logits, 1e-3, noise)
    torch.testing.assert_close(sharp.mean((0, 2, 3)), torch.tensor([0.5, 0.3, 0.2]), atol=0.02, rtol=0)
    assert float((sharp.amax(1) > 0.99).float().mean()) > 0.98
    assert torch.equal(relaxed_codes(logits, 1.0, generator=seeded()), relaxed_codes(logits, 1.0, noise))
    torch.testing.assert_close(relaxed_codes(logits, 1.0, noise).sum(1), torch.ones(1, 100, 100))
    assert relaxed_codes(logits, 1.0, torch.zeros_like(noise)).isfinite().all()


def test_perplexity_counts_the_codes_in_use() -> None:
    assert float(code_perplexity(torch.tensor([[1, 1, 5, 5]]), 9)) == pytest.approx(2)
    assert float(code_perplexity(torch.zeros(3, 4, dtype=torch.int64), 9)) == pytest.approx(1)


def test_schedules_follow_half_a_cosine_and_stay() -> None:
    values = [float(cosine_ramp(torch.tensor(step), 10, 1.0, 0.0)) for step in (0, 5, 10, 99)]
    assert values == pytest.approx([1, 0.5, 0, 0], abs=1e-6)
    assert float(cosine_ramp(torch.tensor(0), 0, 0.0, 6.6)) == pytest.approx(0)


# The model in training


@pytest.mark.parametrize("architecture", ["convolutions", "patches"])
def test_a_few_steps_make_better_pictures(architecture: str) -> None:
    model = make_model(architecture=architecture, vocab_size=8, decoder_hidden_size=8)
    optimizer = torch.optim.AdamW(model.parameters(), 0.02)
    losses, temperatures = [], []
    for step in range(1, 13):
        output = model(frames(), generator=seeded(step))
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        model.after_optimizer_step(step, 12)
        losses.append(output.loss_reconstruction.item())
        temperatures.append(float(output.temperature))
    assert losses[-1] < losses[0] - 0.1
    assert temperatures[0] == 1
    assert temperatures[-1] == pytest.approx(1 / 16)
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_loss_weighs_the_divergence_by_the_values_of_a_code() -> None:
    model = make_model(divergence_steps=1)
    model.after_optimizer_step(1, 9)
    output = model(frames(), generator=seeded())
    expected = output.loss_reconstruction + 6.6 / 192 * output.loss_divergence
    torch.testing.assert_close(output.loss, expected)


def test_patches_start_as_different_ones_of_the_first_batch_and_are_kept_by_a_checkpoint(
    tmp_path: Path,
) -> None:
    model = make_model(architecture="patches", vocab_size=8)
    model(frames())
    patches = model.dvae.codebook.patches.detach().clone()
    assert len(patches.flatten(1).unique(dim=0)) == 8
    model.after_optimizer_step(1, 9)
    model.save_pretrained(tmp_path)
    again = DVAEForPreTraining.from_pretrained(tmp_path).train()
    assert int(again.updates) == 1
    again(255 - frames())
    assert torch.equal(again.dvae.codebook.patches, patches)
    with pytest.raises(InputError, match="cannot start 8 codes"):
        spread_out(torch.zeros(7, 4), 8, seeded())


def test_codes_of_patches_are_the_nearest_ones_and_their_pictures_the_patches(tmp_path: Path) -> None:
    model = make_model(architecture="patches", vocab_size=8)
    model(frames())
    model.save_pretrained(tmp_path)
    tokenizer = DVAEModel.from_pretrained(tmp_path)
    assert not any(parameter.requires_grad for parameter in tokenizer.parameters())
    codes = tokenizer.encode(frames())
    mapped = tokenizer.map_pixels(frames().float() / 255)[0]
    patches = torch.nn.functional.unfold(mapped, 8, stride=8).transpose(1, 2)
    stored = tokenizer.codebook.patches.sigmoid().flatten(1)
    assert torch.equal(codes[0].flatten(1), torch.cdist(patches, stored).argmin(-1))
    pictures = tokenizer.decode(codes)
    expected = tokenizer.unmap_pixels(stored[codes[0, 0, 0, 1]].view(3, 8, 8))
    torch.testing.assert_close(pictures[0, 0, :, :8, 8:16], expected)


def test_a_tokeniser_is_trained_with_its_decoder() -> None:
    with pytest.raises(ConfigurationError, match="use_decoder"):
        make_model(use_decoder=False)


# Batches


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("media") / "clip.mp4", count=8)


def collator(size: int = 16, **settings: Any) -> DVAECollator:
    config = tiny_vimpac.make_dvae_config()
    processor = DVAEProcessor.from_config(config, size=size, crop_size=size)
    return DVAECollator(config, processor, DVAEAugmentation(**settings), SampleLoader())


def sample(path: Path, seed: int) -> dict[str, Any]:
    return {"video": str(path), "sample_seed": seed, "sample_epoch": 0, "sample_index": seed}


def test_frames_depend_on_the_seed_alone_and_fit_the_model(clip: Path) -> None:
    collate = collator(frames=3)
    together = collate([sample(clip, seed) for seed in range(3)])["pixel_values_videos"]
    assert together.shape == (3, 3, 3, 16, 16)
    assert torch.equal(collate([sample(clip, 1)])["pixel_values_videos"][0], together[1])
    assert not torch.equal(together[0], together[1])
    assert 0.1 - 1e-6 <= together.min() < together.max() <= 0.9 + 1e-6
    assert make_model()(together).loss.isfinite()


def test_whole_frames_are_what_the_processor_gives(clip: Path) -> None:
    collate = collator(48, frames=1, scale=(1.0, 1.0), flip_probability=0.0)
    taken = collate([sample(clip, 0)])["pixel_values_videos"]
    assert taken.shape[-1] == 48
    flipped = collator(48, frames=1, scale=(1.0, 1.0), flip_probability=1.0)([sample(clip, 0)])
    assert torch.equal(taken.flip(-1), flipped["pixel_values_videos"])


@pytest.mark.parametrize(
    "settings", [{"frames": 0}, {"scale": (0.5, 1.0)}, {"scale": (1.5, 1.2)}, {"flip_probability": 2.0}]
)
def test_refuses_augmentation_that_cannot_work(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(settings))):
        DVAEAugmentation(**settings)


def test_refuses_frames_that_no_code_fits() -> None:
    with pytest.raises(ConfigurationError, match="multiples of 8"):
        collator(20)
