"""What is written of predictions, by task; for classes, a CSV table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from torch import Tensor

from stillhouse.batches import Batch
from stillhouse.data.targets import SampleTarget
from stillhouse.files import csv_text, write_text
from stillhouse.runs.detection_files import DetectionWriter
from stillhouse.runs.instance_files import InstanceWriter
from stillhouse.runs.mask_files import MaskWriter
from stillhouse.runs.prediction_inputs import Picture, Seen
from stillhouse.tasks.base import Task
from stillhouse.types import Trace

TOP = 5  # classes of an image, for one class per image
PRESENT = 0.5  # the least probability of a class, for several classes per image


class Writer(Protocol):
    """Writes the predictions of one kind of task."""

    file: str  # the name of the list of all predictions

    def target(self, image: Tensor) -> SampleTarget:
        """The target of an image (C, H, W), so that it is loaded as those with labels."""
        ...

    def names(self, pictures: Sequence[Picture]) -> list[str]:
        """The files that are written for these images, relative to the folder."""
        ...

    def add(self, trace: Trace, batch: Batch[Any], seen: Seen) -> None:
        """The predictions of one batch."""
        ...

    def finish(self) -> str:
        """Write the list, and return what it has in a few words."""
        ...


class ClassWriter:
    """A row per image in a CSV table: its path, and the classes with their probabilities."""

    file: str = "predictions.csv"
    what: ClassVar[str] = "the most probable classes"

    def __init__(self, task: Task[Any], classes: tuple[str, ...], out: Path, _: float) -> None:
        self.task, self.classes, self.out = task, classes, out
        self.rows: dict[int, dict[str, Any]] = {}

    def target(self, image: Tensor) -> SampleTarget:
        """None: labels of whole images do not change how these are loaded."""
        return None

    def names(self, pictures: Sequence[Picture]) -> list[str]:
        """The list alone."""
        return [self.file]

    def add(self, trace: Trace, batch: Batch[Any], seen: Seen) -> None:
        """The rows of a batch."""
        scores = self.task.collect(trace).float().cpu()
        for picture, row in zip(seen.pictures, scores, strict=True):
            self.rows[picture.number] = {"path": picture.name, **self.describe(row)}

    def describe(self, logits: Tensor) -> dict[str, str]:
        """The five most probable classes of an image: (C,) -> class_1, probability_1, ..."""
        best = logits.softmax(0).topk(min(TOP, len(logits)))
        described = {}
        for number, (share, label) in enumerate(zip(*map(Tensor.tolist, best), strict=True), 1):
            described[f"class_{number}"] = self.classes[label]
            described[f"probability_{number}"] = f"{share:.6f}"
        return described

    def finish(self) -> str:
        """Write predictions.csv."""
        write_text(self.out / self.file, csv_text([row for _, row in sorted(self.rows.items())]))
        return self.what


class LabelWriter(ClassWriter):
    """The same for several classes per image: `labels` as in `csv/labels`, and `probabilities`."""

    what: ClassVar[str] = f"the classes with a probability above {PRESENT:g}"

    def describe(self, logits: Tensor) -> dict[str, str]:
        """The classes that an image has, the most probable first: (C,) -> both columns."""
        share, label = logits.sigmoid().sort(descending=True, stable=True)
        chosen = [
            (p, c) for p, c in zip(share.tolist(), label.tolist(), strict=True) if p > PRESENT
        ]
        return {
            "labels": ";".join(self.classes[c] for _, c in chosen),
            "probabilities": ";".join(f"{p:.6f}" for p, _ in chosen),
        }


WRITERS: Mapping[str, Callable[[Any, tuple[str, ...], Path, float], Writer]] = {
    "classification": ClassWriter,
    "multilabel": LabelWriter,
    "detection": DetectionWriter,
    "semantic": MaskWriter,
    "instance": InstanceWriter,
}  # by the name of the task in a recipe
