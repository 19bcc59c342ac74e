"""The product space itself."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from stillhouse.functional import divergence
from stillhouse.functional.dtype import full_precision, upcast
from stillhouse.objectives.activation import (
    Activation,
    PartialSoftmax,
    Responses,
    Sigmoid,
    Softmax,
    Temperature,
)
from stillhouse.objectives.distance import KL, CrossEntropy, Distance
from stillhouse.objectives.preprocess import Identity, Preprocess, Standardize
from stillhouse.objectives.reduction import Mean, Reduction
from stillhouse.objectives.targets import multi_hot
from stillhouse.objectives.weighting import Uniform, Weighting
from stillhouse.spec import spec
from stillhouse.types import Site, Term

Joint = Callable[[Tensor, Tensor, Temperature, Tensor | None], Tensor]

# Pairs of stages that one function, and so one kernel, does together.
JOINT: dict[tuple[type, type], Joint] = {
    (Softmax, KL): lambda s, t, tau, target: divergence.softmax_kl(s, t, tau),
    (Sigmoid, CrossEntropy): lambda s, t, tau, target: divergence.sigmoid_cross_entropy(s, t, tau),
    (Sigmoid, KL): lambda s, t, tau, target: divergence.sigmoid_kl(s, t, tau),
    (PartialSoftmax, KL): lambda s, t, tau, target: divergence.partial_softmax_kl(
        s / tau, t / tau, multi_hot(target, s, "partial_softmax")
    ),
}


@spec
class LogitObjective:
    """reduction(weighting * distance(activation(preprocess(s)), activation(preprocess(t)))).

    `teacher_transform` follows `preprocess` on the teacher's side alone. `kappa` "auto" multiplies
    divergences by the squared temperature, which keeps their gradient in scale, and leaves
    distances alone that have no scale.
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
                f"{self.weighting.kind} weighs classes apart, and {self.activation.kind} "
                f"with {self.distance.kind} leaves no class apart"
            )
        self._refuse_rows_of_a_relation()
        apart = isinstance(self.activation, (Sigmoid, Responses))
        if isinstance(self.preprocess, Standardize) and apart:
            warnings.warn(
                "standardize makes each class depend on all others, and sigmoid takes them apart",
                stacklevel=3,
            )

    def _refuse_rows_of_a_relation(self) -> None:
        if not self.activation.relational:
            return
        if self.weighting != Uniform():
            raise ValueError(
                f"{self.activation.kind} across the batch has no rows for {self.weighting.kind}"
            )
        if not self.distance.proper:
            raise ValueError(
                f"{self.distance.kind} across the batch keeps an entropy that grows with the batch"
            )
        if self.reduction.counts_objects:
            raise ValueError(
                f"{self.activation.kind} across the batch has classes for rows, "
                f"and {self.reduction.kind} divides by objects"
            )

    @property
    def relational(self) -> bool:
        """Whether the batch must be whole."""
        return bool(self.activation.relational)

    def __call__(self, site: Site, temperature: Temperature | None = None) -> Term:
        """Compare the two networks at a site: (N, C), (N, C) -> Term.

        A temperature given here takes the place of the activation's own: a number, or one a row,
        (N, 1).
        """
        tau = self.activation.temperature if temperature is None else temperature
        student, teacher = upcast(site.student), upcast(site.teacher.detach())
        check(student, teacher)
        with full_precision(student):
            counted = site.weight
            weight = (
                student.new_ones(len(student)) if counted is None else counted.to(student.dtype)
            )
            if self.activation.relational:
                losses, weight = self._relate(student, teacher, site, tau, weight)
            else:
                losses = self._compare(student, teacher, site.target, tau)
                losses = self._share(losses, student.shape[1])
                losses = scale(losses, self.weighting(student, teacher))
            kappa = self._kappa(tau)
            if isinstance(kappa, Tensor) and kappa.ndim == 1:
                losses = scale(losses, kappa)
            else:
                losses = losses * kappa
            term = self.reduction(losses, weight, site.mass)
        return term._replace(weight=self.weight)

    def _kappa(self, tau: Temperature) -> Temperature:
        square = self.kappa == "square" or (self.kappa == "auto" and self.distance.tempered)
        factor = tau**2 if square else 1.0
        # one a row stands as a column beside the logits, and as a row beside the losses
        return factor.squeeze(1) if isinstance(factor, Tensor) and factor.ndim == 2 else factor

    def _share(self, losses: Tensor, classes: int) -> Tensor:
        """A divergence of whole rows has summed over the classes; `inner` may ask for the mean."""
        summed = losses.ndim == 1 and self.distance.tempered
        return losses / classes if summed and self.reduction.inner == "mean" else losses

    def _prepare(
        self, student: Tensor, teacher: Tensor, target: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        t = self.teacher_transform(self.preprocess(teacher, target), target)
        return self.preprocess(student, target), t

    def _compare(
        self, student: Tensor, teacher: Tensor, target: Tensor | None, tau: Temperature
    ) -> Tensor:
        """Loss of each row, before weights: (N, C), (N, C) -> (N,) or (N, C)."""
        s, t = self._prepare(student, teacher, target)
        if joint := JOINT.get((type(self.activation), type(self.distance))):
            return joint(s, t, tau, target)
        return self.distance(self.activation(s, target, tau), self.activation(t, target, tau))

    def _relate(
        self, student: Tensor, teacher: Tensor, site: Site, tau: Temperature, weight: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Loss of each class over the batch, and that it counts: (N, C), (N, C) -> (C,), (C,)."""
        rows = self._prepare(student, teacher, site.target)
        if site.weight is not None and self.activation.space == "log_prob":
            # a sample that counts twice is as likely as two of them
            shares = torch.where(weight.sum() > 0, weight, 1.0).log()[:, None]
            rows = (rows[0] + tau * shares, rows[1] + tau * shares)
        s, t = (self.activation(z, site.target, tau) for z in rows)
        counted = None if site.weight is None else weight
        enough = (weight > 0).sum() > 1  # one image has no relation to another
        losses = self.distance(s, t, counted).where(enough, 0)
        return losses, losses.new_ones(len(losses)) * enough


def check(student: Tensor, teacher: Tensor) -> None:
    """Refuse tensors that cannot be rows of one site."""
    if student.ndim != 2 or student.shape != teacher.shape:
        raise ValueError(
            "student and teacher must be (N, C) alike, and are "
            f"{tuple(student.shape)} and {tuple(teacher.shape)}"
        )


def scale(losses: Tensor, weight: Tensor | None) -> Tensor:
    """Losses times a weight of rows or of their classes: (N, ...), (N,) or (N, C) -> (N, ...)."""
    if weight is None:
        return losses
    return losses * weight.view(*weight.shape, *[1] * (losses.ndim - weight.ndim))
