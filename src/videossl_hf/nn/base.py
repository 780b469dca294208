"""Base of every model: loading never leaves a weight of the backbone at random."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from safetensors import SafetensorError
from transformers.modeling_utils import PreTrainedModel

from ..errors import CheckpointError

__all__ = ["VideoSSLPreTrainedModel"]


class VideoSSLPreTrainedModel(PreTrainedModel):
    """Base class of all models of this package.

    A method derives one class from it that sets `config_class` and `base_model_prefix` (the attribute under
    which its head models hold the backbone) and, where needed, `_init_weights`. Saving writes the method's
    code beside the weights: the configuration does that (`nn/base_config.py`), and it is saved with every
    model.

    Loading is stricter than transformers, which re-initialises what it cannot load and logs a table. Here
    `from_pretrained` raises `CheckpointError` when weights of the backbone are missing, when a head is
    there in part, when the checkpoint has backbone weights that the model does not know, and when shapes
    differ (unless `ignore_mismatched_sizes=True` asks for a new initialisation of those). A head of which
    the checkpoint holds nothing is new and stays initialised at random: that is how a classifier starts
    from a pre-trained folder. Only safetensors files are read.
    """

    main_input_name = "pixel_values_videos"
    input_modalities: tuple[str, ...] = ("video",)
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = "AutoModel") -> None:
        """Nothing to do: every saved folder names all classes of the method and holds their code."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load a model as `PreTrainedModel.from_pretrained` does, and check that what was loaded fits.

        Raises:
            CheckpointError: for a damaged file, and for keys or shapes that do not fit (see the class).
        """
        wants_info = kwargs.pop("output_loading_info", False)
        kwargs.setdefault("use_safetensors", True)
        ignores_shapes = kwargs.get("ignore_mismatched_sizes", False)
        # Shapes that differ are collected here rather than raised by transformers, and judged below.
        kwargs["ignore_mismatched_sizes"] = True
        try:
            model, info = super().from_pretrained(
                pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs
            )
        except SafetensorError as error:
            raise CheckpointError(
                f"cannot read the weights in {pretrained_model_name_or_path}: {error}."
                " The file is damaged or was not written to its end; download or save it again"
            ) from error
        problems = _problems(model, info, ignores_shapes)
        if problems:
            raise CheckpointError(
                f"the weights in {pretrained_model_name_or_path} do not fit {cls.__name__}: "
                + "; ".join(problems)
            )
        return (model, info) if wants_info else model


def _listed(keys: Iterable[str], shown: int = 6) -> str:
    keys = sorted(keys)
    more = f" and {len(keys) - shown} more" if len(keys) > shown else ""
    return ", ".join(keys[:shown]) + more


def _problems(model: PreTrainedModel, info: dict[str, Any], ignores_shapes: bool) -> list[str]:
    """What is wrong with a load, each in words; empty when all is well."""
    backbone = model.base_model_prefix
    is_head_model = hasattr(model, backbone) and getattr(model, backbone) is not model
    mismatched = {key: (tuple(found), tuple(wanted)) for key, found, wanted in info["mismatched_keys"]}
    missing = set(info["missing_keys"]) - set(mismatched)
    problems = []

    if mismatched and not ignores_shapes:
        shapes = _listed(
            f"{key} is {found}, expected {wanted}" for key, (found, wanted) in mismatched.items()
        )
        problems.append(
            f"other shapes: {shapes} (change the configuration to fit, or pass ignore_mismatched_sizes=True"
            " to initialise these anew)"
        )

    if is_head_model:
        names = model.state_dict().keys()
        loaded_children = {name.split(".")[0] for name in names if name not in missing}
        missing = {key for key in missing if key.split(".")[0] in loaded_children | {backbone}}
    if missing:
        problems.append(f"missing: {_listed(missing)}")

    # A key in a part that the model has: those of other heads are no concern of it.
    parts = {backbone, *(name for name, _ in model.named_children())}
    if unknown := [key for key in info["unexpected_keys"] if key.split(".")[0] in parts]:
        problems.append(f"not known to the model: {_listed(unknown)}")
    return problems
