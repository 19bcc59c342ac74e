"""Two small detectors and a lesson with maps of any values, for methods at levels."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from detectors import small_detector, some_batch
from stillhouse.batches import Batch, Objects
from stillhouse.methods.build import make_single_method
from stillhouse.methods.setting import Setting
from stillhouse.models.detectors.detector import Detector
from stillhouse.models.detectors.output import Dense
from stillhouse.tasks.detection import Detection
from stillhouse.types import Clock, Lesson, Terms, Trace

FIRST, LAST = Clock(0, 100, 50), Clock(99, 100, 50)
COUNTS = (2, 0, 3)
LEVELS, WIDTH = ("p2", "p3", "p4"), 16
EXAMPLE = torch.zeros(1, 3, 48, 64, dtype=torch.double)


@cache
def two_detectors(family: str) -> tuple[Detector, Detector]:
    """Float64, with scores that differ; the same for all tests, which leave them as they are."""
    torch.manual_seed(0)
    made = small_detector(family), small_detector(family, backbone="stillhouse/medium")
    for network in made:
        head: Any = network.head
        nn.init.normal_(head.score.weight, std=0.3)
        nn.init.zeros_(head.score.bias)
    return made[0].double().eval(), made[1].double().eval()


@torch.no_grad()
def predictions(network: Detector, batch: Batch[Objects]) -> Dense:
    """What a network predicts, as leaves with a gradient."""
    out: Dense = network(batch.images)
    return replace(out, scores=out.scores.requires_grad_(), boxes=out.boxes.requires_grad_())


class LevelRoom:
    """A method, the networks it is for, and lessons whose maps are leaves with a gradient."""

    def __init__(self, spec: Any, family: str = "gfocal", own: bool = False) -> None:
        networks = two_detectors(family)
        self.student, self.teacher = copy.deepcopy(networks) if own else networks
        setting = Setting(self.student, self.teacher, EXAMPLE)
        torch.manual_seed(1)
        self.method = make_single_method(spec, setting).double()
        taps = self.method.student_taps, self.method.teacher_taps
        self.taps = taps

    def lesson(
        self,
        batch: Batch[Objects] | None = None,
        clock: Clock = LAST,
        seed: int = 0,
        size: float = 1.0,
    ) -> Lesson:
        """What both networks predict, and random maps of the sizes of their levels."""
        batch = some_batch(*COUNTS) if batch is None else batch
        random, task = torch.Generator().manual_seed(seed), Detection(5)
        traces = []
        for network, taps in zip((self.student, self.teacher), self.taps, strict=True):
            out = predictions(network, batch)
            sizes = dict(zip(LEVELS, out.priors.sizes, strict=True))
            maps = {}
            for tap in taps:
                shape = len(batch), WIDTH, *sizes[tap]
                noise = torch.randn(shape, generator=random, dtype=torch.double)
                maps[tap] = (size * noise).requires_grad_()
            traces.append(Trace(out, maps))
        assigned = task.assign(traces[0], batch)
        return task.lesson(traces[0], traces[1], batch, clock, assigned)

    def terms(self, lesson: Lesson) -> Terms:
        found: Terms = self.method(lesson)
        return found

    def randomise(self, spread: float = 0.3) -> LevelRoom:
        """Parameters far from those of the start, so that no block is an identity."""
        random = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for p in self.method.parameters():
                p.copy_(spread * torch.randn(p.shape, generator=random, dtype=p.dtype))
        return self


def with_maps(lesson: Lesson, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> Lesson:
    """The lesson with other taps."""
    return replace(
        lesson,
        student=replace(lesson.student, taps=student),
        teacher=replace(lesson.teacher, taps=teacher),
    )


def rows(batch: Batch[Objects], index: Any) -> Batch[Objects]:
    """Some of the images."""
    found: Batch[Objects] = batch.rows(index)
    return found


def values(terms: Terms) -> dict[str, float]:
    """The mean of each term."""
    return {name: float(term.mean().detach()) for name, term in terms.items()}
