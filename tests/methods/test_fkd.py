"""FKD in plain loops, and its norms over the whole batch."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from detectors import small_detector, some_batch
from level_room import EXAMPLE, LevelRoom, rows, values, with_maps
from stillhouse.errors import UserError
from stillhouse.methods.fkd import FKD, root
from stillhouse.methods.setting import Setting
from stillhouse.models.context import NonLocalBlock

Rows = list[list[float]]


def attended(maps: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    """Attention of places (H, W) and of channels (C,) of one image, with loops for the means."""
    channels, height, width = maps.shape
    place = [
        sum(abs(float(maps[c, y, x])) for c in range(channels)) / channels / tau
        for y in range(height)
        for x in range(width)
    ]
    strength = [
        sum(abs(v) for v in maps[c].flatten().tolist()) / (height * width) / tau
        for c in range(channels)
    ]

    def softmax(row: list[float]) -> list[float]:
        powers = [math.exp(z - max(row)) for z in row]
        return [len(row) * power / sum(powers) for power in powers]

    grid = torch.tensor(softmax(place), dtype=torch.double).view(height, width)
    return grid, torch.tensor(softmax(strength), dtype=torch.double)


def related(block: NonLocalBlock, maps: Tensor) -> Tensor:
    """A non-local block for one image (C, H, W), with the matrix of all pairs of places."""

    def project(layer: Any) -> Tensor:
        weight: Tensor = layer.weight.flatten(1)
        return torch.einsum("mc,chw->mhw", weight, maps) + layer.bias[:, None, None]

    size = [min(block.pooled, side) for side in maps.shape[1:]]

    def pooled(x: Tensor) -> Tensor:
        blocks = [
            x[:, y : y + size[0], z : z + size[1]].amax((1, 2))
            for y in range(0, x.shape[1] - size[0] + 1, size[0])
            for z in range(0, x.shape[2] - size[1] + 1, size[1])
        ]
        return torch.stack(blocks, 1)

    queries, keys, known = project(block.query), pooled(project(block.key)), pooled(
        project(block.value)
    )  # fmt: skip
    out = maps.clone()
    weight, bias = block.expand.weight.flatten(1), block.expand.bias
    assert bias is not None
    for y in range(maps.shape[1]):
        for x in range(maps.shape[2]):
            mixed = torch.zeros_like(known[:, 0])
            for p in range(keys.shape[1]):
                mixed += float(queries[:, y, x] @ keys[:, p]) / keys.shape[1] * known[:, p]
            out[:, y, x] += weight @ mixed + bias
    return out


@torch.no_grad()
@pytest.mark.parametrize("variant", ["paper", "reference"])
def test_values_are_those_of_the_formula(variant: Any) -> None:
    tau, images = 0.5, 5
    room = LevelRoom(FKD(2.0, 3.0, tau, images, variant=variant)).randomise()
    lesson, method = room.lesson(), room.method
    want = dict.fromkeys(("attention", "channel", "space", "relation"), 0.0)
    for i, tap in enumerate(method.student_taps):
        squares = dict.fromkeys(want, 0.0)
        for s, t in zip(lesson.student.taps[tap], lesson.teacher.taps[tap], strict=True):
            (own, mine), (known, theirs) = attended(s, tau), attended(t, tau)
            weight = (own + known)[None] / 2
            if variant == "paper":
                weight = weight * (mine + theirs)[:, None, None] / 2
            adapted = method.adapters[i](s[None])[0]
            squares["attention"] += float((weight * (t - adapted) ** 2).sum())
            mean = method.channel[i](s.mean((1, 2)))
            squares["channel"] += float(((t.mean((1, 2)) - mean) ** 2).sum())
            kernel = method.space[i]
            mean = F.conv2d(s.mean(0)[None, None], kernel.weight, kernel.bias, padding=1)[0, 0]
            squares["space"] += float(((t.mean(0) - mean) ** 2).sum())
            mine_with, theirs_with = (
                related(block[i], x)
                for block, x in ((method.student_block, s), (method.teacher_block, t))
            )
            adapted = method.relation[i](mine_with[None])[0]
            squares["relation"] += float(((theirs_with - adapted) ** 2).sum())
        for name, value in squares.items():
            want[name] += math.sqrt(images * value / 3)
    found = room.terms(lesson)
    for name, norm in want.items():
        assert norm > 0.1
        assert float(found[name].mean()) == pytest.approx(norm, rel=1e-9), name
    assert [found[name].weight for name in want] == [2.0, 3.0, 3.0, 2.0]


def test_the_norm_of_as_many_images_is_that_of_the_batch() -> None:
    """Two images, as on each GPU of the authors."""
    room = LevelRoom(FKD())
    lesson = room.lesson(some_batch(1, 2))
    found = float(room.terms(lesson)["channel"].mean().detach())
    total = 0.0
    for i, tap in enumerate(room.method.student_taps):
        s, t = lesson.student.taps[tap].mean((2, 3)), lesson.teacher.taps[tap].mean((2, 3))
        total += float(torch.dist(t, room.method.channel[i](s)).detach())
    assert found == pytest.approx(total)


def test_a_batch_twice_has_the_same_value() -> None:
    room = LevelRoom(FKD(temperature=2.0))
    batch = some_batch(1, 2)
    lesson = room.lesson(batch)
    twice = rows(batch, torch.tensor([0, 0, 1, 1]))
    double = with_maps(
        room.lesson(twice),
        {tap: x.repeat_interleave(2, 0) for tap, x in lesson.student.taps.items()},
        {tap: x.repeat_interleave(2, 0) for tap, x in lesson.teacher.taps.items()},
    )
    assert values(room.terms(double)) == pytest.approx(values(room.terms(lesson)))


def test_the_root_has_no_gradient_at_zero() -> None:
    x = torch.tensor([0.0, 4.0], dtype=torch.double, requires_grad=True)
    root(x).sum().backward()
    assert root(x).tolist() == [0, 2] and x.grad is not None and x.grad.tolist() == [0, 0.25]


def test_attention_has_no_gradient() -> None:
    room = LevelRoom(FKD())
    lesson = room.lesson()
    tap = lesson.student.taps["p2"]
    assert not room.method.attention(tap, lesson.teacher.taps["p2"]).requires_grad


def test_the_finest_levels_have_narrow_blocks() -> None:
    blocks = LevelRoom(FKD()).method.student_block
    assert [block.query.out_channels for block in blocks] == [4, 4, 8]
    assert [block.pooled for block in blocks] == [8, 4, 2]


def test_other_widths_have_no_mean_attention_of_channels() -> None:
    wide = small_detector("fcos", neck={"width": 24, "extra": 1})
    setting = Setting(small_detector("fcos"), wide, EXAMPLE.float())
    with pytest.raises(UserError, match="'p2' has 16 and the teacher's 24; set method.variant=ref"):
        FKD().build(setting)
    assert FKD(variant="reference").build(setting).student_taps == ("p2", "p3", "p4")
