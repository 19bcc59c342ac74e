"""Which diagnoses a page holds, by task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import singledispatch
from typing import Any

from stillhouse.explain import (
    activation,
    agreement,
    calibration,
    classes,
    consistency,
    correlation,
    decisions,
    disagreement,
    embedding,
    logits,
    precision,
    relations,
    retrieval,
)
from stillhouse.explain.predictions import Hearing
from stillhouse.explain.section import Section
from stillhouse.tasks.classification import Classification
from stillhouse.tasks.multilabel import Multilabel

Part = Callable[[Hearing], Section | None]

CLASSIFICATION: tuple[Part, ...] = (
    agreement.section,
    consistency.section,
    correlation.section,
    relations.section,
    logits.section,
    calibration.section,
    classes.section,
    embedding.section,
    activation.section,
)
MULTILABEL: tuple[Part, ...] = (
    disagreement.section,
    decisions.section,
    precision.section,
    correlation.section,
    relations.section,
    retrieval.section,
    activation.section,
)


@singledispatch
def sections(task: Any, hearing: Hearing) -> tuple[Section, ...]:
    """What can be said of a hearing in this task; nothing for a task that has no parts here."""
    return ()


@sections.register(Classification)
def of_classification(task: Classification, hearing: Hearing) -> tuple[Section, ...]:
    """Ranks, correlations, logits, calibration, classes, features and class activation."""
    return collect(CLASSIFICATION, hearing)


@sections.register(Multilabel)
def of_multilabel(task: Multilabel, hearing: Hearing) -> tuple[Section, ...]:
    """What is said at a half, precision of classes, correlations, neighbours and activation."""
    return collect(MULTILABEL, hearing)


def collect(parts: tuple[Part, ...], hearing: Hearing) -> tuple[Section, ...]:
    """The sections of all parts that this hearing allows, without networks that lost their way."""
    sound = tuple(voice for voice in hearing.voices if bool(voice.logits.isfinite().all()))
    lost = [voice.name for voice in hearing.voices if voice not in sound]
    left = replace(hearing, voices=sound)
    notes = (_lost(lost),) if lost else ()
    if not left.learners or not len(left.labels):
        return notes
    found = (part(left) for part in parts)
    return (*notes, *(section for section in found if section is not None))


def _lost(names: list[str]) -> Section:
    said = f"Left out, because some of their logits are no finite numbers: {', '.join(names)}."
    return Section("lost", "What is not shown", (said,))
