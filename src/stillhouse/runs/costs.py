"""What the networks of a recipe take, on the machine where one asks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from stillhouse.build.networks import example_of, make_deployed, make_network, untrained_teacher
from stillhouse.build.workshop import Workshop
from stillhouse.engine import environment
from stillhouse.errors import UserError
from stillhouse.files import write_json
from stillhouse.models import cost
from stillhouse.recipes.schema import Network, Recipe, TeacherSpec

COSTS = "cost.json"
BATCH = 32
Costs = dict[str, Any]
Priced = Network | TeacherSpec | Recipe  # a recipe for its student, where a method gives it a shape


def costs_of(folder: Path, shop: Workshop, named: Mapping[str, Priced]) -> Costs:
    """The costs that a folder holds, measured first where it holds none of these networks.

    They are measured once: a page that is written again elsewhere still says where they come from.
    """
    path = folder / COSTS
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if {who: one["name"] for who, one in content["networks"].items()} == {
            who: name_of(one) for who, one in named.items()
        }:
            return dict(content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # none yet, or of an older page
    found: Costs = {
        "machine": environment.device_name(),
        "networks": {who: measure(one, shop) for who, one in named.items()},
    }
    write_json(path, found)
    return found


def named_networks(
    recipe: Recipe, students: Mapping[str, Priced] | None = None
) -> dict[str, Priced]:
    """The networks that a page compares: the teacher of a recipe, and its student or others."""
    found: dict[str, Priced] = {**(students or {"student": shipped(recipe)})}
    if recipe.teacher is not None and recipe.distils:
        found = {"teacher": recipe.teacher, **found}
    return found


def shipped(recipe: Recipe) -> Priced:
    """The student of a recipe: its network, or the recipe where a method gives it another shape."""
    shaped = any(method.reshapes for method in recipe.method)
    return recipe if shaped else recipe.student


def name_of(spec: Priced) -> str:
    """What a network is called; one of another shape says whose classifier it has."""
    if isinstance(spec, Recipe):
        assert spec.teacher is not None
        return f"{spec.student.name} with the classifier of {spec.teacher.name}"
    return spec.name


def network_of(spec: Priced, shop: Workshop) -> nn.Module:
    """A network with random weights."""
    sources = shop.sources
    if isinstance(spec, Recipe):
        return make_deployed(spec, sources, None)
    if isinstance(spec, TeacherSpec):
        return untrained_teacher(spec, shop).network
    return make_network(replace(spec, start=None), sources)


def measure(spec: Priced, shop: Workshop) -> Costs:
    """Size, operations, time and memory of one network with random weights."""
    sources, device = shop.sources, shop.hardware.device
    network = network_of(spec, shop)
    network.to(device).eval()
    one = example_of(sources)[:1].to(device)
    many = one.expand(BATCH, *one.shape[1:]).contiguous()
    return {
        "name": name_of(spec),
        "parameters": cost.parameters(network),
        "flops": tried(cost.flops, network, one),
        "latency_1": tried(cost.latency, network, one),
        "latency_32": tried(cost.latency, network, many),
        "memory": tried(cost.peak_memory, network, many),
    }


def tried(of: Callable[..., float], network: nn.Module, images: Tensor) -> float | None:
    """A measurement, or None where this network does not let itself be measured so."""
    try:
        return of(network, images)
    except (RuntimeError, NotImplementedError, UserError):
        return None
