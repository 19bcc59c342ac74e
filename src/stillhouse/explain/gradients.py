"""How hard each term pulls the student, and whether it pulls as the labels do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from stillhouse.explain.section import Bars, Section, Series, Table
from stillhouse.explain.train_mode import untouched
from stillhouse.explain.phrases import decimal
from stillhouse.types import Clock, Term, Trace

B = TypeVar("B")
Word = Literal["labels", "dead", "dominates", "conflicts", "works"]

DEAD = 1e-3  # of the norm of the labels' gradient: below it a term moves nothing
DOMINATES = 10.0  # times that norm: above it the labels move nothing
CONFLICTS = -0.1  # cosine with the labels' gradient below which a term pulls against them

_MEND = {
    "dead": "it teaches next to nothing; raise its weight, or look for what it is blind to",
    "dominates": "the labels hardly count beside it; lower its weight if they should",
    "conflicts": "it pulls against the labels; look at its weight, its taps and the teacher",
}


@dataclass(frozen=True)
class Pull:
    """The gradient of one term with respect to the student, as it is weighted in training."""

    term: str
    norm: float
    ratio: float | None  # to the norm of the labels' gradient; None: that is 0
    cosine: float | None  # with the labels' gradient; None: one of the two is 0
    labels: bool = False  # whether it comes from the labels

    @property
    def word(self) -> Word:
        """What is to be said of it: dead, dominates, conflicts, or works."""
        if self.labels:
            return "labels"
        if self.norm == 0 or (self.ratio is not None and self.ratio < DEAD):
            return "dead"
        if self.ratio is not None and self.ratio > DOMINATES:
            return "dominates"
        return "conflicts" if self.cosine is not None and self.cosine < CONFLICTS else "works"


def gradients(
    pupil: nn.Module,
    parameters: Iterable[nn.Parameter],
    observe: Callable[[B], Mapping[str, Trace]],
    batches: Iterable[B],
    clock: Clock,
    labels: Sequence[str] = ("label", "label_strong"),
) -> tuple[Pull, ...]:
    """The pull of every term on the student's parameters, averaged over batches.

    The pupil, bare of DDP, answers (batch, traces, clock) with terms, in train mode; `observe` gives
    the teacher's Traces of a batch by view. A term counts weight * total / mass. Terms called `labels` are what the others are compared with. Networks,
    gradients and random states stay as they were.
    """
    own = [p for p in parameters if p.requires_grad]
    sums: dict[str, Tensor] = {}
    count = 0
    with untouched(pupil), torch.enable_grad():
        for batch in batches:
            terms = pupil(batch, observe(batch), clock)
            for name, gradient in _of_terms(terms, own).items():
                sums[name] = sums[name] + gradient if name in sums else gradient
            count += 1
            # The graph holds a batch's activations, and the next batch needs their room.
            del terms
    return _pulls({name: total / count for name, total in sums.items()}, labels)


def section(moments: Mapping[str, Sequence[Pull]]) -> Section | None:
    """The pulls at several moments of a training, by the name of the moment."""
    rows = [(moment, pull) for moment, pulls in moments.items() for pull in pulls]
    if not rows:
        return None
    columns = ("moment", "term", "norm", "ratio to labels", "cosine with labels", "it")
    lines = tuple((m, p.term, p.norm, p.ratio, p.cosine, p.word) for m, p in rows)
    said = tuple(_sentence(moment, pull) for moment, pull in rows if not pull.labels)
    bars = _bars(moments)
    return Section(
        "gradient",
        "Gradients of the terms",
        said or ("There is no term beside the labels.",),
        (Table(columns, lines, digits=4),),
        () if bars is None else (bars,),
    )


def _of_terms(terms: Mapping[str, Term], parameters: Sequence[nn.Parameter]) -> dict[str, Tensor]:
    # Terms may share a graph, which the last one lets go.
    return {name: _of_term(term, parameters) for name, term in terms.items()}


def _of_term(term: Term, parameters: Sequence[nn.Parameter]) -> Tensor:
    loss = term.weight * term.mean()
    if not loss.requires_grad or not parameters:
        return torch.cat([torch.zeros_like(p).flatten() for p in parameters] or [loss.new_zeros(1)])
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    pairs = zip(found, parameters, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs])


def _pulls(sums: Mapping[str, Tensor], labels: Sequence[str]) -> tuple[Pull, ...]:
    own = [gradient.double() for name, gradient in sums.items() if name in labels]
    reference = torch.stack(own).sum(0) if own else None
    return tuple(_pull(name, g.double(), reference, name in labels) for name, g in sums.items())


def _pull(name: str, gradient: Tensor, reference: Tensor | None, labels: bool) -> Pull:
    norm = float(gradient.norm())
    against = 0.0 if reference is None else float(reference.norm())
    ratio = norm / against if against else None
    cosine = None
    if reference is not None and norm and against:
        cosine = float(torch.dot(gradient / norm, reference / against))
    return Pull(name, norm, ratio, cosine, labels)


def _sentence(moment: str, pull: Pull) -> str:
    moment = moment[:1].upper() + moment[1:]
    if pull.norm == 0:
        return f"{moment}: {pull.term} has no gradient; {_MEND['dead']}."
    if pull.ratio is None:
        return f"{moment}: {pull.term} pulls by {pull.norm:.3g}, and the labels do not pull."
    said = (
        f"{moment}: {pull.term} pulls {pull.ratio:.3g} times as hard as the labels, with cosine "
        f"{decimal(pull.cosine)}"
    )
    return f"{said}: {_MEND[pull.word]}." if pull.word in _MEND else f"{said}."


def _bars(moments: Mapping[str, Sequence[Pull]]) -> Bars | None:
    taught = {m: {p.term: p for p in ps if not p.labels} for m, ps in moments.items()}
    names = tuple(dict.fromkeys(name for pulls in taught.values() for name in pulls))
    places = tuple(map(float, range(len(names))))
    series = tuple(
        Series(moment, places, tuple(pulls[n].ratio if n in pulls else None for n in names))
        for moment, pulls in taught.items()
    )
    known = any(value is not None for line in series for value in line.y)
    return (
        Bars("Pull beside the labels", "times the labels' gradient", names, series)
        if known
        else None
    )
