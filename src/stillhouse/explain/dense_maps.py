"""Predictions of several dense detectors for the same images, and their places as maps."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from stillhouse.batches import Batch, Objects, image_sizes
from stillhouse.errors import UserError
from stillhouse.explain.guard import error_text
from stillhouse.explain.roles import TEACHER
from stillhouse.explain.subset import SubsetLoader
from stillhouse.models.detectors.output import Dense
from stillhouse.models.dry_run import undisturbed
from stillhouse.types import Clock, Lesson, Site, Trace


class ComparesDense(Protocol):
    """A task whose networks are compared place by place."""

    def inputs(self, batch: Batch[Objects], teacher: Trace | None = None) -> tuple[Any, ...]:
        """The arguments of a network."""
        ...

    def check_pair(self, student: Any, teacher: Any) -> None:
        """Raise UserError for outputs that are not on one grid."""
        ...

    def assign(self, student: Trace, batch: Batch[Objects]) -> Any:
        """The assignment of objects to predictions."""
        ...

    def lesson(
        self,
        student: Trace,
        teacher: Trace,
        batch: Batch[Objects],
        clock: Clock,
        assigned: Any = None,
    ) -> Lesson:
        """The sites of both networks."""
        ...


class Level(NamedTuple):
    """One level of a dense output: its cells, each with as many rows of a site as priors."""

    stride: int
    centres: Tensor  # (h, w, 2) x, y in pixels of the batch's images
    each: int  # priors per cell


class ImageCells(NamedTuple):
    """One image of a batch, and where its cells are."""

    pixels: Tensor  # (C, H, W) uint8, without padding
    boxes: Tensor  # (M, 4) of the objects that are to be found, in these pixels
    inside: tuple[Tensor, ...]  # (h, w) bool for each level: cells of the image, not of the padding
    on_object: tuple[Tensor, ...]  # (h, w) bool: cells whose centre is in a box


@dataclass(frozen=True, eq=False)
class DenseBatch:
    """The outputs of teacher and students for one batch."""

    batch: Batch[Objects]
    pixels: Tensor  # (N, C, H, W) uint8
    teacher: Trace
    students: Mapping[str, Trace]  # those whose grid is the teacher's
    left_out: Mapping[str, str]  # the others, and why
    task: ComparesDense

    def sites(self, name: str) -> Mapping[str, Site]:
        """The sites of a student and the teacher."""
        student = self.students[name]
        assigned = self.task.assign(student, self.batch)
        clock = Clock(0, 1, 1)
        return self.task.lesson(student, self.teacher, self.batch, clock, assigned).sites

    @property
    def levels(self) -> tuple[Level, ...]:
        """The levels of all networks."""
        return levels_of(self.teacher.out)

    def images(self) -> Iterator[ImageCells]:
        """The images, in their order."""
        sizes = image_sizes(self.batch).cpu()
        for index, (height, width) in enumerate(sizes.tolist()):
            objects = self.batch.target.rows(torch.tensor([index], device=self.batch.keys.device))
            boxes = objects.boxes[~objects.ignored].float().cpu()
            size = torch.tensor([width, height])
            centres = [level.centres.float().cpu() for level in self.levels]
            yield ImageCells(
                self.pixels[index, :, :height, :width],
                boxes,
                tuple((points <= size).all(-1) for points in centres),
                tuple(in_boxes(points, boxes) for points in centres),
            )


DenseBatches = Callable[[Collection[str]], Iterator[DenseBatch]]  # of the students of these names


def dense_batches(
    networks: Mapping[str, nn.Module],
    task: ComparesDense,
    loader: SubsetLoader,
    keys: Tensor,
    names: Collection[str],
) -> Iterator[DenseBatch]:
    """The outputs of the teacher and of named students, without gradients, for the images (M,)."""
    chosen = {name: networks[name] for name in (TEACHER, *names)}
    for batch in loader.batches(keys):
        with ExitStack() as stack:
            for network in chosen.values():
                stack.enter_context(undisturbed(network))
            traces = {name: Trace(one(*task.inputs(batch))) for name, one in chosen.items()}
        teacher = traces.pop(TEACHER)
        left_out = refuse_other_grids(task, traces, teacher)
        students = {name: one for name, one in traces.items() if name not in left_out}
        yield DenseBatch(
            batch, loader.pixels(batch.images).cpu(), teacher, students, left_out, task
        )


def refuse_other_grids(
    task: ComparesDense, students: Mapping[str, Trace], teacher: Trace
) -> dict[str, str]:
    """Why students cannot be compared with the teacher, by name."""
    found: dict[str, str] = {}
    for name, trace in students.items():
        if not isinstance(trace.out, Dense):
            found[name] = "it is a two-stage detector, which has no predictions at each place"
            continue
        try:
            task.check_pair(trace.out, teacher.out)
        except UserError as error:
            found[name] = error_text(error)
    return found


def levels_of(out: Dense) -> tuple[Level, ...]:
    """The levels of a detector's output."""
    priors = out.priors
    parts = priors.centres.split(priors.counts)
    return tuple(
        Level(stride, centres[:: priors.each].unflatten(0, size), priors.each)
        for stride, size, centres in zip(priors.strides, priors.sizes, parts, strict=True)
    )


def cell_maps(rows: Tensor, levels: tuple[Level, ...]) -> tuple[Tensor, ...]:
    """Values of rows as maps, the sum over the priors of each cell: (N P,) -> (N, h, w) each."""
    counts = [level.centres[..., 0].numel() * level.each for level in levels]
    parts = rows.reshape(-1, sum(counts)).split(counts, 1)
    return tuple(
        part.reshape(len(part), *level.centres.shape[:2], level.each).sum(-1)
        for part, level in zip(parts, levels, strict=True)
    )


def in_boxes(points: Tensor, boxes: Tensor) -> Tensor:
    """Which points lie in one of the boxes: (h, w, 2), (M, 4) -> (h, w) bool."""
    low, high = boxes[:, :2], boxes[:, 2:]
    points = points[..., None, :]
    return ((points >= low) & (points < high)).all(-1).any(-1)
