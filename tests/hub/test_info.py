"""`videossl info`: facts of a folder, without loading weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from models import tiny_ila, tiny_vimpac
from models.tiny_stica import make_config
from videossl_hf import (
    DVAEConfig,
    STiCAConfig,
    STiCAForPreTraining,
    STiCAModel,
    TVTSConfig,
    VIMPACConfig,
    cli,
)
from videossl_hf.hub.description import describe_config
from videossl_hf.hub.origin import Origin, write_origin


def show(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(["info", str(folder)]) == 0
    return capsys.readouterr().out


def test_sizes_are_those_of_the_real_model() -> None:
    config = make_config(architectures=["STiCAForPreTraining"])
    described = describe_config(config)
    features, saved = STiCAModel(config).eval(), STiCAForPreTraining(config)
    features.set_attn_implementation("eager")  # fused attention is not counted
    clip = torch.zeros(1, config.num_frames, 3, config.image_size, config.image_size)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        vector = features(pixel_values_videos=clip).pooler_output
    assert described.parameters == sum(parameter.numel() for parameter in saved.parameters())
    assert described.feature_parameters == sum(parameter.numel() for parameter in features.parameters())
    assert described.feature_size == vector.shape[1]
    assert described.gflop == pytest.approx(counter.get_total_flops() / 1e9)


def test_the_published_size_is_described_without_its_memory() -> None:
    config = STiCAConfig(num_frames=30, architectures=["STiCAForPreTraining"])
    described = describe_config(config)
    assert described.parameters == 42_242_781
    assert described.gflop == pytest.approx(153.6, abs=0.1)
    assert config == STiCAConfig(num_frames=30, architectures=["STiCAForPreTraining"])


def test_a_model_with_text_is_described_too() -> None:
    described = describe_config(TVTSConfig(architectures=["TVTSForPreTraining"]))
    assert described.parameters == 167_333_124
    assert described.inputs == ["video: 16 frames of 224x224", "text: up to 50 tokens"]
    assert described.gflop == pytest.approx(361.0, abs=0.1)


def test_what_a_cost_does_not_count_is_said() -> None:
    codes = describe_config(VIMPACConfig(architectures=["VIMPACForPreTraining"]))
    assert (
        codes.cost
        == "64.9 GFLOP (two for a multiply-add) for the codes of a clip; its tokeniser's come on top"
    )
    assert codes.inputs == [
        "video: 5 frames of 128x128 at 2 frames a second, as 16x16 codes of a tokeniser each"
    ]
    tokenizer = describe_config(DVAEConfig())
    assert tokenizer.cost == "68.1 GFLOP (two for a multiply-add) a frame"
    tiny = describe_config(tiny_vimpac.make_config(image_size=[32, 48]))
    assert "frames of 32x48" in tiny.inputs[0]
    assert not tiny.cost.startswith("0.0 ")


def test_a_folder_is_described(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = show(run_folder, capsys)
    size = (run_folder / "model.safetensors").stat().st_size
    for text in (
        "STiCAForPreTraining",
        "8 frames of 32x32 at 12 frames a second",
        f"{size:,} bytes",
        "GFLOP",
    ):
        assert text in shown
    assert "none measured" in shown
    assert "not stated" in shown


def test_a_tokeniser_and_a_classifier_are_described_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = tiny_vimpac.make_tokenizer()
    tokenizer.save_pretrained(tmp_path / "dvae")
    shown = show(tmp_path / "dvae", capsys)
    parameters = sum(parameter.numel() for parameter in tokenizer.parameters())
    assert f"DVAEModel, {parameters:,} parameters" in shown
    assert "one of 24 codes for every 8x8 pixels" in shown
    assert "pipelines" not in shown
    config = tiny_ila.make_config(architectures=["ILAForVideoClassification"])
    config.save_pretrained(tmp_path / "ila")
    shown = show(tmp_path / "ila", capsys)
    assert "5: walk, run, jump, swim, fly" in shown
    assert "video-classification, video-feature-extraction, zero-shot-video-classification" in shown
    assert "none in this folder" in shown


def test_weights_are_not_read(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run_folder / "model.safetensors").write_bytes(b"damaged")
    assert "7 bytes" in show(run_folder, capsys)


def test_origin_and_licence_are_shown(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_origin(Origin("stica", "a.pth", "0", "cc-by-nc-4.0", None, "x"), run_folder)
    shown = show(run_folder, capsys)
    assert "converted from a.pth" in shown
    assert "cc-by-nc-4.0" in shown


def test_what_is_no_model_is_one_clear_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", str(tmp_path)]) == 1
    assert "config.json cannot be read" in capsys.readouterr().err
