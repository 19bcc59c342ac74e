"""What the tasks share whose labels belong to whole images."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from stillhouse.batches import Labelled
from stillhouse.errors import UserError
from stillhouse.functional.dtype import upcast
from stillhouse.models.scores import class_scores
from stillhouse.types import Clock, Lesson, Site, Term, Terms, Trace


class ImageTask(ABC):
    """One row of class scores an image; the site is `class`."""

    @abstractmethod
    def label_term(self, student: Trace, label: Tensor) -> Term:
        """What the labels say of one view."""

    def target(self, student: Trace, batch: Labelled) -> Tensor:
        """The labels as a method sees them: (N,) class index, or (N, C)."""
        return batch.label

    def inputs(self, batch: Labelled) -> tuple[Tensor]:
        """The images."""
        return (batch.image,)

    def second(self, batch: Labelled) -> Labelled:
        """The batch in its second, stronger view."""
        if batch.strong is None:
            raise UserError(
                "the method needs two views of each image, and the batch has one; give batches "
                "with `strong` images"
            )
        return batch._replace(image=batch.strong, strong=None)

    def supervise(self, student: Trace, batch: Labelled) -> Terms:
        """The loss that comes from the labels, of both views where there are two."""
        terms = {"label": self.label_term(student, batch.label)}
        if student.strong is not None:
            terms["label_strong"] = self.label_term(student.strong, batch.label)
        return terms

    def lesson(self, student: Trace, teacher: Trace, batch: Labelled, clock: Clock) -> Lesson:
        """Logits of both networks, one row an image."""
        target = self.target(student, batch)
        sites, strong, learning = {}, {}, {}
        if teacher.out is not None:
            sites["class"] = Site(logits(student), logits(teacher), target)
        if student.strong is not None and teacher.strong is not None:
            pair = logits(student.strong), logits(teacher.strong)
            strong["class"] = Site(*pair, target)
        if teacher.learning is not None:
            pair = logits(student).detach(), logits(Trace(teacher.learning))
            learning["class"] = Site(*pair, target)
        members = tuple(self.lesson(student, one, batch, clock) for one in teacher.members)
        return Lesson(
            student,
            teacher,
            sites,
            clock,
            keys=batch.key,
            labels=target,
            strong=strong,
            learning=learning,
            members=members,
        )


def logits(trace: Trace) -> Tensor:
    """The class scores in what a network gave: a tensor, the first of several, or `.logits`."""
    return class_scores(trace.out)


def multi_hot(label: Tensor, scores: Tensor) -> Tensor:
    """The share of each class in each image, for scores (N, C): (N,) index or (N, C) -> (N, C)."""
    if scores.ndim == 2 and label.shape == scores.shape:
        return label if label.is_floating_point() else label.to(upcast(scores).dtype)
    if not _are_indices(label, scores):
        raise UserError(
            f"the labels of the batch, {label.dtype} of shape {tuple(label.shape)}, do not fit the "
            f"network's scores of shape {tuple(scores.shape)}; give labels (N, C) that say of each "
            "class whether it is there, or (N,) with one class index an image, and a network with "
            "as many classes as the data"
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
