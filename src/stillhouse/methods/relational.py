"""Methods that compare relations between the images of a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from stillhouse.errors import UserError
from stillhouse.functional import relation
from stillhouse.functional.dtype import full_precision, upcast
from stillhouse.methods.base import Method
from stillhouse.methods.paired import AdaptedPair, PairedSpec, term_names
from stillhouse.methods.setting import Setting
from stillhouse.methods.terms import batch_term, gather_rows
from stillhouse.models.aliases import find_aliases
from stillhouse.models.labelwise import find_labelwise_head
from stillhouse.objectives.card import Card
from stillhouse.objectives.presets.feature import PairsOption, TapPairs
from stillhouse.spec import require, spec
from stillhouse.types import Lesson, Terms

Relation = Callable[[Tensor, Tensor], Tensor]  # (N, E), (N, F) -> ()
PENULTIMATE: TapPairs = (("penultimate", "penultimate"),)


@spec
class RelationSpec(PairedSpec):
    """The options of a method that compares relations at pairs of taps of any width."""

    pooled: ClassVar[bool] = False  # whether maps and tokens are averaged over their positions

    def relations(self) -> Mapping[str, tuple[Relation, float]]:
        """The relations that are compared and their weights, by name; subclasses implement it."""
        raise NotImplementedError

    def taps(self, setting: Setting) -> TapPairs:
        """The pairs; pooled relations replace `penultimate` where a network does not have it."""
        pairs = super().taps(setting)
        return vector_taps(setting) if self.pooled and pairs == PENULTIMATE else pairs

    def build(self, setting: Setting) -> Method:
        """The method; it has no trainable parameters."""
        return Relational(self, self.taps(setting))


@spec
class RKD(RelationSpec):
    """Matches distances of pairs of images and angles of triples (Park et al., 2019).

    A weight of 0 leaves a relation out; the angles of n images take n^3 numbers. `eps` is the lower
    bound of squared distances.
    """

    distance: float = 25.0
    angle: float = 50.0
    eps: float = 1e-12
    pairs: PairsOption = field(default=PENULTIMATE, kw_only=True)
    name: Literal["rkd"] = "rkd"
    movable: ClassVar[bool] = False
    pooled: ClassVar[bool] = True
    card: ClassVar[Card] = Card(
        "Relational knowledge distillation",
        "distance * mean_ij l1(|s_i - s_j| / mu_s, |t_i - t_j| / mu_t) + angle * mean_ijk "
        "l1(cos s_ijk, cos t_ijk),  l1 smooth, mu the mean distance of two images",
        "Park et al.: Relational knowledge distillation, CVPR 2019",
        ("features", "batch"),
        "batch^2 x width differences and batch^3 angles; features of all ranks are gathered",
        "It ignores the scale of features and any rotation of them. The distance of two images "
        "always equals its mean, so small batches have little effect.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.eps > 0, "eps", "positive", self.eps)
        if not self.distance and not self.angle:
            raise ValueError("distance and angle are both 0; set at least one of them above 0")

    def relations(self) -> Mapping[str, tuple[Relation, float]]:
        """The distances and angles, those of a weight other than 0."""
        both = {
            "distance": (partial(relation.distance_relation, eps=self.eps), self.distance),
            "angle": (partial(relation.angle_relation, eps=self.eps), self.angle),
        }
        return {name: (compare, weight) for name, (compare, weight) in both.items() if weight}


@spec
class PKT(RelationSpec):
    """Matches the similarities of images as probabilities (Passalis and Tefas, 2018)."""

    weight: float = 3e4
    eps: float = 1e-7
    pairs: PairsOption = field(default=PENULTIMATE, kw_only=True)
    name: Literal["pkt"] = "pkt"
    movable: ClassVar[bool] = False
    pooled: ClassVar[bool] = True
    card: ClassVar[Card] = Card(
        "Probabilistic knowledge transfer",
        "weight * mean_ij P_t log((P_t + eps) / (P_s + eps)),  P_ij = k_ij / sum_j k_ij, "
        "k_ij = (1 + cos(f_i, f_j)) / 2",
        "Passalis, Tefas: Learning deep representations with probabilistic knowledge transfer, "
        "ECCV 2018",
        ("features", "batch"),
        "a cosine for each pair of images; features of all ranks are gathered",
        "Features after a ReLU have angles of at most 90 degrees and give nearly uniform "
        "probabilities, so the weight is large; it depends on the batch size.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.eps > 0, "eps", "positive", self.eps)

    def relations(self) -> Mapping[str, tuple[Relation, float]]:
        """The conditional probabilities between images."""
        return {"pkt": (partial(relation.probability_relation, eps=self.eps), self.weight)}


@spec
class SP(RelationSpec):
    """Matches the Gram matrix of the images of a batch (Tung and Mori, 2019)."""

    weight: float = 3000.0
    name: Literal["sp"] = "sp"
    card: ClassVar[Card] = Card(
        "Similarity-preserving distillation",
        "weight / N^2 * |G_t - G_s|_F^2,  G the Gram matrix of flattened maps with rows of unit "
        "length",
        "Tung, Mori: Similarity-preserving knowledge distillation, ICCV 2019",
        ("features", "batch"),
        "a product for each pair of images; features of all ranks are gathered",
        "With rows of unit length, entries are of the order 1 / sqrt(N): the loss, and so the "
        "weight, depends on the batch size.",
    )

    def relations(self) -> Mapping[str, tuple[Relation, float]]:
        """The Gram matrix with rows of unit length."""
        return {"sp": (relation.similarity_relation, self.weight)}


class Relational(Method):
    """One term per pair of taps and relation, `TAP/RELATION`, over the images of all ranks."""

    def __init__(self, spec: RelationSpec, pairs: TapPairs) -> None:
        super().__init__()
        self.spec = spec
        self.relations = spec.relations()
        self.label_share = spec.label_share
        self.student_taps, self.teacher_taps = (tuple(side) for side in zip(*pairs, strict=True))
        self.names = term_names([AdaptedPair(*pair, nn.Identity()) for pair in pairs])

    def vectors(self, tap: Tensor) -> Tensor:
        """One vector per image: (N, ...) -> (N, E), float32 or wider."""
        full = upcast(tap)
        return spatial_mean(full) if self.spec.pooled else full.flatten(1)

    def embed(self, index: int, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """The features that are related at one pair of taps; by default unchanged.

        (N, E), (N, F) -> (N, ...), (N, ...).
        """
        return student, teacher

    def forward(self, lesson: Lesson) -> Terms:
        """The terms of all pairs; every rank computes the same values, from all ranks' images."""
        ramp = self.spec.ramp_factor(lesson.clock)
        terms = {}
        for index, place in enumerate(self.names):
            student = self.vectors(lesson.student.taps[self.student_taps[index]])
            teacher = self.vectors(lesson.teacher.taps[self.teacher_taps[index]].detach())
            with full_precision(student):
                rows = gather_rows(lesson.weight, *self.embed(index, student, teacher))
                for name, (compare, weight) in self.relations.items():
                    loss = compare(rows[0], rows[1])
                    terms[f"{place}/{name}"] = batch_term(loss, ramp * weight)
        return terms


def spatial_mean(tap: Tensor) -> Tensor:
    """The mean over positions: a map (N, C, H, W), tokens (N, T, C), a vector (N, C) -> (N, C)."""
    if tap.ndim == 3:
        return tap.mean(1)
    return tap.flatten(2).mean(2) if tap.ndim > 3 else tap


def vector_taps(setting: Setting) -> TapPairs:
    """The taps of both networks that give one vector per image, themselves or averaged."""
    networks = (setting.student, setting.teacher)
    student, teacher = (vector_tap(network, setting.example) for network in networks)
    return ((student, teacher),)


def vector_tap(network: nn.Module, example: Tensor) -> str:
    """The tokens of a label-wise head; else `penultimate`, or `last` without one vector per image.

    A network with neither gets `penultimate`, which is refused later with the reason.
    """
    head = find_labelwise_head(network)
    if head is not None:
        return head.tokens
    aliases = find_aliases(network, example)
    vector = PENULTIMATE[0][0]
    return "last" if vector not in aliases and "last" in aliases else vector


def vector_sizes(spec: PairedSpec, setting: Setting) -> list[tuple[int, int]]:
    """The sizes (student, teacher) of the vectors of each pair; raises UserError for others."""
    pairs = spec.taps(setting)
    student = setting.student_shapes([tap for tap, _ in pairs])
    teacher = setting.teacher_shapes([tap for _, tap in pairs])
    return [(_vector_size(s, student[s]), _vector_size(t, teacher[t])) for s, t in pairs]


def _vector_size(tap: str, shape: torch.Size) -> int:
    if len(shape) != 2:
        raise UserError(
            f"the method needs vectors, but tap {tap!r} gives {' x '.join(map(str, shape))}; "
            "name vectors under method.pairs, as in pairs: [[penultimate, penultimate]]"
        )
    return shape[1]
