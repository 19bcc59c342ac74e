"""Methods on label-wise embeddings, one vector per class and image (Yang P. et al., 2023).

The embedding spaces of two networks are unrelated, so distances between embeddings are compared,
not the embeddings themselves.
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
from stillhouse.methods.setting import Setting
from stillhouse.methods.terms import batch_term
from stillhouse.models.labelwise import EMBEDDINGS
from stillhouse.models.pairing import Shapes
from stillhouse.objectives.card import Card
from stillhouse.objectives.presets.base import Variant, check_sites
from stillhouse.objectives.presets.binary import MLD
from stillhouse.objectives.presets.feature import PairsOption, TapPairs
from stillhouse.spec import spec
from stillhouse.types import Lesson, Term, Terms

PAIRS: TapPairs = ((EMBEDDINGS, EMBEDDINGS),)
PAPER = "Yang P. et al.: Multi-label knowledge distillation, ICCV 2023"
HEAD_REMEDY = (
    "set student.head=labelwise and teacher.head=labelwise, or name taps that give them under "
    "method.pairs, as in pairs: [[embeddings, embeddings]]"
)


@spec
class LabelwiseSpec(PairedSpec):
    """The options of a method at pairs of taps that give label-wise embeddings (N, C, D)."""

    movable: ClassVar[bool] = False
    variant: Variant = field(default="reference", kw_only=True)
    pairs: PairsOption = field(default=PAIRS, kw_only=True)

    def taps(self, setting: Setting) -> TapPairs:
        """The pairs; raises UserError where a tap gives no label-wise embeddings."""
        pairs = super().taps(setting)
        student_taps, teacher_taps = zip(*pairs, strict=True)
        name = self.name  # type: ignore[attr-defined]
        student = embedding_shapes(name, "student", setting, student_taps)
        teacher = embedding_shapes(name, "teacher", setting, teacher_taps)
        for student_tap, teacher_tap in pairs:
            if student[student_tap][1] != teacher[teacher_tap][1]:
                raise UserError(
                    f"method {name} compares embeddings class by class, but the student's tap "
                    f"{student_tap!r} has {student[student_tap][1]} classes and the teacher's "
                    f"{teacher_tap!r} {teacher[teacher_tap][1]}; give both networks the classes "
                    "of the data"
                )
        return pairs


@spec
class CD(LabelwiseSpec):
    """Matches distances between the embeddings of images of the same class.

    `variant` "reference" is the authors' code: distances are divided by their mean over the class,
    and the loss of each class by its number of images. "paper" divides by neither.
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
        "a difference for each pair of images that share a class; embeddings of the classes that "
        "are present are gathered from all ranks",
        "The distance of two images always equals its mean, so a class contributes only from three "
        "images on, and a small batch has little effect.",
    )

    def build(self, setting: Setting) -> Method:
        """The method; it has no trainable parameters."""
        return ClassAware(self, self.taps(setting))


@spec
class ID(LabelwiseSpec):
    """Matches distances between the embeddings of the classes of an image.

    `variant` "reference" is the authors' code: distances are divided by their mean over the image,
    and the loss of each image by its number of classes. "paper" divides by neither.
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
        "a difference for each pair of classes of an image; no trainable parameters",
        "The distance of two classes always equals its mean, so an image contributes only from "
        "three classes on; with about 1.6 labels per image, hardly any does. It is summed over "
        "images, so its weight depends on the batch size.",
    )

    def build(self, setting: Setting) -> Method:
        """The method; it has no trainable parameters."""
        return InstanceAware(self, self.taps(setting))


@spec
class L2D(LabelwiseSpec):
    """Multi-label knowledge distillation: the sum of MLD, CD and ID.

    A weight of 0 leaves a part out. The default weights are those of the authors' code, in which
    the label loss is summed over the batch.
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
        "that of its parts: one sigmoid per class, a difference for each pair of images that share "
        "a class and for each pair of classes of an image",
        "CD needs at least three images of a class in the batch, ID at least three classes in an "
        "image. MLD is averaged over images and the other two are not, so the weights depend on "
        "the batch size and assume a label loss that is summed.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sites(self.sites)
        if not (self.mld or self.cd or self.id):
            raise ValueError("mld, cd and id are all 0; set at least one of them above 0")

    def build(self, setting: Setting) -> Method:
        """The parts with a weight other than 0; their terms have no prefix."""
        common: dict[str, Any] = {
            "warmup": self.warmup,
            "ramp": self.ramp,
            "label_weight": self.label_weight,
        }
        pairs = self.taps(setting)
        options: dict[str, Any] = {"variant": self.variant, "pairs": self.pairs, **common}
        parts: dict[str, Method] = {}
        if self.mld:
            parts["mld"] = Logits(MLD(self.mld, **common, sites=self.sites))
        if self.cd:
            parts["cd"] = ClassAware(CD(weight=self.cd, **options), pairs)
        if self.id:
            parts["id"] = InstanceAware(ID(weight=self.id, **options), pairs)
        return UnprefixedCombined(parts)


class UnprefixedCombined(Combined):
    """Several methods whose terms have different names already."""

    def forward(self, lesson: Lesson) -> Terms:
        """The terms of all parts, without a prefix."""
        return {name: term for part in self.methods.values() for name, term in part(lesson).items()}


class EmbeddingDistances(Method):
    """One term per pair of taps, `TAP/METHOD`, from distances between embeddings of a group.

    Subclasses define the groups. Only the embeddings of classes that are present are used.
    """

    needs_labels = True

    def __init__(self, spec: CD | ID, pairs: TapPairs) -> None:
        super().__init__()
        self.spec = spec
        self.relative = spec.variant == "reference"
        self.least = 3 if self.relative else 2  # rows of a group with a gradient
        self.label_share = spec.label_share
        self.student_taps, self.teacher_taps = (tuple(side) for side in zip(*pairs, strict=True))
        self.names = term_names([AdaptedPair(*pair, nn.Identity()) for pair in pairs])

    def relate(self, student: Tensor, teacher: Tensor, present: Tensor, lesson: Lesson) -> Term:
        """The term of one pair of taps: (N, C, D), (N, C, E), (N, C) bool of classes -> Term."""
        raise NotImplementedError

    def forward(self, lesson: Lesson) -> Terms:
        """The terms of all pairs of taps."""
        weight, terms = self.spec.ramp_factor(lesson.clock) * self.spec.weight, {}
        for index, place in enumerate(self.names):
            student = lesson.student.taps[self.student_taps[index]]
            teacher = lesson.teacher.taps[self.teacher_taps[index]].detach()
            present = class_presence(self.spec.name, lesson, student.shape[1])
            with full_precision(student):
                term = self.relate(student, teacher, present, lesson)
            terms[f"{place}/{self.spec.name}"] = term._replace(weight=weight)
        return terms


class ClassAware(EmbeddingDistances):
    """A group is a class; every rank computes the same value, from the images of all ranks."""

    def relate(self, student: Tensor, teacher: Tensor, present: Tensor, lesson: Lesson) -> Term:
        """The term of one pair of taps; images of weight 0 are left out, others count equally."""
        label, image = present.mT.nonzero().unbind(1)
        index = image * present.shape[1] + label
        student, teacher = (gather(select_embeddings(tap, index)) for tap in (student, teacher))
        pairs = functional.group_pairs(gather(label), self.least)
        return batch_term(
            functional.group_distance_relation(student, teacher, pairs, self.relative)
        )


class InstanceAware(EmbeddingDistances):
    """A group is an image; the losses of all images and ranks are summed."""

    def relate(self, student: Tensor, teacher: Tensor, present: Tensor, lesson: Lesson) -> Term:
        """The term of one pair of taps; images count by their weight."""
        image, label = present.nonzero().unbind(1)
        index = image * present.shape[1] + label
        student, teacher = (select_embeddings(tap, index) for tap in (student, teacher))
        weight = None if lesson.weight is None else lesson.weight.to(student.dtype)[image]
        pairs = functional.group_pairs(image, self.least)
        total = functional.group_distance_relation(student, teacher, pairs, self.relative, weight)
        return Term(total, torch.ones_like(total), shared=True)


def select_embeddings(tap: Tensor, index: Tensor) -> Tensor:
    """Embeddings by index `image * C + class`: (N, C, D), (P,) -> (P, D), float32 or wider."""
    return upcast(tap.flatten(0, 1).index_select(0, index))


def class_presence(name: str, lesson: Lesson, classes: int) -> Tensor:
    """Which classes are present in each image, none in images of weight 0: -> (N, C) bool.

    Raises UserError without labels, and for another number of classes than `classes`.
    """
    labels = lesson.labels
    if labels is None:
        raise UserError(
            f"method {name} needs the classes of each image, but the batch has no labels; train "
            "on labelled images"
        )
    if labels.ndim == 1:
        present = labels[:, None] == torch.arange(classes, device=labels.device)
    else:
        present = labels > 0
    if present.shape[1] != classes:
        raise UserError(
            f"method {name} needs one label-wise embedding per class, but there are {classes} "
            f"embeddings per image and {present.shape[1]} classes; {HEAD_REMEDY}"
        )
    return present if lesson.weight is None else present & (lesson.weight > 0)[:, None]


def embedding_shapes(
    name: str, side: Literal["student", "teacher"], setting: Setting, taps: tuple[str, ...]
) -> Shapes:
    """The shapes (N, C, D) of label-wise taps of one network, where C is its number of classes.

    Raises UserError where a tap gives something else.
    """
    tap_shapes = setting.student_shapes if side == "student" else setting.teacher_shapes
    try:
        shapes = tap_shapes([*taps, "logits"])
    except UserError as error:
        raise UserError(
            f"method {name} needs label-wise embeddings, which the {side} does not give: {error}; "
            f"{HEAD_REMEDY}"
        ) from error
    logits = shapes["logits"]
    for tap in taps:
        shape = shapes[tap]
        if len(shape) != 3 or (len(logits) == 2 and shape[1] != logits[1]):
            size = " x ".join(map(str, shape))
            raise UserError(
                f"method {name} needs label-wise embeddings, images x classes x width, but the "
                f"{side}'s tap {tap!r} gives {size}; {HEAD_REMEDY}"
            )
    return shapes
