"""How large and how spread logits are, and how far from the teacher's (Sun et al., 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from stillhouse.explain.predictions import Hearing, Voice
from stillhouse.explain.row_statistics import Rows
from stillhouse.explain.section import Cell, Density, Joint, Section, Table
from stillhouse.explain.phrases import compared, decimal, start, the
from stillhouse.functional import softmax_kl

CELLS = 40  # of the histogram along each side
TEMPERATURES = (1.0, 4.0)


class Distance(NamedTuple):
    """How far a student's logits are from the teacher's; standardised ones have mean 0, std 1."""

    mean: float
    largest: float
    standardized_mean: float
    standardized_largest: float
    divergences: tuple[float, ...]  # KL(teacher || student) at each of TEMPERATURES


def section(hearing: Hearing) -> Section:
    """Mean and spread of logits an image, and their distance from the teacher's a class."""
    teacher = hearing.teacher
    found = {} if teacher is None else distances(hearing, teacher)
    return Section(
        "logits",
        "Logits",
        _said(hearing, found),
        (_spread(hearing.voices), *_distances(found)),
        (joint(hearing.shown),),
    )


def moments(logits: Tensor) -> tuple[Rows, Rows]:
    """Mean and standard deviation (of the population) of each sample: (N, C) -> (N,), (N,)."""
    z: Rows = logits.double().numpy()
    return z.mean(1), z.std(1)


def standardized(logits: Rows) -> Rows:
    """Each sample with mean 0 and standard deviation 1, a constant one all 0: (N, C) -> (N, C)."""
    centred = logits - logits.mean(1, keepdims=True)
    std = centred.std(1, keepdims=True)
    found: Rows = np.divide(centred, std, out=np.zeros_like(centred), where=std > 0)
    return found


def profile_gap(student: Rows, teacher: Rows, labels: Tensor) -> tuple[float, float]:
    """Mean and largest |difference| of mean logits of each true class: (N, C), (N, C), (N,).

    One row a class that has samples, one column a class; the class's own column counts as 0.
    """
    present, row = np.unique(labels.numpy(), return_inverse=True)
    gap = np.zeros((len(present), student.shape[1]))
    np.add.at(gap, row, student - teacher)
    gap = np.abs(gap / np.bincount(row)[:, None])
    gap[np.arange(len(present)), present] = 0
    return float(gap.mean()), float(gap.max())


def distances(hearing: Hearing, teacher: Voice) -> dict[str, Distance]:
    """The distance of each learner from the teacher."""
    t: Rows = teacher.logits.double().numpy()
    taught = standardized(t)
    found = {}
    for voice in hearing.learners:
        s: Rows = voice.logits.double().numpy()
        raw = profile_gap(s, t, hearing.labels)
        scaled = profile_gap(standardized(s), taught, hearing.labels)
        pair = voice.logits.double(), teacher.logits.double()
        kl = tuple(float(softmax_kl(*pair, tau).mean()) for tau in TEMPERATURES)
        found[voice.name] = Distance(*raw, *scaled, kl)
    return found


def joint(voices: Sequence[Voice]) -> Joint:
    """How many samples have which mean and standard deviation, on one grid for all."""
    pairs = {voice.name: moments(voice.logits) for voice in voices}
    x_edges, y_edges = (_edges([pair[axis] for pair in pairs.values()]) for axis in (0, 1))
    densities = []
    for name, (mean, std) in pairs.items():
        counts = np.histogram2d(std, mean, (y_edges, x_edges))[0]
        densities.append(Density(name, tuple(tuple(int(n) for n in line) for line in counts)))
    return Joint(
        "Images by their logits",
        "mean of logits",
        "standard deviation of logits",
        tuple(map(float, x_edges)),
        tuple(map(float, y_edges)),
        tuple(densities),
    )


def _edges(values: Sequence[Rows]) -> Rows:
    low, high = min(v.min() for v in values), max(v.max() for v in values)
    # So that equal values lie in the middle, and the last cell has a width.
    margin = 0.5 if high - low <= 1e-9 * max(1.0, abs(high)) else 0.0
    return np.linspace(low - margin, high + margin, CELLS + 1)


def _spread(voices: Sequence[Voice]) -> Table:
    lines = []
    for voice in voices:
        mean, std = moments(voice.logits)
        lines.append((voice.name, float(mean.mean()), float(std.mean()), float((std**2).mean())))
    columns = ("network", "mean", "standard deviation", "variance")
    return Table(columns, tuple(lines), "Logits of an image, averaged over images", digits=3)


def _distances(found: dict[str, Distance]) -> tuple[Table, ...]:
    if not found:
        return ()
    columns = (
        "",
        "mean |difference|",
        "largest",
        "mean, standardised",
        "largest, standardised",
        *(f"KL at temperature {tau:g}" for tau in TEMPERATURES),
    )
    lines: list[tuple[Cell, ...]] = [(n, *d[:4], *d.divergences) for n, d in found.items()]
    return (Table(columns, tuple(lines), "Distance from the teacher", digits=3),)


def _said(hearing: Hearing, found: dict[str, Distance]) -> tuple[str, ...]:
    stds = {v.name: decimal(float(moments(v.logits)[1].mean())) for v in hearing.voices}
    who = start(the(hearing.student))
    said = [f"{who}'s logits spread by {compared(hearing, stds)} within an image"]
    if not found:
        return (f"{said[0]}.",)
    said[0] += f", the teacher's by {stds['teacher']}."
    numbers = {n: (d.mean, d.standardized_mean, d.divergences[0]) for n, d in found.items()}
    mean, scaled, kl = (
        compared(hearing, {name: decimal(values[i], 3) for name, values in numbers.items()})
        for i in range(3)
    )
    said.append(
        f"Its mean logits of a true class differ from the teacher's by {mean} on average, "
        f"the true class aside; by {scaled} once each image's logits are standardised."
    )
    said.append(f"Its divergence (KL) from the teacher is {kl} nats at temperature 1.")
    return tuple(said)
