"""Where a student says the classes of an image that its teacher says, and where not."""

from __future__ import annotations

from torch import Tensor

from stillhouse.explain.predictions import Hearing, Voice
from stillhouse.explain.thumbnails import FEW, PICTURES, png
from stillhouse.explain.section import Cell, Picture, Pictures, Section, Table
from stillhouse.explain.phrases import (
    compared,
    decimal,
    hundred,
    listed,
    percent,
    start,
    the,
)
from stillhouse.functional.ranking import above_half


def section(hearing: Hearing) -> Section | None:
    """How often two networks say the same classes, who is right where not, and examples."""
    rival = hearing.teacher or hearing.control
    if rival is None or rival is hearing.student:
        return None
    pictures = examples(hearing, hearing.student, rival)
    others = [v for v in (hearing.teacher, hearing.control) if v is not None]
    return Section(
        "agreement",
        "Agreement",
        _said(hearing, rival),
        tuple(_table(hearing, other) for other in others),
        () if pictures is None else (pictures,),
    )


def same(one: Voice, other: Voice) -> float:
    """The share of samples of which both say the same classes."""
    return float((differences(one, other) == 0).double().mean())


def differences(one: Voice, other: Voice) -> Tensor:
    """How many classes only one of two says of each sample: -> (N,)."""
    return (above_half(one.logits) != above_half(other.logits)).sum(1)


def right(learner: Voice, other: Voice, present: Tensor) -> float | None:
    """How often the first of two is right where they differ; None where they never do."""
    said = above_half(learner.logits)
    different = said != above_half(other.logits)
    hits = (said == present)[different]
    return float(hits.double().mean()) if len(hits) else None


def examples(hearing: Hearing, student: Voice, other: Voice) -> Pictures | None:
    """Up to 12 images of which two networks say the most different classes.

    Among as many, those come first whose probabilities of these classes lie farthest apart.
    """
    count = differences(student, other)
    apart = (student.logits.double().sigmoid() - other.logits.double().sigmoid()).abs()
    apart = (apart * (above_half(student.logits) != above_half(other.logits))).sum(1)
    # One class more outweighs any distance, which is below the number of classes.
    order = (count * (1 + apart.max()) + apart).argsort(descending=True, stable=True)
    order = order[count[order] > 0][:PICTURES]
    pictures = tuple(_picture(hearing, index, student, other) for index in order.tolist())
    if not pictures:
        return None
    return Pictures(f"What {student.name} and {other.name} say most differently", pictures)


def _picture(hearing: Hearing, index: int, *voices: Voice) -> Picture:
    chosen = {"true": hearing.present} | {v.name: above_half(v.logits) for v in voices}
    words = [f"{name}: {_classes(hearing, rows[index])}" for name, rows in chosen.items()]
    code = png(hearing.picture(index), colours=FEW)
    return Picture(code, "; ".join(words), f"An image. {'; '.join(words)}.")


def _classes(hearing: Hearing, chosen: Tensor) -> str:
    return listed([hearing.classes[c] for c in chosen.nonzero().flatten().tolist()])


def _table(hearing: Hearing, other: Voice) -> Table:
    columns = (
        "network",
        "same classes, %",
        "different classes an image",
        "right where they differ, %",
    )
    lines: list[tuple[Cell, ...]] = [
        (
            voice.name,
            100 * same(voice, other),
            float(differences(voice, other).double().mean()),
            hundred(right(voice, other, hearing.present)),
        )
        for voice in hearing.learners
        if voice is not other
    ]
    return Table(columns, tuple(lines), f"Beside {the(other)}", digits=2)


def _said(hearing: Hearing, rival: Voice) -> tuple[str, ...]:
    learners = [voice for voice in hearing.learners if voice is not rival]
    shares = {v.name: percent(same(v, rival)) for v in learners}
    counts = {v.name: decimal(float(differences(v, rival).double().mean())) for v in learners}
    who, whom = the(hearing.student), the(rival)
    said = [
        f"{start(who)} says the same classes as {whom} in "
        f"{compared(hearing, shares, ' of images')}.",
        f"Only one of the two says {compared(hearing, counts, ' classes')} an image on average.",
    ]
    share = right(hearing.student, rival, hearing.present)
    if share is not None:
        said.append(f"Where they differ, it is right in {percent(share)} of cases.")
    return tuple(said)
