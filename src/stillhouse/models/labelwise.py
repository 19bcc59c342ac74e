"""A head with one query per class and cross-attention over the map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from stillhouse.models.taps import Tapped
from stillhouse.models.trunk import Layout, ToTokens, Trunk, cut_classifier
from stillhouse.spec import spec

MAP = "map"
EMBEDDINGS, TOKENS = "embeddings", "tokens"  # taps of a network with this head
DECLARED = "labelwise_paths"  # the attribute by which a module says that it has such a head


@spec
class LabelwiseHead:
    """Label-wise embeddings and a linear classifier of each (Yang P. et al., 2023).

    A decoder of one layer (Ridnik et al., 2023) without self-attention. Its queries, one vector of
    `width` for each class, are random and not trained; attention has `heads` heads.
    """

    width: int = 768
    heads: int = 8
    hidden: int = 2048  # of the feed-forward layer
    dropout: float = 0.1
    kind: Literal["labelwise"] = "labelwise"

    def __post_init__(self) -> None:
        if self.heads < 1 or self.width < 1 or self.width % self.heads:
            raise ValueError(
                f"width must be a multiple of heads, got {self.width} and {self.heads}"
            )
        if self.hidden < 1:
            raise ValueError(f"hidden must be at least 1, got {self.hidden}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")

    def build(self, network: nn.Module, classes: int, example: Tensor) -> nn.Module:
        """The network with this head in place of its classifier."""
        return labelwise(network, classes, example, self)


HeadSpec = LabelwiseHead  # the union of heads that a recipe can name, each with `build`


class Decoder(nn.Module):
    """Label-wise embeddings of an image: tokens (N, T, F) -> (N, C, D)."""

    queries: Tensor

    def __init__(self, before: int, classes: int, head: LabelwiseHead) -> None:
        super().__init__()
        width = head.width
        self.project = nn.Sequential(nn.Linear(before, width), nn.ReLU())
        # a buffer: never trained, and in the state dict
        self.register_buffer("queries", torch.randn(classes, width))
        self.attention = nn.MultiheadAttention(width, head.heads, head.dropout, batch_first=True)
        self.forward_layers = nn.Sequential(
            nn.Linear(width, head.hidden),
            nn.ReLU(),
            nn.Dropout(head.dropout),
            nn.Linear(head.hidden, width),
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(head.dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Cross-attention and a feed-forward layer, both residual: (N, T, F) -> (N, C, D)."""
        queries, values = self.queries.expand(len(tokens), -1, -1), self.project(tokens)
        queries = self.norms[0](queries + self.dropout(queries))
        attended = self.attention(queries, values, values, need_weights=False)[0]
        queries = self.norms[1](queries + self.dropout(attended))
        out: Tensor = self.norms[2](queries + self.dropout(self.forward_layers(queries)))
        return out


class Classwise(nn.Module):
    """A linear classifier for each class on its own embedding: (N, C, D) -> (N, C)."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, width))
        self.bias = nn.Parameter(torch.zeros(classes))
        nn.init.xavier_normal_(self.weight)

    def forward(self, embeddings: Tensor) -> Tensor:
        """One score per class: (N, C, D) -> (N, C)."""
        return (embeddings * self.weight).sum(-1) + self.bias


class LabelwisePaths(NamedTuple):
    """Where a label-wise head is, as paths of taps in the network that holds it."""

    embeddings: str  # label-wise embeddings (N, classes, width)
    tokens: str  # what they are found in, (N, places, channels)
    map: str  # the same before it is flattened, in the layout below
    layout: Layout  # (N, F, H, W), (N, H, W, F) or (N, T, F)

    def inside(self, prefix: str) -> LabelwisePaths:
        """The same places of a network that holds this one at the path `prefix`."""
        embeddings, tokens, feature_map = (
            f"{prefix}.{path}".removeprefix(".") for path in self[:3]
        )
        return LabelwisePaths(embeddings, tokens, feature_map, self.layout)


class Labelwise(nn.Module):
    """A network with a label-wise head: images (N, C, H, W) -> logits (N, classes).

    Taps: `embeddings`, the label-wise embeddings (N, classes, width), and `tokens`, the map that
    they are computed from as tokens (N, T, channels).
    """

    def __init__(self, trunk: Tapped, place: Trunk, classes: int, head: LabelwiseHead) -> None:
        super().__init__()
        self.trunk, self.tokens = trunk, ToTokens(place.layout)
        self.embeddings = Decoder(place.width, classes, head)
        self.classifier = Classwise(classes, head.width)

    def forward(self, images: Tensor) -> Tensor:
        """One score per class: (N, C, H, W) -> (N, classes)."""
        tokens = self.tokens(self.trunk(images).taps[MAP])
        scores: Tensor = self.classifier(self.embeddings(tokens))
        return scores

    @property
    def labelwise_paths(self) -> LabelwisePaths:
        """Where the head is in this network."""
        path = f"trunk.model.{self.trunk.paths[MAP]}"
        return LabelwisePaths(EMBEDDINGS, TOKENS, path, self.tokens.layout)

    @torch.no_grad()
    def select_classes(self, classes: Sequence[int]) -> None:
        """Keep only these classes, in this order."""
        index = torch.tensor(tuple(classes))
        self.embeddings.queries = self.embeddings.queries[index]
        for name in ("weight", "bias"):
            old = getattr(self.classifier, name)
            setattr(self.classifier, name, nn.Parameter(old[index], old.requires_grad))


def labelwise(
    network: nn.Module, classes: int, example: Tensor, head: LabelwiseHead | None = None
) -> Labelwise:
    """A network with a label-wise head in place of its classifier, which is removed from it.

    `example` is a batch of images (N, C, H, W) for a dry run, which finds the last map.
    """
    place = cut_classifier(network, example)
    trunk = Tapped(network, {MAP: place.path}, (example,))
    return Labelwise(trunk, place, classes, head or LabelwiseHead())


def find_labelwise_head(network: nn.Module) -> LabelwisePaths | None:
    """The label-wise head of a network; None without one, or with several as in an ensemble."""
    heads = [(path, part) for path, part in network.named_modules() if hasattr(part, DECLARED)]
    if len(heads) != 1:
        return None
    ((prefix, part),) = heads
    declared: LabelwisePaths = getattr(part, DECLARED)
    return declared.inside(prefix)
