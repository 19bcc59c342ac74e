"""How the probabilities of a student go with those of its teacher."""

from __future__ import annotations

from collections.abc import Mapping

from stillhouse.explain import row_statistics as rows
from stillhouse.explain.predictions import Hearing
from stillhouse.explain.section import Cell, Section, Table
from stillhouse.explain.phrases import compared, decimal, start, the

KENDALL_LIMIT = 1000  # images, because its time is that of sorting each vector in Python

Likeness = Mapping[str, rows.Mean]


def section(hearing: Hearing) -> Section | None:
    """Pearson, Spearman and Kendall correlations within images and within classes."""
    teacher = hearing.teacher
    if teacher is None or teacher.logits.shape[1] < 2:
        return None
    taught = hearing.probabilities(teacher)
    found = {v.name: correlations(hearing.probabilities(v), taught) for v in hearing.learners}
    measures = tuple(next(iter(found.values())))
    return Section(
        "correlation",
        "Correlation with the teacher",
        _said(hearing, found),
        (
            Table(
                ("network", *measures),
                tuple((name, *(mean.value for mean in f.values())) for name, f in found.items()),
                "Mean correlation of probabilities with the teacher's",
                digits=3,
            ),
            *_skipped(found),
        ),
    )


def correlations(student: rows.Rows, teacher: rows.Rows) -> Likeness:
    """Mean correlation of images (rows) and of classes (columns): (N, C), (N, C)."""
    few = rows.evenly(len(student), KENDALL_LIMIT)
    found = {}
    for where, s, t in (("images", student, teacher), ("classes", student.T, teacher.T)):
        found[f"Pearson, {where}"] = rows.average(rows.pearson(s, t))
        found[f"Spearman, {where}"] = rows.average(rows.spearman(s, t))
        sample = (s[few], t[few]) if where == "images" else (s[:, few], t[:, few])
        found[f"Kendall, {where}"] = rows.average(rows.kendall(*sample))
    return found


def _skipped(found: Mapping[str, Likeness]) -> tuple[Table, ...]:
    lines: list[tuple[Cell, ...]] = [
        (name, *(mean.skipped for mean in likeness.values()))
        for name, likeness in found.items()
        if any(mean.skipped for mean in likeness.values())
    ]
    if not lines:
        return ()
    columns = ("network", *next(iter(found.values())))
    return (Table(columns, tuple(lines), "Left out, because constant vectors do not correlate"),)


def _said(hearing: Hearing, found: Mapping[str, Likeness]) -> tuple[str, ...]:
    def text(measure: str) -> str:
        return compared(hearing, {n: decimal(f[measure].value) for n, f in found.items()})

    who = start(the(hearing.student))
    said = [
        f"Within an image, the probabilities of {the(hearing.student)} correlate with the "
        f"teacher's by {text('Pearson, images')} (Pearson) on average; within a class, over "
        f"images, by {text('Pearson, classes')}.",
        f"{who}'s order of the classes of an image goes with the teacher's by "
        f"{text('Spearman, images')} (Spearman) and {text('Kendall, images')} (Kendall's tau-b).",
    ]
    if len(hearing.labels) > KENDALL_LIMIT:
        said.append(f"Kendall's tau-b is that of {KENDALL_LIMIT:,} images, evenly chosen.")
    return tuple(said)
