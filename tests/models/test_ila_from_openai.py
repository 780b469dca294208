"""OpenAI's own CLIP files: TorchScript archives, of which the weights are read and no code is run."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from models.tiny_ila import LABELS, make_clip, make_tokenizer
from videossl_hf import ILAForVideoClassification, ILAModel
from videossl_hf.errors import CheckpointError
from videossl_hf.models.ila.conversion_ila import official_state_dict

SMALL = {"align_hidden": 16, "head_dim": 8}


def openai_state() -> dict[str, Tensor]:
    """The tiny CLIP under OpenAI's names, in half precision as in their files."""
    model = ILAForVideoClassification.from_clip(make_clip(), LABELS, make_tokenizer(), **SMALL)
    new = ("message_", "temporal_", "mit.", "prompts_")
    state = official_state_dict(model)
    return {key: value.half() for key, value in state.items() if not any(name in key for name in new)}


def write_archive(path: Path, state: dict[str, Tensor]) -> None:
    """Save modules with these tensors as OpenAI did, attention masks and sizes among them."""
    root = nn.Module()
    for key, value in state.items():
        *names, leaf = key.split(".")
        module = root
        for name in names:
            if not hasattr(module, name):
                module.add_module(name, nn.Module())
            module = getattr(module, name)
        module.register_parameter(leaf, nn.Parameter(value, requires_grad=False))
    root.transformer.resblocks.get_submodule("0").attn_mask = torch.zeros(12, 12)
    root.register_buffer("input_resolution", torch.tensor(32))
    torch.jit.script(root).save(str(path))


def without_code(source: Path, target: Path) -> None:
    """The archive with nonsense in place of its code."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        for name in old.namelist():
            new.writestr(name, b"import os; os.abort()" if "/code/" in name else old.read(name))


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("openai") / "ViT-B-16.pt"
    write_archive(path, openai_state())
    return path


def test_its_weights_are_those_of_transformers_model_and_its_code_is_not_read(
    archive: Path, tmp_path: Path
) -> None:
    expected = make_clip().half().float()
    without_code(archive, tmp_path / "clip.pt")
    model = ILAModel.from_clip(tmp_path / "clip.pt", num_frames=4, **SMALL)
    own = model.state_dict()
    for name, value in expected.state_dict().items():
        assert torch.equal(own[name.replace("pre_layrnorm", "pre_layernorm")], value), name
    assert model.config.vision_config.hidden_act == "quick_gelu"
    assert model.config.text_config.eos_token_id == expected.config.text_config.vocab_size - 1
    words = ILAForVideoClassification.from_clip(archive, LABELS, make_tokenizer(), **SMALL)
    assert words.get_label_embeds().shape == (len(LABELS), 16)


def test_what_is_missing_unknown_or_harmful_is_refused(archive: Path, tmp_path: Path) -> None:
    state = openai_state()
    for name, changed, message in (
        ("short", {key: value for key, value in state.items() if key != "ln_final.bias"}, "final_layer_norm"),
        ("more", state | {"visual.surplus": torch.zeros(1)}, r"visual\.surplus is no tensor of CLIP"),
        ("other", {key: value for key, value in state.items() if "proj" not in key}, "holds no CLIP"),
    ):
        write_archive(tmp_path / f"{name}.pt", changed)
        with pytest.raises(CheckpointError, match=message):
            ILAModel.from_clip(tmp_path / f"{name}.pt")

    class Harm:
        def __reduce__(self) -> tuple:
            return (Path.write_text, (tmp_path / "done", "harm"))

    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(tmp_path / "harm.pt", "w") as new:
        for name in old.namelist():
            new.writestr(name, pickle.dumps(Harm()) if name.endswith("/data.pkl") else old.read(name))
    with pytest.raises(CheckpointError, match="weights do not need"):
        ILAModel.from_clip(tmp_path / "harm.pt")
    assert not (tmp_path / "done").exists()
