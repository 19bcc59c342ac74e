"""FGFI and DeFeat in plain loops: maps in the cells of objects, and outside of them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from detectors import small_detector
from level_room import EXAMPLE, LevelRoom, two_detectors, values
from stillhouse import methods
from stillhouse.methods.defeat import DeFeat
from stillhouse.methods.fgfi import FGFI
from stillhouse.methods.setting import Setting

Box = list[float]


def overlap(a: Box, b: Box) -> float:
    sides = [max(0.0, min(a[k + 2], b[k + 2]) - max(a[k], b[k])) for k in (0, 1)]
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return sides[0] * sides[1] / (sum(areas) - sides[0] * sides[1])


@torch.no_grad()
@pytest.mark.parametrize("variant", ["paper", "reference"])
@pytest.mark.parametrize("family", ["retinanet", "gfocal", "fcos"])
def test_fgfi_is_its_formula(family: str, variant: Any) -> None:
    room = LevelRoom(FGFI(weight=2.0, variant=variant), family).randomise()
    lesson = room.lesson()
    priors = lesson.student.out.priors
    boxes = priors.boxes.tolist()
    counts = [[0] * len(boxes) for _ in range(3)]
    for box, n in zip(lesson.objects.boxes.tolist(), lesson.objects.image.tolist(), strict=True):
        overlaps = [overlap(box, prior) for prior in boxes]
        for p, value in enumerate(overlaps):
            counts[n][p] += value > 0.5 * max(overlaps)
    total, mass, start = 0.0, 0, 0
    for i, tap in enumerate(room.method.student_taps):
        adapted = room.method.adapters[i](lesson.student.taps[tap])
        differences = (lesson.teacher.taps[tap] - adapted).square().sum(1).tolist()
        height, width = priors.sizes[i]
        for y in range(height):
            for x in range(width):
                first = start + (y * width + x) * priors.each
                for n in range(3):
                    near = sum(counts[n][first : first + priors.each])
                    near = min(near, 1) if variant == "paper" else near
                    total, mass = total + near * differences[n][y][x], mass + 2 * near
        start += height * width * priors.each
    found = room.terms(lesson)["imitation"]
    assert mass > 10 and float(found.mass) == mass and found.weight == 2.0
    assert float(found.mean()) == pytest.approx(total / mass, rel=1e-9)


@torch.no_grad()
def test_fgfi_starts_near_zero_and_is_never_negative() -> None:
    adapter = LevelRoom(FGFI()).method.adapters[0]
    assert 0 < float(adapter[0].weight.abs().max()) <= 2e-4 and not adapter[0].bias.any()
    assert float(adapter(torch.randn(2, 16, 3, 3, dtype=torch.double)).min()) >= 0


@torch.no_grad()
def test_defeat_is_its_formula() -> None:
    room = LevelRoom(DeFeat(3.0, 12.0, finest=8.0)).randomise()
    lesson = room.lesson()
    objects = [*zip(lesson.objects.boxes.tolist(), lesson.objects.image.tolist(), strict=True)]
    found, used = room.terms(lesson), set()
    for i, (tap, stride) in enumerate(zip(room.method.student_taps, (4, 8, 16), strict=True)):
        adapted = room.method.adapters[i](lesson.student.taps[tap])
        differences = (lesson.teacher.taps[tap] - adapted).square().tolist()
        height, width = lesson.student.out.priors.sizes[i]
        sums, counts = {"foreground": 0.0, "background": 0.0}, {"foreground": 0, "background": 0}
        for n in range(3):
            for y in range(height):
                for x in range(width):
                    kind = "background"
                    for (x1, y1, x2, y2), image in objects:
                        side = math.sqrt((x2 - x1) * (y2 - y1))
                        level = min(2, max(0, math.floor(math.log2(side / 8))))
                        left, top = math.floor(x1 / stride), math.floor(y1 / stride)
                        right = max(left + 1, math.floor(x2 / stride))
                        bottom = max(top + 1, math.floor(y2 / stride))
                        inside = left <= x < right and top <= y < bottom
                        if image == n and level == i and inside:
                            kind = "foreground"
                            used.add(i)
                    for c in range(16):
                        sums[kind] += differences[n][c][y][x]
                        counts[kind] += 2
        for kind, total in sums.items():
            term = found[f"{tap}/{kind}"]
            assert float(term.mass) == counts[kind]
            if counts[kind]:
                assert float(term.mean()) == pytest.approx(total / counts[kind], rel=1e-9)
            assert term.weight == pytest.approx({"foreground": 1.0, "background": 4.0}[kind])
    assert len(used) > 1


@pytest.mark.parametrize("spec", [methods.fgfi(), methods.defeat()])
def test_cells_without_objects_have_no_foreground(spec: Any) -> None:
    """A change of the student's map far from objects does not change it."""
    room = LevelRoom(spec)
    lesson = room.lesson()
    before = values(room.terms(lesson))
    with torch.no_grad():
        for tap in lesson.student.taps.values():
            tap[1].mul_(3)  # the image without objects
    after = values(room.terms(lesson))
    for name, value in before.items():
        assert (after[name] == value) == (not name.endswith("background")), name


def test_two_levels_are_enough() -> None:
    """Objects are divided among the levels that are compared."""
    pairs = (("p3", "p3"), ("p4", "p4"))
    setting = Setting(*two_detectors("gfocal"), EXAMPLE)
    assert len(DeFeat(pairs=pairs).build(setting).adapters) == 2
    wide = small_detector("gfocal", neck={"width": 24, "extra": 1})
    method = DeFeat().build(Setting(small_detector("gfocal"), wide, EXAMPLE.float()))
    assert method.adapters[0].weight.shape == (24, 16, 1, 1)
