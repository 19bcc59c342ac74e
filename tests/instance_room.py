"""Pairs of small networks with masks, batches of instances, and what they learn, for tests."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import Dataset

from cells import SIZE, small_solov2, some_images, some_instances
from mask_regions import small
from stillhouse.batches import Batch, Objects
from stillhouse.engine.pupil import Pupil
from stillhouse.methods.build import make_method
from stillhouse.methods.setting import Setting
from stillhouse.models.taps import Tapped
from stillhouse.tasks.instance import Instance
from stillhouse.teachers.base import observe
from stillhouse.teachers.frozen import Frozen
from stillhouse.types import Clock, Lesson, Terms, Trace

CLASSES = 5
COUNTS = (2, 0, 3)
CLOCK = Clock(0, 10, 5)
EXAMPLE = torch.zeros(1, 3, *SIZE, dtype=torch.double)
FAMILIES = ("solov2", "mask_rcnn", "cascade_mask_rcnn")
TASK = Instance(CLASSES)


def network(family: str, backbone: str = "stillhouse/small", **options: Any) -> Any:
    """In double precision, far from equal scores."""
    make = small_solov2 if family == "solov2" else small
    arguments = () if family == "solov2" else (family,)
    made = make(*arguments, backbone=backbone, **options).double()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.endswith(("score.bias", "scores.bias", "maps.bias")):
                parameter += torch.randn_like(parameter)
    return made


def pair(family: str, teacher: str = "", **options: Any) -> tuple[Any, Any]:
    """A student and a larger teacher."""
    torch.manual_seed(0)
    student = network(family, **options)
    return student, network(teacher or family, "stillhouse/medium").eval()


def batch_of(*counts: int, seed: int = 0) -> Batch[Objects]:
    keys = torch.arange(len(counts))
    images = some_images(len(counts), seed)
    return Batch(images, some_instances(*counts, seed=seed), keys, torch.zeros_like(keys))


def lesson_of(student: Any, teacher: Any, batch: Batch[Any]) -> Lesson:
    ours = Trace(student(batch.images))
    with torch.no_grad():
        theirs = Trace(teacher(batch.images))
    return TASK.lesson(ours, theirs, batch, CLOCK, TASK.assign(ours, batch))


def pupil_of(student: Any, teacher: Any, *methods: Any) -> tuple[Pupil[Any], Frozen[Any]]:
    method = make_method(methods, Setting(student, teacher, EXAMPLE)).double()
    pupil = Pupil(Tapped(student, method.student_taps, (EXAMPLE,)), method, TASK)
    return pupil, Frozen(teacher, TASK.inputs, method.teacher_taps, (EXAMPLE,))


def learn(pupil: Pupil[Any], teacher: Frozen[Any], batch: Batch[Any]) -> Terms:
    terms: Terms = pupil(batch, observe(teacher, batch), CLOCK)
    return terms


class Pictures(Dataset[Any]):
    """Images with targets as torchvision has them."""

    def __init__(self, batch: Batch[Objects]) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return len(self.batch)

    def __getitem__(self, index: int) -> Any:
        one = self.batch.rows(slice(index, index + 1))
        target = one.target
        return one.images[0].float(), {
            "boxes": target.boxes.float(), "labels": target.labels, "masks": target.masks,
        }  # fmt: skip
