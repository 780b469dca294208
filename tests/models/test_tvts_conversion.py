"""Official checkpoints, made here in their full layout, and image models as a start."""

from __future__ import annotations

import logging
import pathlib
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CLIPModel
from transformers.models.clip.configuration_clip import CLIPConfig

from models.tiny_tvts import CLIP, VOCABULARY, clips, make_config, make_v2_config, texts
from videossl_hf.errors import CheckpointError
from videossl_hf.models.tvts.configuration_tvts import TVTSConfig
from videossl_hf.models.tvts.conversion_tvts import (
    convert,
    convert_state_dict,
    infer_config,
    initial_model,
    key_table,
    load_clip_weights,
    load_image_weights,
    load_official,
    official_state_dict,
)
from videossl_hf.models.tvts.modeling_tvts import (
    TVTSForPreTraining,
    TVTSForVideoClassification,
    TVTSVideoModel,
)
from videossl_hf.nn.foreign_checkpoint import read_state_dict

HEADS = {"num_attention_heads": 2, "sorting_heads": 2}


class Executed:
    """Its pickle calls a function of this module."""

    ran = False

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return _execute, ("now",)


def _execute(argument: str) -> str:
    Executed.ran = True
    return argument


def official_file(path: Path, state: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file as the official trainer writes it: a project's own configuration object lies beside the
    weights."""
    module = types.ModuleType("parse_config_dist_multi")
    parser = type("ConfigParser", (), {"__module__": module.__name__})
    module.ConfigParser = parser  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    config = parser()
    config.save_dir, config.logger = pathlib.PurePosixPath("/some/where"), logging.getLogger("train")
    config.payload, config.resume = Executed(), None
    content = {
        "arch": "DistributedDataParallel",
        "epoch": 20,
        "state_dict": {f"module.{key}": value for key, value in state.items()},
        "optimizer": {
            "state": {0: {"step": torch.tensor(3.0)}},
            "param_groups": [{"lr": 1e-6, "params": [0]}],
        },
        "monitor_best": 0.5,
        "config": config,
    }
    torch.save(content, path)
    monkeypatch.delitem(sys.modules, module.__name__)
    return path


def official_state(model: Any, kind: str = "pretraining") -> dict[str, torch.Tensor]:
    return official_state_dict(model.state_dict(), key_table(model.config, kind))


@pytest.fixture
def model() -> TVTSForPreTraining:
    torch.manual_seed(0)
    return TVTSForPreTraining(make_config()).eval()


def test_an_official_file_is_read_without_running_what_else_it_holds(
    model: TVTSForPreTraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = official_state(model) | {"text_model.embeddings.position_ids": torch.arange(16)[None]}
    path = official_file(tmp_path / "TVTS_yt_pt.pth", state, monkeypatch)
    loaded = convert(path, **HEADS, text_settings=model.config.text_settings)
    assert not Executed.ran
    assert loaded.config.num_scripts == model.config.num_scripts
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    assert "parse_config_dist_multi" not in sys.modules


def test_sizes_are_read_off_the_weights(model: TVTSForPreTraining) -> None:
    found = infer_config(official_state(model), **HEADS)
    names = "hidden_size num_hidden_layers mlp_ratio patch_size tubelet_size image_size num_frames"
    for name in f"{names} projection_dim num_scripts sorting_layers num_channels".split():
        assert getattr(found, name) == getattr(model.config, name), name
    assert {"dim": 24, "n_layers": 2, "vocab_size": VOCABULARY}.items() <= found.text_settings.items()


def test_a_full_size_official_state_dict_fits_key_by_key() -> None:
    with torch.device("meta"):
        model = TVTSForPreTraining(TVTSConfig())
    state = official_state(model)
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    assert shapes["video_model.patch_embed.proj.weight"] == (768, 3, 2, 16, 16)
    assert shapes["video_model.blocks.11.attn.qkv.weight"] == (2304, 768)
    assert shapes["text_model.transformer.layer.5.ffn.lin2.weight"] == (768, 3072)
    assert shapes["pred_model.blocks.1.mlp.fc1.bias"] == (3072,)
    assert shapes["pred_model.head.weight"] == (4, 768)
    assert sum(value.numel() for value in state.values()) == 167_333_124
    converted = convert_state_dict(state, model, key_table(model.config, "pretraining"))
    assert converted.keys() == model.state_dict().keys()
    found = infer_config(state)
    assert found.to_dict() == TVTSConfig(text_settings=found.text_settings).to_dict()


def test_the_second_version_goes_out_and_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = TVTSForPreTraining(make_v2_config()).eval()
    state = official_state(model)
    assert state["text_model.resblocks.0.attn.in_proj_weight"].shape == (72, 24)
    assert state["text_projection"].shape == (24, 16)
    assert torch.equal(state["video_model.proj"], model.tvts.video_model.projection.weight.T)
    path = official_file(tmp_path / "TVTSv2_ViT_B_16.pth", state, monkeypatch)
    loaded = convert(path, **HEADS, text_settings=CLIP, max_text_length=12)
    inputs = {"pixel_values_videos": clips(2), **texts(2)}
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).loss, model(**inputs).loss)


def test_a_classifier_and_a_tower_go_out_and_in() -> None:
    classifier = TVTSForVideoClassification(make_config()).eval()
    state = official_state(classifier, "classification")
    loaded = load_official(state, infer_config(state, num_attention_heads=2))
    assert isinstance(loaded, TVTSForVideoClassification)
    assert torch.equal(loaded(clips(1)).logits, classifier(clips(1)).logits)
    del state["head.weight"], state["head.bias"]
    assert isinstance(load_official(state), TVTSVideoModel)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda state: state.pop("pred_model.norm.bias"), "missing: pred_model.norm.bias"),
        (
            lambda state: state.update({"video_model.surplus": torch.zeros(1)}),
            "not known: video_model.surplus",
        ),
        (lambda state: state.update({"vid_proj.0.bias": torch.zeros(3)}), "vid_proj.0.bias is"),
        (lambda state: state.pop("video_model.pos_embed"), "missing: video_model.pos_embed"),
    ],
)
def test_keys_and_shapes_must_fit(model: TVTSForPreTraining, change: Any, says: str) -> None:
    state = official_state(model)
    change(state)
    with pytest.raises(CheckpointError, match=says):
        load_official(state, infer_config(state, **HEADS, text_settings=model.config.text_settings))


def test_other_files_are_refused(tmp_path: Path) -> None:
    for content in ({"epoch": 3}, [torch.zeros(2)], {"weights": "text"}):
        torch.save(content, tmp_path / "x.pth")
        with pytest.raises(CheckpointError, match="state dict"):
            read_state_dict(tmp_path / "x.pth")
    (tmp_path / "x.pth").write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="damaged"):
        read_state_dict(tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="no weights of TVTS"):
        infer_config({"conv.weight": torch.zeros(1)})
    with pytest.raises(FileNotFoundError):
        read_state_dict(tmp_path / "absent.pth")


class Shell:
    """Its pickle asks for a command."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        import os

        return os.system, ("touch ran",)


def test_a_file_that_names_the_operating_system_runs_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {"cls_token": torch.zeros(1)}, "config": Shell()}, "x.pth")
    with pytest.raises(CheckpointError):
        read_state_dict("x.pth")
    assert not Path("ran").exists()


def image_state(model: TVTSVideoModel) -> dict[str, torch.Tensor]:
    """Weights of an image MAE of the same sizes, its decoder included."""
    state = official_state(model, "video")
    del state["temporal_embed"]
    generator = torch.Generator().manual_seed(3)
    state["patch_embed.proj.weight"] = torch.randn(24, 3, 8, 8, generator=generator)
    state["pos_embed"] = torch.randn(state["pos_embed"].shape, generator=generator)
    return state | {"mask_token": torch.zeros(1, 1, 8), "decoder_pos_embed": torch.zeros(1, 17, 8)}


def test_an_image_model_starts_the_video_tower(tmp_path: Path) -> None:
    model = TVTSVideoModel(make_config(use_text=False)).eval()
    state = image_state(model)
    with torch.no_grad():
        model.video_model.embeddings.temporal_positions.fill_(7)
    load_image_weights(model, state)
    embeddings = model.video_model.embeddings
    kernel = state["patch_embed.proj.weight"]
    assert all(torch.equal(embeddings.patches.weight[:, :, frame], kernel) for frame in (0, 1))
    assert torch.equal(embeddings.spatial_positions, state["pos_embed"])
    assert not embeddings.temporal_positions.any()
    load_image_weights(model, state, divide_kernel=True)
    assert torch.equal(embeddings.patches.weight[:, :, 0], kernel / 2)
    torch.save({"model": state}, tmp_path / "mae.pth")
    whole = initial_model(make_config(), image=tmp_path / "mae.pth")
    assert torch.equal(whole.tvts.video_model.embeddings.spatial_positions, state["pos_embed"])
    assert isinstance(convert(tmp_path / "mae.pth", num_attention_heads=2, num_frames=8), TVTSVideoModel)
    with pytest.raises(CheckpointError, match="expected 4 axes"):
        load_image_weights(model, official_state(model, "video"))


def clip_model() -> CLIPModel:
    vision = {
        "hidden_size": 24,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
        "projection_dim": 16,
    }
    torch.manual_seed(4)
    return CLIPModel(CLIPConfig(text_config=CLIP, vision_config=vision, projection_dim=16)).eval()


@torch.no_grad()
def test_clip_starts_the_second_version_which_then_gives_what_clip_gives(tmp_path: Path) -> None:
    """Of one frame, attention over space is CLIP's; attention over time starts silent."""
    clip, model = clip_model(), TVTSForPreTraining(make_v2_config()).eval()
    load_clip_weights(model, clip)
    model.tvts.video_model.embeddings.temporal_positions.zero_()
    frames = clips(2, 1)
    expected = clip.visual_projection(clip.vision_model(frames[:, 0]).pooler_output)
    torch.testing.assert_close(model.tvts.get_video_features(frames), expected, rtol=1e-4, atol=1e-5)
    batch = {name: value[:, 0] for name, value in texts(2).items()}
    expected = clip.text_projection(clip.text_model(**batch).pooler_output)
    torch.testing.assert_close(model.tvts.get_text_features(**batch), expected, rtol=1e-4, atol=1e-5)
    clip.save_pretrained(tmp_path)
    again = initial_model(make_v2_config(), clip=tmp_path).eval()
    assert torch.equal(again.tvts.get_text_features(**batch), model.tvts.get_text_features(**batch))
    with pytest.raises(CheckpointError, match="CLIP does not fit"):
        load_clip_weights(TVTSForPreTraining(make_v2_config(image_size=48)), clip)


def test_a_text_tower_starts_from_a_folder(tmp_path: Path) -> None:
    source = TVTSForPreTraining(make_config())
    source.tvts.text_model.save_pretrained(tmp_path)
    model = initial_model(make_config(), text=tmp_path)
    for name, value in source.tvts.text_model.state_dict().items():
        assert torch.equal(model.tvts.text_model.state_dict()[name], value)
