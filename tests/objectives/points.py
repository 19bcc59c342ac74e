"""Every legal point of the product space, found from the unions of its axes alone."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields
from functools import cache
from itertools import groupby, product
from typing import Any, Literal, get_args, get_origin, get_type_hints

from cases import check_each
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


@cache
def points() -> tuple[LogitObjective, ...]:
    """Every legal point."""
    found = []
    for chosen in product(*map(stages, AXES)):
        with suppress(ValueError), warnings.catch_warnings(action="ignore"):
            found.append(LogitObjective(**dict(zip(AXES, chosen, strict=True))))
    return tuple(found)


@cache
def crossed_points() -> tuple[LogitObjective, ...]:
    """Each combination of the other axes with the usual reduction, and with one more in turn.

    For checks that cost a backward: what reduces sees nothing but losses of rows and their weights.
    """
    found: list[LogitObjective] = []
    met: Counter[tuple[Any, Any]] = Counter()

    def pairs(point: LogitObjective) -> list[tuple[Any, Any]]:
        return [(getattr(point, axis), point.reduction) for axis in AXES if axis != "reduction"]

    rest = groupby(points(), key=lambda p: (p.activation, p.distance, p.preprocess, p.weighting))
    for _, group in rest:
        usual, *others = sorted(group, key=lambda p: not is_plain(p))
        rarest = min(others, key=lambda p: sorted(met[pair] for pair in pairs(p)))
        met.update(pairs(rarest))
        found += [usual, rarest]
    return tuple(found)


def is_plain(point: LogitObjective) -> bool:
    """Whether the reduction is the usual one."""
    return point.reduction.kind == "mean" and point.reduction.inner == "sum"


@cache
def plain_points() -> tuple[LogitObjective, ...]:
    """Those whose reduction is the usual one, for checks that reductions cannot break."""
    return tuple(filter(is_plain, points()))


def say(stage: Any) -> str:
    """A stage and its choices: `standardize0`, `pearson_add`."""
    hints = get_type_hints(type(stage))
    chosen = [f.name for f in fields(stage) if f.name != "kind" and finitely_many(hints[f.name])]
    return "_".join([stage.kind, *(str(getattr(stage, name)) for name in chosen)])


@cache
def named(all_points: Callable[[], tuple[LogitObjective, ...]]) -> dict[str, LogitObjective]:
    """Points by what their stages are called."""
    return {"-".join(say(getattr(point, axis)) for axis in AXES): point for point in all_points()}


def every_point(check: Callable[[LogitObjective], None]) -> Callable[[], None]:
    """A test that holds for each point."""
    return each_of(points, check)


def every_crossed_point(check: Callable[[LogitObjective], None]) -> Callable[[], None]:
    """A test that holds for each point of which any two axes meet in every way."""
    return each_of(crossed_points, check)


def every_plain_point(check: Callable[[LogitObjective], None]) -> Callable[[], None]:
    """A test that holds for each point with the usual reduction."""
    return each_of(plain_points, check)


def each_of(
    all_points: Callable[[], tuple[LogitObjective, ...]], check: Callable[[LogitObjective], None]
) -> Callable[[], None]:
    def test() -> None:
        check_each(check, named(all_points).items())

    test.__name__, test.__module__ = check.__name__, check.__module__
    return test
