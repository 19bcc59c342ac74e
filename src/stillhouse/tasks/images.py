"""The common part of tasks whose labels belong to whole images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from stillhouse.batches import Batch, Objects, read_batch
from stillhouse.errors import UserError
from stillhouse.functional.dtype import upcast
from stillhouse.models.scores import class_scores
from stillhouse.tasks.base import Facts
from stillhouse.types import Clock, Lesson, Site, Term, Terms, Trace

SITE = "class"


class ImageTask(ABC):
    """A task with one row of class scores per image; the site is `class`."""

    headline: str
    classes: int | None
    sites = (SITE,)

    @property
    @abstractmethod
    def chance(self) -> float:
        """The headline score of random predictions, in percent."""

    @abstractmethod
    def absent(self, scores: Tensor) -> Tensor:
        """The labels of images that have none, for their scores (N, C)."""

    @abstractmethod
    def label_term(self, student: Trace, label: Tensor) -> Term:
        """The label loss of one view; `label` is the batch's target."""

    def target(self, student: Trace, batch: Batch[Tensor]) -> Tensor | None:
        """The target of the site: (N,) class index or (N, C) shares; None without labels."""
        return batch.target

    def adapt(self, network: nn.Module) -> nn.Module:
        """The network itself."""
        return network

    def read(self, batch: Any) -> Batch[Tensor]:
        """A batch of any loader: (images, labels), a mapping with both, or a `Batch`."""
        return read_batch(batch)

    def inputs(self, batch: Batch[Tensor], teacher: Trace | None = None) -> tuple[Tensor]:
        """The images: (N, C, H, W)."""
        return (batch.images,)

    def check_output(self, output: Any, name: str, images: int) -> None:
        """Raise UserError for an output that is not one score per class and image."""
        shape = tuple(class_scores(output).shape)
        if shape != (images, self.classes):
            raise UserError(
                f"{name} gives an output of shape {shape} for {images} images; expected "
                f"{(images, self.classes)}"
            )

    def check_pair(self, student: Any, teacher: Any) -> None:
        """Two networks that pass `check_output` always fit."""
        return

    def assign(self, student: Trace, batch: Batch[Tensor]) -> None:
        """None: labels of whole images need no assignment."""
        return

    def supervise(self, student: Trace, batch: Batch[Tensor], assigned: Any = None) -> Terms:
        """The term `label`; images without labels add nothing to it."""
        label = batch.target
        if label is None:
            label = self.absent(logits(student))
        return {"label": self.label_term(student, label)}

    def lesson(
        self,
        student: Trace,
        teacher: Trace,
        batch: Batch[Tensor],
        clock: Clock,
        assigned: Any = None,
    ) -> Lesson:
        """The logits of both networks at the site `class`, one row per image."""
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
        """Whether the headline is at least four standard errors above chance, and 1.5 times chance.

        The bound is at most half-way from chance to 100 %. Teachers with a random head, permuted
        classes or a wrong normalisation do not pass.
        """
        chance = self.chance
        error = (chance * (100 - chance) / max(1, images)) ** 0.5
        needed = min(max(chance + 4 * error, 1.5 * chance), (100 + chance) / 2)
        return bool(summary[self.headline] >= needed)


def refuse_objects(facts: Facts, task: str) -> None:
    """Raise UserError for data whose images have boxes."""
    if isinstance(facts.validation, Objects):
        raise UserError(
            f"the images of {facts.data} have boxes, but task {task} needs classes of whole "
            "images; set task=detection"
        )


def logits(trace: Trace) -> Tensor:
    """The class scores (N, C) of a Trace's output; see `models.scores.class_scores`."""
    return class_scores(trace.out)


def multi_hot(label: Tensor, scores: Tensor) -> Tensor:
    """The share of each class, for scores (N, C): (N,) class index or (N, C) shares -> (N, C).

    Raises UserError for labels that do not fit the scores.
    """
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
    if label.device.type != "cpu" or not len(label):  # on a device, the check would synchronise
        return True
    return 0 <= int(label.min()) <= int(label.max()) < scores.shape[1]
