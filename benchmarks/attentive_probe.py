"""Time and memory of a training step of an attentive probe, ours beside the same probe of torch's own parts.

    python benchmarks/attentive_probe.py --width 768 --tokens 1568 --batch 16

Cross-attention of one learned query in `nn.MultiheadAttention`, as V-JEPA's evaluation has it: keys and
values of all tokens are multiplied out. Ours takes the query through the keys' weights instead. Both give the
same answers, which is checked first, in float64 (the gradients are in
tests/evaluation/test_trained_probe.py). One thread, CPU time, alternating, best of the repeats; memory is
what autograd keeps for the backward pass.
"""

from __future__ import annotations

import argparse
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from videossl_hf.evaluation.attentive import AttentiveHead


class PlainHead(nn.Module):
    """The same function with the weights of an `AttentiveHead`, in torch's own modules."""

    def __init__(self, ours: AttentiveHead) -> None:
        super().__init__()
        width = len(ours.query)
        self.query, self.norm_tokens, self.norm = (
            nn.Parameter(ours.query.detach().clone()),
            *(nn.LayerNorm(width) for _ in range(2)),
        )
        self.attention = nn.MultiheadAttention(width, ours.heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.classifier = nn.Linear(width, ours.classifier.out_features)
        for name in ("norm_tokens", "norm", "mlp", "classifier"):
            getattr(self, name).load_state_dict(getattr(ours, name).state_dict())
        parts = ours.to_query, ours.to_key, ours.to_value
        with torch.no_grad():
            self.attention.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
            self.attention.in_proj_bias[:width].copy_(ours.to_query.bias)
            self.attention.in_proj_bias[2 * width :].copy_(ours.to_value.bias)
            self.attention.out_proj.weight.copy_(torch.eye(width))

    def forward(self, tokens: Tensor) -> Tensor:
        """(samples, tokens, width) -> (samples, classes)."""
        known = self.norm_tokens(tokens)
        query = self.query.expand(len(tokens), 1, -1)
        pooled = query + self.attention(query, known, known, need_weights=False)[0]
        pooled = pooled + self.mlp(self.norm(pooled))
        return self.classifier(pooled[:, 0])


def step(head: nn.Module, tokens: Tensor, labels: Tensor) -> None:
    """Forward and backward."""
    head.zero_grad()
    F.cross_entropy(head(tokens), labels).backward()


def saved_bytes(head: nn.Module, tokens: Tensor, labels: Tensor) -> int:
    """Bytes that autograd keeps from forward to backward, without the tokens and weights themselves."""
    known = {tensor.untyped_storage().data_ptr() for tensor in (tokens, labels, *head.parameters())}
    sizes: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = F.cross_entropy(head(tokens), labels)
    del loss
    return sum(size for place, size in sizes.items() if place not in known)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=768, help="of a token")
    parser.add_argument("--tokens", type=int, default=1568, help="of a clip: 8 x 14 x 14")
    parser.add_argument("--batch", type=int, default=16, help="clips")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    heads = {"ours": AttentiveHead(args.width, 174)}
    heads["torch.nn"] = PlainHead(heads["ours"])
    tokens = torch.randn(args.batch, args.tokens, args.width)
    labels = torch.randint(174, (args.batch,))
    with torch.no_grad():
        few = tokens[:2].double()
        answers = [head.double()(few) for head in heads.values()]
    difference = (answers[0] - answers[1]).abs().max().item()
    print(f"{args.batch} clips of {args.tokens} tokens of {args.width}; largest difference {difference:.1e}")
    memory = {name: saved_bytes(head.float(), tokens, labels) / 2**20 for name, head in heads.items()}
    times: dict[str, list[float]] = {name: [] for name in heads}
    for _ in range(args.repeats):
        for name, head in heads.items():
            start = time.process_time()
            step(head, tokens, labels)
            times[name].append(time.process_time() - start)
    for name in heads:
        print(f"{name:10}{1000 * min(times[name]):9.1f} ms a step{memory[name]:9.1f} MiB kept for backward")
    print(f"torch.nn / ours: {min(times['torch.nn']) / min(times['ours']):.2f}x the time, "
          f"{memory['torch.nn'] / memory['ours']:.2f}x the memory")  # fmt: skip


if __name__ == "__main__":
    main()
