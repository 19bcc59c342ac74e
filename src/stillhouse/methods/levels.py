"""What methods at the levels of two detectors share: pairs of maps on the detector's grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from stillhouse.batches import Objects
from stillhouse.errors import UserError
from stillhouse.functional.dtype import full_precision, upcast
from stillhouse.methods.base import Method
from stillhouse.methods.maps import MapPair, check_maps
from stillhouse.methods.paired import AdaptedPair, PairedSpec, term_names
from stillhouse.methods.setting import Setting
from stillhouse.models.detectors.cell_masks import CellMasks
from stillhouse.models.detectors.priors import Priors
from stillhouse.objectives.presets.feature import PairsOption
from stillhouse.spec import spec
from stillhouse.types import Lesson, Terms


class LevelPair(NamedTuple):
    """The maps of one pair of levels, and which level of the detectors it is."""

    student: Tensor  # (N, C, H, W) adapted
    teacher: Tensor  # (N, C, H, W) without a gradient
    raw: Tensor  # (N, B, H, W) the student's own
    number: int  # from 0, the finest
    stride: int  # in pixels

    @property
    def shape(self) -> tuple[int, int, int]:
        """Images, rows and columns."""
        images, _, height, width = self.student.shape
        return images, height, width


@spec
class LevelsSpec(PairedSpec):
    """The options of a method at levels of two detectors.

    `pairs` are all levels that both declare, or named ones.
    """

    pairs: PairsOption = field(default="levels", kw_only=True)

    def level_pairs(self, setting: Setting) -> list[MapPair]:
        """The pairs with their shapes; raises UserError for maps of different sizes."""
        pairs = check_maps(setting, self.taps(setting))
        for pair in pairs:
            sizes = [" x ".join(map(str, s[2:])) for s in (pair.student_shape, pair.teacher_shape)]
            if sizes[0] != sizes[1]:
                raise UserError(
                    f"the student's tap {pair.student!r} gives maps of {sizes[0]} and the "
                    f"teacher's {pair.teacher!r} of {sizes[1]}; pair levels of one stride under "
                    "method.pairs"
                )
        return pairs


class AtLevels(Method):
    """Compares all pairs of levels of one batch; subclasses implement `compare`."""

    def __init__(self, published: LevelsSpec, pairs: Sequence[AdaptedPair]) -> None:
        super().__init__()
        self.spec = published
        self.label_share = published.label_share
        self.student_taps = tuple(pair.student for pair in pairs)
        self.teacher_taps = tuple(pair.teacher for pair in pairs)
        self.adapters = nn.ModuleList(pair.adapter for pair in pairs)
        self.names = term_names(pairs)

    def compare(self, levels: Sequence[LevelPair], lesson: Lesson) -> Terms:
        """The terms of one batch, before the ramp."""
        raise NotImplementedError

    def forward(self, lesson: Lesson) -> Terms:
        """The terms of one batch."""
        ramp = self.spec.ramp_factor(lesson.clock)
        with full_precision(lesson.student.taps[self.student_taps[0]]):
            terms = self.compare(self.levels(lesson), lesson)
        return {name: term._replace(weight=ramp * term.weight) for name, term in terms.items()}

    def levels(self, lesson: Lesson) -> list[LevelPair]:
        """The maps of all pairs, in full precision."""
        raw = [upcast(lesson.student.taps[tap]) for tap in self.student_taps]
        teacher = [upcast(lesson.teacher.taps[tap].detach()) for tap in self.teacher_taps]
        places = level_places(raw, self.student_taps, lesson.student.out)
        return [
            LevelPair(upcast(adapter(s)), t, s, *place)
            for adapter, s, t, place in zip(self.adapters, raw, teacher, places, strict=True)
        ]

    def objects(self, lesson: Lesson) -> Objects:
        """The objects that are trained on; none where images have no labels."""
        if lesson.objects is not None:
            objects: Objects = lesson.objects
            return objects.objects(~objects.ignored)
        maps = lesson.student.taps[self.student_taps[0]]
        none = torch.zeros(0, dtype=torch.int64, device=maps.device)
        return Objects(upcast(maps).new_zeros(0, 4), none, none, len(maps))


def level_places(maps: Sequence[Tensor], taps: Sequence[str], out: Any) -> list[tuple[int, int]]:
    """The number and the stride of the level that each map is: K maps (N, C, H, W) -> K pairs.

    The predictions of cells lie on grids of their own, so any map is a level of such a network.
    """
    if isinstance(out, CellMasks):
        return [(number, round(out.size[0] / x.shape[2])) for number, x in enumerate(maps)]
    priors = grid_of(out)
    return [(number, priors.strides[number]) for number in level_numbers(maps, taps, priors)]


def grid_of(out: Any) -> Priors:
    """The priors of a detector, those of its proposals in two stages; UserError for others."""
    priors = getattr(getattr(out, "proposal", out), "priors", None)
    if not isinstance(priors, Priors):
        raise UserError(
            f"the method compares levels of detectors, but the student gives a "
            f"{type(out).__name__}; take a student of `stillhouse models detector`"
        )
    return priors


def level_numbers(maps: Sequence[Tensor], taps: Sequence[str], priors: Priors) -> list[int]:
    """Which level of a detector each map is, by its size: K maps (N, C, H, W) -> K numbers.

    Of several levels of one size, the maps are those in their order. Raises UserError for a map of
    another size.
    """
    left = dict(enumerate(priors.sizes))
    found = []
    for tap, each in zip(taps, maps, strict=True):
        size = tuple(each.shape[2:])
        number = next((number for number, known in left.items() if known == size), None)
        if number is None:
            raise UserError(
                f"the student's tap {tap!r} gives a map of {size[0]} x {size[1]}, which is no "
                "level of its predictions; set method.pairs=levels, or name its levels there"
            )
        del left[number]
        found.append(number)
    return found
