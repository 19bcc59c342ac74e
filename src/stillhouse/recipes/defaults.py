"""Defaults of a recipe that depend on its task and networks: method, sites and optimiser."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from stillhouse.methods.catalogue import published

TWO_STAGES = "rcnn"  # in the names of detectors that score proposals
TASK_SITES = {"semantic": "pixel"}
CORRELATION = {"temperature": 1.0, "beta": 1.0, "gamma": 1.0}
METHODS: Mapping[str, Mapping[str, Any]] = {
    "classification": {"name": "kd"},
    "multilabel": {"name": "tld_dist", **CORRELATION},
    "detection": {"name": "tld_dist", **CORRELATION},
    "instance": {"name": "tld_dist", **CORRELATION},
    "semantic": {"name": "dist", **CORRELATION},
}
TWO_STAGE_METHOD = {"name": "dist", **CORRELATION}  # its scores are a softmax with background


# Networks of this package, which SGD at 0.1 trains; it is the default of the schema.
SGD_NETWORKS = ("cifar", "stillhouse")
OPTIMISER = {"kind": "adamw", "lr": 1e-3}  # of all other networks


def default_method(task: str, student: str) -> dict[str, Any]:
    """The method of a recipe that names none."""
    if TWO_STAGES in student:
        return dict(TWO_STAGE_METHOD)
    return dict(METHODS.get(task, METHODS["classification"]))


def default_site(task: str, student: str) -> str:
    """The site at which logits are compared where a method names none."""
    return "roi" if TWO_STAGES in student else TASK_SITES.get(task, "class")


def with_defaults(content: Any) -> Any:
    """The content of a recipe with the defaults that depend on its task and networks."""
    return with_method(with_optimisers(content))


def with_optimisers(content: Any) -> Any:
    """The content of a recipe with an optimiser for each training of it that names none."""
    if not isinstance(content, dict):
        return content
    found = dict(content)
    if takes_adamw(name_of(content.get("student"))):
        found["train"] = with_optimiser(content.get("train", {}))
    teacher = content.get("teacher")
    if isinstance(teacher, dict) and teacher.get("train") and takes_adamw(name_of(teacher)):
        found["teacher"] = {**teacher, "train": with_optimiser(teacher["train"])}
    return found


def takes_adamw(network: str) -> bool:
    """Whether the default optimiser of a network is AdamW."""
    return bool(network) and network.partition("/")[0] not in SGD_NETWORKS


def with_optimiser(train: Any) -> Any:
    """The options of a training with an optimiser, where they are a mapping without one."""
    if not isinstance(train, dict) or "optimiser" in train:
        return train
    return {"optimiser": dict(OPTIMISER), **train}


def with_method(content: Any) -> Any:
    """The content of a recipe with the method of its task, and with the site of each method."""
    if not isinstance(content, dict):
        return content
    task, student = name_of(content.get("task", "classification")), name_of(content.get("student"))
    if "method" not in content and content.get("teacher") is not None:
        content = {**content, "method": default_method(task, student)}
    site = default_site(task, student)
    if site == "class":
        return content
    if "method" in content:
        content = {**content, "method": with_sites(content["method"], site)}
    study = content.get("study")
    if isinstance(study, dict) and isinstance(methods := study.get("methods"), dict):
        placed = {label: with_sites(method, site) for label, method in methods.items()}
        content = {**content, "study": {**study, "methods": placed}}
    return content


def with_sites(method: Any, site: str) -> Any:
    """A method as a recipe writes it, or a list of them, at a site where it names none."""
    if isinstance(method, list):
        return [with_sites(one, site) for one in method]
    options = {"name": method} if isinstance(method, str) else method
    if not isinstance(options, dict) or "sites" in options:
        return method
    spec = published().get(str(options.get("name")))
    names = {field.name for field in fields(spec)} if spec else set()
    return {**options, "sites": [site]} if "sites" in names else method


def name_of(section: Any) -> str:
    """The name in a section, which may be written as the name alone."""
    name = section.get("name") if isinstance(section, dict) else section
    return name if isinstance(name, str) else ""
