"""Predictions small enough to be checked by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from stillhouse.explain.predictions import Outputs, Predictions
from stillhouse.explain.section import Section, Table
from stillhouse.explain.subset import Subset


def image(index: int) -> Tensor:
    return torch.full((1, 8, 8), index % 256, dtype=torch.uint8)


def tied_logits(n: int, c: int) -> Tensor:
    """Logits of few different values, so that there are ties; the first row is constant."""
    logits = torch.randint(-3, 4, (n, c)).float()
    logits[0] = 1.0
    return logits


def make_predictions(
    *names: str, n: int = 12, c: int = 5, features: int = 0, **logits: Tensor
) -> Predictions:
    """Outputs by name, with random logits where none are given."""
    outputs = tuple(
        Outputs(
            name,
            logits[name] if name in logits else torch.randn(n, c),
            torch.randn(n, features) if features else None,
        )
        for name in names
    )
    labels = torch.arange(n) % c
    return Predictions(outputs, tuple(f"c{i}" for i in range(c)), image, labels)


def three_networks(**options: int) -> Predictions:
    return make_predictions("teacher", "control", "student", **options)


def row(table: Table, name: str) -> tuple[object, ...]:
    """The cells of one network, without its name."""
    return next(line[1:] for line in table.rows if line[0] == name)


def all_text(section: Section) -> str:
    return " ".join(section.sentences)


def make_multilabel(*names: str, n: int = 12, c: int = 5, **logits: Tensor) -> Predictions:
    """The same with any number of classes per image, and at least one in each but the last."""
    predictions = make_predictions(*names, n=n, c=c, **logits)
    labels = (torch.rand(n, c) < 0.4).float()
    labels[torch.arange(n), torch.arange(n) % c] = 1
    labels[-1] = 0
    return replace(predictions, labels=labels)


def with_subset(predictions: Predictions, **fields: Callable[[Outputs], Any]) -> Predictions:
    """A subset of every image that has a class; `fields` compute fields of the outputs."""
    positives = predictions.positives
    samples = positives.any(1).nonzero().flatten()
    subset = Subset(
        samples,
        positives[samples].double().argmax(1),
        positives[samples].nonzero(),
        list,
        lambda positions: torch.stack([image(int(samples[p])) for p in positions]),
    )
    outputs = tuple(
        replace(one, **{name: make(one) for name, make in fields.items()})
        for one in predictions.outputs
    )
    return replace(predictions, outputs=outputs, subset=subset)
