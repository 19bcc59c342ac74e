"""What feature methods share: pairs of taps, and the adapters between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from stillhouse.functional.dtype import full_precision, upcast
from stillhouse.methods.base import Method
from stillhouse.methods.setting import ComposedMethod, Setting
from stillhouse.methods.terms import row_term
from stillhouse.objectives.presets.feature import PairsOption, TapPairs
from stillhouse.spec import spec
from stillhouse.types import Lesson, Terms


class AdaptedPair(NamedTuple):
    """A student tap, the teacher tap that it is compared with, and the adapter of the student's."""

    student: str
    teacher: str
    adapter: nn.Module


@spec
class PairedSpec(ComposedMethod):
    """The options of a method at pairs of taps.

    `pairs` are (student tap, teacher tap), or a word for pairs of the two networks (see
    `Setting.resolve_pairs`).
    """

    movable: ClassVar[bool] = True  # whether any pair of stages could take the place of its own
    pairs: PairsOption = field(default=(("last", "last"),), kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.pairs:
            raise ValueError("`pairs` must name at least one student tap and teacher tap")

    def taps(self, setting: Setting) -> TapPairs:
        """The pairs that the recipe names, or those that its word stands for."""
        return setting.resolve_pairs(self.pairs)


class Paired(Method):
    """One term a pair: `compare` is the loss of each image, `weights` has one for each pair."""

    def __init__(
        self,
        spec: ComposedMethod,
        pairs: Sequence[AdaptedPair],
        weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.label_share = spec.label_share
        self.student_taps = tuple(pair.student for pair in pairs)
        self.teacher_taps = tuple(pair.teacher for pair in pairs)
        self.adapters = nn.ModuleList(pair.adapter for pair in pairs)
        self.names = term_names(pairs)
        self.weights = [1.0] * len(pairs) if weights is None else list(weights)

    def compare(self, index: int, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss of each image at one pair, the student's tap adapted: -> (N,)."""
        raise NotImplementedError

    def forward(self, lesson: Lesson) -> Terms:
        """One term a pair."""
        ramp = self.spec.ramp_factor(lesson.clock)
        terms = {}
        for index, (name, weight) in enumerate(zip(self.names, self.weights, strict=True)):
            student = lesson.student.taps[self.student_taps[index]]
            teacher = upcast(lesson.teacher.taps[self.teacher_taps[index]].detach())
            with full_precision(student):
                adapted = upcast(self.adapters[index](upcast(student)))
                losses = self.compare(index, adapted, teacher)
            terms[name] = row_term(losses, lesson.weight, ramp * weight)
        return terms


def term_names(pairs: Sequence[AdaptedPair]) -> list[str]:
    """The names of the terms of the pairs: the student's tap, which must be in one pair only.

    Where it is in several, the teacher's tap is added, or one term would replace the other.
    """
    taps = [pair.student for pair in pairs]
    return [p.student if taps.count(p.student) == 1 else f"{p.student}-{p.teacher}" for p in pairs]
