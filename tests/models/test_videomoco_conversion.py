from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from models.tiny_videomoco import clips, make_config
from videossl_hf import cli
from videossl_hf.errors import CheckpointError
from videossl_hf.hub.origin import read_origin
from videossl_hf.models.videomoco.configuration_videomoco import VideoMoCoConfig
from videossl_hf.models.videomoco.conversion_videomoco import (
    NEW,
    convert,
    infer_config,
    key_table,
    load_official,
    official_state_dict,
)
from videossl_hf.models.videomoco.modeling_videomoco import (
    VideoMoCoForPreTraining,
    VideoMoCoForVideoClassification,
    VideoMoCoModel,
)

ARCHS = ("r2plus1d_18", "r3d_18", "mc3_18")


def make_pretraining(**overrides: Any) -> VideoMoCoForPreTraining:
    torch.manual_seed(0)
    model = VideoMoCoForPreTraining(make_config(**overrides))
    model.queue.pointer.fill_(7)
    with torch.no_grad():
        for parameter in model.key_encoder.parameters():
            parameter.add_(0.1)
    return model.eval()


def parts(model: VideoMoCoForPreTraining) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The encoders' file and the generator's, as the official code saves them."""
    state = official_state_dict(model)
    generator = {key: value for key, value in state.items() if key.startswith("mask_generator.")}
    return {key: value for key, value in state.items() if key not in generator}, generator


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("mlp", [False, True])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_official_files_become_the_same_model(arch: str, mlp: bool, prefix: str, tmp_path: Path) -> None:
    model = make_pretraining(arch=arch, mlp=mlp)
    encoders, generator = parts(model)
    for name, state in (("D.pth", encoders), ("G.pth", generator)):
        state = {f"{prefix}{key}": value for key, value in state.items()}
        torch.save({"epoch": 200, "arch": arch, "state_dict": state}, tmp_path / name)
    again = convert(tmp_path / "D.pth", tmp_path / "G.pth", image_size=32)
    assert (again.config.arch, again.config.mlp, again.config.queue_size) == (arch, mlp, 24)
    assert (again.config.num_frames, again.config.generator_hidden) == (8, 16)
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key

    with pytest.raises(CheckpointError, match=r"D\.pth is no generator"):
        convert(tmp_path / "D.pth", tmp_path / "D.pth")

    alone = convert(tmp_path / "D.pth")
    assert alone.generator is None
    assert alone.config.dropped_frames == "none"
    video = clips(2)
    assert torch.equal(alone.videomoco.get_video_features(video), model.videomoco.get_video_features(video))


def test_the_command_takes_the_generator_beside_the_encoders(tmp_path: Path) -> None:
    model = make_pretraining(num_frames=16, image_size=112)  # what the shapes of the official files tell
    for name, state in zip(("D.pth", "G.pth"), parts(model), strict=True):
        torch.save({"state_dict": state}, tmp_path / name)
    command = ["convert", "videomoco", str(tmp_path / "D.pth"), str(tmp_path / "both")]
    assert cli.main([*command, "--generator", str(tmp_path / "G.pth")]) == 0
    again = VideoMoCoForPreTraining.from_pretrained(tmp_path / "both")
    for key, value in model.generator.state_dict().items():
        assert torch.equal(again.generator.state_dict()[key], value), key
    origin = read_origin(tmp_path / "both")
    assert origin is not None
    assert (origin.checkpoint, list(origin.further_files)) == ("D.pth", ["G.pth"])


def test_a_further_file_that_a_method_lacks_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"state_dict": {}}, tmp_path / "a.pth")
    command = ["convert", "stica", str(tmp_path / "a.pth"), str(tmp_path / "out"), "--generator"]
    assert cli.main([*command, str(tmp_path / "a.pth")]) == 1
    assert "checkpoints of stica have no generator" in capsys.readouterr().err
    assert cli.main([*command, str(tmp_path / "absent.pth")]) == 1
    assert "there is no checkpoint file" in capsys.readouterr().err


def test_a_generator_tells_its_frames_and_a_size_that_fits() -> None:
    state = official_state_dict(make_pretraining(image_size=46, num_frames=12))
    config = infer_config(state)
    assert (config.num_frames, config.image_size, config.generator_features) == (12, 48, 25)
    with torch.device("meta"):
        full = official_state_dict(VideoMoCoForPreTraining(VideoMoCoConfig()))
    assert infer_config(full).to_dict() == VideoMoCoConfig().to_dict()


def test_a_converted_model_without_generator_gets_a_new_one_when_asked(tmp_path: Path) -> None:
    encoders, _ = parts(make_pretraining())
    load_official(encoders, infer_config(encoders, num_frames=8, image_size=32)).save_pretrained(tmp_path)
    again, info = VideoMoCoForPreTraining.from_pretrained(
        tmp_path, dropped_frames="generator", generator_hidden=16, output_loading_info=True
    )
    assert {key.split(".")[0] for key in info["missing_keys"]} == {"generator"}
    assert again.generator(clips(1)).isfinite().all()


@pytest.mark.parametrize("arch", ARCHS)
def test_fine_tuned_and_torchvision_files_become_classifiers(arch: str) -> None:
    model = VideoMoCoForVideoClassification(make_config(arch=arch, num_labels=7)).eval()
    again = load_official(official_state_dict(model))
    assert isinstance(again, VideoMoCoForVideoClassification)
    assert again.config.num_labels == 7
    assert torch.equal(again(clips(1)).logits, model(clips(1)).logits)


@pytest.mark.parametrize(("arch", "mlp", "keys"), [("r2plus1d_18", False, 450), ("r3d_18", True, 250)])
def test_full_size_files_have_the_official_number_of_keys(arch: str, mlp: bool, keys: int) -> None:
    """450 and, with a linear head, 246; the hidden layer adds weight and bias to both encoders."""
    config = VideoMoCoConfig(arch=arch, mlp=mlp)
    assert len(key_table(config, "pretraining")) == keys + 42
    assert len(key_table(config, "classification")) == {"r2plus1d_18": 224, "r3d_18": 122}[arch]


def test_the_key_table_names_every_weight_once() -> None:
    for kind, cls in (
        ("pretraining", VideoMoCoForPreTraining),
        ("classification", VideoMoCoForVideoClassification),
    ):
        for arch in ARCHS:
            config = make_config(arch=arch, depths=[2, 1, 1, 2])
            table = key_table(config, kind)
            assert len(set(table.values())) == len(table)
            assert set(table.values()) == cls(config).state_dict().keys() - set(NEW)


def test_every_missing_key_is_an_error_and_named() -> None:
    state = official_state_dict(make_pretraining())
    config = infer_config(state, image_size=32)
    for key in itertools.islice(state, 0, None, 9):
        damaged = {other: value for other, value in state.items() if other != key}
        with pytest.raises(CheckpointError, match=key.replace(".", r"\.")):
            load_official(damaged, config)


def test_other_keys_and_shapes_are_errors(tmp_path: Path) -> None:
    state = official_state_dict(make_pretraining())
    config = infer_config(state, image_size=32)
    with pytest.raises(CheckpointError, match=r"not known: surprise\.weight"):
        load_official(state | {"surprise.weight": torch.zeros(1)}, config)
    with pytest.raises(CheckpointError, match=r"queue\.keys is \(8, 3\)"):
        load_official(state | {"queue": torch.zeros(8, 3)}, config)
    with pytest.raises(CheckpointError, match="generator alone"):
        infer_config(parts(make_pretraining())[1])
    with pytest.raises(CheckpointError, match="no weights of VideoMoCo"):
        infer_config({"weight": torch.zeros(1)})


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["r2plus1d_18", "r3d_18"])
def test_a_full_size_file_keeps_its_features_bit_by_bit(arch: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = VideoMoCoForPreTraining(VideoMoCoConfig(arch=arch, mlp=arch == "r3d_18")).eval()
    encoders, generator = parts(model)
    assert len(encoders) == {"r2plus1d_18": 450, "r3d_18": 250}[arch]
    torch.save(
        {"state_dict": {f"module.{key}": value for key, value in encoders.items()}}, tmp_path / "D.pth"
    )
    torch.save(
        {"state_dict": {f"module.{key}": value for key, value in generator.items()}}, tmp_path / "G.pth"
    )
    convert(tmp_path / "D.pth", tmp_path / "G.pth").save_pretrained(tmp_path / "converted")
    loaded = VideoMoCoModel.from_pretrained(tmp_path / "converted")
    video = clips(1, size=56)
    assert torch.equal(loaded.get_video_features(video), model.videomoco.get_video_features(video))
