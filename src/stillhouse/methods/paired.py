"""What feature methods share: pairs of taps, and what stands between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import ClassVar, Literal, NamedTuple

from torch import Tensor, nn

from stillhouse.functional.dtype import full_precision, upcast
from stillhouse.methods.base import Method
from stillhouse.methods.setting import Composed, Pairs, Setting
from stillhouse.methods.terms import row_term
from stillhouse.spec import spec
from stillhouse.types import Lesson, Terms


class TapPair(NamedTuple):
    """A student tap, the teacher tap it is to look like, and what stands between."""

    student: str
    teacher: str
    adapter: nn.Module


@spec
class Tapped(Composed):
    """A method at pairs of (student tap, teacher tap); "stages" pairs all stages by their size."""

    movable: ClassVar[bool] = True  # whether any pair of stages could take the place of its own
    pairs: Pairs | Literal["stages"] = field(default=(("last", "last"),), kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.pairs:
            raise ValueError("pairs must name at least one student tap and teacher tap")

    def taps(self, setting: Setting) -> Pairs:
        """The pairs, those of all stages found where the recipe leaves them open."""
        return setting.resolve_pairs(self.pairs)


class Paired(Method):
    """One term a pair: `compare` gives the loss of each image, `weights` what each pair counts."""

    def __init__(
        self, spec: Composed, pairs: Sequence[TapPair], weights: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        self.spec = spec
        self.label_share = spec.label_share
        self.student_taps = tuple(pair.student for pair in pairs)
        self.teacher_taps = tuple(pair.teacher for pair in pairs)
        self.adapters = nn.ModuleList(pair.adapter for pair in pairs)
        self.places = places(pairs)
        self.weights = [1.0] * len(pairs) if weights is None else list(weights)

    def compare(self, index: int, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss of each image at one pair, the student's tap adapted: -> (N,)."""
        raise NotImplementedError

    def forward(self, lesson: Lesson) -> Terms:
        """One term a pair."""
        ramp = self.spec.ramp_factor(lesson.clock)
        terms = {}
        for index, (place, weight) in enumerate(zip(self.places, self.weights, strict=True)):
            student = lesson.student.taps[self.student_taps[index]]
            teacher = upcast(lesson.teacher.taps[self.teacher_taps[index]].detach())
            with full_precision(student):
                adapted = upcast(self.adapters[index](upcast(student)))
                losses = self.compare(index, adapted, teacher)
            terms[place] = row_term(losses, lesson.weight, ramp * weight)
        return terms


def places(pairs: Sequence[TapPair]) -> list[str]:
    """What the terms of the pairs are called.

    A student tap of two pairs needs the teacher's beside it, or one term would hide the other.
    """
    taps = [pair.student for pair in pairs]
    return [p.student if taps.count(p.student) == 1 else f"{p.student}-{p.teacher}" for p in pairs]
