"""Looking at pairs of taps that have to be maps."""

from __future__ import annotations

from typing import NamedTuple

import torch

from stillhouse.errors import UserError
from stillhouse.methods.setting import Setting, Shapes
from stillhouse.objectives.presets.feature import TapPairs


class Met(NamedTuple):
    """A pair of taps and the shapes of what they give: (N, C, H, W) each."""

    student: str
    teacher: str
    before: torch.Size
    after: torch.Size


def met(setting: Setting, pairs: TapPairs, vectors: bool = False) -> list[Met]:
    """The pairs with their shapes; `vectors` (N, C) may be allowed, as maps of one pixel."""
    ours, theirs = zip(*pairs, strict=True)
    before = checked("student", setting.student_shapes(ours), vectors)
    after = checked("teacher", setting.teacher_shapes(theirs), vectors)
    return [Met(s, t, before[s], after[t]) for s, t in pairs]


def checked(who: str, shapes: Shapes, vectors: bool) -> Shapes:
    """The shapes of one network as those of maps, or a sentence on the one that is none."""
    found = {}
    for tap, shape in shapes.items():
        if len(shape) == 2 and vectors:
            shape = torch.Size((*shape, 1, 1))
        if len(shape) != 4:
            size = " x ".join(map(str, shape))
            raise UserError(
                f"the {who}'s tap {tap!r} gives {size}, and this method compares maps "
                "(N, C, H, W); name taps that give maps, as in method.pairs: [[layer3, layer3]]"
            )
        found[tap] = shape
    return found
