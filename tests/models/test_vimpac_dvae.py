"""The tokeniser: sizes, codes, pictures, and weights from OpenAI's and transformers' files."""

from __future__ import annotations

import os
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import FlavaImageCodebook, FlavaImageCodebookConfig

from models import tiny_vimpac
from videossl_hf.convert import convert_checkpoint
from videossl_hf.errors import CheckpointError, InputError
from videossl_hf.models.vimpac.configuration_dvae import DVAEConfig
from videossl_hf.models.vimpac.conversion_dvae import (
    convert,
    dvae_key_table,
    from_flava,
    load_official_dvae,
    read_pickled_module,
)
from videossl_hf.models.vimpac.modeling_dvae import DVAEModel


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_full_size_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        model = DVAEModel(DVAEConfig())
    assert count(model.encoder) == 53_786_240
    assert count(model.decoder) == 43_829_766
    assert [count(group) for group in model.encoder.groups] == [476_032, 1_739_008, 6_951_424, 27_796_480]


@pytest.fixture
def model() -> DVAEModel:
    return tiny_vimpac.make_tokenizer()


def frames(*shape: int) -> torch.Tensor:
    return torch.randint(
        256, (*shape, 3, 16, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def test_codes_are_the_best_logits_whatever_the_chunks(model: DVAEModel) -> None:
    video = frames(2, 5)
    codes = model.encode(video)
    assert codes.shape == (2, 5, 2, 3)
    assert codes.dtype == torch.int64
    mapped = 0.8 * video.float() / 255 + 0.1
    for other in (model.encode(mapped), model.encode(video, chunk_size=1), model(video).codes):
        assert torch.equal(codes, other)
    assert torch.equal(model.encode(video[0]), codes[0])


def test_logits_are_float32_in_half_precision_too(model: DVAEModel) -> None:
    assert model.bfloat16()(frames(1, 2)).logits.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert tiny_vimpac.make_tokenizer()(frames(1, 2)).logits.dtype == torch.float32


def test_pictures_have_the_frames_size_and_lie_in_the_unit_range(model: DVAEModel) -> None:
    codes = model.encode(frames(2, 3))
    pictures = model.decode(codes)
    assert pictures.shape == (2, 3, 3, 16, 24)
    assert 0 <= pictures.min() < pictures.max() <= 1
    torch.testing.assert_close(model.decode(codes, chunk_size=1), pictures)
    torch.testing.assert_close(model.unmap_pixels(model.map_pixels(pictures)), pictures)


def test_is_frozen_before_and_after_loading_unless_told_otherwise(model: DVAEModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    for frozen in (model, DVAEModel.from_pretrained(tmp_path).train()):
        assert not any(parameter.requires_grad for parameter in frozen.parameters())
    thawed = DVAEModel.from_pretrained(tmp_path, freeze=False)
    assert all(parameter.requires_grad for parameter in thawed.parameters())


def test_says_what_is_wrong_with_an_input(model: DVAEModel) -> None:
    for wrong in (frames(2, 3)[..., :12], frames(2, 3)[:, :, :2], frames(1)[0], torch.zeros(0, 3, 16, 16)):
        with pytest.raises(InputError, match="shape"):
            model.encode(wrong)
    with pytest.raises(InputError, match="int64"):
        model.encode(frames(1, 1).long())
    with pytest.raises(InputError, match="integers"):
        model.decode(torch.zeros(2, 3, 3))
    with pytest.raises(InputError, match="no decoder"):
        tiny_vimpac.make_tokenizer(use_decoder=False).decode(torch.zeros(1, 2, 2, dtype=torch.int64))


# Weights of others


def test_is_the_image_codebook_of_transformers() -> None:
    torch.manual_seed(0)
    config = FlavaImageCodebookConfig(hidden_size=8, vocab_size=50, num_blocks_per_group=2)
    codebook = FlavaImageCodebook(config).eval()
    with torch.no_grad():
        for parameter in codebook.parameters():
            parameter.normal_(std=0.3)
        pixels = torch.rand(3, 3, 32, 48)
        for model in (from_flava(codebook), from_flava(codebook.state_dict())):
            assert torch.equal(model.encoder(pixels), codebook(pixels))
            assert torch.equal(model.encode(pixels), codebook.get_codebook_indices(pixels))


def official_state(model: DVAEModel, part: str) -> dict[str, torch.Tensor]:
    state = model.state_dict()
    return {theirs: state[ours] for theirs, ours in dvae_key_table(model.config, part).items()}


def pickled_module(state: dict[str, torch.Tensor], path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A whole module with these weights, pickled as the official release is: its class lies in `dall_e`."""
    package = types.ModuleType("dall_e")
    package.encoder = types.ModuleType("dall_e.encoder")  # type: ignore[attr-defined]

    class Part(nn.Module):
        pass

    Part.__module__, Part.__qualname__ = "dall_e.encoder", "Part"
    package.encoder.Part = Part  # type: ignore[attr-defined]
    root = Part()
    for name, value in state.items():
        *parents, leaf = name.split(".")
        module: Any = root
        for parent in parents:
            if parent not in module._modules:
                module.add_module(parent, Part())
            module = module._modules[parent]
        module.register_parameter(leaf, nn.Parameter(value.clone(), requires_grad=False))
    root.activation = nn.ReLU()
    with monkeypatch.context() as context:
        context.setitem(sys.modules, "dall_e", package)
        context.setitem(sys.modules, "dall_e.encoder", package.encoder)  # type: ignore[attr-defined]
        torch.save(root, path)
    return path


def test_reads_pickled_modules_without_their_code(
    model: DVAEModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [
        pickled_module(official_state(model, part), tmp_path / f"{part}.pkl", monkeypatch)
        for part in ("encoder", "decoder")
    ]
    assert "dall_e" not in sys.modules
    converted = convert(paths[0])
    assert converted.config.use_decoder
    for name, value in model.state_dict().items():
        assert torch.equal(converted.state_dict()[name], value), name
    paths[1].unlink()
    assert not convert(paths[0]).config.use_decoder


def test_the_official_file_brings_its_own_origin_and_licence(
    model: DVAEModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pickled_module(official_state(model, "encoder"), tmp_path / "encoder.pkl", monkeypatch)
    origin = convert_checkpoint("dvae", tmp_path / "encoder.pkl", tmp_path / "converted")
    assert origin.source == "https://github.com/openai/DALL-E"
    assert origin.license == "modified-mit"


class Command:
    """Unpickles to the call of a command that makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.target}",)


def test_a_pickle_that_would_run_something_is_refused_and_runs_nothing(
    model: DVAEModel, tmp_path: Path
) -> None:
    target = tmp_path / "ran"
    for content in (Command(target), {"a": Command(target)}, [official_state(model, "encoder"), print]):
        torch.save(content, tmp_path / "encoder.pkl")
        with pytest.raises(CheckpointError, match=r"encoder\.pkl"):
            read_pickled_module(tmp_path / "encoder.pkl")
    assert not target.exists()


def test_damaged_and_foreign_files_are_refused(
    model: DVAEModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pickled_module(official_state(model, "encoder"), tmp_path / "encoder.pkl", monkeypatch)
    data = path.read_bytes()
    for broken in (b"", data[:100], data[: len(data) // 2], pickle.dumps({"a": 1})):
        path.write_bytes(broken)
        with pytest.raises(CheckpointError):
            read_pickled_module(path)
    torch.save({"blocks.input.w": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="no module"):
        read_pickled_module(path)


def test_every_key_is_accounted_for(model: DVAEModel) -> None:
    state = official_state(model, "encoder")
    without = {key: value for key, value in state.items() if key != "blocks.group_2.block_1.id_path.w"}
    with pytest.raises(CheckpointError, match=r"missing: blocks.group_2.block_1.id_path.w"):
        load_official_dvae(without)
    with pytest.raises(CheckpointError, match=r"not known: blocks.more.w"):
        load_official_dvae(state | {"blocks.more.w": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="do not fit"):
        load_official_dvae(state | {"blocks.input.b": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="no weights"):
        load_official_dvae({})
