"""What VIMPAC hides and predicts, as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from common.media import moving_frames
from models import tiny_vimpac
from videossl_hf.errors import InputError
from videossl_hf.models.vimpac.modeling_vimpac import VIMPACForPreTraining, VIMPACModel
from videossl_hf.models.vimpac.processing_vimpac import VIMPACProcessor
from videossl_hf.visualize.command import visualize

HIDDEN = (132, 140, 158)


def saved(folder: Path, *, with_head: bool = True, use_decoder: bool = True) -> Path:
    torch.manual_seed(0)
    config = tiny_vimpac.make_config()
    (VIMPACForPreTraining if with_head else VIMPACModel)(config).save_pretrained(folder)
    tokenizer = tiny_vimpac.make_tokenizer(use_decoder=use_decoder)
    VIMPACProcessor.from_config(config, tokenizer).save_pretrained(folder)
    return folder


def test_four_rows_show_clip_codes_mask_and_prediction(tmp_path: Path) -> None:
    frames = moving_frames(5, 32, 32)
    picture = np.asarray(visualize(str(saved(tmp_path)), [frames]))
    height = picture.shape[0] // 4
    is_hidden = (picture == HIDDEN).all(-1)
    shares = [float(is_hidden[row * height : (row + 1) * height].mean()) for row in range(4)]
    assert 0.02 < shares[2] < 0.5
    assert max(shares[0], shares[1], shares[3]) < 0.01


def test_folders_that_cannot_be_drawn_say_why(tmp_path: Path) -> None:
    frames = moving_frames(5, 32, 32)
    with pytest.raises(InputError, match="no token head"):
        visualize(str(saved(tmp_path / "features", with_head=False)), [frames])
    with pytest.raises(InputError, match="with a decoder"):
        visualize(str(saved(tmp_path / "coder", use_decoder=False)), [frames])
