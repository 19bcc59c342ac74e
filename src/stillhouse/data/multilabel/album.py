"""Images in files of which each has any number of labels."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, compress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stillhouse.data.multilabel.policy import Bits, Flaw, Policy, sift
from stillhouse.data.single.folder import is_intact, read_image, size_of
from stillhouse.data.source import Sample, fingerprint_of_files
from stillhouse.errors import UserError, did_you_mean


@dataclass(frozen=True, eq=False)
class Album:
    """A source of images in files with their labels, decoded when they are asked for."""

    root: Path
    paths: tuple[str, ...]  # relative to the root, with slashes
    targets: Tensor  # (N, classes) float of 0 and 1
    classes: tuple[str, ...]
    name: str
    notes: tuple[str, ...] = ()  # what was left out, a sentence each

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the order, paths, sizes and labels of the files, not of what they hold."""
        rows, columns = self.targets.nonzero(as_tuple=True)
        ends = torch.bincount(rows, minlength=len(self.paths)).cumsum(0).tolist()
        starts, flat = [0, *ends[:-1]], columns.tolist()
        # Keys are places in the list, so the same files in another order are other data.
        files = (
            (f"{i:012d}/{path}", size_of(self.root / path), flat[start:end])
            for i, (path, start, end) in enumerate(zip(self.paths, starts, ends, strict=True))
        )
        return fingerprint_of_files(files, self.classes)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        return Sample(read_image(self.root / self.paths[index]), self.targets[index], index)


@dataclass(frozen=True)
class Found:
    """Images and their labels as a reader finds them, before the policy is asked."""

    name: str
    root: Path
    paths: Sequence[str]
    labels: Sequence[Sequence[str]]  # of each image
    classes: tuple[str, ...]
    mend: str  # of a label that is of no class
    notes: tuple[str, ...] = ()


def album(found: Found, policy: Policy) -> Album:
    """What was found, without what the policy leaves out."""
    hot, notes = _labels(found, policy)
    paths, notes = list(found.paths), [*found.notes, *notes]
    for flaw, judge in _FLAWS:
        if flaw.option == "broken" and policy.broken == "fail":
            continue  # it is said when the image is read
        bad = judge(found.root, paths, hot)
        kept, said = sift(found.name, found.root, paths, bad, flaw, policy)
        paths, hot = list(compress(paths, kept)), hot[kept]
        notes += said
    if not paths:
        why = "; ".join(note.removeprefix(f"{found.name}: ") for note in notes)
        raise UserError(f"{found.name}: no image is left in {found.root}{why and f' ({why})'}")
    labels = torch.from_numpy(hot).float()
    return Album(found.root, tuple(paths), labels, found.classes, found.name, tuple(notes))


def _labels(found: Found, policy: Policy) -> tuple[Bits, list[str]]:
    """Which image has which class: -> (N, classes), notes."""
    index = {name: i for i, name in enumerate(found.classes)}
    counts = np.array([len(labels) for labels in found.labels], dtype=np.int64)
    rows = np.arange(len(found.paths)).repeat(counts)
    labels = list(chain.from_iterable(found.labels))
    columns = np.array([index.get(label, -1) for label in labels], dtype=np.int64)
    known = columns >= 0
    hot = np.zeros((len(found.paths), len(found.classes)), dtype=bool)
    hot[rows[known], columns[known]] = True
    if known.all():
        return hot, []
    first = int(known.argmin())
    said = (
        f"{found.name}: {int((~known).sum())} labels are of none of the {len(index)} classes, "
        f"{labels[first]!r} of {found.root / found.paths[rows[first]]} is the first"
    )
    if policy.unknown == "skip":
        return hot, [f"{said}; they are left out"]
    hint = did_you_mean(labels[first], found.classes)
    raise UserError(f"{said}; {found.mend}, or leave them out with unknown='skip'{hint}")


def absent(root: Path, paths: Sequence[str]) -> Bits:
    """Which files are not there, by one look into each folder: (N,) paths -> (N,)."""
    present: dict[str, frozenset[str]] = {}
    gone = np.zeros(len(paths), dtype=bool)
    for i, path in enumerate(paths):
        folder, name = os.path.split(path)
        if folder not in present:
            present[folder] = _names(root / folder)
        gone[i] = name not in present[folder]
    return gone


def _names(folder: Path) -> frozenset[str]:
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({error.strerror}); make it readable") from error


def _bare(root: Path, paths: Sequence[str], hot: Bits) -> Bits:
    """Which images have no label: (N, classes) -> (N,)."""
    return np.asarray(~hot.any(axis=1))


def _damaged(root: Path, paths: Sequence[str], hot: Bits) -> Bits:
    """Which images cannot be read, by reading all of them: -> (N,)."""
    with ThreadPoolExecutor() as pool:
        intact = list(pool.map(is_intact, [root / path for path in paths]))
    return ~np.array(intact, dtype=bool)


_FLAWS: tuple[tuple[Flaw, Callable[[Path, Sequence[str], Bits], Bits]], ...] = (
    (
        Flaw("missing", "images are not there", "put them there"),
        lambda root, paths, hot: absent(root, paths),
    ),
    (
        Flaw("unlabelled", "images have no label", "label them, keep them with unlabelled='keep'"),
        _bare,
    ),
    (Flaw("broken", "images cannot be read", "mend them"), _damaged),
)
