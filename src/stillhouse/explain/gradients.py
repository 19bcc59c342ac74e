"""The gradient of each loss term for the student, relative to that of the labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from stillhouse.explain.phrases import decimal
from stillhouse.explain.section import BarChart, Section, Series, Table
from stillhouse.explain.train_mode import temporary_train_mode
from stillhouse.types import Clock, Term, Trace

B = TypeVar("B")
Verdict = Literal["label term", "negligible", "dominant", "conflicting", "ok"]

NAME, TITLE = "gradients", "Gradients of the loss terms"
LABEL_TERMS = ("label", "label_strong")
NEGLIGIBLE = 1e-3  # of the norm of the label gradient
DOMINANT = 10.0  # times that norm
CONFLICTING = -0.1  # cosine with the label gradient

_ADVICE = {
    "negligible": "negligible; increase its weight, or check its taps",
    "dominant": "it dominates the labels; decrease its weight if the labels should count",
    "conflicting": "it conflicts with the labels; check its weight, its taps and the teacher",
}


@dataclass(frozen=True)
class TermGradient:
    """The gradient of one term for the student's parameters, with its weight in training."""

    term: str
    norm: float
    ratio: float | None  # to the norm of the label gradient; None if that is 0
    cosine: float | None  # with the label gradient; None if one of the two is 0
    is_label: bool = False  # whether the term comes from the labels

    @property
    def verdict(self) -> Verdict:
        """Whether the term is negligible, dominant, conflicting with the labels, or ok."""
        if self.is_label:
            return "label term"
        if self.norm == 0 or (self.ratio is not None and self.ratio < NEGLIGIBLE):
            return "negligible"
        if self.ratio is not None and self.ratio > DOMINANT:
            return "dominant"
        return "conflicting" if self.cosine is not None and self.cosine < CONFLICTING else "ok"


def term_gradients(
    pupil: nn.Module,
    parameters: Iterable[nn.Parameter],
    observe: Callable[[B], Mapping[str, Trace]],
    batches: Iterable[B],
    clock: Clock,
    label_terms: Sequence[str] = LABEL_TERMS,
) -> tuple[TermGradient, ...]:
    """The gradient of every term for the student's parameters, averaged over batches.

    The pupil, without DDP, takes (batch, traces, clock) and returns terms; `observe` gives the
    teacher's Traces of a batch by view. The loss of a term is weight * total / mass. Networks,
    gradients and random states are not changed.
    """
    parameters = [p for p in parameters if p.requires_grad]
    sums: dict[str, Tensor] = {}
    count = 0
    with temporary_train_mode(pupil), torch.enable_grad():
        for batch in batches:
            terms = pupil(batch, observe(batch), clock)
            for name, gradient in _gradients(terms, parameters).items():
                sums[name] = sums[name] + gradient if name in sums else gradient
            count += 1
            # The graph holds the activations of a batch, whose memory the next batch needs.
            del terms
    return _compare({name: total / count for name, total in sums.items()}, label_terms)


def section(moments: Mapping[str, Sequence[TermGradient]]) -> Section | None:
    """The gradients at several moments of the training, by the name of the moment."""
    rows = [(moment, g) for moment, gradients in moments.items() for g in gradients]
    if not rows:
        return None
    columns = ("moment", "term", "norm", "ratio to labels", "cosine with labels", "verdict")
    cells = tuple((m, g.term, g.norm, g.ratio, g.cosine, g.verdict) for m, g in rows)
    sentences = tuple(_sentence(moment, g) for moment, g in rows if not g.is_label)
    bars = _bars(moments)
    return Section(
        NAME,
        TITLE,
        sentences or ("The label terms are the only terms.",),
        (Table(columns, cells, digits=4),),
        () if bars is None else (bars,),
    )


def _gradients(terms: Mapping[str, Term], parameters: Sequence[nn.Parameter]) -> dict[str, Tensor]:
    # Terms may share a graph, which is freed with the last of them.
    return {name: _gradient(term, parameters) for name, term in terms.items()}


def _gradient(term: Term, parameters: Sequence[nn.Parameter]) -> Tensor:
    loss = term.weight * term.mean()
    if not loss.requires_grad or not parameters:
        return torch.cat([torch.zeros_like(p).flatten() for p in parameters] or [loss.new_zeros(1)])
    gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    pairs = zip(gradients, parameters, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs])


def _compare(
    gradients: Mapping[str, Tensor], label_terms: Sequence[str]
) -> tuple[TermGradient, ...]:
    of_labels = [g.double() for name, g in gradients.items() if name in label_terms]
    reference = torch.stack(of_labels).sum(0) if of_labels else None
    return tuple(
        _term_gradient(name, gradient.double(), reference, name in label_terms)
        for name, gradient in gradients.items()
    )


def _term_gradient(
    name: str, gradient: Tensor, reference: Tensor | None, is_label: bool
) -> TermGradient:
    norm = float(gradient.norm())
    label_norm = 0.0 if reference is None else float(reference.norm())
    ratio = norm / label_norm if label_norm else None
    cosine = None
    if reference is not None and norm and label_norm:
        cosine = float(torch.dot(gradient / norm, reference / label_norm))
    return TermGradient(name, norm, ratio, cosine, is_label)


def _sentence(moment: str, gradient: TermGradient) -> str:
    start = f"{moment[:1].upper()}{moment[1:]}, {gradient.term}"
    if gradient.norm == 0:
        return f"{start}: no gradient; increase its weight, or check its taps."
    if gradient.ratio is None:
        return f"{start}: gradient norm {gradient.norm:.3g}; the labels have no gradient."
    text = (
        f"{start}: gradient norm {gradient.ratio:.3g} times that of the label loss, cosine "
        f"{decimal(gradient.cosine)}"
    )
    advice = _ADVICE.get(gradient.verdict)
    return f"{text}; {advice}." if advice else f"{text}."


def _bars(moments: Mapping[str, Sequence[TermGradient]]) -> BarChart | None:
    ratios = {m: {g.term: g.ratio for g in gs if not g.is_label} for m, gs in moments.items()}
    names = tuple(dict.fromkeys(name for of_moment in ratios.values() for name in of_moment))
    places = tuple(map(float, range(len(names))))
    series = tuple(
        Series(moment, places, tuple(of_moment.get(name) for name in names))
        for moment, of_moment in ratios.items()
    )
    if all(value is None for one in series for value in one.y):
        return None
    title = "Gradient norm relative to the label loss"
    return BarChart(title, "ratio of norms", names, series)
