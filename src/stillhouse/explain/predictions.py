"""What several networks said about the same samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from stillhouse.batches import Batch
from stillhouse.explain import row_statistics as rows

TEACHER, CONTROL = "teacher", "control"
LIMIT = 5000  # samples: enough for a tenth of a point of most shares, and seconds to diagnose

Layout = Literal["tsne", "pca"]


@dataclass(frozen=True)
class Look:
    """How closely one looks: at how many samples, and how features are laid out in a plane."""

    limit: int = LIMIT
    layout: Layout = "tsne"
    fresh: bool = False  # whether diagnoses that were kept are made anew


AS_EVER = Look()


@dataclass(frozen=True, eq=False)
class Voice:
    """One network's answers."""

    name: str  # teacher, control, student, or the name of a method
    logits: Tensor  # (N, C) float32, on the CPU
    features: Tensor | None = None  # (N, D) what its classifier is given
    nearest: Tensor | None = None  # (Q, K) samples nearest to each query, the nearest first
    labelwise: bool = False  # whether they are nearest by label-wise embeddings, else by features
    maps: Tensor | None = None  # (M, h, w) where a class of each close sample was seen, from 0


@dataclass(frozen=True, eq=False)
class Close:
    """Some samples that are looked at closely: what is too large to be kept of all."""

    samples: Tensor  # (M,) which of those heard
    labels: Tensor  # (M,) one class of each, of several the rarest: where was it seen
    queries: Tensor  # (Q, 2) place among these samples, and class: which samples are nearest
    batches: Callable[[], Iterable[Batch[Any]]]  # these samples once more, in this order
    seen: Callable[[Tensor], Tensor]  # places (P,) -> (P, C, H, W) uint8, as networks are given it


@dataclass(frozen=True)
class Hearing:
    """The answers of a teacher, a control and students to one split, in this order."""

    voices: tuple[Voice, ...]
    labels: Tensor  # (N,) class of each, or (N, C) whether it has a class: above 0
    classes: tuple[str, ...]
    picture: Callable[[int], Tensor]  # which sample -> (C, H, W) uint8
    layout: Layout = "tsne"
    base: str = CONTROL  # the name of the voice that the student is compared with
    close: Close | None = None

    @property
    def several(self) -> bool:
        """Whether a sample has any number of classes."""
        return self.labels.ndim == 2

    @property
    def present(self) -> Tensor:
        """Which classes each sample has: -> (N, C) bool."""
        if self.several:
            return self.labels > 0
        return self.labels[:, None] == torch.arange(len(self.classes))

    def probabilities(self, voice: Voice) -> rows.Rows:
        """How likely each class is to a network: one of all, or each by itself: -> (N, C)."""
        return (rows.sigmoids if self.several else rows.probabilities)(voice.logits)

    @property
    def teacher(self) -> Voice | None:
        """The one that is learnt from, if it was heard."""
        return next((voice for voice in self.voices if voice.name == TEACHER), None)

    @property
    def control(self) -> Voice | None:
        """The one that the student is compared with: that without a teacher, or another run."""
        return next((voice for voice in self.voices if voice.name == self.base), None)

    @property
    def learners(self) -> tuple[Voice, ...]:
        """All but the teacher: the control first, where it was heard."""
        return tuple(voice for voice in self.voices if voice.name != TEACHER)

    @property
    def student(self) -> Voice:
        """The last one, which the page is about."""
        return self.voices[-1]

    @property
    def shown(self) -> tuple[Voice, ...]:
        """Teacher, control and student, as far as they were heard: whom large charts show."""
        main = (TEACHER, self.base, self.student.name)
        return tuple(voice for voice in self.voices if voice.name in main)

    @property
    def pupils(self) -> tuple[Voice, ...]:
        """The control and the student, as far as they were heard."""
        return tuple(voice for voice in self.shown if voice.name != TEACHER)
