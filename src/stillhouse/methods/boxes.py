"""Box distillation of BCKD, alone and with its classification part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from stillhouse.functional.boxes import giou, iou
from stillhouse.functional.dtype import full_precision, upcast
from stillhouse.methods.base import Method
from stillhouse.methods.combined import Combined
from stillhouse.methods.logit import Logits
from stillhouse.methods.setting import ComposedMethod, Setting
from stillhouse.objectives.card import Card
from stillhouse.objectives.presets.base import Variant
from stillhouse.objectives.presets.binary import BCD
from stillhouse.objectives.published import PriorLoss
from stillhouse.objectives.rows import row_losses
from stillhouse.spec import spec
from stillhouse.types import Lesson, Site, Term, Terms

PAPER = (
    "Yang L. et al.: Bridging cross-task protocol inconsistency for distillation in dense object "
    "detection, ICCV 2023"
)


@spec
class ILD(ComposedMethod):
    """IoU localisation distillation: decoded boxes, weighted by the difference of class scores.

    `variant` "reference" is the authors' code: GIoU, and levels without a positive prior on this
    rank left out. "paper" has IoU and all levels. The rows are all priors that are not ignored.
    """

    weight: float = 4.0
    variant: Variant = field(default="reference", kw_only=True)
    name: Literal["ild"] = "ild"
    card: ClassVar[Card] = Card(
        "IoU localisation distillation",
        "weight / N+ * sum_i max_c |p_t - p_s|_ic (1 - GIoU(b_s, b_t)_i),  p = sigmoid(z), N+ the "
        "positives, at least one per image; paper: IoU",
        PAPER,
        ("logits", "boxes"),
        "decodes the boxes of both networks; nothing trainable",
        "The weight has no gradient. In the reference, the value depends on how images are divided "
        "among ranks, because a level counts where a rank has a positive prior.",
    )

    @property
    def needs(self) -> tuple[str, ...]:
        """The needs of the variant."""
        return needs_of(super().needs, self.variant)

    def build(self, setting: Setting) -> Method:
        """The method; it has no trainable parameters."""
        return BoxDistillation(self, self.weight, self.variant)

    def prior_losses(self) -> Mapping[str, PriorLoss]:
        """The loss of the box of each prior."""
        return {"ild": BoxDistillation(self, self.weight, self.variant).losses}


@spec
class BCKD(ComposedMethod):
    """The sum of BCD at the class scores and ILD at the boxes.

    In the authors' code the gradient flows through the weight of BCD; `detach` stops it.
    """

    weight: float = 1.0
    box_weight: float = 4.0
    detach: bool = False
    variant: Variant = field(default="reference", kw_only=True)
    name: Literal["bckd"] = "bckd"
    card: ClassVar[Card] = Card(
        "Binary classification and localisation distillation",
        "weight * BCD + box_weight * ILD",
        PAPER,
        ("logits", "boxes"),
        "one sigmoid per class and decoded boxes; nothing trainable",
        "Its public code is for GFocal, whose class scores are qualities. See bcd and ild.",
    )

    @property
    def needs(self) -> tuple[str, ...]:
        """The needs of the variant."""
        return needs_of(super().needs, self.variant)

    def build(self, setting: Setting) -> Method:
        """The method; it has no trainable parameters."""
        parts = {"bcd": Logits(self.class_part()), "ild": self.box_part()}
        method = Combined(parts)
        method.label_share = self.label_share
        return method

    def class_part(self) -> BCD:
        """The loss of the class scores."""
        site = gated("class", self.variant)
        return BCD(weight=self.weight, detach=self.detach, sites=(site,))

    def box_part(self) -> BoxDistillation:
        """The loss of the boxes."""
        return BoxDistillation(self, self.box_weight, self.variant)

    def prior_losses(self) -> Mapping[str, PriorLoss]:
        """The losses of the class scores and of the box of each prior."""
        (objective,), (site,) = self.class_part().objectives().values(), self.class_part().sites
        return {
            "bcd": lambda sites: row_losses(objective, sites[site]),
            "ild": self.box_part().losses,
        }


def needs_of(needs: tuple[str, ...], variant: Variant) -> tuple[str, ...]:
    """The reference reads which levels have an object."""
    return (*needs, "objects") if variant == "reference" else needs


def gated(site: str, variant: Variant) -> str:
    """The site of a variant: the reference leaves out levels without a positive prior."""
    return f"{site}_gated" if variant == "reference" else site


class BoxDistillation(Method):
    """1 - GIoU or 1 - IoU of decoded boxes at each prior."""

    def __init__(self, published: ComposedMethod, weight: float, variant: Variant) -> None:
        super().__init__()
        self.spec, self.weight = published, weight
        self.label_share = published.label_share
        self.overlap = giou if variant == "reference" else iou
        self.class_site, self.box_site = gated("class", variant), gated("box", variant)
        self.sites = (self.class_site, self.box_site)

    def forward(self, lesson: Lesson) -> Terms:
        """The term `box/ild`."""
        ramp, site = self.spec.ramp_factor(lesson.clock), lesson.sites[self.box_site]
        losses = self.losses(lesson.sites)
        mass = losses.new_tensor(len(losses)) if site.mass is None else site.mass
        return {"box/ild": Term(losses.sum(), mass.to(losses.dtype), ramp * self.weight)}

    def losses(self, sites: Mapping[str, Site]) -> Tensor:
        """The weighted loss of the box of each prior: -> (N P,)."""
        boxes = sites[self.box_site]
        student, teacher = upcast(boxes.student), upcast(boxes.teacher.detach())
        with full_precision(student):
            losses = 1 - self.overlap(student, teacher)
            weight = score_difference(sites[self.class_site])
            if boxes.weight is not None:
                weight = weight * boxes.weight.to(weight.dtype)
            return losses.where(weight > 0, 0) * weight


@torch.no_grad()
def score_difference(site: Site) -> Tensor:
    """max_c |p_t - p_s| of each row, without a gradient: -> (N,)."""
    difference: Tensor = upcast(site.teacher).sigmoid() - upcast(site.student).sigmoid()
    return difference.abs().amax(1)
