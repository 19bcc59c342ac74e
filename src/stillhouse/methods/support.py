"""The tasks that each method works for, and the options that it needs there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from stillhouse.methods.catalogue import published

# Detection is two of them, because dense and two-stage detectors predict different things. Instance
# segmentation is that of SOLOv2; Mask R-CNN has the sites and levels of two-stage detectors.
TASKS = {
    "classification": "classification",
    "multilabel": "multi-label",
    "dense": "dense detection",
    "two_stage": "two-stage detection",
    "semantic": "semantic segmentation",
    "instance": "instance segmentation",
}  # headings by name
ALL = frozenset(TASKS)
IMAGES = frozenset({"classification", "multilabel"})
DETECTION = frozenset({"dense", "two_stage"})
SOME: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(("mlkd", "simkd", "catkd", "srrl", "ofd"), IMAGES),
    **dict.fromkeys(("cd", "id", "l2d"), frozenset({"multilabel"})),
    **dict.fromkeys(("ats", "dkd", "acclimation"), ALL - {"multilabel"}),
    **dict.fromkeys(("ild", "bckd", "ld", "crosskd"), frozenset({"dense"})),
    **dict.fromkeys(("fgfi", "gid", "maskd"), DETECTION),
    **dict.fromkeys(("fgd", "fkd", "defeat"), DETECTION | {"instance"}),
    **dict.fromkeys(("skd", "ifvd", "cirkd"), frozenset({"semantic"})),
    "crd": frozenset({"classification"}),
    "ctkd": IMAGES | {"semantic"},
    "dice": frozenset({"instance"}),
    "fsp": ALL - {"semantic"},
    "rm": frozenset({"dense", "instance"}),
}  # of methods that do not work for all tasks

SITES = {"two_stage": "roi", "semantic": "pixel"}  # "class" for the other tasks
PAIRS: Mapping[str, Any] = {
    "semantic": [["last", "last"]],
    **dict.fromkeys(("dense", "two_stage", "instance"), "levels"),
}  # the method's own for the other tasks
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "dice": {"sites": ["mask"]},
    "fkd": {"variant": "reference"},  # the paper's needs levels of one width
    "pkd": {"adapter": "pointwise"},
}


def tasks_of(method: str) -> frozenset[str]:
    """The tasks that a method works for."""
    return SOME.get(method, ALL)


def options_for(method: str, task: str) -> dict[str, Any]:
    """The options of a method for networks of a task that differ in width, as in a recipe."""
    names = {field.name for field in fields(published()[method])}
    chosen: dict[str, Any] = {"name": method}
    if "sites" in names and task in SITES:
        chosen["sites"] = [SITES[task]]
    if "pairs" in names and task in PAIRS:
        chosen["pairs"] = PAIRS[task]
    return chosen | dict(OPTIONS.get(method, {}))


def support_table() -> str:
    """A table in Markdown of all methods, with a tick for each task that one works for."""
    rows = [
        ["method", "", *TASKS.values()],
        ["---", "---", *[":-:"] * len(TASKS)],
        *(
            [f"`{name}`", method.card.title, *("✓" if t in tasks_of(name) else "" for t in TASKS)]
            for name, method in published().items()
        ),
    ]
    return "\n".join(f"| {' | '.join(row)} |".replace("|  |", "| |") for row in rows)
