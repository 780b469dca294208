"""The one vector that the text tower gives a text, and no more work than it takes."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import PreTrainedModel
from transformers.models.distilbert.modeling_distilbert import DistilBertModel, TransformerBlock

from ...nn.attention import attend, split_heads

__all__ = ["TVTSLastTextBlock", "confine_last_block", "encode_texts", "text_blocks"]


class TVTSLastTextBlock(TransformerBlock):
    """DistilBERT's last block, which can leave out all tokens but the first: a text's vector reads no
    other."""

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        first_token_only: bool = False,
        **kwargs: Any,
    ) -> Tensor:
        """`(texts, tokens, width)` to the same, or to the first token `(texts, 1, width)`."""
        if not first_token_only:
            return super().forward(hidden_states, attention_mask, **kwargs)
        attention, first = self.attention, hidden_states[:, :1]
        parts = (
            attention.q_lin(first),
            attention.k_lin(hidden_states),
            attention.v_lin(hidden_states),
        )
        query, key, value = (split_heads(part, attention.attention_head_size) for part in parts)
        mask = None if attention_mask is None else attention_mask[..., :1, :]
        mixed, _ = attend(attention, query, key, value, mask, attention.dropout.p)
        first = self.sa_layer_norm(attention.out_lin(mixed) + first)
        return self.output_layer_norm(self.ffn(first) + first)


def confine_last_block(model: PreTrainedModel) -> None:
    """Give DistilBERT's last block, in place, its further way to be called; weights and names stay."""
    if isinstance(model, DistilBertModel):
        model.transformer.layer[-1].__class__ = TVTSLastTextBlock


def encode_texts(
    model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor | None, with_states: bool = True
) -> tuple[Tensor | None, Tensor]:
    """States `(texts, tokens, width)`, if wanted, and one vector a text `(texts, size)` of tokens
    `(texts, tokens)`.

    The vector is, for CLIP, the projected end-of-text token; for encoders with a pooler, its output; for
    DistilBERT, the first token, as published, to which its last block is then confined.
    """
    # Other kernels have masks of their own form.
    confined = (
        not with_states
        and isinstance(model, DistilBertModel)
        and model.config._attn_implementation in ("eager", "sdpa")
    )
    more = {"first_token_only": True} if confined else {}
    output = model(input_ids=input_ids, attention_mask=attention_mask, return_dict=True, **more)
    states = output.last_hidden_state
    for name in ("text_embeds", "pooler_output"):
        if output.get(name) is not None:
            return states if with_states else None, output[name]
    return states if with_states else None, states[:, 0]


def text_blocks(model: PreTrainedModel) -> list[GradientCheckpointingLayer]:
    """The encoder's blocks, first to last."""
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
