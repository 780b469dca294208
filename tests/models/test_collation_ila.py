"""ILA's training batches: soft labels, choices that belong to samples, crops and blends in range."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets as hf
import pytest
import torch

from media import write_media
from models.tiny_ila import make_config, make_processor
from videossl_hf.data.blending import apply_blend, draw_blend, smooth_labels
from videossl_hf.data.datasets import SeededDataset
from videossl_hf.data.erasing import draw_erased_box
from videossl_hf.data.multi_scale_crop import draw_multi_scale_box, multi_scale_sizes
from videossl_hf.errors import ConfigurationError, DataError
from videossl_hf.models.ila.collation_ila import ILAAugmentation, ILACollator


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("clips")
    paths = [write_media(folder / f"{i}.mp4", height=48, width=48 + 16 * i, seed=i) for i in range(3)]
    cells = [{"bytes": None, "path": str(path)} for path in map(Path, paths)]
    features = hf.Features({"video": hf.Video(decode=False), "label": hf.Value("int64")})
    table = hf.Dataset.from_dict({"video": cells, "label": [0, 1, 4]}, features=features)
    data = SeededDataset(table, 0)
    return [data[index] for index in range(len(data))]


def batch(samples: list[dict[str, Any]], **settings: Any) -> dict[str, torch.Tensor]:
    return ILACollator(make_config(), make_processor(), ILAAugmentation(**settings))(samples)


def test_a_batch_holds_clips_and_the_probabilities_of_their_labels(samples: list[dict[str, Any]]) -> None:
    found = batch(samples)
    assert found["pixel_values_videos"].shape == (3, 4, 3, 32, 32)
    torch.testing.assert_close(found["labels"].sum(1), torch.ones(3))
    plain = batch(samples, blend_probability=0.0, label_smoothing=0.1)
    torch.testing.assert_close(plain["labels"], smooth_labels(torch.tensor([0, 1, 4]), 5, 0.1))


def test_a_clip_depends_on_its_own_seed_alone(samples: list[dict[str, Any]]) -> None:
    together = batch(samples, blend_probability=0.0)["pixel_values_videos"]
    alone = batch(samples[1:2], blend_probability=0.0)["pixel_values_videos"]
    torch.testing.assert_close(together[1:2], alone)
    assert torch.equal(batch(samples)["pixel_values_videos"], batch(samples)["pixel_values_videos"])


def test_a_sample_without_a_label_of_the_classes_is_an_error(samples: list[dict[str, Any]]) -> None:
    with pytest.raises(DataError, match="label"):
        batch([samples[0] | {"label": 5}])
    with pytest.raises(ConfigurationError, match="hue"):
        ILAAugmentation(hue=0.7)


def test_crops_and_erased_boxes_lie_in_the_frame_and_take_all_sizes() -> None:
    generator, sizes = torch.Generator().manual_seed(0), set()
    for _ in range(400):
        top, left, height, width = draw_multi_scale_box(40, 57, 28, (1.0, 0.875, 0.75, 0.66), generator)
        assert min(top, left) >= 0
        assert top + height <= 40
        assert left + width <= 57
        sizes.add((height, width))
        box = draw_erased_box(28, 30, generator)
        assert box is None or (box[0] + box[2] <= 28 and box[1] + box[3] <= 30)
    assert sizes == set(multi_scale_sizes(40, 57, 28, (1.0, 0.875, 0.75, 0.66)))
    assert (28, 28) in sizes  # 0.66 of 40 is 26: near enough to be taken for 28


def test_blends_keep_probabilities_and_weigh_labels_by_what_is_seen() -> None:
    generator = torch.Generator().manual_seed(1)
    videos, labels = torch.arange(4.0)[:, None, None, None, None].expand(4, 2, 3, 8, 8), torch.eye(4)
    kinds = set()
    for _ in range(50):
        blend = draw_blend(4, 8, 8, generator)
        mixed, targets = apply_blend(videos, labels, blend)
        torch.testing.assert_close(targets @ torch.arange(4.0), mixed.mean((1, 2, 3, 4)))
        kinds.add(blend.box is None)
    assert kinds == {True, False}
