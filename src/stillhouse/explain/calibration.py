"""Whether networks are as sure as they are right (Guo et al., 2017)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from torch import Tensor

from stillhouse.explain import row_statistics as rows
from stillhouse.explain.predictions import Hearing, Voice
from stillhouse.explain.section import Lines, Section, Series, Table
from stillhouse.explain.phrases import compared, percent, start, the
from stillhouse.tasks.meters.accuracy import BINS


class Calibration(NamedTuple):
    """How sure a network is, and how right; bins without samples are left out."""

    accuracy: float
    confidence: float  # mean probability of the class that it says
    entropy: float  # mean, in nats
    error: float  # expected calibration error
    bin_confidence: tuple[float, ...]
    bin_accuracy: tuple[float, ...]


def section(hearing: Hearing) -> Section:
    """Calibration of each network, and reliability curves of teacher, control and student."""
    found = {v.name: calibration(v.logits, hearing.labels) for v in hearing.voices}
    lines = tuple(
        (name, 100 * c.accuracy, 100 * c.confidence, 100 * c.error, c.entropy)
        for name, c in found.items()
    )
    columns = ("network", "accuracy, %", "confidence, %", "calibration error, %", "entropy, nats")
    return Section(
        "calibration",
        "Calibration",
        _said(hearing, found),
        (Table(columns, lines),),
        (_curves(hearing.shown, found),),
    )


def calibration(logits: Tensor, labels: Tensor) -> Calibration:
    """Calibration over 15 equal bins of confidence: (N, C), (N,)."""
    p = rows.probabilities(logits)
    confidence, hit = p.max(1), (p.argmax(1) == labels.numpy()).astype(float)
    entropy = -(p * np.log(np.where(p > 0, p, 1.0))).sum(1)
    which = np.minimum((confidence * BINS).astype(int), BINS - 1)
    count, hits, sure = (
        np.bincount(which, weights=w, minlength=BINS) for w in (np.ones_like(hit), hit, confidence)
    )
    full = count > 0
    return Calibration(
        float(hit.mean()),
        float(confidence.mean()),
        float(entropy.mean()),
        float(np.abs(hits - sure).sum() / len(p)),
        tuple((sure[full] / count[full]).tolist()),
        tuple((hits[full] / count[full]).tolist()),
    )


def _curves(voices: tuple[Voice, ...], found: dict[str, Calibration]) -> Lines:
    series = tuple(
        Series(v.name, found[v.name].bin_confidence, found[v.name].bin_accuracy) for v in voices
    )
    return Lines("Reliability", "confidence", "accuracy", series, diagonal=True)


def _said(hearing: Hearing, found: dict[str, Calibration]) -> tuple[str, ...]:
    own = found[hearing.student.name]
    who, gap = start(the(hearing.student)), own.confidence - own.accuracy
    error = compared(hearing, {name: percent(c.error) for name, c in found.items()})
    said = [f"{who}'s confidence misses its accuracy by {error} on average."]
    if hearing.teacher is not None:
        said[0] = f"{said[0][:-1]}; the teacher's by {percent(found['teacher'].error)}."
    side = "too sure" if gap > 0 else "not sure enough"
    said.append(
        f"It is right in {percent(own.accuracy)} of images and is sure by "
        f"{percent(own.confidence)}" + (f", so it is {side}." if abs(gap) >= 0.001 else ".")
    )
    return tuple(said)
