"""`videossl convert ila`: with the tokenizer and the names of the classes the folder answers with words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from common.model_checks import perturb
from models.tiny_ila import LABELS, TEXT, VISION, clips, make_config, make_tokenizer
from videossl_hf import ILAForVideoClassification, ILAProcessor
from videossl_hf.convert import convert_checkpoint, read_labels
from videossl_hf.errors import InputError
from videossl_hf.models.ila import conversion_ila
from videossl_hf.models.ila.conversion_ila import official_state_dict

BRANCHES: dict[str, dict[str, Any]] = {
    "master": {},
    "SSV2": {"head": "linear", "interactive_block": "dense"},
}


@pytest.fixture(params=BRANCHES)
def official(request: Any, tmp_path: Path, monkeypatch: Any) -> tuple[ILAForVideoClassification, Path]:
    """A model and the file that the authors' code would have saved of it."""
    torch.manual_seed(0)
    model = ILAForVideoClassification(make_config(**BRANCHES[request.param])).eval()
    perturb(model)
    torch.save({"model": official_state_dict(model), "epoch": 3}, tmp_path / "official.pth")
    heads = {  # narrower ones than any published model has
        "vision_config": {"num_attention_heads": VISION["num_attention_heads"]},
        "text_config": {"num_attention_heads": TEXT["num_attention_heads"]},
        "head_dim": 8,
    }
    infer = conversion_ila.infer_config
    monkeypatch.setattr(
        conversion_ila, "infer_config", lambda state, **given: infer(state, **(heads | given))
    )
    make_tokenizer().save_pretrained(tmp_path / "tokenizer")
    return model, tmp_path


@torch.no_grad()
def test_the_folder_knows_the_classes(official: tuple[ILAForVideoClassification, Path]) -> None:
    model, folder = official
    tokenizer = str(folder / "tokenizer") if model.config.has_text else None
    given = {"labels": LABELS, "tokenizer": tokenizer}
    convert_checkpoint("ila", folder / "official.pth", folder / "converted", **given)
    converted = ILAForVideoClassification.from_pretrained(folder / "converted")
    assert list(converted.config.id2label.values()) == LABELS
    torch.testing.assert_close(converted(clips(2)).logits, model(clips(2)).logits, rtol=0, atol=0)
    saved = ILAProcessor.from_pretrained(folder / "converted")
    assert (saved.tokenizer is not None) == model.config.has_text


def test_labels_and_tokenizers_that_do_not_fit_are_refused(
    official: tuple[ILAForVideoClassification, Path],
) -> None:
    model, folder = official
    labels, message = (
        (LABELS, "give --tokenizer") if model.config.has_text else (LABELS[1:], "4 labels .* 5 out")
    )
    with pytest.raises(InputError, match=message):
        convert_checkpoint("ila", folder / "official.pth", folder / "converted", labels=labels)
    assert not (folder / "converted").exists()


def test_labels_are_read_from_lines_or_from_the_authors_table(tmp_path: Path) -> None:
    file = tmp_path / "labels"
    file.write_text("air drumming\n\narchery\n")
    assert read_labels(file) == ["air drumming", "archery"]
    file.write_text('id,name\n1,archery\n0,"bow, then stand"\n')
    assert read_labels(file) == ["bow, then stand", "archery"]
    file.write_text("id,name\n1,archery\n2,bowling\n")
    with pytest.raises(InputError, match="must be 0 to 1"):
        read_labels(file)
    with pytest.raises(InputError, match="cannot read"):
        read_labels(tmp_path / "absent")
