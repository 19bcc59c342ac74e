"""Predictions at the level of samples, of the batch and of classes (Jin et al., 2023)."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from stillhouse.functional.dtype import full_precision, upcast
from stillhouse.functional.levels import batch_relation, class_relation
from stillhouse.methods.base import Method
from stillhouse.methods.setting import AtSites, Setting
from stillhouse.methods.terms import batch_term, rows_of_all
from stillhouse.objectives.card import Card
from stillhouse.objectives.presets.softmax import KD
from stillhouse.objectives.presets.standardized import LSKD
from stillhouse.spec import BY_NAME, require, spec
from stillhouse.types import STRONG, Lesson, Site, Term, Terms, variant

Base = Annotated[KD | LSKD, Field(discriminator="name"), BY_NAME]
SWAPPED = (2.0, 6.0)  # at which the authors' code takes the weak view for the strong one


@spec
class MLKD(AtSites):
    """Multi-level logit distillation over several temperatures and two views of each image.

    `base` says how samples are compared, at its own temperature and at all others; everything is
    multiplied by its weight. `mask_mode`: "select" teaches the samples (classes) on which the
    teacher is no surer than the median; "reference_scalar" multiplies by their share, and takes the
    weak view for the strong one at two temperatures, as the authors' code does; "none" takes all.
    """

    base: Base = KD(weight=0.9)
    temperatures: tuple[float, ...] = (3.0, 5.0, 2.0, 6.0)
    mask_mode: Literal["select", "reference_scalar", "none"] = "select"
    name: Literal["mlkd"] = "mlkd"
    card: ClassVar[Card] = Card(
        "Multi-level logit distillation",
        "sum over tau of KL of samples (both views), |P_t P_t' - P_s P_s'|^2 / N of the batch and "
        "|P_t' P_t - P_s' P_s|^2 / C of classes (weak view),  P = softmax(z / tau)",
        "Jin, Wang, Lin: Multi-level logit distillation, CVPR 2023",
        ("logits", "batch", "views"),
        "two forward passes of both networks a step; rows of all ranks are gathered",
        "Class similarities grow with the batch, so weights belong to a batch size (64 in the "
        "paper). It needs a second view of each image, which no store keeps.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        positive = all(temperature > 0 for temperature in self.temperatures)
        require(positive, "temperatures", "positive", self.temperatures)

    @property
    def label_share(self) -> float:
        """The base's weight of the label loss, unless another is given."""
        return self.base.label_share if self.label_weight is None else self.label_weight

    def build(self, setting: Setting) -> Method:
        """The method; it trains nothing of its own."""
        return MultiLevel(self)


class MultiLevel(Method):
    """Samples in both views, the batch and the classes in the weak one."""

    views = 2

    def __init__(self, spec: MLKD) -> None:
        super().__init__()
        self.spec = spec
        self.sites = (*spec.sites, *(variant(site, STRONG) for site in spec.sites))
        (self.point,) = spec.base.objectives().values()
        self.temperatures = (spec.base.temperature, *spec.temperatures)
        self.label_share = spec.label_share

    def forward(self, lesson: Lesson) -> Terms:
        """Four terms a site."""
        terms = {}
        for place in self.spec.sites:
            weak, strong = (lesson.sites[name] for name in (place, variant(place, STRONG)))
            for name, term in self.levels(weak, strong).items():
                factor = self.spec.ramp_factor(lesson.clock) * self.point.weight
                terms[f"{place}/{name}"] = term._replace(weight=factor)
        return terms

    def levels(self, weak: Site, strong: Site) -> Terms:
        """What each level says at one site."""
        counted = None if weak.weight is None else weak.weight
        student, teacher = (
            upcast(z) for z in rows_of_all(counted, weak.student, weak.teacher.detach())
        )
        with full_precision(student):
            sure = teacher.softmax(1)
            samples, classes = self.chosen(sure.amax(1)), self.chosen(sure.sum(0))
            rows = self.shares(weak, samples)
            batch = student.sum() * 0
            between = batch
            for tau in self.temperatures:
                p, q = (student / tau).softmax(1), (teacher / tau).softmax(1)
                batch = batch + mean(batch_relation(p, q) * self.weights(sure.amax(1), samples))
                between = between + mean(class_relation(p, q) * self.weights(sure.sum(0), classes))
        return {
            "weak": self.samples(weak, self.temperatures, rows),
            "strong": self.second(weak, strong),
            "batch": batch_term(batch),
            "class": batch_term(between),
        }

    def chosen(self, certainty: Tensor) -> Tensor:
        """The largest certainty that is taught: the median, or any: (M,) -> ()."""
        if self.spec.mask_mode == "none" or not len(certainty):
            return certainty.new_tensor(torch.inf)
        return certainty.quantile(0.5)

    def weights(self, certainty: Tensor, most: Tensor) -> Tensor:
        """What each sample or class counts: (M,), () -> (M,)."""
        chosen = (certainty <= most).to(certainty.dtype)
        if self.spec.mask_mode == "reference_scalar":
            return mean(chosen).expand(len(chosen))
        return chosen

    def shares(self, site: Site, most: Tensor) -> Tensor:
        """What each sample of this rank counts: -> (N,)."""
        own = upcast(site.teacher.detach()).softmax(1).amax(1)
        if self.spec.mask_mode != "reference_scalar":
            return self.weights(own, most)
        counted = rows_of_all(site.weight, own)[0]
        return mean((counted <= most).to(own.dtype)).expand(len(own))

    def samples(self, site: Site, temperatures: tuple[float, ...], shares: Tensor) -> Term:
        """KL of samples at each temperature, those counted that are chosen: -> Term."""
        every = self.point(site).mass
        weight = shares if site.weight is None else site.weight * shares
        chosen = replace(site, weight=weight)
        totals = [self.point(chosen, temperature=tau).total for tau in temperatures]
        return Term(sum(totals[1:], totals[0]), every)

    def second(self, weak: Site, strong: Site) -> Term:
        """KL of samples in the strong view."""
        ones = strong.student.new_ones(len(strong.student))
        if self.spec.mask_mode != "reference_scalar":
            return self.samples(strong, self.temperatures, ones)
        first, *rest = self.temperatures
        kept = (first, *(tau for tau in rest if tau not in SWAPPED))
        term = self.samples(strong, kept, ones)
        swapped = tuple(tau for tau in rest if tau in SWAPPED)
        if not swapped:
            return term
        return term._replace(total=term.total + self.samples(weak, swapped, ones).total)


def mean(values: Tensor) -> Tensor:
    """The mean, 0 of nothing: (M,) -> ()."""
    return values.sum() / max(1, len(values))
