"""The search space of a sweep: which options of a method are searched, and in which range."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

from stillhouse.errors import UserError, did_you_mean, quote
from stillhouse.recipes import load
from stillhouse.recipes.schema import Methods, Recipe
from stillhouse.study.arguments import GridValue

EDGE = 0.05  # share of a range at each end: a value chosen there may not be the optimum
FACTOR = 4.0  # the default range is from value / FACTOR to value * FACTOR
# Numbers that are not searched: schedules, the weight of the labels, numerical details.
EXCLUDED = ("warmup", "label_weight", "eps", "init", "momentum")


class Range(NamedTuple):
    """The numbers between two ends, on a linear or a logarithmic scale."""

    low: float
    high: float
    log: bool

    def __str__(self) -> str:
        return f"{self.low:g} … {self.high:g}{' (log)' if self.log else ''}"

    def near_end(self, value: float) -> bool:
        """Whether a value is in the outer 5 % of the range, at either end."""
        low, high, x = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return not EDGE <= (x - low) / (high - low) <= 1 - EDGE


class OneOf(NamedTuple):
    """A list of values, each written in YAML."""

    choices: tuple[str, ...]

    def __str__(self) -> str:
        return " | ".join(self.choices)


Axis = Range | OneOf
Space = Mapping[str, Axis]


# ------------------------------------------------------------------------------- the default space


def default_space(
    methods: Methods, taps: Sequence[str] = (), fixed: Collection[str] = ()
) -> dict[str, Axis]:
    """The default search space: each number from a quarter to four times its value, and the taps.

    One rule for all methods keeps the comparison fair. Options in `fixed` are not searched. The
    keys of several methods contain their index: `method.1.weight`.
    """
    space = {
        f"{prefix}{name}": axis
        for prefix, method in methods_by_prefix(methods).items()
        for name, axis in method_space(method, taps).items()
    }
    return {key: axis for key, axis in space.items() if key.removeprefix("method.") not in fixed}


def methods_by_prefix(methods: Methods) -> dict[str, Any]:
    """Methods by the prefix of their keys: `method.` for one, `method.0.` and so on for several."""
    if len(methods) == 1:
        return {"method.": methods[0]}
    return {f"method.{index}.": method for index, method in enumerate(methods)}


def method_space(method: Any, taps: Sequence[str]) -> dict[str, Axis]:
    """The numbers and the taps of one method."""
    space: dict[str, Axis] = dict(numeric_space(method))
    base, pairs = getattr(method, "base", None), getattr(method, "pairs", None)
    if base is not None and not hasattr(method, "weight") and hasattr(base, "weight"):
        space["base.weight"] = range_around(base.weight)
    if pairs is not None and getattr(method, "movable", True) and len(taps) > 1:
        default, single = format_pairs(pairs), [f"[[{tap}, {tap}]]" for tap in taps]
        space["pairs"] = OneOf((default, *(choice for choice in single if choice != default)))
    return space


def numeric_space(method: Any) -> dict[str, Axis]:
    """The range of each positive number of a method."""
    values = {field.name: getattr(method, field.name) for field in fields(method)}
    return {
        name: range_around(value)
        for name, value in values.items()
        if isinstance(value, float) and value > 0 and name not in EXCLUDED
    }


def range_around(value: float) -> Range:
    """From a quarter of a number to four times the number, on a logarithmic scale."""
    return Range(value / FACTOR, value * FACTOR, True)


def format_pairs(pairs: str | Sequence[Sequence[str]]) -> str:
    """The pairs of taps of a method, written in YAML."""
    if isinstance(pairs, str):
        return pairs
    return f"[{', '.join(f'[{student}, {teacher}]' for student, teacher in pairs)}]"


# ----------------------------------------------------------------------------------------- --space


def parse_space(arguments: Sequence[str]) -> dict[str, Axis]:
    """`KEY=LOW..HIGH`, `KEY=LOW..HIGH:linear` and `KEY=a|b|c` arguments as axes by key."""
    return dict(parse_axis(argument) for argument in arguments)


def parse_axis(argument: str) -> tuple[str, Axis]:
    """One key with its axis."""
    key, equals, text = argument.partition("=")
    if not equals or not key.startswith(("method.", "train.")):
        raise UserError(
            f"--space: {quote(argument)} must be KEY=LOW..HIGH or KEY=a|b, with a key of method "
            "or train"
        )
    if ".." not in text:
        return key, OneOf(tuple(part.strip() for part in text.split("|")))
    ends, _, scale = text.partition(":")
    low, _, high = ends.partition("..")
    try:
        bounds = float(low), float(high)
    except ValueError:
        raise UserError(
            f"--space: {quote(ends)} of {key} must be two numbers, as in 1..8"
        ) from None
    if not (all(map(math.isfinite, bounds)) and bounds[0] < bounds[1]):
        raise UserError(
            f"--space: {quote(ends)} of {key} must be two finite numbers, the lower first"
        )
    if scale not in SCALES:
        raise UserError(f"--space: the scale of {key} must be linear or log, got {quote(scale)}")
    return key, Range(*bounds, log=scale != "linear" and bounds[0] > 0)


SCALES = ("", "linear", "log")


def select_space(default: Space, requested: Space, methods: Methods) -> dict[str, Axis]:
    """The requested axes that the methods have as options; the default space if there are none.

    With several methods `method.weight` stands for the weight of each method that has one.
    """
    space: dict[str, Axis] = {}
    for key, axis in requested.items():
        if key.startswith("train."):
            space[key] = axis
            continue
        name = key.removeprefix("method.")
        keys = (key, *(f"{prefix}{name}" for prefix in methods_by_prefix(methods)))
        space |= {k: axis for k in keys if names_option(methods, k)}
    return space or dict(default)


def check_space(requested: Space, recipe: Recipe, arms: Sequence[Methods]) -> None:
    """Raise UserError for a key that no arm has as an option, or that `train` does not have."""
    for key, axis in requested.items():
        if key.startswith("train."):
            value = axis.choices[0] if isinstance(axis, OneOf) else f"{axis.high:g}"
            load.replace_sections(recipe, {"study": None}, [f"{key}={value}"])
        elif not any(select_space({}, {key: axis}, methods) for methods in arms):
            options = (f.name for methods in arms for method in methods for f in fields(method))
            hint = did_you_mean(key.rpartition(".")[2], options)
            raise UserError(f"--space: no method of this sweep has an option {quote(key)}{hint}")


# ----------------------------------------------------------------------------- options of a method


def has_option(methods: Methods, key: str) -> bool:
    """Whether a key such as `method.temperature` or `method.1.weight` names an option."""
    method, names = resolve_key(methods, key)
    return bool(names) and hasattr(method, names[0])


def names_option(methods: Methods, key: str) -> bool:
    """Whether a key such as `method.base.NAME` or `method.1.NAME` names an option, also unset."""
    value, names = resolve_key(methods, key)
    for name in names:
        if not is_dataclass(value) or name not in {field.name for field in fields(value)}:
            return False
        value = getattr(value, name)
    return bool(names)


def get_option(methods: Methods, key: str) -> Any:
    """The value at `method.NAME`, `method.base.NAME` or `method.1.NAME`; None if there is none."""
    value, names = resolve_key(methods, key)
    for name in names:
        value = getattr(value, name, None)
    return value


def resolve_key(methods: Methods, key: str) -> tuple[Any, list[str]]:
    """The method that a key belongs to, or None, and the attribute names that follow."""
    _, *names = key.split(".")
    if len(methods) == 1:
        return methods[0], names
    if names[0].isdigit() and int(names[0]) < len(methods):
        return methods[int(names[0])], names[1:]
    return None, names


# ------------------------------------------------------------------------------------------ trials


def suggest_values(trial: Any, space: Space) -> list[GridValue]:
    """The options of a trial of optuna; numbers are rounded to three digits."""
    values = []
    for key, axis in space.items():
        if isinstance(axis, OneOf):
            values.append(GridValue(key, trial.suggest_categorical(key, list(axis.choices))))
        else:
            value = trial.suggest_float(key, axis.low, axis.high, log=axis.log)
            values.append(GridValue(key, f"{value:.3g}"))
    return values


def extreme_points(space: Space) -> dict[str, list[GridValue]]:
    """The ends of all ranges together, and each choice of a list, by what distinguishes them."""
    points: dict[str, list[GridValue]] = {}
    ranges = {key: axis for key, axis in space.items() if isinstance(axis, Range)}
    if ranges:
        points["the low ends"] = [GridValue(key, f"{axis.low:.3g}") for key, axis in ranges.items()]
        points["the high ends"] = [
            GridValue(key, f"{axis.high:.3g}") for key, axis in ranges.items()
        ]
    for key, axis in space.items():
        if isinstance(axis, OneOf):
            points |= {f"{key}={choice}": [GridValue(key, choice)] for choice in axis.choices}
    return points


def options_at_edge(values: Sequence[GridValue], space: Space) -> tuple[str, ...]:
    """The options whose value is near an end of its range."""
    return tuple(
        value.key.removeprefix("method.")
        for value in values
        if isinstance(axis := space[value.key], Range) and axis.near_end(float(value.text))
    )


def initial_values(space: Space, methods: Methods) -> dict[str, Any] | None:
    """The methods' own options as a first trial; None if one of them is outside the space."""
    values: dict[str, Any] = {}
    for key, axis in space.items():
        if not key.startswith("method."):
            return None
        value = get_option(methods, key)
        if isinstance(axis, Range):
            if value is None or not axis.low <= value <= axis.high:
                return None
            values[key] = value
        else:
            same = [choice for choice in axis.choices if is_same_value(choice, value)]
            if not same:
                return None
            values[key] = same[0]
    return values


def is_same_value(choice: str, value: Any) -> bool:
    """Whether a value written in YAML equals the value of an option."""
    plain = [list(pair) for pair in value] if isinstance(value, tuple) else value
    return bool(load.parse_yaml_value(choice, choice) == plain)
