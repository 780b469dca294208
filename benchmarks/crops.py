"""Time of all feature crops of a training step on ready maps, ours beside the official code, on this CPU.

    python benchmarks/crops.py --official PATH_TO_GDT_CHECKOUT

Forward and backward through pooling and head for both views' crops of the README. The official forward
evaluates small crops once per large one: 48 calls. Of these 11 are used; ours evaluates them as one batch,
each crop with BatchNorm statistics of its own. Our own code called once a crop shows what the batching gives.
One thread, CPU time, best of the repeats.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from checkouts import add_checkout_arguments, has_checkout
from official_gdt import (
    NEEDED,
    draw_official_crops,
    load_official_code,
    official_model,
)
from videossl_hf.models.stica.conversion_stica import infer_config, load_official
from videossl_hf.models.stica.modeling_stica import STiCAForPreTraining
from videossl_hf.models.stica.objective_stica import (
    FULL,
    FeatureCrops,
    Group,
    crop_boxes,
    crop_comparisons,
    groups_of_view,
    map_size,
)
from videossl_hf.nn.feature_crop import pool_boxes


def official_crops(model: torch.nn.Module, maps: list[Tensor], crops: list[list]) -> list[Tensor]:
    """Every call that the official forward makes for crops."""
    embeddings = []
    for feature_map, (space, seconds) in zip(maps, crops, strict=True):
        for large in space[0]:
            for top, bottom, left, right in [large, *space[1]]:
                embeddings.append(model.feat2nce(feature_map[..., top:bottom, left:right]))
        for large in seconds[0]:
            for start, end in [large, *seconds[1]]:
                embeddings.append(model.feat2nce(feature_map[:, :, start:end]))
    return embeddings


def our_crops(
    model: STiCAForPreTraining, maps: list[Tensor], crops: list[FeatureCrops], together: bool
) -> list[Tensor]:
    """The crops that the loss uses, as one batch or one by one."""
    comparisons = crop_comparisons(model.config)
    groups = [[group for group in groups_of_view(comparisons, view) if group[1] != FULL] for view in (0, 1)]
    pooling = model.stica.video_model.pooling

    def tokens(view: int, own: list[Group]) -> Tensor:
        boxes = crop_boxes(own, crops[view], map_size(maps[view]), maps[view])
        return pool_boxes(maps[view], boxes, pooling.token_count(maps[view]))

    if together:
        both = torch.cat([tokens(view, own) for view, own in enumerate(groups)])
        return list(model.video_projection(pooling.attend(both)))
    return [
        model.video_projection(pooling.attend(tokens(view, [group])))[0]
        for view, own in enumerate(groups)
        for group in own
    ]


def seconds_of(evaluate: Callable[[], list[Tensor]], repeats: int) -> tuple[float, int]:
    """CPU seconds of a forward and a backward pass, and the number of embeddings."""
    times, count = [], 0
    for _ in range(repeats):
        start = time.process_time()
        embeddings = evaluate()
        torch.stack(embeddings).sum().backward()
        times.append(time.process_time() - start)
        count = len(embeddings)
    return min(times), count


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_checkout_arguments(parser, NEEDED)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    if not has_checkout(arguments, NEEDED):
        return
    torch.set_num_threads(1)
    main_module, model_module = load_official_code(arguments.official)
    official = official_model(model_module)
    drawn = draw_official_crops(main_module, duration=4)
    weights = official.state_dict()
    ours = load_official(weights, infer_config(weights, projection_dropout=0.0)).train()
    generator = torch.Generator().manual_seed(0)
    maps = [
        torch.randn(arguments.batch, 512, 4, 7, 7, generator=generator).relu().requires_grad_()
        for _ in range(2)
    ]
    crops = [FeatureCrops(*(torch.tensor(boxes) for axis in view for boxes in axis)) for view in drawn]
    sides = {
        "official calls": lambda: official_crops(official, maps, drawn),
        "ours, one by one": lambda: our_crops(ours, maps, crops, together=False),
        "ours, one batch": lambda: our_crops(ours, maps, crops, together=True),
    }
    results = {name: seconds_of(evaluate, arguments.repeats) for name, evaluate in sides.items()}
    reference = results["official calls"][0]
    print(f"{arguments.batch} clips, two maps of 512 x 4 x 7 x 7, forward and backward, one CPU thread")
    for name, (seconds, count) in results.items():
        print(f"{name:18s} {count:3d} embeddings  {1000 * seconds:7.1f} ms  {reference / seconds:5.2f}x")


if __name__ == "__main__":
    main()
