"""Video models of transformers, made from tiny configurations, through our evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoModel,
    AutoModelForVideoClassification,
    TimesformerConfig,
    VideoMAEConfig,
    VivitConfig,
    VJEPA2Config,
    XCLIPConfig,
)

from media import write_media
from videossl_hf import cli
from videossl_hf.data.datasets import load_videos
from videossl_hf.data.sounding_shapes import CLASS_NAMES
from videossl_hf.errors import InputError
from videossl_hf.evaluation.features import embed
from videossl_hf.evaluation.loading import load_model, load_processor
from videossl_hf.evaluation.peers import PEERS, make_peer_processor

SMALL = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
CONFIGS = {
    "videomae": VideoMAEConfig(image_size=32, num_frames=4, **SMALL),
    "timesformer": TimesformerConfig(image_size=32, num_frames=4, **SMALL),
    "vivit": VivitConfig(image_size=32, num_frames=4, tubelet_size=[2, 16, 16], **SMALL),
    "vjepa2": VJEPA2Config(
        crop_size=32, frames_per_clip=4, hidden_size=24, num_attention_heads=2, num_hidden_layers=1,
        pred_hidden_size=12, pred_num_attention_heads=2, pred_num_hidden_layers=1,
    ),
    "xclip": XCLIPConfig(
        text_config={**SMALL, "vocab_size": 99}, projection_dim=16, prompt_layers=1,
        prompt_num_attention_heads=2,
        vision_config={
            **SMALL, "image_size": 32, "patch_size": 16, "num_frames": 4, "mit_hidden_size": 16,
            "mit_intermediate_size": 32, "mit_num_attention_heads": 2,
        },
    ),
}  # fmt: skip
SETTINGS: dict[str, Any] = {
    "do_resize": True, "size": {"shortest_edge": 36}, "do_center_crop": True, "resample": 2,
    "crop_size": {"height": 32, "width": 32}, "do_rescale": True, "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225],
}  # fmt: skip
WIDTHS = dict.fromkeys(CONFIGS, 24) | {"xclip": 16}


@pytest.fixture(params=list(CONFIGS))
def peer(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    folder = tmp_path / request.param
    AutoModel.from_config(CONFIGS[request.param]).save_pretrained(folder)
    name = "video_preprocessor_config.json" if request.param == "vjepa2" else "preprocessor_config.json"
    (folder / name).write_text(json.dumps(SETTINGS))
    return folder


def test_every_peer_has_a_tiny_model() -> None:
    assert CONFIGS.keys() == PEERS.keys()


def test_features_of_a_file_are_those_of_the_model_itself(peer: Path, tmp_path: Path) -> None:
    clip = write_media(tmp_path / "clip.mp4")
    model, processor = load_model(str(peer)), load_processor(str(peer))
    inputs = processor(videos=[clip, clip])["pixel_values_videos"]
    assert inputs.shape == (2, 4, 3, 32, 32)
    features = embed(model, inputs)
    assert features.shape == (2, WIDTHS[peer.name])
    with torch.no_grad():
        plain = AutoModel.from_pretrained(peer).eval()
        if peer.name == "xclip":
            expected = plain.get_video_features(pixel_values=inputs)
            expected = getattr(expected, "pooler_output", expected)
        else:
            tokens = plain(inputs).last_hidden_state
            expected = tokens[:, 0] if peer.name in ("timesformer", "vivit") else tokens.mean(dim=1)
    assert torch.equal(features, expected)
    other = embed(load_model(str(peer), random_weights=True, seed=1), inputs)
    assert not torch.equal(features, other)


def test_the_command_scores_a_peer(peer: Path, shapes: Path, tmp_path: Path) -> None:
    output = tmp_path / "results.json"
    command = ["evaluate", str(peer), "--data", str(shapes), "--k", "3"]
    assert cli.main([*command, "--output", str(output)]) == 0
    (result,) = json.loads(output.read_text())["results"]
    assert result["protocol"]["name"] == "knn"
    assert result["figures"]["top1"]["samples"] > 0


def test_a_classifier_answers_for_itself(shapes: Path, tmp_path: Path) -> None:
    """Probabilities or logits are averaged over the views, as asked."""
    torch.manual_seed(0)
    names = dict(enumerate(CLASS_NAMES))
    config = VideoMAEConfig(
        image_size=32, num_frames=4, id2label=names, label2id={name: i for i, name in names.items()}, **SMALL
    )
    model = AutoModelForVideoClassification.from_config(config)
    torch.nn.init.normal_(model.classifier.weight, std=3.0)
    model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(SETTINGS))
    inputs = torch.randn(2, 4, 3, 32, 32)
    found = embed(load_model(str(tmp_path), for_classification=True), inputs, space="probabilities")
    assert torch.equal(found, model.eval()(inputs).logits.detach().softmax(-1))

    command = ["evaluate", str(tmp_path), "--data", str(shapes), "--protocol", "classify", "--views", "2x3"]
    clips = load_videos(str(shapes), "test")
    views = load_processor(str(tmp_path))(
        videos=[cell["path"] for cell in clips["video"]], num_clips=2, num_crops=3
    )["pixel_values_videos"]
    logits = model(views.flatten(0, 1)).logits.detach().unflatten(0, views.shape[:2])
    for average, answers in (("logits", logits.mean(1)), ("probabilities", logits.softmax(-1).mean(1))):
        output = tmp_path / f"{average}.json"
        assert cli.main([*command, "--average", average, "--output", str(output)]) == 0
        (result,) = json.loads(output.read_text())["results"]
        right = (answers.argmax(-1) == torch.tensor(clips["label"])).float().mean()
        assert result["figures"]["top1"]["value"] == pytest.approx(100 * right.item())
        assert result["protocol"]["average"] == average


@pytest.mark.parametrize("offset", [False, True])
def test_pixels_are_those_of_a_processor_that_works_with_pil(offset: bool) -> None:
    """ViViT's is made of PIL and NumPy; the video ones of the others need torchvision."""
    from transformers.models.vivit.image_processing_vivit import VivitImageProcessor

    settings = SETTINGS | {"rescale_factor": 1 / 127.5 if offset else 1 / 255, "offset": offset}
    rows = np.linspace(0, 255, 48, dtype=np.uint8)
    noise = np.random.default_rng(0).integers(0, 255, (4, 48, 64, 3), dtype=np.uint8)
    frames = (noise // 4 + rows[None, :, None, None] // 2).astype(np.uint8)
    expected = VivitImageProcessor(**settings)(
        [Image.fromarray(frame) for frame in frames], return_tensors="pt"
    )["pixel_values"][0]
    processor = make_peer_processor(CONFIGS["vivit"], settings)
    found = processor(videos=[frames], do_sample_frames=False)["pixel_values_videos"][0]
    assert found.shape == expected.shape
    grey_level = (2 if offset else 1) / 255 / min(SETTINGS["image_std"])
    assert (found - expected).abs().max() <= 1.01 * grey_level  # PIL rounds to whole levels twice
    assert (found - expected).abs().mean() <= 0.4 * grey_level


def test_a_folder_with_a_processor_alone_is_enough(tiny: SimpleNamespace, tmp_path: Path) -> None:
    tiny.processor.save_pretrained(tmp_path)
    assert load_processor(str(tmp_path)).to_dict() == load_processor(str(tiny.folder)).to_dict()


def test_a_folder_without_processor_settings_is_refused(tmp_path: Path) -> None:
    AutoModel.from_config(CONFIGS["videomae"]).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="holds no processor settings"):
        load_processor(str(tmp_path))
    (tmp_path / "preprocessor_config.json").write_text("[]")
    with pytest.raises(InputError, match="must hold a JSON object"):
        load_processor(str(tmp_path))
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(InputError, match=r"cannot read preprocessor_config\.json"):
        load_processor(str(tmp_path))
