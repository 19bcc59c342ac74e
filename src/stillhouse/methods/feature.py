"""Feature losses of the product space, at pairs of taps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from stillhouse.distributed import gather
from stillhouse.functional.dtype import full_precision, upcast
from stillhouse.methods.base import Method
from stillhouse.methods.paired import AdaptedPair, term_names
from stillhouse.models.adapters import align, resize_student
from stillhouse.objectives.presets.base import temperature_of
from stillhouse.objectives.presets.feature import FeaturePreset
from stillhouse.types import Clock, Lesson, Terms

RESIZE = {"smaller": align, "teacher": resize_student}


class Features(Method):
    """A feature preset at each pair of taps, whose maps are resized as the preset says."""

    def __init__(self, preset: FeaturePreset, pairs: Sequence[AdaptedPair]) -> None:
        super().__init__()
        self.preset = preset
        self.objectives = preset.objectives()
        self.label_share = preset.label_share
        self.student_taps = tuple(pair.student for pair in pairs)
        self.teacher_taps = tuple(pair.teacher for pair in pairs)
        self.adapters = nn.ModuleList(pair.adapter for pair in pairs)
        self.names = term_names(pairs)

    def forward(self, lesson: Lesson) -> Terms:
        """One term per pair and objective, named `TAP/OBJECTIVE`."""
        ramp = self.preset.ramp_factor(lesson.clock)
        terms, resize = {}, RESIZE[self.preset.resize]
        taps = zip(self.student_taps, self.teacher_taps, strict=True)
        pairs = zip(self.names, taps, self.adapters, strict=True)
        for place, (student_tap, teacher_tap), adapter in pairs:
            tap = lesson.student.taps[student_tap]
            with full_precision(tap):
                student = adapter(upcast(tap))
            maps = resize(student, lesson.teacher.taps[teacher_tap].detach())
            site = self.preset.site(*self.whole(*maps, lesson.weight))
            for name, objective in self.objectives.items():
                term = objective(site)
                terms[f"{place}/{name}"] = term._replace(weight=ramp * term.weight)
        return terms

    def gauges(self, clock: Clock) -> Mapping[str, float]:
        """The temperature of the preset, if it has one."""
        return temperature_of(self.preset)

    def whole(
        self, student: Tensor, teacher: Tensor, weight: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """The arguments of `site`: the maps of all ranks if a row of the preset spans the batch."""
        if self.preset.batch_wide:
            weight = None if weight is None else gather(weight)
            student, teacher = gather(student), gather(teacher)
        return student, teacher, None, weight
