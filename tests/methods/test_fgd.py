"""FGD in plain loops: attention, masks and context blocks."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from level_room import LevelRoom
from stillhouse.methods.fgd import FGD
from stillhouse.models.context import ContextBlock
from stillhouse.types import Lesson

STRIDES = {"p2": 4, "p3": 8, "p4": 16}
SIZES = [(48.0, 64.0), (40.0, 50.0), (33.0, 61.0)]  # of the images before padding
Map = list[list[list[float]]]  # channels, rows, columns


def softmax(row: list[float]) -> list[float]:
    powers = [math.exp(z - max(row)) for z in row]
    return [power / sum(powers) for power in powers]


def attention(maps: Map, tau: float) -> tuple[list[list[float]], list[float]]:
    """Of places and of channels."""
    channels, height, width = len(maps), len(maps[0]), len(maps[0][0])
    places = [
        sum(abs(maps[c][y][x]) for c in range(channels)) / channels / tau
        for y in range(height)
        for x in range(width)
    ]
    flat = softmax(places)
    rows = [[height * width * flat[y * width + x] for x in range(width)] for y in range(height)]
    means = [sum(abs(v) for row in maps[c] for v in row) / (height * width) / tau
             for c in range(channels)]  # fmt: skip
    return rows, [channels * v for v in softmax(means)]


def masks(
    lesson: Lesson, n: int, stride: int, height: int, width: int, variant: str
) -> tuple[list[list[float]], list[list[float]]]:
    """Of the foreground and of the background."""
    scale = (1 / stride, 1 / stride)
    if variant == "reference":
        scale = (width / SIZES[n][1], height / SIZES[n][0])
    front = [[0.0] * width for _ in range(height)]
    for box, image in zip(
        lesson.objects.boxes.tolist(), lesson.objects.image.tolist(), strict=True
    ):
        if image != n:
            continue
        left, top = math.floor(box[0] * scale[0]), math.floor(box[1] * scale[1])
        right, bottom = math.ceil(box[2] * scale[0]), math.ceil(box[3] * scale[1])
        value = 1 / (right + 1 - left) / (bottom + 1 - top)
        for y in range(max(0, top), min(height, bottom + 1)):
            for x in range(max(0, left), min(width, right + 1)):
                front[y][x] = max(front[y][x], value)
    count = sum(v == 0 for row in front for v in row)
    return front, [[1 / count if v == 0 else 0.0 for v in row] for row in front]


def with_context(block: ContextBlock, maps: Map) -> Map:
    """A context block, place by place."""
    first, norm, _, last = block.transform
    key, bias = block.attend.weight.flatten().tolist(), float(block.attend.bias)
    channels, height, width = len(maps), len(maps[0]), len(maps[0][0])
    cells = [(y, x) for y in range(height) for x in range(width)]
    share = softmax([bias + sum(key[c] * maps[c][y][x] for c in range(channels)) for y, x in cells])
    pooled = [
        sum(s * maps[c][y][x] for s, (y, x) in zip(share, cells, strict=True))
        for c in range(channels)
    ]

    def linear(layer: Any, row: list[float]) -> list[float]:
        weight, offset = layer.weight.flatten(1).tolist(), layer.bias.tolist()
        return [
            b + sum(w * v for w, v in zip(ws, row, strict=True))
            for ws, b in zip(weight, offset, strict=True)
        ]

    middle = linear(first, pooled)
    mean = sum(middle) / len(middle)
    variance = sum((v - mean) ** 2 for v in middle) / len(middle)
    scale, shift = norm.weight.flatten().tolist(), norm.bias.flatten().tolist()
    middle = [
        max(0.0, (v - mean) / math.sqrt(variance + 1e-5) * s + b)
        for v, s, b in zip(middle, scale, shift, strict=True)
    ]
    added = linear(last, middle)
    return [[[v + added[c] for v in row] for row in maps[c]] for c in range(channels)]


@torch.no_grad()
@pytest.mark.parametrize("variant", ["paper", "reference"])
def test_values_are_those_of_the_formula(variant: Any) -> None:
    tau = 0.4
    room = LevelRoom(FGD(0.5, 0.25, 2.0, 3.0, temperature=tau, variant=variant)).randomise()
    lesson = replace(room.lesson(), sizes=torch.tensor(SIZES))
    want = dict.fromkeys(("foreground", "background", "attention", "context"), 0.0)
    for index, tap in enumerate(room.method.student_taps):
        pair = [trace.taps[tap].tolist() for trace in (lesson.student, lesson.teacher)]
        for n, (s, t) in enumerate(zip(*pair, strict=True)):
            height, width = len(s[0]), len(s[0][0])
            known, own = attention(t, tau), attention(s, tau)
            front, back = masks(lesson, n, STRIDES[tap], height, width, variant)
            blocks = room.method.student_context[index], room.method.teacher_context[index]
            a, b = with_context(blocks[0], s), with_context(blocks[1], t)
            for y in range(height):
                for x in range(width):
                    want["attention"] += abs(known[0][y][x] - own[0][y][x])
                    for c in range(len(s)):
                        loss = (t[c][y][x] - s[c][y][x]) ** 2 * known[0][y][x] * known[1][c]
                        want["foreground"] += loss * front[y][x]
                        want["background"] += loss * back[y][x]
                        want["context"] += (a[c][y][x] - b[c][y][x]) ** 2
            want["attention"] += sum(abs(p - q) for p, q in zip(known[1], own[1], strict=True))
    found = room.terms(lesson)
    for name, total in want.items():
        assert total > 0.1
        assert float(found[name].mean()) == pytest.approx(total / 3, rel=1e-9), name
    assert [found[name].weight for name in want] == [0.5, 0.25, 2.0, 3.0]


def test_the_variants_agree_where_images_are_not_padded() -> None:
    """Where the levels divide the image."""
    lesson = LevelRoom(FGD()).lesson()
    assert lesson.sizes is not None and lesson.sizes.tolist() == [[48, 64]] * 3
    paper, reference = (
        LevelRoom(FGD(variant=variant)).terms(lesson) for variant in ("paper", "reference")
    )
    for name, term in paper.items():
        torch.testing.assert_close(term.total, reference[name].total)


def test_small_objects_count_as_much_as_large_ones() -> None:
    """With equal differences, each object alone adds its mean difference."""
    room = LevelRoom(FGD(temperature=1e9))  # attention is 1 everywhere
    lesson = room.lesson()
    ones = {tap: torch.ones_like(x) for tap, x in lesson.student.taps.items()}
    zeros = {tap: torch.zeros_like(x) for tap, x in lesson.teacher.taps.items()}
    for box in ([8.0, 8, 12, 12], [0.0, 0, 40, 30]):
        one = replace(
            lesson.objects.objects(torch.tensor([0])), boxes=torch.tensor([box], dtype=torch.double)
        )
        changed = replace(
            lesson,
            objects=one,
            student=replace(lesson.student, taps=ones),
            teacher=replace(lesson.teacher, taps=zeros),
        )
        total = float(room.terms(changed)["foreground"].total.detach())
        assert total == pytest.approx(3 * 16)  # levels and channels


def test_both_networks_have_blocks_that_start_as_identities() -> None:
    room = LevelRoom(FGD())
    lesson = room.lesson()
    found = room.terms(lesson)["context"].total
    pairs = zip(lesson.student.taps.values(), lesson.teacher.taps.values(), strict=True)
    torch.testing.assert_close(found, torch.stack([(s - t).square().sum() for s, t in pairs]).sum())
    room.randomise()
    found = room.terms(lesson)["context"].total
    found.backward()
    for blocks in (room.method.student_context, room.method.teacher_context):
        slopes = [p.grad for p in blocks.parameters()]
        assert all(slope is not None for slope in slopes)
        assert sum(float(slope.abs().sum()) for slope in slopes if slope is not None) > 0


def test_channels_are_aligned_only_where_they_differ() -> None:
    room = LevelRoom(FGD())
    assert not any(True for _ in room.method.adapters.parameters())
    assert ContextBlock(1)(torch.ones(2, 1, 3, 3)).shape == (2, 1, 3, 3)
