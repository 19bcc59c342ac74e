"""Hearings small enough to be counted by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from stillhouse.explain.predictions import Close, Hearing, Voice
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


def several(*names: str, n: int = 12, c: int = 5, **logits: Tensor) -> Hearing:
    """The same with any number of classes an image, and with a class in each image but the last."""
    heard = hearing(*names, n=n, c=c, **logits)
    labels = (torch.rand(n, c) < 0.4).float()
    labels[torch.arange(n), torch.arange(n) % c] = 1
    labels[-1] = 0
    return replace(heard, labels=labels)


def looked_at(heard: Hearing, **of: Callable[[Voice], Any]) -> Hearing:
    """With every image that has a class looked at closely; `of` gives voices what came of it."""
    present = heard.present
    samples = present.any(1).nonzero().flatten()
    close = Close(
        samples,
        present[samples].double().argmax(1),
        present[samples].nonzero(),
        list,
        lambda places: torch.stack([image(int(samples[p])) for p in places]),
    )
    voices = tuple(replace(v, **{k: made(v) for k, made in of.items()}) for v in heard.voices)
    return replace(heard, voices=voices, close=close)
