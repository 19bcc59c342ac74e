"""Pairs of taps that must give feature maps."""

from __future__ import annotations

from typing import NamedTuple

import torch

from stillhouse.errors import UserError
from stillhouse.methods.setting import Setting
from stillhouse.models.pairing import Shapes
from stillhouse.objectives.presets.feature import TapPairs


class MapPair(NamedTuple):
    """A pair of taps and the shapes of their maps, (N, C, H, W) each."""

    student: str
    teacher: str
    student_shape: torch.Size
    teacher_shape: torch.Size


def check_maps(setting: Setting, pairs: TapPairs, vectors: bool = False) -> list[MapPair]:
    """The pairs with their shapes; raises UserError for a tap that gives no map.

    With `vectors`, taps of shape (N, C) are allowed and count as maps of one pixel.
    """
    student_taps, teacher_taps = zip(*pairs, strict=True)
    student = map_shapes("student", setting.student_shapes(student_taps), vectors)
    teacher = map_shapes("teacher", setting.teacher_shapes(teacher_taps), vectors)
    return [MapPair(s, t, student[s], teacher[t]) for s, t in pairs]


def map_shapes(side: str, shapes: Shapes, vectors: bool) -> Shapes:
    """The shapes of the taps of one network as (N, C, H, W); raises UserError for others."""
    maps = {}
    for tap, shape in shapes.items():
        if len(shape) == 2 and vectors:
            shape = torch.Size((*shape, 1, 1))
        if len(shape) != 4:
            size = " x ".join(map(str, shape))
            raise UserError(
                f"the {side}'s tap {tap!r} gives {size}, but this method compares maps "
                "(N, C, H, W); name taps that give maps, as in method.pairs: [[layer3, layer3]]"
            )
        maps[tap] = shape
    return maps
