"""Sources of images without labels, alone or after labelled ones."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from stillhouse.batches import ABSENT, Objects, Target
from stillhouse.data.source import (
    Pixels,
    Sample,
    Source,
    fingerprint_of_recipe,
    notes_of,
)
from stillhouse.data.targets import signed


@dataclass(frozen=True, eq=False)
class WithoutLabels:
    """The images of another source, whose targets are not used."""

    images: Source
    classes: tuple[str, ...]  # of the data that they are trained with
    positions: bool = False  # whether the targets of those data are boxes or masks

    @property
    def name(self) -> str:
        """The name of the source of the images."""
        return self.images.name

    @property
    def fingerprint(self) -> str:
        """A digest of the images and the classes."""
        return fingerprint_of_recipe(
            {"images": self.images.fingerprint, "labels": None, "classes": self.classes}
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """The notes of the source of the images."""
        return notes_of(self.images)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        return self.images[index]._replace(target=None)


@dataclass(frozen=True, eq=False)
class PartlyLabelled:
    """The samples of a source, then images without labels; keys go on from those before."""

    labelled: Source
    unlabelled: Source

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.labelled.classes

    @property
    def name(self) -> str:
        """The name of the labelled source."""
        return self.labelled.name

    @property
    def fingerprint(self) -> str:
        """A digest of those of both parts."""
        return fingerprint_of_parts(self.labelled, self.unlabelled)

    def __len__(self) -> int:
        return len(self.labelled) + len(self.unlabelled)

    def __getitem__(self, index: int) -> Sample:
        count = len(self.labelled)
        if index < count:
            return self.labelled[index]
        return self.unlabelled[index - count]._replace(key=index)


def fingerprint_of_parts(labelled: Source, unlabelled: Source) -> str:
    """A digest of labelled samples and of the images without labels after them."""
    return fingerprint_of_recipe(
        {"labelled": labelled.fingerprint, "unlabelled": unlabelled.fingerprint}
    )


def without_labels(
    images: Source, classes: tuple[str, ...], positions: bool
) -> Pixels | WithoutLabels:
    """The images of a source without its targets; see `WithoutLabels`."""
    found = WithoutLabels(images, classes, positions)
    if not isinstance(images, Pixels):
        return found
    return Pixels(images.images, None, classes, found.fingerprint, images.name)


def add_unlabelled(labelled: Source, unlabelled: Source) -> Pixels | PartlyLabelled:
    """One source of both; in memory if both are, and their images have one size."""
    if not (isinstance(labelled, Pixels) and isinstance(unlabelled, Pixels)):
        return PartlyLabelled(labelled, unlabelled)
    if labelled.images.shape[1:] != unlabelled.images.shape[1:]:
        return PartlyLabelled(labelled, unlabelled)
    return replace(
        labelled,
        images=torch.cat([labelled.images, unlabelled.images]),
        targets=with_absent(labelled.targets, len(unlabelled)),
        fingerprint=fingerprint_of_parts(labelled, unlabelled),
    )


def with_absent(targets: Target, count: int) -> Target:
    """Collated targets, and those of `count` more samples without labels."""
    if isinstance(targets, Tensor):
        known = signed(targets)
        return torch.cat([known, known.new_full((count, *known.shape[1:]), ABSENT)])
    if isinstance(targets, Objects):
        before = targets.unlabelled
        known = torch.zeros(targets.images, dtype=torch.bool) if before is None else before
        absent = torch.cat([known, torch.ones(count, dtype=torch.bool)])
        return replace(targets, images=targets.images + count, unlabelled=absent)
    return None
