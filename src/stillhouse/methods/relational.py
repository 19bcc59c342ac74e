"""Methods that compare how the images of a batch relate to each other."""

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
from stillhouse.methods.paired import TapPair, Tapped, places
from stillhouse.methods.setting import Pairs, Setting
from stillhouse.methods.terms import batch_term, rows_of_all
from stillhouse.models.labelwise import find_labelwise_head
from stillhouse.models.stages import stages
from stillhouse.objectives.card import Card
from stillhouse.spec import spec
from stillhouse.types import Lesson, Terms

Relation = Callable[[Tensor, Tensor], Tensor]  # (N, E), (N, F) -> ()
PENULTIMATE: Pairs = (("penultimate", "penultimate"),)


@spec
class Related(Tapped):
    """Relations at pairs of taps, which may be as wide as they like."""

    pooled: ClassVar[bool] = False  # whether a map or tokens count as the mean over their places

    def relations(self) -> Mapping[str, tuple[Relation, float]]:
        """What is compared, and what it counts."""
        raise NotImplementedError

    def taps(self, setting: Setting) -> Pairs:
        """The pairs; where no classifier reads one vector, the place that it reads stands in."""
        pairs = super().taps(setting)
        return vectors_of(setting) if self.pooled and pairs == PENULTIMATE else pairs

    def build(self, setting: Setting) -> Method:
        """The method; it trains nothing of its own."""
        return Relational(self, self.taps(setting))


@spec
class RKD(Related):
    """Relative distances of pairs of images and angles of triples (Park et al., 2019).

    A weight of 0 leaves that relation out; the angles of n images cost n^3 numbers. `eps` is the
    least squared distance of two images.
    """

    distance: float = 25.0
    angle: float = 50.0
    eps: float = 1e-12
    pairs: Pairs | Literal["stages"] = field(default=PENULTIMATE, kw_only=True)
    name: Literal["rkd"] = "rkd"
    movable: ClassVar[bool] = False
    pooled: ClassVar[bool] = True
    card: ClassVar[Card] = Card(
        "Relational knowledge distillation",
        "distance * mean_ij l1(|s_i - s_j| / mu_s, |t_i - t_j| / mu_t) + angle * mean_ijk "
        "l1(cos s_ijk, cos t_ijk),  l1 smooth, mu the mean distance of two images",
        "Park et al.: Relational knowledge distillation, CVPR 2019",
        ("features", "batch"),
        "batch^2 x width differences and batch^3 angles; rows of all ranks are gathered",
        "Blind to the scale of features, and to any rotation of them. Of two images the distance "
        "is always the mean, so small batches say little.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eps <= 0:
            raise ValueError(f"eps must be above 0, and is {self.eps}")
        if not self.distance and not self.angle:
            raise ValueError("distance and angle are both 0, which leaves nothing to compare")

    def relations(self) -> Mapping[str, tuple[Relation, float]]:
        """Distances and angles, those that count."""
        both = {
            "distance": (partial(relation.distance_relation, eps=self.eps), self.distance),
            "angle": (partial(relation.angle_relation, eps=self.eps), self.angle),
        }
        return {name: (compare, weight) for name, (compare, weight) in both.items() if weight}


@spec
class PKT(Related):
    """Which images are near to which, as probabilities (Passalis and Tefas, 2018)."""

    weight: float = 3e4
    eps: float = 1e-7
    pairs: Pairs | Literal["stages"] = field(default=PENULTIMATE, kw_only=True)
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
        "a cosine for each pair of images; rows of all ranks are gathered",
        "Features after a ReLU all lie within 90 degrees of each other and make near uniform "
        "probabilities, hence the weight, which belongs to a size of the batch.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eps <= 0:
            raise ValueError(f"eps must be above 0, and is {self.eps}")

    def relations(self) -> Mapping[str, tuple[Relation, float]]:
        """Affinities."""
        return {"pkt": (partial(relation.probability_relation, eps=self.eps), self.weight)}


@spec
class SP(Related):
    """Which images excite a network alike (Tung and Mori, 2019)."""

    weight: float = 3000.0
    name: Literal["sp"] = "sp"
    card: ClassVar[Card] = Card(
        "Similarity-preserving distillation",
        "weight / N^2 * |G_t - G_s|_F^2,  G the Gram matrix of flattened maps with rows of unit "
        "length",
        "Tung, Mori: Similarity-preserving knowledge distillation, ICCV 2019",
        ("features", "batch"),
        "a product for each pair of images; rows of all ranks are gathered",
        "Rows of unit length make entries of 1 / sqrt(N): the value, and so the weight, belongs to "
        "a size of the batch.",
    )

    def relations(self) -> Mapping[str, tuple[Relation, float]]:
        """Gram matrices."""
        return {"sp": (relation.similarity_relation, self.weight)}


class Relational(Method):
    """One term a pair of taps and relation, over the images of all ranks."""

    def __init__(self, spec: Related, pairs: Pairs) -> None:
        super().__init__()
        self.spec = spec
        self.relations = spec.relations()
        self.label_share = spec.label_share
        self.student_taps, self.teacher_taps = (tuple(side) for side in zip(*pairs, strict=True))
        self.places = places([TapPair(*pair, nn.Identity()) for pair in pairs])

    def vectors(self, tap: Tensor) -> Tensor:
        """One vector an image: (N, ...) -> (N, E)."""
        full = upcast(tap)
        return averaged(full) if self.spec.pooled else full.flatten(1)

    def embed(self, index: int, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """What is related at one pair of taps: (N, E), (N, F) -> (N, ...), (N, ...)."""
        return student, teacher

    def forward(self, lesson: Lesson) -> Terms:
        """Every rank computes the same value, from the rows of all."""
        rise = self.spec.rise(lesson.clock)
        terms = {}
        for index, place in enumerate(self.places):
            student = self.vectors(lesson.student.taps[self.student_taps[index]])
            teacher = self.vectors(lesson.teacher.taps[self.teacher_taps[index]].detach())
            with full_precision(student):
                rows = rows_of_all(lesson.weight, *self.embed(index, student, teacher))
                for name, (compare, weight) in self.relations.items():
                    loss = compare(rows[0], rows[1])
                    terms[f"{place}/{name}"] = batch_term(loss, rise * weight)
        return terms


def averaged(tap: Tensor) -> Tensor:
    """The mean over places: a map (N, C, H, W), tokens (N, T, C) or a vector (N, C) -> (N, C)."""
    if tap.ndim == 3:
        return tap.mean(1)
    return tap.flatten(2).mean(2) if tap.ndim > 3 else tap


def vectors_of(setting: Setting) -> Pairs:
    """Where each network has the vector of an image, or the places whose mean is one."""
    networks = (setting.student, setting.teacher)
    student, teacher = (vector_of(network, setting.example) for network in networks)
    return ((student, teacher),)


def vector_of(network: nn.Module, example: Tensor) -> str:
    """The vector that the classifier reads, else the tokens of a label-wise head, else a map."""
    head = find_labelwise_head(network)
    if head is not None:
        return head.tokens
    known = stages(network, example)
    vector = PENULTIMATE[0][0]
    return "last" if vector not in known and "last" in known else vector


def widths(spec: Tapped, setting: Setting) -> list[tuple[int, int]]:
    """How long the vectors of each pair of taps are, the student's and the teacher's."""
    pairs = spec.taps(setting)
    ours = setting.student_shapes([student for student, _ in pairs])
    theirs = setting.teacher_shapes([teacher for _, teacher in pairs])
    return [(_width(s, ours[s]), _width(t, theirs[t])) for s, t in pairs]


def _width(tap: str, shape: torch.Size) -> int:
    if len(shape) != 2:
        raise UserError(
            f"the method embeds vectors, but tap {tap!r} gives {' x '.join(map(str, shape))}; "
            "name vectors under method.pairs, as in pairs: [[penultimate, penultimate]]"
        )
    return shape[1]
