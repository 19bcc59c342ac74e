"""Which options of a method are searched, and where."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

from stillhouse.errors import UserError
from stillhouse.recipes import load
from stillhouse.recipes.schema import Methods
from stillhouse.study.arguments import Choice

EDGE = 0.05  # of a range: whoever is chosen there might have been chosen farther out
FACTOR = 4.0  # how far from its default an option is searched, both ways
# options that say when, beside what, or nothing at all
APART = ("warmup", "label_weight", "eps", "init", "momentum")


class Range(NamedTuple):
    """Numbers between two, on a logarithmic scale where they are all above 0 and far apart."""

    low: float
    high: float
    log: bool

    def __str__(self) -> str:
        return f"{self.low:g} … {self.high:g}{' (log)' if self.log else ''}"

    def ends_at(self, value: float) -> bool:
        """Whether a value lies in the outer twentieth of what is searched, on either side."""
        low, high, found = (math.log(x) if self.log else x for x in (self.low, self.high, value))
        return not EDGE <= (found - low) / (high - low) <= 1 - EDGE


class OneOf(NamedTuple):
    """A few values, each as YAML spells it."""

    words: tuple[str, ...]

    def __str__(self) -> str:
        return " | ".join(self.words)


Axis = Range | OneOf
Space = Mapping[str, Axis]


def default_space(
    methods: Methods, taps: Sequence[str] = (), held: Collection[str] = ()
) -> dict[str, Axis]:
    """Every number of a method from a quarter of its value to four times it, and its taps.

    One rule for all, so that no method is searched more kindly than another; what a person fixed
    by the method's word is `held`. Of several at once each has its number: `method.1.weight`.
    """
    found = {
        f"{place}{name}": axis
        for place, method in placed(methods).items()
        for name, axis in space_of(method, taps).items()
    }
    return {key: axis for key, axis in found.items() if key.removeprefix("method.") not in held}


def placed(methods: Methods) -> dict[str, Any]:
    """Methods by what their keys begin with: `method.` alone, `method.0.` and on of several."""
    if len(methods) == 1:
        return {"method.": methods[0]}
    return {f"method.{number}.": method for number, method in enumerate(methods)}


def space_of(method: Any, taps: Sequence[str]) -> dict[str, Axis]:
    """The numbers and taps of one method."""
    found: dict[str, Axis] = dict(numbers(method))
    base, pairs = getattr(method, "base", None), getattr(method, "pairs", None)
    if base is not None and not hasattr(method, "weight") and hasattr(base, "weight"):
        found["base.weight"] = around(base.weight)
    if pairs is not None and getattr(method, "movable", True) and len(taps) > 1:
        own, single = own_taps(pairs), [f"[[{tap}, {tap}]]" for tap in taps]
        found["pairs"] = OneOf((own, *(word for word in single if word != own)))
    return found


def numbers(method: Any) -> dict[str, Axis]:
    """The numbers above 0 of a method, and where each is searched."""
    values = {field.name: getattr(method, field.name) for field in fields(method)}
    return {
        name: around(value)
        for name, value in values.items()
        if isinstance(value, float) and value > 0 and name not in APART
    }


def around(value: float) -> Range:
    """From a quarter of a number to four times it."""
    return Range(value / FACTOR, value * FACTOR, True)


def own_taps(pairs: str | Sequence[Sequence[str]]) -> str:
    """The taps that a method has by itself, as YAML spells them."""
    if isinstance(pairs, str):
        return pairs
    return f"[{', '.join(f'[{student}, {teacher}]' for student, teacher in pairs)}]"


def parse_space(words: Sequence[str]) -> dict[str, Axis]:
    """`KEY=LOW..HIGH`, `KEY=LOW..HIGH:linear` and `KEY=a|b|c` by key."""
    return dict(parse_axis(word) for word in words)


def parse_axis(word: str) -> tuple[str, Axis]:
    """One key and where it is searched."""
    key, equals, text = word.partition("=")
    if not equals or not key.startswith(("method.", "train.")):
        raise UserError(
            f"--space: {word!r} should be KEY=LOW..HIGH or KEY=a|b, with a key of method or train"
        )
    if ".." not in text:
        return key, OneOf(tuple(part.strip() for part in text.split("|")))
    ends, _, scale = text.partition(":")
    low, _, high = ends.partition("..")
    try:
        bounds = float(low), float(high)
    except ValueError:
        raise UserError(f"--space: {ends!r} of {key} should be two numbers, as in 1..8") from None
    if not (all(map(math.isfinite, bounds)) and bounds[0] < bounds[1]) or scale not in SCALES:
        raise UserError(f"--space: {text!r} of {key} should rise, and end in nothing or in :linear")
    return key, Range(*bounds, log=scale != "linear" and bounds[0] > 0)


SCALES = ("", "linear", "log")


def narrowed(space: Mapping[str, Axis], given: Space, methods: Methods) -> dict[str, Axis]:
    """What was asked for in place of the default, where the method has such an option.

    Of several methods at once `method.weight` is that of each that has one.
    """
    own: dict[str, Axis] = {}
    for key, axis in given.items():
        if key.startswith("train."):
            own[key] = axis
            continue
        spread = (place + key.removeprefix("method.") for place in placed(methods))
        own |= {found: axis for found in (key, *spread) if option(methods, found) is not None}
    return own if own else dict(space)


def has(methods: Methods, key: str) -> bool:
    """Whether a method, or one of several, has the option that a key names."""
    owner, names = owned(methods, key)
    return bool(names) and hasattr(owner, names[0])


def option(methods: Methods, key: str) -> Any:
    """What methods have under `method.NAME`, `method.base.NAME` or, of several, `method.1.NAME`."""
    found, names = owned(methods, key)
    for name in names:
        found = getattr(found, name, None)
    return found


def owned(methods: Methods, key: str) -> tuple[Any, list[str]]:
    """The method that a key speaks of, None where it is none of these, and the names below it."""
    _, *names = key.split(".")
    if len(methods) == 1:
        return methods[0], names
    if names[0].isdigit() and int(names[0]) < len(methods):
        return methods[int(names[0])], names[1:]
    return None, names


def propose(trial: Any, space: Space) -> list[Choice]:
    """What a trial is to try, as overrides; numbers are rounded to what a person would write."""
    found = []
    for key, axis in space.items():
        if isinstance(axis, OneOf):
            found.append(Choice(key, trial.suggest_categorical(key, list(axis.words))))
        else:
            value = trial.suggest_float(key, axis.low, axis.high, log=axis.log)
            found.append(Choice(key, f"{value:.3g}"))
    return found


def edges(choices: Sequence[Choice], space: Space) -> tuple[str, ...]:
    """The options among some choices that lie where the search ended."""
    return tuple(
        choice.key.removeprefix("method.")
        for choice in choices
        if isinstance(axis := space[choice.key], Range) and axis.ends_at(float(choice.text))
    )


def start(space: Space, methods: Methods) -> dict[str, Any] | None:
    """The method's own options as a first trial, where they lie inside the space."""
    found: dict[str, Any] = {}
    for key, axis in space.items():
        if not key.startswith("method."):
            return None
        value = option(methods, key)
        if isinstance(axis, Range):
            if not axis.low <= value <= axis.high:
                return None
            found[key] = value
        else:
            same = [word for word in axis.words if same_value(word, value)]
            if not same:
                return None
            found[key] = same[0]
    return found


def same_value(word: str, value: Any) -> bool:
    """Whether YAML's spelling of a choice is a value that a method has."""
    plain = [list(pair) for pair in value] if isinstance(value, tuple) else value
    return bool(load.parse_yaml_value(word, word) == plain)
