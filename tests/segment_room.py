"""Two small segmenters, and a method with lessons whose maps are leaves with a gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from stillhouse.methods.build import make_single_method
from stillhouse.methods.setting import Setting
from stillhouse.models.places import Places
from stillhouse.models.segmenters.output import Segmentation
from stillhouse.types import Clock, Lesson, Terms, Trace

CLASSES, SIDES, STRIDE = 4, (16, 24), 4
SIZE = (SIDES[0] // STRIDE, SIDES[1] // STRIDE)
WIDTHS = (6, 9)  # of the last maps of student and teacher
FIRST, LAST = Clock(0, 100, 50), Clock(99, 100, 50)
EXAMPLE = torch.zeros(2, 3, *SIDES, dtype=torch.double)
IGNORED = 255


class Segmenter(nn.Module):
    """Maps of stride 2 and 4, and a 1x1 convolution that gives the logits."""

    def __init__(self, width: int, classes: int = CLASSES) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 5, 3, stride=2, padding=1)
        self.stem_act = nn.Tanh()
        self.body = nn.Conv2d(5, width, 3, stride=2, padding=1)
        self.act = nn.Softplus()
        self.classifier = nn.Conv2d(width, classes, 1)
        self.places = Places({"stage1": "stem_act", "stage2": "act"}, classifier="classifier")

    def forward(self, images: Tensor) -> Segmentation:
        maps = self.act(self.body(self.stem_act(self.stem(images))))
        return Segmentation(self.classifier(maps))


def segmenters(widths: tuple[int, int] = WIDTHS) -> tuple[Segmenter, Segmenter]:
    """A student and a teacher in float64."""
    torch.manual_seed(0)
    student, teacher = (Segmenter(width) for width in widths)
    return student.double(), teacher.double().eval()


def masks(number: int, seed: int = 0, classes: int = CLASSES) -> Tensor:
    """Blocks of classes in uint8, with some ignored pixels in each image: -> (N, H, W)."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.randint(classes + 1, (number, *SIZE), generator=random)
    coarse = coarse.masked_fill(coarse == classes, IGNORED)
    return coarse.repeat_interleave(STRIDE, 1).repeat_interleave(STRIDE, 2).to(torch.uint8)


class SegmentRoom:
    """A method for two segmenters of other widths, in training mode."""

    def __init__(self, spec: Any, widths: tuple[int, int] = WIDTHS) -> None:
        self.student, self.teacher = segmenters(widths)
        self.widths = widths
        torch.manual_seed(1)
        setting = Setting(self.student, self.teacher, EXAMPLE)
        self.method: Any = make_single_method(spec, setting).double()

    def lesson(
        self,
        number: int = 3,
        labels: Tensor | str | None = "some",
        clock: Clock = LAST,
        seed: int = 0,
        weight: Tensor | None = None,
        size: float = 1.0,
    ) -> Lesson:
        """Random maps and logits; with "some", random masks, with None no labels."""
        random = torch.Generator().manual_seed(seed)
        mask = masks(number, seed) if isinstance(labels, str) else labels

        def noise(*shape: int) -> Tensor:
            found = size * torch.randn(shape, generator=random, dtype=torch.double)
            return found.requires_grad_()

        traces = []
        images = torch.randn(number, 3, *SIDES, generator=random, dtype=torch.double)
        for width, taps in zip(
            self.widths, (self.method.student_taps, self.method.teacher_taps), strict=True
        ):
            maps = {tap: noise(number, width, *SIZE) for tap in taps if tap != "@input"}
            given = {"@input": images} if "@input" in taps else {}
            traces.append(Trace(Segmentation(noise(number, CLASSES, *SIZE)), maps | given))
        return Lesson(*traces, {}, clock, weight=weight, labels=mask)

    def terms(self, lesson: Lesson) -> Terms:
        found: Terms = self.method(lesson)
        return found


def rows(lesson: Lesson, kept: list[int]) -> Lesson:
    """Some of the images of a lesson."""

    def some(trace: Trace) -> Trace:
        taps = {name: tap[kept] for name, tap in trace.taps.items()}
        return Trace(Segmentation(trace.out.logits[kept]), taps)

    weight = None if lesson.weight is None else lesson.weight[kept]
    labels = None if lesson.labels is None else lesson.labels[kept]
    return Lesson(
        some(lesson.student), some(lesson.teacher), {}, lesson.clock, weight=weight, labels=labels
    )


def leaves(lesson: Lesson) -> list[Tensor]:
    """The student's maps and logits, which have gradients."""
    taps = [tap for name, tap in lesson.student.taps.items() if name != "@input"]
    return [lesson.student.out.logits, *taps]
