"""Whether a student ranks the classes as its teacher does (Huang et al., 2024)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from stillhouse.explain import row_statistics as rows
from stillhouse.explain.predictions import Hearing, Voice
from stillhouse.explain.section import Section, Table
from stillhouse.explain.phrases import compared, decimal, percent, start, the


class Consistency(NamedTuple):
    """How alike two networks rank: the true class, and the others."""

    target: float
    others: rows.Mean


def section(hearing: Hearing) -> Section | None:
    """Target-class and non-target consistency of each learner with the teacher."""
    teacher = hearing.teacher
    if teacher is None:
        return None
    found = {v.name: consistency(v, teacher, hearing.labels) for v in hearing.learners}
    lines = [(n, 100 * c.target, c.others.value, c.others.skipped) for n, c in found.items()]
    columns = ("network", "true class (TC), %", "other classes (NC)", "images without NC")
    return Section(
        "consistency",
        "Ranking of the classes",
        _said(hearing, found),
        (Table(columns, tuple(lines), "Consistency with the teacher", digits=3),),
    )


def consistency(student: Voice, teacher: Voice, labels: Tensor) -> Consistency:
    """TC and NC of a student with its teacher: (N, C), (N, C), (N,).

    TC is the share of samples in which the true class has the same rank among all classes. NC is
    the mean over samples of Spearman's correlation of the other classes, which are ranked anew
    without the true one; the published text keeps their ranks among all. Equal scores share the
    mean of their ranks. Probabilities have the order of logits, so ranks are those of logits.
    """
    target = labels.numpy()[:, None]
    s, t = (voice.logits.double().numpy() for voice in (student, teacher))
    same = place(s, target) == place(t, target)
    nothing = np.full(len(s), np.nan)
    kept = np.arange(s.shape[1])[None] != target
    others = [x[kept].reshape(len(s), -1) for x in (s, t)]
    correlation = rows.spearman(*others) if s.shape[1] > 2 else nothing
    return Consistency(float(same.mean()), rows.average(correlation))


def place(scores: rows.Rows, target: NDArray[np.int64]) -> rows.Rows:
    """The rank of the true class from 1 for the highest score: (N, C), (N, 1) -> (N,)."""
    own = np.take_along_axis(scores, target, 1)
    found: rows.Rows = (scores > own).sum(1) + ((scores == own).sum(1) + 1) / 2
    return found


def _said(hearing: Hearing, found: dict[str, Consistency]) -> tuple[str, ...]:
    shares = {n: percent(c.target) for n, c in found.items()}
    target = compared(hearing, shares, " of images")
    who = start(the(hearing.student))
    said = [f"{who} ranks the true class as the teacher does in {target}."]
    if found[hearing.student.name].others.value is None:
        return (*said, "With fewer than three classes there are no others to rank.")
    others = compared(hearing, {n: decimal(c.others.value) for n, c in found.items()})
    said.append(
        f"Its order of the other classes correlates with the teacher's by {others}, "
        "where 1 is the same order and 0 is no relation."
    )
    return tuple(said)
