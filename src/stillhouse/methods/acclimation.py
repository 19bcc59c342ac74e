"""Teacher acclimation: the last layers of the teacher are trained, too (Huang et al., DIST+)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar, Literal

from torch import Tensor

from stillhouse.errors import UserError
from stillhouse.methods.base import Method
from stillhouse.methods.setting import AtSites, Setting
from stillhouse.objectives.activation import (
    Activation,
    Probabilities,
    RestProbabilities,
    RestSoftmax,
    Softmax,
)
from stillhouse.objectives.card import Card
from stillhouse.objectives.distance import KL, Distance, Pearson
from stillhouse.objectives.logit import LogitObjective
from stillhouse.objectives.targets import leave_out_background
from stillhouse.spec import require, spec
from stillhouse.types import LEARNING, Lesson, Site, Terms, variant

POINTS: dict[tuple[str, str], tuple[Callable[[float], Activation], Distance]] = {
    ("rest", "pearson"): (RestProbabilities, Pearson()),
    ("all", "pearson"): (Probabilities, Pearson()),
    ("rest", "kl"): (RestSoftmax, KL()),
    ("all", "kl"): (Softmax, KL()),
}


@spec
class Acclimation(AtSites):
    """Trains the teacher's last block and head to match the student on the non-target classes.

    It is combined with methods that train the student and does not change their loss: its gradient
    reaches the teacher only. `classes` and `distance` are the paper's ablations. In dense tasks the
    rows are those with a class, as the positive priors of a detector.
    """

    rate: float = 0.1  # of the student's learning rate
    temperature: float = 1.0
    weight: float = 1.0
    classes: Literal["rest", "all"] = "rest"
    distance: Literal["pearson", "kl"] = "pearson"
    layers: tuple[str, ...] = ()  # of the teacher; empty: its last block and its head
    name: Literal["acclimation"] = "acclimation"
    dense: ClassVar[bool] = True
    card: ClassVar[Card] = Card(
        "Teacher acclimation of DIST+",
        "weight / N * sum (1 - rho(E_s, E_t)), E = softmax(z / tau) without the target class; "
        "N images, or positive priors; its gradient reaches the teacher only",
        "Huang et al.: DIST+, the journal extension of Knowledge distillation from a stronger "
        "teacher",
        ("logits", "labels", "class", "moves"),
        "backward through the teacher's last block; optimiser group `teacher`",
        "With three classes, the correlation of the two non-target classes is only a sign. For a "
        "mixed image, the class of the larger share is the target. The teacher's outputs change "
        "and cannot be cached. How the paper does it in dense detectors is our reading: softmax of "
        "the class scores at positive priors; the last block of the backbone and the layers of the "
        "head that give these scores are trained, but neither neck nor box layers.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.rate > 0, "rate", "positive", self.rate)
        self.point()

    def point(self) -> LogitObjective:
        """The loss; its student is the network that is trained, here the teacher."""
        activation, distance = POINTS[self.classes, self.distance]
        return LogitObjective(
            activation=activation(self.temperature), distance=distance, weight=self.weight
        )

    def build(self, setting: Setting) -> Method:
        """The method; it trains layers of the teacher and has no parameters of its own."""
        return Acclimating(self)


class Acclimating(Method):
    """The teacher's loss, at each site whose teacher side has a gradient."""

    moves_teacher = True

    def __init__(self, spec: Acclimation) -> None:
        super().__init__()
        self.spec, self.point = spec, spec.point()
        self.sites = tuple(variant(site, LEARNING) for site in spec.sites)
        self.teacher_layers, self.teacher_rate = spec.layers, spec.rate
        self.label_share = spec.label_share

    def forward(self, lesson: Lesson) -> Terms:
        """One term per site, named `SITE/acclimation`; the student gets no gradient."""
        ramp = self.spec.ramp_factor(lesson.clock)
        terms = {}
        for place in self.spec.sites:
            site = swap_roles(lesson.sites[variant(place, LEARNING)])
            check_classes(self.spec, site)
            term = self.point(site)
            terms[f"{place}/acclimation"] = term._replace(weight=ramp * term.weight)
        return terms


def swap_roles(site: Site) -> Site:
    """The site with student and teacher exchanged, the student detached, and a target (N,).

    Rows of a dense site without a class, such as background, get weight 0; the mass is the number
    of the others.
    """
    target = None if site.target is None else class_index(site.target)
    swapped = replace(site, student=site.teacher, teacher=site.student.detach(), target=target)
    return replace(leave_out_background(swapped), mass=None)


def class_index(target: Tensor) -> Tensor:
    """The class index of each row, that of the largest share: (N,) or (N, C) -> (N,)."""
    return target if target.ndim == 1 else target.argmax(1)


def check_classes(spec: Acclimation, site: Site) -> None:
    """Raise UserError where fewer than two classes are left to correlate."""
    count = site.student.shape[1] - (spec.classes == "rest")
    if count < 2:
        raise UserError(
            f"acclimation correlates the probabilities of {count} "
            f"class{'' if count == 1 else 'es'} in each row, and needs 2 or more; leave it out"
        )
