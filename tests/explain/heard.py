"""Hearings small enough to be counted by hand."""

from __future__ import annotations

import torch
from torch import Tensor

from stillhouse.explain.hearing import Hearing, Voice
from stillhouse.explain.section import Section, Table


def image(index: int) -> Tensor:
    return torch.full((1, 8, 8), index % 256, dtype=torch.uint8)


def ties(n: int, c: int) -> Tensor:
    """Logits of few different values, so that ranks are shared; the first row is constant."""
    logits = torch.randint(-3, 4, (n, c)).float()
    logits[0] = 1.0
    return logits


def hearing(*names: str, n: int = 12, c: int = 5, features: int = 0, **logits: Tensor) -> Hearing:
    """Voices by name, with random logits where none are given."""
    voices = tuple(
        Voice(
            name,
            logits[name] if name in logits else torch.randn(n, c),
            torch.randn(n, features) if features else None,
        )
        for name in names
    )
    labels = torch.arange(n) % c
    return Hearing(voices, labels, tuple(f"c{i}" for i in range(c)), image)


def everyone(**options: int) -> Hearing:
    return hearing("teacher", "control", "student", **options)


def row(table: Table, name: str) -> tuple[object, ...]:
    """The cells of one network, without its name."""
    return next(line[1:] for line in table.rows if line[0] == name)


def all_text(section: Section) -> str:
    return " ".join(section.said)
