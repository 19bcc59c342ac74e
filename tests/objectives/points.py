"""Every legal point of the product space, found from the unions of its axes alone."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from functools import cache
from itertools import groupby, product
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from stillhouse.objectives.activation import Activation
from stillhouse.objectives.distance import Distance
from stillhouse.objectives.logit import LogitObjective
from stillhouse.objectives.preprocess import Preprocess
from stillhouse.objectives.reduction import Reduction
from stillhouse.objectives.weighting import Weighting
from stillhouse.spec import members

AXES = {
    "activation": Activation,
    "distance": Distance,
    "preprocess": Preprocess,
    "weighting": Weighting,
    "reduction": Reduction,
}
# Numbers that differ from their default, so that an option which is ignored shows.
NUMBERS = {"temperature": 1.7, "factor": 0.6, "labelled": 3.0, "power": 2.0, "gamma": 0.4}


def variants(stage: type) -> list[Any]:
    """A stage with every choice of its options that have finitely many."""
    hints = get_type_hints(stage)
    named = [field.name for field in fields(stage) if field.name != "kind"]
    numbers = {name: NUMBERS[name] for name in named if name in NUMBERS}
    choices = {name: chosen for name in named if (chosen := finitely_many(hints[name]))}
    return [
        stage(**numbers, **dict(zip(choices, chosen, strict=True)))
        for chosen in product(*choices.values())
    ]


def finitely_many(hint: Any) -> tuple[Any, ...]:
    if hint is bool:
        return (False, True)
    return get_args(hint) if get_origin(hint) is Literal else ()


def stages(axis: str) -> list[Any]:
    return [stage for cls in members(AXES[axis]) for stage in variants(cls)]


@dataclass(frozen=True)
class Family:
    """The points that share activation and distance."""

    points: tuple[LogitObjective, ...]

    def __iter__(self) -> Iterator[LogitObjective]:
        return iter(self.points)

    def plain(self) -> Iterator[LogitObjective]:
        """Those whose reduction is the usual one, for checks that reductions cannot break."""
        return (p for p in self if p.reduction.kind == "mean" and p.reduction.inner == "sum")

    @property
    def id(self) -> str:
        return f"{say(self.points[0].activation)}-{say(self.points[0].distance)}"


@cache
def families() -> tuple[Family, ...]:
    found = []
    for chosen in product(*map(stages, AXES)):
        with suppress(ValueError), warnings.catch_warnings(action="ignore"):
            found.append(LogitObjective(**dict(zip(AXES, chosen, strict=True))))
    groups = groupby(found, key=lambda p: (p.activation, p.distance))
    return tuple(Family(tuple(points)) for _, points in groups)


def say(stage: Any) -> str:
    """A stage and its choices: `standardize0`, `pearson_add`."""
    hints = get_type_hints(type(stage))
    chosen = [f.name for f in fields(stage) if f.name != "kind" and finitely_many(hints[f.name])]
    return "_".join([stage.kind, *(str(getattr(stage, name)) for name in chosen)])


@contextmanager
def about(point: LogitObjective) -> Iterator[None]:
    """Name the point in whatever goes wrong with it."""
    try:
        yield
    except Exception as error:
        error.add_note("-".join(say(getattr(point, axis)) for axis in AXES))
        raise


def every_point(check: Callable[[LogitObjective], None]) -> Callable[[Family], None]:
    """A test that holds for each point of each family."""

    def test(family: Family) -> None:
        for point in family:
            with about(point):
                check(point)

    return each_family(test, check)


def every_plain_point(check: Callable[[LogitObjective], None]) -> Callable[[Family], None]:
    """A test that holds for each point with the usual reduction."""

    def test(family: Family) -> None:
        for point in family.plain():
            with about(point):
                check(point)

    return each_family(test, check)


def each_family(test: Callable[[Family], None], check: Callable[..., None]) -> Any:
    test.__name__, test.__module__ = check.__name__, check.__module__
    return pytest.mark.parametrize("family", families(), ids=lambda family: family.id)(test)
