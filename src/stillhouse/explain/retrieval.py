"""Whether what lies near an image, by what a network makes of it, has the same classes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stillhouse.explain.predictions import Close, Hearing, Voice
from stillhouse.explain.thumbnails import FEW, png
from stillhouse.explain.row_statistics import evenly
from stillhouse.explain.section import Cell, Picture, Pictures, Section, Table
from stillhouse.explain.phrases import compared, listed, percent, the

SHOWN = 3  # queries, with what each network finds
SIDE = 64  # pixels of a picture


class Found(NamedTuple):
    """Means over queries of the share of what was found."""

    precise: float  # has the class that was asked for
    related: float  # has any class of the image that was asked about


def section(hearing: Hearing) -> Section | None:
    """Precision of the nearest images of each network, and some queries with what was found."""
    close = hearing.close
    if close is None or not len(close.queries):
        return None
    heard = [voice for voice in hearing.voices if voice.nearest is not None]
    if not heard:
        said = "No network has label-wise embeddings, or a vector before its classifier, to search."
        return Section("retrieval", "Nearest images", (said,))
    found = {
        v.name: measure(v.nearest, hearing.present, close) for v in heard if v.nearest is not None
    }
    return Section(
        "retrieval",
        "Nearest images",
        _said(hearing, close, found, guess(hearing.present, close)),
        (_table(hearing, heard, found, guess(hearing.present, close)),),
        tuple(_pictures(hearing, close, query) for query in chosen(close.queries)),
    )


def measure(nearest: Tensor, present: Tensor, close: Close) -> Found:
    """What the nearest samples have: (Q, K), (N, C)."""
    place, label = close.queries.unbind(1)
    theirs = present[nearest]  # (Q, K, C)
    own = present[close.samples[place]]
    precise = theirs[torch.arange(len(label)), :, label]
    related = (theirs & own[:, None]).any(2)
    return Found(float(precise.double().mean()), float(related.double().mean()))


def guess(present: Tensor, close: Close) -> Found:
    """What any other sample has: (N, C)."""
    place, label = close.queries.unbind(1)
    others = max(1, len(present) - 1)
    count = present.sum(0)[label] - 1  # without the query itself, which has the class
    own = present[close.samples].float()
    related = ((own @ present.float().T) > 0).sum(1)[place] - 1
    return Found(
        float(count.double().mean() / others),
        float(related.double().mean() / others),
    )


def chosen(queries: Tensor, count: int = SHOWN) -> list[int]:
    """Some queries of different classes and images, evenly of all classes that are asked for."""
    found: list[int] = []
    present = queries[:, 1].unique()
    for label in present[torch.from_numpy(evenly(len(present), count))].tolist():
        own = (queries[:, 1] == label).nonzero().flatten().tolist()
        taken = queries[found, 0].tolist()
        found.append(next((q for q in own if int(queries[q, 0]) not in taken), own[0]))
    return found


def _table(hearing: Hearing, heard: list[Voice], found: dict[str, Found], base: Found) -> Table:
    count = 0 if heard[0].nearest is None else heard[0].nearest.shape[1]
    columns = ("network", "by", "has the class, %", "has a class of the image, %")
    lines: list[tuple[Cell, ...]] = [
        (
            voice.name,
            "label-wise embedding" if voice.labelwise else "features",
            *(100 * share for share in found[voice.name]),
        )
        for voice in heard
    ]
    lines.append(("any other image", None, *(100 * share for share in base)))
    return Table(columns, tuple(lines), f"Of the {count} nearest images", digits=1)


def _pictures(hearing: Hearing, close: Close, query: int) -> Pictures:
    """A query and what each network finds, a row a network."""
    place, label = close.queries[query].tolist()
    sample = int(close.samples[place])
    name, own = hearing.classes[label], hearing.present[sample]
    found: list[Picture] = []
    width = 0
    for voice in hearing.shown:
        if voice.nearest is None:
            continue
        has = listed([hearing.classes[c] for c in np.flatnonzero(own.numpy())])
        found.append(_picture(hearing, sample, f"query, {voice.name}", f"An image with {has}"))
        for rank, other in enumerate(voice.nearest[query].tolist(), 1):
            words = _shared(hearing, own, other, label)
            found.append(_picture(hearing, other, words, f"{rank} of {voice.name}: {words}"))
        width = 1 + voice.nearest.shape[1]
    return Pictures(f"Nearest to an image with {name}", tuple(found), width)


def _picture(hearing: Hearing, sample: int, caption: str, alt: str) -> Picture:
    return Picture(png(hearing.picture(sample), SIDE, FEW), caption, f"{alt}.")


def _shared(hearing: Hearing, own: Tensor, other: int, label: int) -> str:
    """What two samples have in common, the class that was asked for first."""
    both = (own & hearing.present[other]).nonzero().flatten().tolist()
    names = [hearing.classes[c] for c in sorted(both, key=lambda c: (c != label, c))]
    missed = f", not {hearing.classes[label]}" if both and label not in both else ""
    return f"shares {listed(names, 3)}{missed}"


def _said(hearing: Hearing, close: Close, found: dict[str, Found], base: Found) -> tuple[str, ...]:
    silent = [voice.name for voice in hearing.shown if voice.nearest is None]
    notes = tuple(f"Nothing to search by was heard of the {name}." for name in silent)
    said = (
        f"{len(close.queries):,} times an image and one of its classes are the query, and the "
        f"nearest of the other {len(hearing.labels) - 1:,} are found by Euclidean distance.",
    )
    student, teacher = hearing.student, hearing.teacher
    if student.name not in found:
        return (*said, *notes)
    precise, related = (
        compared(hearing, {name: percent(each[i]) for name, each in found.items()})
        for i in range(2)
    )
    text = f"Of what {the(student)} finds nearest, {precise} has the class that was asked for"
    if teacher is not None and teacher.name in found:
        text += f", and of what the teacher finds {percent(found[teacher.name].precise)}"
    return (
        *said,
        f"{text}; of all images {percent(base.precise)} have it.",
        f"At least one class is in common with the query in {related} of it, and in "
        f"{percent(base.related)} of all images.",
        *notes,
    )
