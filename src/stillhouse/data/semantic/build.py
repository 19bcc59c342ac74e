"""From image and mask files to a source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from stillhouse.batches import IGNORE
from stillhouse.data.images import are_readable, find_missing, read_shapes
from stillhouse.data.problems import BoolArray, Problem, settle
from stillhouse.data.semantic.policy import MaskPolicy
from stillhouse.data.semantic.scan import Scan, scan_masks
from stillhouse.data.semantic.source import MaskSource, Mismatch, matching_image
from stillhouse.data.semantic.values import ClassTable, MaskTable
from stillhouse.errors import UserError

_MISSING = Problem("missing", "images do not exist", "put them there")
_UNLABELLED = Problem(
    "unlabelled", "images have no mask", "put it there, keep them with unlabelled='keep'"
)
_BROKEN = Problem("broken", "images or masks cannot be read", "repair them")
_MISMATCHED = Problem("mismatched", "masks have another size than their image", "restore them")
_UNKNOWN = Problem(
    "unknown",
    "masks have values that are no class",
    "correct them, ignore these pixels with unknown='ignore'",
)
EMPTY = Problem(
    "empty", "masks have ignored pixels only", "annotate them, keep them with empty='keep'"
)

T = TypeVar("T", bound=MaskTable)


@dataclass(frozen=True, eq=False)
class MaskFiles(Generic[T]):
    """The N images and masks of a split as a reader finds them."""

    name: str
    root: Path
    images: Sequence[str]  # N, relative to the root, with slashes
    masks: Sequence[str]  # N, where the mask of each image is or would be
    classes: tuple[str, ...]
    table: T


class UsablePairs(NamedTuple):
    """K of the N images, with their masks."""

    images: tuple[str, ...]
    masks: tuple[str | None, ...]  # None for an image without labels
    presence: Tensor  # (K, classes) bool, none where masks were not read
    notes: tuple[str, ...]


def build_source(found: MaskFiles[ClassTable], policy: MaskPolicy) -> MaskSource:
    """The source of these files, without what the policy skips.

    Raises a UserError for a problem where the policy is to fail, or if no image is left.
    """
    pairs = usable_pairs(found, policy)
    return MaskSource(
        found.root,
        pairs.images,
        pairs.masks,
        found.table,
        found.classes,
        found.name,
        pairs.presence,
        "ignore" if policy.unknown == "ignore" else "fail",
        pairs.notes,
    )


def usable_pairs(
    found: MaskFiles[Any], policy: MaskPolicy, nothing: Problem = EMPTY
) -> UsablePairs:
    """The images and masks that the policy does not skip; `nothing` describes masks of no class."""
    if len(found.classes) > IGNORE:
        raise UserError(
            f"{found.name}: there are {len(found.classes)} classes, but masks can have {IGNORE}; "
            "leave some out"
        )
    pairs = _Pairs(found, policy, list(found.images), list(found.masks))
    pairs.settle(_MISSING, find_missing(found.root, pairs.images))
    absent = find_missing(found.root, [mask or "" for mask in pairs.masks])
    pairs.settle(_UNLABELLED, absent)
    scan = pairs.read() if policy.reads_masks else None
    if policy.mismatched == "skip":  # otherwise, such a mask raises when it is read
        kept = pairs.settle(_MISMATCHED, pairs.find_mismatched())
        scan = scan and scan.rows(kept)
    if scan is not None:
        scan = scan.rows(pairs.settle(_UNKNOWN, scan.unknown))
        labelled = np.array([mask is not None for mask in pairs.masks], dtype=bool)
        empty = ~scan.present.any(1).numpy() & labelled & scan.readable
        scan = scan.rows(pairs.settle(nothing, empty))
    return pairs.usable(scan)


@dataclass
class _Pairs:
    """The images and masks that are left, and what was said of the others."""

    found: MaskFiles[Any]
    policy: MaskPolicy
    images: list[str]
    masks: list[str | None]
    notes: list[str] = field(default_factory=list)

    def settle(self, problem: Problem, affected: BoolArray) -> BoolArray:
        """Do what the policy says; returns which of the pairs are kept: (N,) -> (N,)."""
        choice = getattr(self.policy, problem.option)
        kept, notes = settle(
            self.found.name, problem, affected, choice, lambda i: self._place(problem, i)
        )
        self.notes += notes
        if problem is _UNLABELLED:
            self.masks = [None if a else m for m, a in zip(self.masks, affected, strict=True)]
        self.images = [image for image, keep in zip(self.images, kept, strict=True) if keep]
        self.masks = [mask for mask, keep in zip(self.masks, kept, strict=True) if keep]
        if not self.images:
            why = "; ".join(note.removeprefix(f"{self.found.name}: ") for note in self.notes)
            raise UserError(
                f"{self.found.name}: no images are left in {self.found.root}{why and f' ({why})'}"
            )
        return kept

    def _place(self, problem: Problem, number: int) -> str:
        image = self.found.root / self.images[number]
        mask = self.found.root / (self.masks[number] or "")
        if problem is _UNLABELLED:
            return f"{image}, whose mask would be {mask}"
        return str(image if problem in (_MISSING, _BROKEN) else mask)

    def read(self) -> Scan:
        """What is in the masks, without those that cannot be read if they are skipped."""
        paths = [None if mask is None else self.found.root / mask for mask in self.masks]
        scan = scan_masks(paths, self.found.table)
        if self.policy.broken != "skip":  # a damaged file raises when it is used
            return scan
        images = are_readable([self.found.root / image for image in self.images])
        return scan.rows(self.settle(_BROKEN, ~(scan.readable & np.array(images, dtype=bool))))

    def find_mismatched(self) -> BoolArray:
        """Which masks have another size than their image, by the headers of the files: (N,)."""
        root, affected = self.found.root, np.zeros(len(self.masks), dtype=bool)
        labelled = [i for i, mask in enumerate(self.masks) if mask is not None]
        images = read_shapes([root / self.images[i] for i in labelled])
        masks = read_shapes([root / (self.masks[i] or "") for i in labelled])
        for i, image, mask in zip(labelled, images, masks, strict=True):
            # a header may be of another format, and an image may lie on its side
            affected[i] = image != mask and not self._fits(i)
        return affected

    def _fits(self, number: int) -> bool:
        root, mask = self.found.root, self.masks[number] or ""
        try:
            shape = self.found.table.read(root / mask).shape
            matching_image(root / self.images[number], root / mask, shape)
        except Mismatch:
            return False
        except UserError:  # damaged, which raises when it is used
            return True
        return True

    def usable(self, scan: Scan | None) -> UsablePairs:
        """What is left."""
        shape = len(self.images), len(self.found.classes)
        present = torch.zeros(shape, dtype=torch.bool)
        if scan is not None:
            present = scan.present[:, : shape[1]].clone()
        return UsablePairs(tuple(self.images), tuple(self.masks), present, tuple(self.notes))
