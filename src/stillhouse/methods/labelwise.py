"""Methods on label-wise embeddings, one vector a class and image (Yang P. et al., 2023).

The embeddings of two networks lie in spaces that have nothing to do with each other, so what is
compared is how far embeddings lie apart, and never the embeddings.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from stillhouse.distributed import gather
from stillhouse.errors import UserError
from stillhouse.functional import labelwise as functional
from stillhouse.functional.dtype import full_precision, upcast
from stillhouse.methods.base import Method
from stillhouse.methods.combined import Combined
from stillhouse.methods.logit import Logits
from stillhouse.methods.paired import AdaptedPair, PairedSpec, term_names
from stillhouse.methods.setting import Setting, Shapes
from stillhouse.methods.terms import batch_term
from stillhouse.models.labelwise import EMBEDDINGS
from stillhouse.objectives.card import Card
from stillhouse.objectives.presets.base import Variant, check_sites
from stillhouse.objectives.presets.binary import MLD
from stillhouse.objectives.presets.feature import PairsOption, TapPairs
from stillhouse.spec import spec
from stillhouse.types import Lesson, Term, Terms

PAIRS: TapPairs = ((EMBEDDINGS, EMBEDDINGS),)
PAPER = "Yang P. et al.: Multi-label knowledge distillation, ICCV 2023"
MEND = (
    "say student.head=labelwise and teacher.head=labelwise, or name taps that give them under "
    "method.pairs, as in pairs: [[embeddings, embeddings]]"
)


@spec
class Embedded(PairedSpec):
    """A method at pairs of taps that give label-wise embeddings."""

    movable: ClassVar[bool] = False
    variant: Variant = field(default="reference", kw_only=True)
    pairs: PairsOption = field(default=PAIRS, kw_only=True)

    def taps(self, setting: Setting) -> TapPairs:
        """The pairs, refused where one gives no label-wise embeddings."""
        pairs = super().taps(setting)
        ours, theirs = zip(*pairs, strict=True)
        name = self.name  # type: ignore[attr-defined]
        student = shapes(name, "student", setting, ours)
        teacher = shapes(name, "teacher", setting, theirs)
        for one, other in pairs:
            if student[one][1] != teacher[other][1]:
                raise UserError(
                    f"method {name} compares embeddings class by class, and the student's tap "
                    f"{one!r} has {student[one][1]} classes, the teacher's {other!r} "
                    f"{teacher[other][1]}; give both networks the classes of the data"
                )
        return pairs


@spec
class CD(Embedded):
    """Distances between what images of a class show of it (Yang P. et al., 2023).

    "reference" is the authors' code: distances in units of their mean over the class, each class
    divided by its images. "paper" takes distances as they are and divides by nothing.
    """

    weight: float = 100.0
    name: Literal["cd"] = "cd"
    card: ClassVar[Card] = Card(
        "Class-aware label-wise embedding distillation",
        "weight * sum_c 1 / n_c * sum_ij l1(|s_ic - s_jc| / mu_s, |t_ic - t_jc| / mu_t),  i, j the "
        "n_c images with class c, l1 smooth, mu the mean distance of the class; paper: without n_c "
        "and mu",
        PAPER,
        ("features", "labels", "batch"),
        "a difference for each two images that share a class; embeddings of the classes that are "
        "there are gathered from all ranks",
        "Two images of a class are always their mean distance apart and teach nothing, so a class "
        "counts from three images on, and a small batch says little.",
    )

    def build(self, setting: Setting) -> Method:
        """The method; it trains nothing of its own."""
        return ClassAware(self, self.taps(setting))


@spec
class ID(Embedded):
    """Distances between the classes that an image shows (Yang P. et al., 2023).

    "reference" is the authors' code: distances in units of their mean over the image, each image
    divided by its classes. "paper" takes distances as they are and divides by nothing.
    """

    weight: float = 1000.0
    name: Literal["id"] = "id"
    card: ClassVar[Card] = Card(
        "Instance-aware label-wise embedding distillation",
        "weight * sum_n 1 / k_n * sum_cd l1(|s_nc - s_nd| / mu_s, |t_nc - t_nd| / mu_t),  c, d the "
        "k_n classes of image n, l1 smooth, mu the mean distance of the image; paper: without k_n "
        "and mu",
        PAPER,
        ("features", "labels"),
        "a difference for each two classes of an image; nothing trainable",
        "Two classes are always their mean distance apart, so an image counts from three classes "
        "on: where images have about 1.6 labels hardly any does. It is summed over images, so its "
        "weight belongs to a size of the batch.",
    )

    def build(self, setting: Setting) -> Method:
        """The method; it trains nothing of its own."""
        return InstanceAware(self, self.taps(setting))


@spec
class L2D(Embedded):
    """Multi-label knowledge distillation: MLD, CD and ID together (Yang P. et al., 2023).

    A weight of 0 leaves that part out; the others are those of the authors' code, where the label
    loss is summed over the batch.
    """

    mld: float = 10.0
    cd: float = 100.0
    id: float = 1000.0
    sites: tuple[str, ...] = field(default=("class",), kw_only=True)  # of MLD
    name: Literal["l2d"] = "l2d"
    card: ClassVar[Card] = Card(
        "Multi-label knowledge distillation",
        "mld * MLD + cd * CD + id * ID",
        PAPER,
        ("logits", "features", "labels", "batch"),
        "that of its parts: one sigmoid a class, a difference for each two images that share a "
        "class and each two classes of an image",
        "Groups of two teach nothing: it wants three images of a class in the batch, and three "
        "classes in an image. MLD is divided by images and the other two are not, so the weights "
        "belong to a size of the batch, and to a label loss that is summed.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sites(self.sites)
        if not (self.mld or self.cd or self.id):
            raise ValueError("mld, cd and id are all 0, which leaves nothing to compare")

    def build(self, setting: Setting) -> Method:
        """Those parts that count."""
        common: dict[str, Any] = {
            "warmup": self.warmup,
            "ramp": self.ramp,
            "label_weight": self.label_weight,
        }
        pairs = self.taps(setting)
        ours: dict[str, Any] = {"variant": self.variant, "pairs": self.pairs, **common}
        parts: dict[str, Method] = {}
        if self.mld:
            parts["mld"] = Logits(MLD(self.mld, **common, sites=self.sites))
        if self.cd:
            parts["cd"] = ClassAware(CD(weight=self.cd, **ours), pairs)
        if self.id:
            parts["id"] = InstanceAware(ID(weight=self.id, **ours), pairs)
        return Joined(parts)


class Joined(Combined):
    """Several methods whose terms have names that differ already."""

    def forward(self, lesson: Lesson) -> Terms:
        """The terms of every part, as the part calls them."""
        return {name: term for part in self.methods.values() for name, term in part(lesson).items()}


class Grouped(Method):
    """One term a pair of taps, from the embeddings of the classes that are there."""

    needs_labels = True

    def __init__(self, spec: CD | ID, pairs: TapPairs) -> None:
        super().__init__()
        self.spec = spec
        self.relative = spec.variant == "reference"
        self.least = 3 if self.relative else 2  # rows of a group that has something to teach
        self.label_share = spec.label_share
        self.student_taps, self.teacher_taps = (tuple(side) for side in zip(*pairs, strict=True))
        self.names = term_names([AdaptedPair(*pair, nn.Identity()) for pair in pairs])

    def relate(self, student: Tensor, teacher: Tensor, there: Tensor, lesson: Lesson) -> Term:
        """What one pair of taps says: (N, C, D), (N, C, E), (N, C) where classes are -> Term."""
        raise NotImplementedError

    def forward(self, lesson: Lesson) -> Terms:
        """The terms of all pairs of taps."""
        weight, terms = self.spec.ramp_factor(lesson.clock) * self.spec.weight, {}
        for index, place in enumerate(self.names):
            student = lesson.student.taps[self.student_taps[index]]
            teacher = lesson.teacher.taps[self.teacher_taps[index]].detach()
            there = present(self.spec.name, lesson, student.shape[1])
            with full_precision(student):
                term = self.relate(student, teacher, there, lesson)
            terms[f"{place}/{self.spec.name}"] = term._replace(weight=weight)
        return terms


class ClassAware(Grouped):
    """Groups are classes; every rank computes the same value, from the images of all."""

    def relate(self, student: Tensor, teacher: Tensor, there: Tensor, lesson: Lesson) -> Term:
        """Of images that count nothing there is nothing; all others count alike."""
        label, image = there.mT.nonzero().unbind(1)
        place = image * there.shape[1] + label
        ours, theirs = (gather(rows(tap, place)) for tap in (student, teacher))
        pairs = functional.group_pairs(gather(label), self.least)
        return batch_term(functional.group_distance_relation(ours, theirs, pairs, self.relative))


class InstanceAware(Grouped):
    """Groups are images, each of which is wholly on one rank; their losses add up."""

    def relate(self, student: Tensor, teacher: Tensor, there: Tensor, lesson: Lesson) -> Term:
        """An image counts as much as its weight."""
        image, label = there.nonzero().unbind(1)
        place = image * there.shape[1] + label
        ours, theirs = (rows(tap, place) for tap in (student, teacher))
        weight = None if lesson.weight is None else lesson.weight.to(ours.dtype)[image]
        pairs = functional.group_pairs(image, self.least)
        total = functional.group_distance_relation(ours, theirs, pairs, self.relative, weight)
        return Term(total, torch.ones_like(total), shared=True)


def rows(tap: Tensor, place: Tensor) -> Tensor:
    """Some embeddings, counted through the batch: (N, C, D), (P,) -> (P, D) in full precision."""
    return upcast(tap.flatten(0, 1).index_select(0, place))


def present(name: str, lesson: Lesson, classes: int) -> Tensor:
    """Which classes are on which image that counts anything: -> (N, C) of bool."""
    labels = lesson.labels
    if labels is None:
        raise UserError(
            f"method {name} has to know the classes of each image, and the task does not say"
        )
    if labels.ndim == 1:
        there = labels[:, None] == torch.arange(classes, device=labels.device)
    else:
        there = labels > 0
    if there.shape[1] != classes:
        raise UserError(
            f"method {name} needs label-wise embeddings, one a class: there are {classes} "
            f"embeddings an image, and {there.shape[1]} classes; {MEND}"
        )
    return there if lesson.weight is None else there & (lesson.weight > 0)[:, None]


def shapes(
    name: str, who: Literal["student", "teacher"], setting: Setting, taps: tuple[str, ...]
) -> Shapes:
    """The shapes (N, C, D) of what taps of one network give, C being the classes it answers for."""
    look = setting.student_shapes if who == "student" else setting.teacher_shapes
    try:
        found = look([*taps, "logits"])
    except UserError as error:
        raise UserError(
            f"method {name} needs label-wise embeddings, which the {who} does not give: {error}; "
            f"{MEND}"
        ) from error
    answers = found["logits"]
    for tap in taps:
        shape = found[tap]
        if len(shape) != 3 or (len(answers) == 2 and shape[1] != answers[1]):
            gives = " x ".join(map(str, shape))
            raise UserError(
                f"method {name} needs label-wise embeddings, images x classes x width, and the "
                f"{who}'s tap {tap!r} gives {gives}; {MEND}"
            )
    return found
