"""The product space: an objective is a point, one stage per axis."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from stillhouse.functional import divergence
from stillhouse.functional.dtype import full_precision, upcast
from stillhouse.functional.moments import column_moments, correlation_of_moments
from stillhouse.objectives.activation import (
    Activation,
    PartialSoftmax,
    RealActivation,
    Responses,
    Sigmoid,
    Softmax,
    Temperature,
)
from stillhouse.objectives.distance import KL, CrossEntropy, Distance, Pearson
from stillhouse.objectives.preprocess import Identity, Preprocess, Standardize
from stillhouse.objectives.reduction import Mean, PerObject, Reduction
from stillhouse.objectives.targets import as_multi_hot
from stillhouse.objectives.weighting import Disagreement, Uniform, Weighting
from stillhouse.spec import spec
from stillhouse.types import Pieces, Site, Term

FusedDistance = Callable[[Tensor, Tensor, Temperature, Tensor | None], Tensor]

# Activation and distance that one function computes together, and so may have a kernel.
FUSED: dict[tuple[type, type], FusedDistance] = {
    (Softmax, KL): lambda s, t, tau, target: divergence.softmax_kl(s, t, tau),
    (Sigmoid, CrossEntropy): lambda s, t, tau, target: divergence.sigmoid_cross_entropy(s, t, tau),
    (Sigmoid, KL): lambda s, t, tau, target: divergence.sigmoid_kl(s, t, tau),
    (PartialSoftmax, KL): lambda s, t, tau, target: divergence.partial_softmax_kl(
        s / tau, t / tau, as_multi_hot(target, s, "partial_softmax")
    ),
}

# Distances of sigmoids whose classes one function sums, and whether they include the entropy.
SUMMED: dict[type, bool] = {KL: False, CrossEntropy: True}


@spec
class LogitObjective:
    """reduction(weighting * distance(activation(preprocess(s)), activation(preprocess(t)))).

    `teacher_transform` follows `preprocess` for the teacher only. `kappa` "auto" multiplies
    divergences by the squared temperature, which keeps the scale of their gradient, and does not
    change distances without a scale.
    """

    preprocess: Preprocess = Identity()
    activation: Activation = Softmax()
    distance: Distance = KL()
    weighting: Weighting = Uniform()
    reduction: Reduction = Mean()
    weight: float = 1.0
    teacher_transform: Preprocess = Identity()
    kappa: Literal["auto", "square", "none"] = "auto"

    def __post_init__(self) -> None:
        if self.activation.space != self.distance.accepts:
            raise ValueError(
                f"{self.distance.kind} compares {self.distance.accepts} values, "
                f"{self.activation.kind} gives {self.activation.space} values"
            )
        if self.weighting.elementwise and not self.activation.elementwise:
            raise ValueError(
                f"{self.weighting.kind} weights single classes, but {self.activation.kind} with "
                f"{self.distance.kind} has one loss per row"
            )
        self._check_relational()
        binary = isinstance(self.activation, (Sigmoid, Responses))
        if isinstance(self.preprocess, Standardize) and binary:
            warnings.warn(
                "standardize makes each class depend on all others, while sigmoid treats them "
                "separately",
                stacklevel=3,
            )

    def _check_relational(self) -> None:
        if not self.activation.relational:
            return
        if self.weighting != Uniform():
            raise ValueError(
                f"{self.activation.kind} along the batch has no rows for {self.weighting.kind} to "
                "weight"
            )
        if not self.distance.proper:
            raise ValueError(
                f"{self.distance.kind} along the batch includes an entropy that grows with the "
                "batch size"
            )
        if self.reduction.counts_objects:
            raise ValueError(
                f"{self.activation.kind} along the batch has one row per class, "
                f"but {self.reduction.kind} divides by the number of objects"
            )

    @property
    def relational(self) -> bool:
        """Whether the batch must be whole."""
        return bool(self.activation.relational)

    def __call__(self, site: Site, temperature: Temperature | None = None) -> Term:
        """Compare the two networks at a site: (N, C), (N, C) -> Term.

        `temperature` replaces that of the activation: a number, or one per row, (N, 1).
        """
        tau = self.activation.temperature if temperature is None else temperature
        student, teacher = upcast(site.student), upcast(site.teacher.detach())
        check_shapes(student, teacher)
        with full_precision(student):
            weight = (
                student.new_ones(len(student))
                if site.weight is None
                else site.weight.to(student.dtype)
            )
            if self.activation.relational:
                losses, weight = self._relate(student, teacher, site, tau, weight)
            else:
                losses = self._weigh(student, teacher, site.target, tau)
                losses = self._inner_mean(losses, student.shape[1])
            kappa = self._kappa(tau)
            if isinstance(kappa, Tensor) and kappa.ndim == 1:
                losses = apply_weight(losses, kappa)
            else:
                losses = losses * kappa
            term = self.reduction(losses, weight, site.mass)
        return term._replace(weight=self.weight)

    @property
    def additive(self) -> bool:
        """Whether a relation is made of sums over rows: correlations of the columns."""
        return isinstance(self.distance, Pearson) and isinstance(self.activation, RealActivation)

    def moments(self, site: Site) -> Tensor:
        """The sums over rows that an additive relation is made of: -> (MOMENTS, C)."""
        student, teacher = upcast(site.student), upcast(site.teacher).detach()
        check_shapes(student, teacher)
        tau = self.activation.temperature
        with full_precision(student):
            weight = student.new_ones(len(student)) if site.weight is None else site.weight
            rows = self._prepare(student, teacher, site.target)
            s, t = (self.activation(z, site.target, tau).mT for z in rows)
            return column_moments(s, t, weight)

    def of_moments(self, moments: Tensor) -> Term:
        """The term of an additive relation: (MOMENTS, C) -> Term."""
        assert isinstance(self.distance, Pearson)
        losses, enough = correlation_of_moments(moments, self.distance.eps, self.distance.mode)
        losses = losses.where(enough, 0) * self._kappa(self.activation.temperature)
        weight = torch.ones_like(losses) * enough
        return self.reduction(losses, weight, None)._replace(weight=self.weight)

    def at(self, site: Site | Pieces) -> LogitObjective:
        """The same for a site: means of divergences are divided by its mass, if it has one.

        Squares and correlations are means over rows at any site, as their papers have them.
        """
        if site.mass is None or self.relational or not self.distance.tempered:
            return self
        if not isinstance(self.reduction, Mean):
            return self
        return replace(self, reduction=PerObject(self.reduction.inner))

    def _kappa(self, tau: Temperature) -> Temperature:
        square = self.kappa == "square" or (self.kappa == "auto" and self.distance.tempered)
        factor = tau**2 if square else 1.0
        # a temperature per row is a column next to the logits, and a vector next to the losses
        return factor.squeeze(1) if isinstance(factor, Tensor) and factor.ndim == 2 else factor

    def _inner_mean(self, losses: Tensor, classes: int) -> Tensor:
        """Divergences of rows are sums over classes; divide where `inner` is the mean."""
        summed = losses.ndim == 1 and self.distance.tempered
        return losses / classes if summed and self.reduction.inner == "mean" else losses

    def _prepare(
        self, student: Tensor, teacher: Tensor, target: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        t = self.teacher_transform(self.preprocess(teacher, target), target)
        return self.preprocess(student, target), t

    def _weigh(
        self, student: Tensor, teacher: Tensor, target: Tensor | None, tau: Temperature
    ) -> Tensor:
        """Weighted loss of each row or class: (N, C), (N, C) -> (N,) or (N, C)."""
        if not self._sums_classes():
            losses = self._compare(student, teacher, target, tau)
            return apply_weight(losses, self.weighting(student, teacher))
        s, t = self._prepare(student, teacher, target)
        total = partial(divergence.sum_of_classes, entropy=SUMMED[type(self.distance)])
        if isinstance(self.weighting, Disagreement):
            return total(s, t, tau, beta=self.weighting.beta, detach=self.weighting.detach)
        return apply_weight(total(s, t, tau), self.weighting(student, teacher))

    def _sums_classes(self) -> bool:
        """Whether no loss of a single class is needed; disagreement is that of the raw logits."""
        raw = self.preprocess == self.teacher_transform == Identity()
        summed = isinstance(self.activation, Sigmoid) and type(self.distance) in SUMMED
        return summed and (raw or not self.weighting.elementwise)

    def _compare(
        self, student: Tensor, teacher: Tensor, target: Tensor | None, tau: Temperature
    ) -> Tensor:
        """Loss of each row, without weights: (N, C), (N, C) -> (N,) or (N, C)."""
        s, t = self._prepare(student, teacher, target)
        if fused := FUSED.get((type(self.activation), type(self.distance))):
            return fused(s, t, tau, target)
        return self.distance(self.activation(s, target, tau), self.activation(t, target, tau))

    def _relate(
        self, student: Tensor, teacher: Tensor, site: Site, tau: Temperature, weight: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Loss of each class along the batch, and its weight: (N, C), (N, C) -> (C,), (C,)."""
        rows = self._prepare(student, teacher, site.target)
        if site.weight is not None and self.activation.space == "log_prob":
            # a sample of weight 2 is as probable as two samples
            log_weight = torch.where(weight.sum() > 0, weight, 1.0).log()[:, None]
            rows = (rows[0] + tau * log_weight, rows[1] + tau * log_weight)
        s, t = (self.activation(z, site.target, tau) for z in rows)
        event_weight = None if site.weight is None else weight
        enough = (weight > 0).sum() > 1  # a single image has no relation
        losses = self.distance(s, t, event_weight).where(enough, 0)
        return losses, losses.new_ones(len(losses)) * enough


def check_shapes(student: Tensor, teacher: Tensor) -> None:
    """Raise a ValueError unless both are rows of one site, (N, C) of equal shape."""
    if student.ndim != 2 or student.shape != teacher.shape:
        raise ValueError(
            "student and teacher must both be of shape (N, C), got "
            f"{tuple(student.shape)} and {tuple(teacher.shape)}"
        )


def apply_weight(losses: Tensor, weight: Tensor | None) -> Tensor:
    """Multiply losses by weights of rows or classes: (N, ...), (N,) or (N, C) -> (N, ...)."""
    if weight is None:
        return losses
    return losses * weight.view(*weight.shape, *[1] * (losses.ndim - weight.ndim))
