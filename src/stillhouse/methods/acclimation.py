"""A teacher that moves a little towards its student (Huang et al., DIST+)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar, Literal

from torch import Tensor

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
    """Trains the teacher's last block and head to rank the other classes as the student does.

    It stands beside the methods that teach the student, whose loss it leaves alone: its gradient
    reaches the teacher only. `classes` and `distance` are the paper's ablations.
    """

    rate: float = 0.1  # of the student's learning rate
    temperature: float = 1.0
    weight: float = 1.0
    classes: Literal["rest", "all"] = "rest"
    distance: Literal["pearson", "kl"] = "pearson"
    layers: tuple[str, ...] = ()  # of the teacher; none named: its last block and its head
    name: Literal["acclimation"] = "acclimation"
    card: ClassVar[Card] = Card(
        "Teacher acclimation of DIST+",
        "weight / N * sum (1 - rho(E_s, E_t)), E = softmax(z / tau) without the labelled class; "
        "moves the teacher alone",
        "Huang et al.: DIST+, the journal extension of Knowledge distillation from a stronger "
        "teacher",
        ("logits", "labels", "class", "moves"),
        "backward through the teacher's last block; optimiser group `teacher`",
        "With three classes a correlation of the other two is only a sign. A mixed image counts by "
        "its larger label. The teacher's answers cannot be stored.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.rate > 0, "rate", "positive", self.rate)
        self.point()

    def point(self) -> LogitObjective:
        """The loss, the teacher on the side that learns."""
        activation, distance = POINTS[self.classes, self.distance]
        return LogitObjective(
            activation=activation(self.temperature), distance=distance, weight=self.weight
        )

    def build(self, setting: Setting) -> Method:
        """The method; what it trains is the teacher's."""
        return Acclimating(self)


class Acclimating(Method):
    """The teacher's term, at each site whose teacher learns."""

    moves_teacher = True

    def __init__(self, spec: Acclimation) -> None:
        super().__init__()
        self.spec, self.point = spec, spec.point()
        self.sites = tuple(variant(site, LEARNING) for site in spec.sites)
        self.teacher_layers, self.teacher_rate = spec.layers, spec.rate
        self.label_share = spec.label_share

    def forward(self, lesson: Lesson) -> Terms:
        """One term a site; the student is the model here, and gets no gradient."""
        rise = self.spec.ramp_factor(lesson.clock)
        terms = {}
        for place in self.spec.sites:
            term = self.point(turned(lesson.sites[variant(place, LEARNING)]))
            terms[f"{place}/acclimation"] = term._replace(weight=rise * term.weight)
        return terms


def turned(site: Site) -> Site:
    """The site with the roles exchanged, and one label an image."""
    target = None if site.target is None else single(site.target)
    return replace(site, student=site.teacher, teacher=site.student.detach(), target=target)


def single(target: Tensor) -> Tensor:
    """The class of each image, of a mixed one the larger share: (N,) or (N, C) -> (N,)."""
    return target if target.ndim == 1 else target.argmax(1)
