"""The rows of maps, some images or some lines of an image at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from stillhouse.functional.dtype import upcast
from stillhouse.functional.resize import resize_lines, resize_maps
from stillhouse.types import Place, Site

LARGE = 2**23  # elements; copies of smaller maps cost less than pieces
ELEMENTS_OF_A_PIECE = {"cpu": 2**19}
ELEMENTS_ELSEWHERE = 2**21  # fewer and larger kernels


@dataclass(frozen=True, eq=False)
class SiteMaps:
    """A site whose N h w rows are the pixels of maps: the student's, and the teacher's resized."""

    student: Tensor  # (N, C, h, w)
    teacher: Tensor  # (N, C, h', w')
    target: Tensor | None = None  # (N h w,) class index
    weight: Tensor | None = None  # (N h w,)
    mass: Tensor | None = None  # () as that of a site

    @property
    def large(self) -> bool:
        """Whether a copy of all rows costs more than pieces."""
        return self.student.numel() > LARGE

    def weights(self) -> Tensor:
        """The weight of each row: (N h w,)."""
        if self.weight is not None:
            return self.weight
        number, _, height, width = self.student.shape
        return upcast(self.student.detach()[:0]).new_ones(number * height * width)

    def labelled(self) -> SiteMaps:
        """The same with weight 0 for rows of target -1, which then have any other.

        Without a mass it is returned as it is: there a missing label is an error.
        """
        if self.target is None or self.mass is None:
            return self
        weight = self.weights() * (self.target >= 0)
        return replace(self, target=self.target.clamp(min=0), weight=weight)

    def whole(self) -> Site:
        """All rows at once, which copies both maps."""
        size = (self.student.shape[-2], self.student.shape[-1])
        rows = pixel_rows(self.student), pixel_rows(resize_maps(self.teacher, size))
        return Site(*rows, self.target, self.weight, self.mass)

    def places(self) -> Sequence[Place]:
        """Slices of the images, or of the lines of each image: (images, channels, lines)."""
        return cut_maps(self.student, (self.student.shape[-2], self.student.shape[-1]))

    def site(self, part: Tensor, number: int) -> Site:
        """The rows of one piece. Its mass is the weight of its rows, where the site has a mass."""
        images, _, lines = self.places()[number]
        size = (self.student.shape[-2], self.student.shape[-1])
        teacher = resize_lines(self.teacher[images], size, lines.start, lines.stop)
        target, weight = (
            None if x is None else x.view(-1, *size)[images, lines].flatten()
            for x in (self.target, self.weight)
        )
        mass = None if self.mass is None or weight is None else weight.sum()
        return Site(pixel_rows(part), pixel_rows(teacher), target, weight, mass)


def cut_maps(maps: Tensor, size: tuple[int, int]) -> Sequence[Place]:
    """Pieces of maps of that size: (N, C, h, w) -> slices of (images, channels, lines).

    Of as many images as a piece may have elements, or of as many lines of one image; one piece
    where all are not large.
    """
    number, channels, (height, width) = maps.shape[0], maps.shape[1], size
    limit = ELEMENTS_OF_A_PIECE.get(maps.device.type, ELEMENTS_ELSEWHERE)
    if number * channels * height * width <= LARGE:
        limit = LARGE
    images = max(1, limit // max(1, channels * height * width))
    lines = height if images > 1 else min(height, max(1, limit // max(1, channels * width)))
    return [
        (slice(i, min(i + images, number)), slice(None), slice(j, min(j + lines, height)))
        for i in range(0, max(number, 1), images)
        for j in range(0, height, lines)
    ]


def pixel_rows(maps: Tensor) -> Tensor:
    """(N, C, h, w) -> (N h w, C)."""
    return maps.movedim(1, -1).flatten(0, 2)
