"""KD, TTM, WTTM, ATS, DKD, MSE."""

from __future__ import annotations

from collections.abc import Sequence

from references.plain import Rows, cross_entropy, kl, mean, softmax

Weight = Sequence[float] | None
Labels = Sequence[int]


def kd(student: Rows, teacher: Rows, weight: Weight = None, tau: float = 4.0) -> complex:
    losses = [
        tau**2 * kl(softmax(t, tau), softmax(s, tau)) for s, t in zip(student, teacher, strict=True)
    ]
    return mean(losses, weight)


def powered(row: list[complex], gamma: float) -> list[complex]:
    """softmax(row) to the power gamma, made to sum to 1 again."""
    powers = [p**gamma for p in softmax(row)]
    return [power / sum(powers) for power in powers]


def ttm(student: Rows, teacher: Rows, weight: Weight = None, gamma: float = 0.25) -> complex:
    losses = [kl(powered(t, gamma), softmax(s)) for s, t in zip(student, teacher, strict=True)]
    return mean(losses, weight)


def power_sum(row: list[complex], gamma: float) -> complex:
    return sum(p**gamma for p in softmax(row))


def wttm(
    student: Rows,
    teacher: Rows,
    weight: Weight = None,
    gamma: float = 0.25,
    counted: Rows | None = None,
) -> complex:
    """`counted` are the logits whose flatness counts, where they are not the teacher's own."""
    losses = [
        power_sum(u, gamma) * kl(powered(t, gamma), softmax(s))
        for s, t, u in zip(student, teacher, counted or teacher, strict=True)
    ]
    return mean(losses, weight)


def ats(
    student: Rows,
    teacher: Rows,
    target: Labels,
    weight: Weight = None,
    labelled: float = 4.0,
    others: float = 2.0,
    tau: float = 1.0,
) -> complex:
    losses = []
    for s, t, y in zip(student, teacher, target, strict=True):
        soft = [z / (labelled if c == y else others) for c, z in enumerate(t)]
        losses.append(tau**2 * cross_entropy(softmax(soft), softmax(s, tau)))
    return mean(losses, weight)


def dkd_parts(
    student: Rows, teacher: Rows, target: Labels, weight: Weight = None, tau: float = 4.0
) -> tuple[complex, complex]:
    """TCKD and NCKD, both with the squared temperature."""
    target_part, other_part = [], []
    for s, t, y in zip(student, teacher, target, strict=True):
        p, q = softmax(t, tau), softmax(s, tau)
        target_part.append(tau**2 * kl([p[y], 1 - p[y]], [q[y], 1 - q[y]]))
        others = [c for c in range(len(s)) if c != y]
        p_others, q_others = (softmax([z[c] for c in others], tau) for z in (t, s))
        other_part.append(tau**2 * kl(p_others, q_others))
    return mean(target_part, weight), mean(other_part, weight)


def dkd(
    student: Rows,
    teacher: Rows,
    target: Labels,
    weight: Weight = None,
    tau: float = 4.0,
    alpha: float = 1.0,
    beta: float = 8.0,
) -> complex:
    target_part, other_part = dkd_parts(student, teacher, target, weight, tau)
    return alpha * target_part + beta * other_part


def mse(student: Rows, teacher: Rows, weight: Weight = None) -> complex:
    losses = [
        sum((a - b) ** 2 for a, b in zip(s, t, strict=True)) / len(s)
        for s, t in zip(student, teacher, strict=True)
    ]
    return mean(losses, weight)
