"""Multi-level logit distillation: samples, batch and classes (Jin et al., 2023)."""

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
from stillhouse.methods.terms import batch_term, gather_rows
from stillhouse.objectives.card import Card
from stillhouse.objectives.presets.softmax import KD
from stillhouse.objectives.presets.standardized import LSKD
from stillhouse.spec import BY_NAME, require, spec
from stillhouse.types import STRONG, Lesson, Site, Term, Terms, variant

MLKDBase = Annotated[KD | LSKD, Field(discriminator="name"), BY_NAME]
# Temperatures at which the authors' code uses the weak view in place of the strong one.
SWAPPED = (2.0, 6.0)


@spec
class MLKD(AtSites):
    """Multi-level logit distillation over several temperatures and two views of each image.

    `base` is the loss of samples, at its own temperature and at each of `temperatures`; all terms
    are multiplied by its weight. `mask_mode` "select" uses the samples (or classes) for which the
    teacher's confidence is at most the median; "reference_scalar" multiplies by the fraction of
    these, and at two temperatures uses the weak view in place of the strong one, as in the authors'
    code; "none" uses all.
    """

    base: MLKDBase = KD(weight=0.9)
    temperatures: tuple[float, ...] = (3.0, 5.0, 2.0, 6.0)
    mask_mode: Literal["select", "reference_scalar", "none"] = "select"
    name: Literal["mlkd"] = "mlkd"
    card: ClassVar[Card] = Card(
        "Multi-level logit distillation",
        "sum over tau of KL of samples (both views), |P_t P_t' - P_s P_s'|^2 / N of the batch and "
        "|P_t' P_t - P_s' P_s|^2 / C of classes (weak view),  P = softmax(z / tau)",
        "Jin, Wang, Lin: Multi-level logit distillation, CVPR 2023",
        ("logits", "batch", "views"),
        "two forward passes of both networks per step; rows of all ranks are gathered",
        "Class similarities grow with the batch, so the weight depends on the batch size (64 in "
        "the paper). It needs a second view of each image, so teacher outputs cannot be cached.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        positive = all(temperature > 0 for temperature in self.temperatures)
        require(positive, "temperatures", "positive", self.temperatures)

    @property
    def label_share(self) -> float:
        """The weight of the label loss: `label_weight`, or that of the base."""
        return self.base.label_share if self.label_weight is None else self.label_weight

    def build(self, setting: Setting) -> Method:
        """The method; it has no trainable parameters."""
        return MultiLevel(self)


class MultiLevel(Method):
    """Compares samples in both views, and the batch and classes in the weak view."""

    views = 2

    def __init__(self, spec: MLKD) -> None:
        super().__init__()
        self.spec = spec
        self.sites = (*spec.sites, *(variant(site, STRONG) for site in spec.sites))
        (self.point,) = spec.base.objectives().values()
        self.temperatures = (spec.base.temperature, *spec.temperatures)
        self.label_share = spec.label_share

    def forward(self, lesson: Lesson) -> Terms:
        """Four terms per site: `SITE/weak`, `SITE/strong`, `SITE/batch` and `SITE/class`."""
        terms = {}
        for place in self.spec.sites:
            weak, strong = (lesson.sites[name] for name in (place, variant(place, STRONG)))
            for name, term in self.levels(weak, strong).items():
                factor = self.spec.ramp_factor(lesson.clock) * self.point.weight
                terms[f"{place}/{name}"] = term._replace(weight=factor)
        return terms

    def levels(self, weak: Site, strong: Site) -> Terms:
        """The term of each level at one site, without the weight of the method."""
        student, teacher = (
            upcast(z) for z in gather_rows(weak.weight, weak.student, weak.teacher.detach())
        )
        with full_precision(student):
            probabilities = teacher.softmax(1)
            sample_confidence, class_confidence = probabilities.amax(1), probabilities.sum(0)
            sample_limit, class_limit = self.limit(sample_confidence), self.limit(class_confidence)
            sample_weights = self.weights(sample_confidence, sample_limit)
            class_weights = self.weights(class_confidence, class_limit)
            rows = self.row_weights(weak, sample_limit)
            batch = student.sum() * 0
            classes = batch
            for tau in self.temperatures:
                p, q = (student / tau).softmax(1), (teacher / tau).softmax(1)
                batch = batch + mean(batch_relation(p, q) * sample_weights)
                classes = classes + mean(class_relation(p, q) * class_weights)
        return {
            "weak": self.samples(weak, self.temperatures, rows),
            "strong": self.strong(weak, strong),
            "batch": batch_term(batch),
            "class": batch_term(classes),
        }

    def limit(self, confidence: Tensor) -> Tensor:
        """The largest confidence that is used: the median, or infinity: (M,) -> ()."""
        if self.spec.mask_mode == "none" or not len(confidence):
            return confidence.new_tensor(torch.inf)
        return confidence.quantile(0.5)

    def weights(self, confidence: Tensor, limit: Tensor) -> Tensor:
        """The weight of each sample or class: (M,), () -> (M,)."""
        selected = (confidence <= limit).to(confidence.dtype)
        if self.spec.mask_mode == "reference_scalar":
            return mean(selected).expand(len(selected))
        return selected

    def row_weights(self, site: Site, limit: Tensor) -> Tensor:
        """The weight of each sample of this rank: -> (N,)."""
        confidence = upcast(site.teacher.detach()).softmax(1).amax(1)
        if self.spec.mask_mode != "reference_scalar":
            return self.weights(confidence, limit)
        gathered = gather_rows(site.weight, confidence)[0]
        return mean((gathered <= limit).to(confidence.dtype)).expand(len(confidence))

    def samples(self, site: Site, temperatures: tuple[float, ...], weights: Tensor) -> Term:
        """The loss of samples, summed over temperatures: Site, (N,) -> Term.

        `weights` do not change the mass: it is that of all samples.
        """
        mass = self.point(site).mass
        weight = weights if site.weight is None else site.weight * weights
        weighted = replace(site, weight=weight)
        totals = [self.point(weighted, temperature=tau).total for tau in temperatures]
        return Term(sum(totals[1:], totals[0]), mass)

    def strong(self, weak: Site, strong: Site) -> Term:
        """The loss of samples in the strong view."""
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
    """The mean, 0 if there are no values: (M,) -> ()."""
    return values.sum() / max(1, len(values))
