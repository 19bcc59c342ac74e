"""Opens the splits of a data set, and holds out those that it lacks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from stillhouse.build.unlabelled import open_unlabelled
from stillhouse.data.catalogue import entry, open_source
from stillhouse.data.holdout import hold_out, hold_out_parts
from stillhouse.data.problems import MissingSplit
from stillhouse.data.source import Source
from stillhouse.errors import UserError, did_you_mean
from stillhouse.recipes.schema import Data
from stillhouse.recipes.splits import SplitSpec

SplitSources = Mapping[str, Source]
OTHER_NAMES = {"val": ("val", "valid", "validation"), "test": ("test", "testing")}


class Splits(NamedTuple):
    """The parts of a data set, and remarks on their choice, a sentence each."""

    train: Source | None  # None: all training images are without labels
    val: Source
    test: Source | None  # None: there is none, and scores are those of val
    remarks: tuple[str, ...] = ()
    unlabelled: Source | None = None


def read_splits(data: Data) -> Splits:
    """The splits of the data section; those that are missing are held out of train."""
    more = data.unlabelled
    alone = more is not None and more.alone
    labelled = None if alone and not data.holdout else open_split(data, "train")
    test = find_split(data, "test")
    if data.holdout and labelled is not None:
        val = None if test is not None else find_split(data, "val")
        splits = hold_out_missing(labelled, val, test, data.holdout)
    else:
        splits = without_copy(Splits(labelled, open_split(data, "val"), test))
    train, val = None if alone else splits.train, splits.val
    return Splits(
        None if train is None else take_subset(data, "train", train),
        take_subset(data, "val", val),
        None if splits.test is None else take_subset(data, "test", splits.test),
        splits.remarks,
        None if more is None else open_unlabelled(data, more),
    )


def choose_splits(data: Data, given: SplitSources) -> Splits:
    """The splits that are given instead of those of the data section."""
    train, val, test, more = (given.get(name) for name in ("train", "val", "test", "unlabelled"))
    if data.holdout and train is not None:
        return hold_out_missing(train, val, test, data.holdout)._replace(unlabelled=more)
    if val is None or (train is None and more is None):
        raise UserError("splits must contain train and val; leave out val only with data.holdout")
    return without_copy(Splits(train, val, test, unlabelled=more))


def hold_out_missing(
    train: Source, val: Source | None, test: Source | None, held_out: int | float
) -> Splits:
    """Validation held out of train, and test, too, where there is no other labelled part."""
    if val is None and test is None:
        train, val, test = hold_out_parts(train, held_out, ("val", "test"))
        return Splits(train, val, test)
    remarks: tuple[str, ...] = ()
    if val is not None and test is None:
        remarks = (f"{val.name} is not used, because data.holdout takes validation out of train",)
    return Splits(*hold_out(train, held_out), test, remarks)


def without_copy(splits: Splits) -> Splits:
    """The same without a test split that has the images of val."""
    val, test = splits.val, splits.test
    if test is None or test.fingerprint != val.fingerprint:
        return splits
    remark = f"{test.name} has the images of val"
    return splits._replace(test=None, remarks=(*splits.remarks, remark))


def take_subset(data: Data, split: str, source: Source) -> Source:
    """The samples of a split, or the stratified number or share of them that `subset` names."""
    spec: SplitSpec = getattr(data, split)
    if spec.subset is None or spec.subset in (1.0, len(source)):
        return source
    try:
        return hold_out(source, spec.subset)[1]
    except UserError as error:
        raise UserError(
            f"data.{split}.subset={spec.subset} cannot be taken of {len(source)} samples; set a "
            "count below that, or a share that leaves some"
        ) from error


def find_split(data: Data, name: str) -> Source | None:
    """The split `val` or `test`; None if the data set has none."""
    try:
        return open_split(data, name)
    except MissingSplit:
        return None


def open_split(data: Data, name: str) -> Source:
    """The split `train`, `val` or `test`, with the options of the data section and its own.

    Raises MissingSplit for one that can be held out of train.
    """
    known = entry(data.name)
    if name != "train" and known.place and data.path is not None:
        check_place(data.path.expanduser(), known.place, name)
    spec: SplitSpec = getattr(data, name)
    options = {**data.options, **spec.options}
    options |= {k: v for k in ("count", "seed") if (v := getattr(spec, k)) is not None}
    if data.broken is not None and known.files:
        options = {"broken": data.broken, **options}
    return open_source(data.name, data.path, name, **options)


def check_place(root: Path, place: str, name: str) -> None:
    """Raise MissingSplit if a split is not below the folder of a data set."""
    path = root / place.format(split=name)
    if path.exists() or not root.is_dir():
        return
    present = [one.name for one in root.iterdir()]
    likely = {place.format(split=other) for other in OTHER_NAMES[name]}
    if found := next((one for one in present if one.lower() in likely), None):
        raise UserError(f"{root / found} is not read; rename it to {path.name}")
    other = place.format(split="test" if name == "val" else "val")
    hint = did_you_mean(path.name, present)
    if other in present:
        raise MissingSplit(
            f"{path} does not exist; add it, or hold it out of train with data.holdout=0.2{hint}"
        )
    raise MissingSplit(
        f"{root} has neither {path.name} nor {other}; add {path.name}, or set data.holdout=0.2, "
        f"which takes that share of the images for validation and as many for test{hint}"
    )
