"""Models of codes take videos with their tokeniser; without it nothing claims that they do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoProcessor

from models import tiny_vimpac
from models.tiny_ila import make_config as make_ila_config
from videossl_hf import VIMPACForPreTraining, VIMPACProcessor, cli
from videossl_hf.hub.card import render_card
from videossl_hf.hub.published_code import custom_pipelines
from videossl_hf.hub.push import plan_upload
from videossl_hf.models.vimpac.conversion_vimpac import official_state_dict


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    tiny_vimpac.make_tokenizer().save_pretrained(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A model and its processor, saved without a tokeniser."""
    model = VIMPACForPreTraining(tiny_vimpac.make_config())
    model.save_pretrained(tmp_path / "bare")
    VIMPACProcessor.from_config(model.config).save_pretrained(tmp_path / "bare")
    return tmp_path / "bare"


def test_a_converted_model_takes_videos_with_the_tokeniser_that_it_was_given(
    tokenizer: Path, clip_with_sound: Path, tmp_path: Path
) -> None:
    config = tiny_vimpac.make_config(hidden_size=128, num_attention_heads=2)
    torch.save(official_state_dict(VIMPACForPreTraining(config)), tmp_path / "classifier.pt")
    folder = tmp_path / "converted"
    command = ["convert", "vimpac", str(tmp_path / "classifier.pt"), str(folder), "--license", "mit"]
    assert cli.main([*command, "--tokenizer", str(tokenizer)]) == 0
    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    assert model(**processor(videos=str(clip_with_sound))).pooler_output.shape == (1, 128)
    assert "`dvae.safetensors` is the tokeniser" in render_card(folder, "me/codes")


def test_without_a_tokeniser_nothing_is_published_that_takes_videos(bare: Path) -> None:
    upload = plan_upload(bare, "me/codes", "mit")
    assert not {"handler.py", "requirements.txt", "pipeline_features.py"} & upload.files.keys()
    assert "custom_pipelines" not in upload.content("config.json").decode()
    assert "handler.py" not in upload.content("README.md").decode()


def test_the_card_s_example_says_where_the_tokeniser_goes(
    bare: Path, tokenizer: Path, clip_with_sound: Path
) -> None:
    example: dict = {}
    for block in re.findall("```python\n(.*?)```", render_card(bare, str(bare)), re.DOTALL):
        code = block.replace("TOKENISER", str(tokenizer)).replace("clip.mp4", str(clip_with_sound))
        exec(code, example)
    assert example["features"].shape == (1, 16)
    assert len(example["windows"]) > 1


def test_a_space_is_refused_without_a_tokeniser(bare: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["push", str(bare), "me/codes", "--license", "mit", "--space", "--dry-run"]) == 1
    assert "no tokeniser" in capsys.readouterr().err


def test_a_model_without_its_text_tower_claims_no_pipeline_of_texts() -> None:
    reads = custom_pipelines(make_ila_config())
    assert custom_pipelines(make_ila_config(head="linear")).keys() == reads.keys() - {
        "zero-shot-video-classification"
    }
