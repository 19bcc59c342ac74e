"""A source of image files with any number of labels each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, compress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stillhouse.data.images import are_readable, file_size, find_missing, read_image
from stillhouse.data.multilabel.skip_policy import SkipPolicy, apply_policy
from stillhouse.data.problems import BoolArray, Problem
from stillhouse.data.source import Sample, fingerprint_of_files
from stillhouse.errors import UserError, did_you_mean, quote


@dataclass(frozen=True, eq=False)
class FileSource:
    """A source of image files with their labels, decoded on access."""

    root: Path
    paths: tuple[str, ...]  # relative to the root, with slashes
    targets: Tensor  # (N, classes) float, multi-hot
    classes: tuple[str, ...]
    name: str
    notes: tuple[str, ...] = ()  # what was skipped, one sentence each

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the order, paths, sizes and labels of the files, not of their content."""
        rows, columns = self.targets.nonzero(as_tuple=True)
        ends = torch.bincount(rows, minlength=len(self.paths)).cumsum(0).tolist()
        starts, flat = [0, *ends[:-1]], columns.tolist()
        # Keys are indices into the list, so the same files in another order are other data.
        files = (
            (f"{i:012d}/{path}", file_size(self.root / path), flat[start:end])
            for i, (path, start, end) in enumerate(zip(self.paths, starts, ends, strict=True))
        )
        return fingerprint_of_files(files, self.classes)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        return Sample(read_image(self.root / self.paths[index]), self.targets[index], index)


@dataclass(frozen=True)
class ScannedImages:
    """Images and their labels as a reader finds them, before the skip policy is applied."""

    name: str
    root: Path
    paths: Sequence[str]
    labels: Sequence[Sequence[str]]  # of each image
    classes: tuple[str, ...]
    remedy: str  # for a label that is not a class
    notes: tuple[str, ...] = ()


def build_source(scanned: ScannedImages, policy: SkipPolicy) -> FileSource:
    """The source of the scanned images, without those that the policy skips."""
    labels, notes = _multi_hot(scanned, policy)
    paths, notes = list(scanned.paths), [*scanned.notes, *notes]
    for problem, find in _PROBLEMS:
        if problem.option == "broken" and policy.broken == "fail":
            continue  # a broken image raises when it is read
        affected = find(scanned.root, paths, labels)
        kept, skipped = apply_policy(scanned.name, scanned.root, paths, affected, problem, policy)
        paths, labels = list(compress(paths, kept)), labels[kept]
        notes += skipped
    if not paths:
        why = "; ".join(note.removeprefix(f"{scanned.name}: ") for note in notes)
        raise UserError(
            f"{scanned.name}: no images are left in {scanned.root}{why and f' ({why})'}"
        )
    return FileSource(
        scanned.root,
        tuple(paths),
        torch.from_numpy(labels).float(),
        scanned.classes,
        scanned.name,
        tuple(notes),
    )


def _multi_hot(scanned: ScannedImages, policy: SkipPolicy) -> tuple[BoolArray, list[str]]:
    """Which image has which class: -> (N, classes), notes."""
    index = {name: i for i, name in enumerate(scanned.classes)}
    counts = np.array([len(labels) for labels in scanned.labels], dtype=np.int64)
    rows = np.arange(len(scanned.paths)).repeat(counts)
    labels = list(chain.from_iterable(scanned.labels))
    columns = np.array([index.get(label, -1) for label in labels], dtype=np.int64)
    known = columns >= 0
    hot = np.zeros((len(scanned.paths), len(scanned.classes)), dtype=bool)
    hot[rows[known], columns[known]] = True
    if known.all():
        return hot, []
    first = int(known.argmin())
    text = (
        f"{scanned.name}: {int((~known).sum())} labels are not among the {len(index)} classes, "
        f"the first is {quote(labels[first])} of {scanned.root / scanned.paths[rows[first]]}"
    )
    if policy.unknown == "skip":
        return hot, [f"{text}; they are skipped"]
    hint = did_you_mean(labels[first], scanned.classes)
    raise UserError(f"{text}; {scanned.remedy}, or skip them with unknown='skip'{hint}")


def _find_unlabelled(root: Path, paths: Sequence[str], labels: BoolArray) -> BoolArray:
    """Which images have no labels: (N, classes) -> (N,)."""
    return np.asarray(~labels.any(axis=1))


def _find_broken(root: Path, paths: Sequence[str], labels: BoolArray) -> BoolArray:
    """Which images cannot be decoded: -> (N,)."""
    return ~np.array(are_readable([root / path for path in paths]), dtype=bool)


_PROBLEMS: tuple[tuple[Problem, Callable[[Path, Sequence[str], BoolArray], BoolArray]], ...] = (
    (
        Problem("missing", "images do not exist", "put them there"),
        lambda root, paths, labels: find_missing(root, paths),
    ),
    (
        Problem(
            "unlabelled", "images have no labels", "label them, keep them with unlabelled='keep'"
        ),
        _find_unlabelled,
    ),
    (Problem("broken", "images cannot be read", "repair them"), _find_broken),
)
