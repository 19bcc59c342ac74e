"""Parameters, FLOPs, latency and memory of networks, measured on this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from stillhouse.build.networks import example_of, make_deployed, make_network, untrained_teacher
from stillhouse.build.session import Session
from stillhouse.engine import environment
from stillhouse.errors import UserError
from stillhouse.explain.guard import failure_sentence, log_traceback
from stillhouse.files import read_json, write_json
from stillhouse.models import cost
from stillhouse.recipes.schema import Network, Recipe, TeacherSpec

COST_FILE = "cost.json"
BATCH = 32
MOST_ON_CPU = 3e11  # FLOPs of a batch that is measured there: that of a ResNet-50 takes seconds
Measured = dict[str, Any]  # the name, and the quantities as far as they were measured
QUANTITIES = ("parameters", "flops", "latency_1", "latency_32", "memory")
# A recipe stands for its student where the method changes the student's shape.
NetworkSpec = Network | TeacherSpec | Recipe


@dataclass(frozen=True)
class Costs:
    """The costs of networks, and the machine that they were measured on."""

    machine: str
    networks: Mapping[str, Measured]  # by role: teacher, student
    failures: tuple[str, ...] = field(default=())  # why others could not be measured


def costs_of(folder: Path, session: Session, specs: Mapping[str, NetworkSpec]) -> Costs:
    """The costs in cost.json if it has these networks, else measured and written.

    They are measured once, so that a page written on another machine shows the same numbers.
    """
    path = folder / COST_FILE
    kept = read_costs(path)
    if kept is not None and {role: one["name"] for role, one in kept.networks.items()} == {
        role: describe_network(spec) for role, spec in specs.items()
    }:
        return kept
    costs = measure_costs(session, specs)
    if not costs.failures:
        write_json(path, {"machine": costs.machine, "networks": costs.networks})
    return costs


def read_costs(path: Path) -> Costs | None:
    """The content of cost.json; None without the file, or if it cannot be read."""
    try:
        return read_json(path, parse_costs, "delete it")
    except UserError:
        return None


def parse_costs(content: dict[str, Any]) -> Costs:
    """Costs from the content of their file; raises ValueError, KeyError or TypeError."""
    networks = {str(role): dict(one) for role, one in content["networks"].items()}
    for one in networks.values():
        values = [one[name] for name in one if name != "name"]
        numbers = all(value is None or type(value) in (int, float) for value in values)
        if not isinstance(one["name"], str) or not one.keys() <= {"name", *QUANTITIES}:
            raise ValueError("not the costs of a network")
        if not numbers:
            raise TypeError("a quantity is not a number")
    return Costs(str(content["machine"]), networks)


def measure_costs(session: Session, specs: Mapping[str, NetworkSpec]) -> Costs:
    """The costs of networks; one that cannot be built is named in `failures`."""
    networks: dict[str, Measured] = {}
    failures: list[str] = []
    for role, spec in specs.items():
        try:
            networks[role] = measure_network(spec, session)
        except Exception as error:
            what = f"The size and speed of the {role}"
            failures.append(failure_sentence(what, error, "measured"))
    return Costs(environment.device_name(), networks, tuple(failures))


def network_specs(
    recipe: Recipe, students: Mapping[str, NetworkSpec] | None = None
) -> dict[str, NetworkSpec]:
    """The teacher of a recipe, if it has one, and its student or the given students, by role."""
    specs: dict[str, NetworkSpec] = {**(students or {"student": student_spec(recipe)})}
    if recipe.teacher is not None and recipe.distils:
        specs = {"teacher": recipe.teacher, **specs}
    return specs


def student_spec(recipe: Recipe) -> NetworkSpec:
    """The student of a recipe; the recipe itself where the method changes the student's shape."""
    reshaped = any(method.reshapes for method in recipe.method)
    return recipe if reshaped else recipe.student


def describe_network(spec: NetworkSpec) -> str:
    """The name of a network, with the origin of its classifier if that is the teacher's."""
    if isinstance(spec, Recipe):
        assert spec.teacher is not None
        return f"{spec.student.name} with the classifier of {spec.teacher.name}"
    return spec.name


def build_network(spec: NetworkSpec, session: Session) -> nn.Module:
    """A network with random weights."""
    if isinstance(spec, Recipe):
        return make_deployed(spec, session.sources, None)
    if isinstance(spec, TeacherSpec):
        return untrained_teacher(spec, session).network
    return make_network(replace(spec, pretrained=None), session.sources, task=session.task)


def measure_network(spec: NetworkSpec, session: Session) -> Measured:
    """The costs of one network with random weights; None where one cannot be measured.

    On a CPU a batch of 32 is not measured where that would take minutes.
    """
    network = build_network(spec, session)
    network.to(session.hardware.device).eval()
    one = example_of(session.sources)[:1].to(session.hardware.device)
    flops = _value_or_none(cost.flops, network, one)
    measured = {
        "name": describe_network(spec),
        "parameters": cost.parameters(network),
        "flops": flops,
        "latency_1": _value_or_none(cost.latency, network, one),
    }
    if one.device.type == "cpu" and (flops or 0) * BATCH > MOST_ON_CPU:
        return measured
    many = one.expand(BATCH, *one.shape[1:]).contiguous()
    return {
        **measured,
        "latency_32": _value_or_none(cost.latency, network, many),
        "memory": _value_or_none(cost.peak_memory, network, many),
    }


def _value_or_none(
    measure: Callable[..., float], network: nn.Module, images: Tensor
) -> float | None:
    try:
        return measure(network, images)
    except Exception as error:
        log_traceback(f"{measure.__name__} of {type(network).__name__}", error)
        return None
