"""What the tasks share whose labels belong to whole images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from stillhouse.batches import Batch, read_batch
from stillhouse.errors import UserError
from stillhouse.functional.dtype import upcast
from stillhouse.models.scores import class_scores
from stillhouse.types import Clock, Lesson, Site, Term, Terms, Trace

SITE = "class"


class ImageTask(ABC):
    """One row of class scores per image; the site is `class`."""

    headline: str
    classes: int | None
    sites = (SITE,)

    @property
    @abstractmethod
    def chance(self) -> float:
        """The headline of random predictions, in percent."""

    @abstractmethod
    def label_term(self, student: Trace, label: Tensor) -> Term:
        """The label loss of one view."""

    def target(self, student: Trace, batch: Batch[Tensor]) -> Tensor | None:
        """The labels as a method sees them: (N,) class index, or (N, C); None without labels."""
        return batch.target

    def read(self, batch: Any) -> Batch[Tensor]:
        """A batch of any loader: (images, labels), a mapping with both, or a `Batch`."""
        return read_batch(batch)

    def inputs(self, batch: Batch[Tensor], teacher: Trace | None = None) -> tuple[Tensor]:
        """The images."""
        return (batch.images,)

    def check_output(self, output: Any, name: str, images: int) -> None:
        """Refuse an output that is not one score per class."""
        shape = tuple(class_scores(output).shape)
        if shape != (images, self.classes):
            raise UserError(
                f"{name} gives an output of shape {shape} for {images} images; expected "
                f"{(images, self.classes)}"
            )

    def assign(self, student: Trace, batch: Batch[Tensor]) -> None:
        """None: labels belong to whole images."""
        return

    def supervise(self, student: Trace, batch: Batch[Tensor], assigned: Any = None) -> Terms:
        """The label loss; without labels a term without mass."""
        if batch.target is None:
            total = logits(student).sum() * 0
            return {"label": Term(total, torch.zeros_like(total))}
        return {"label": self.label_term(student, batch.target)}

    def lesson(
        self,
        student: Trace,
        teacher: Trace,
        batch: Batch[Tensor],
        clock: Clock,
        assigned: Any = None,
    ) -> Lesson:
        """Logits of both networks, one row per image."""
        target = self.target(student, batch)
        sites = {}
        if teacher.out is not None:
            sites[SITE] = Site(logits(student), logits(teacher), target)
        return Lesson(student, teacher, sites, clock, keys=batch.keys, labels=target)

    def select(self, output: Any, index: Tensor) -> Tensor:
        """The logit of one class per image: (N,) -> (N,)."""
        return class_scores(output).gather(1, index[:, None])[:, 0]

    def storable(self, output: Any) -> Tensor:
        """The logits: -> (N, C)."""
        return class_scores(output)

    def collect(self, trace: Trace) -> Tensor:
        """The logits: -> (N, C)."""
        return logits(trace)

    def collect_target(self, batch: Batch[Tensor]) -> Tensor:
        """The labels of a batch, on the CPU; raises UserError for images without labels."""
        if batch.target is None:
            raise UserError("the images have no labels, which the diagnoses need")
        return batch.target.cpu()

    def passes(self, summary: Mapping[str, float], images: int) -> bool:
        """Whether the headline is four standard errors above chance, and half as much again.

        A random head, a permuted class list and a wrong normalisation all stay below.
        """
        chance = self.chance
        error = (chance * (100 - chance) / max(1, images)) ** 0.5
        needed = min(max(chance + 4 * error, 1.5 * chance), (100 + chance) / 2)
        return bool(summary[self.headline] >= needed)


def logits(trace: Trace) -> Tensor:
    """The class scores of a network's output: a tensor, the first of several, or `.logits`."""
    return class_scores(trace.out)


def multi_hot(label: Tensor, scores: Tensor) -> Tensor:
    """The share of each class in each image, for scores (N, C): (N,) index or (N, C) -> (N, C)."""
    if scores.ndim == 2 and label.shape == scores.shape:
        return label if label.is_floating_point() else label.to(upcast(scores).dtype)
    if not _are_indices(label, scores):
        raise UserError(
            f"labels of dtype {label.dtype} and shape {tuple(label.shape)} do not fit scores of "
            f"shape {tuple(scores.shape)}; expected (N, C) with the share of each class, or (N,) "
            "class indices, and a network with as many classes as the data"
        )
    kind = upcast(scores).dtype
    empty = torch.zeros(scores.shape, dtype=kind, device=scores.device)
    return empty.scatter(1, label[:, None].long(), 1.0)


def _are_indices(label: Tensor, scores: Tensor) -> bool:
    if label.is_floating_point() or scores.ndim != 2 or label.shape != scores.shape[:1]:
        return False
    if label.device.type != "cpu" or not len(label):  # where looking would make the host wait
        return True
    least, most = int(label.min()), int(label.max())
    return 0 <= least <= most < scores.shape[1]
