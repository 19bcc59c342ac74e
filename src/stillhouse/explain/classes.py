"""Which classes a student gets right, and which it gained."""

from __future__ import annotations

import numpy as np

from stillhouse.explain.per_class import ByClass
from stillhouse.explain.predictions import Hearing, Voice
from stillhouse.explain.row_statistics import Rows
from stillhouse.explain.section import Section


def section(hearing: Hearing) -> Section:
    """Accuracy of each class, by gain over the control or, without one, by accuracy."""
    found = {voice.name: accuracies(hearing, voice) for voice in hearing.shown}
    count = np.bincount(hearing.labels.numpy(), minlength=len(hearing.classes))
    one = ByClass(hearing, found, count, "accuracy")
    return Section("classes", "Classes", one.said("knows"), (one.table(),), (one.bars(),))


def accuracies(hearing: Hearing, voice: Voice) -> Rows:
    """The share of samples of each class that are called so, NaN for a class without: -> (C,)."""
    labels, size = hearing.labels.numpy(), len(hearing.classes)
    hits = (voice.logits.argmax(1).numpy() == labels).astype(float)
    count = np.bincount(labels, minlength=size)
    total = np.bincount(labels, weights=hits, minlength=size)
    found: Rows = np.divide(total, count, out=np.full(size, np.nan), where=count > 0)
    return found
