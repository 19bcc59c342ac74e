"""Specs: dataclasses that a recipe can contain, and checks of their options."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, TypeVar, dataclass_transform, get_args

from pydantic import BeforeValidator

from stillhouse.errors import quote

T = TypeVar("T")


class Bounds(NamedTuple):
    """The range of the options of a name, in numbers and in words."""

    low: float
    high: float
    must: str


LARGEST = 1e30  # of a number: products with it stay finite in float32
LARGEST_COUNT = 2**31 - 1  # of an integer
LARGEST_EPOCHS = 1e9
TINY = 5e-324  # the lowest positive number

ANY = Bounds(-LARGEST, LARGEST, "finite and between -1e30 and 1e30")
NON_NEGATIVE = Bounds(0, LARGEST, "non-negative and finite")
POSITIVE = Bounds(TINY, LARGEST, "positive and finite")
SHARE = Bounds(0, 1, "in [0, 1]")
WEIGHTS = (
    *("weight", "box_weight", "pixel_weight", "region_weight", "feature_weight", "label_weight"),
    *("adversarial_weight", "critic_weight", "alpha", "beta", "gamma", "lam", "distance", "angle"),
    *("mld", "cd", "id", "foreground", "background", "relation", "classes", "boxes", "rest"),
    *("penalty", "auxiliary", "start", "end", "clip", "deviation"),
)
EPOCHS = ("epochs", "schedule_epochs", "warmup", "begin", "evaluate_every", "save_every", "every")
# The range of an option by its name, wherever it is. Options of other names have any finite number;
# the class of an option may refuse more.
BOUNDS: dict[str, Bounds] = {
    **dict.fromkeys(WEIGHTS, NON_NEGATIVE),
    **dict.fromkeys(EPOCHS, Bounds(0, LARGEST_EPOCHS, "non-negative and at most 1e9")),
    **dict.fromkeys(("temperature", "std"), POSITIVE),
    **dict.fromkeys(
        ("workers", "log_every", "trials", "pruned"), Bounds(0, LARGEST_COUNT, "non-negative")
    ),
    **dict.fromkeys(("count", "views", "threads", "seeds"), Bounds(1, LARGEST_COUNT, "at least 1")),
    "holdout": Bounds(0, LARGEST_COUNT, "non-negative"),
    "label_smoothing": SHARE,
    "seed": Bounds(0, 2**63 - 1, "non-negative and below 2^63"),
}


@dataclass_transform(frozen_default=True)
def spec(cls: type[T]) -> type[T]:
    """Make a frozen dataclass that pydantic validates, without unknown options.

    Its numbers are in their `BOUNDS`, after the checks of its own `__post_init__`.
    """
    check_options = getattr(cls, "__post_init__", None)

    def check(self: Any) -> None:
        try:
            if check_options is not None:
                check_options(self)
        except (ArithmeticError, ValueError) as error:
            if not any(f"`{field.name}`" in str(error) for field in fields(self)):
                check_numbers(self)  # which says it of the option, not of what is made of it
            raise
        if type(self).__post_init__ is check:  # not where a subclass calls it
            check_numbers(self)

    cls.__post_init__ = check  # type: ignore[attr-defined]
    return validated(cls)


@dataclass_transform(frozen_default=True)
def validated(cls: type[T]) -> type[T]:
    """The same for results instead of options: numbers may be NaN, infinite, and of any size."""
    cls.__pydantic_config__ = {"extra": "forbid"}  # type: ignore[attr-defined]
    return dataclass(frozen=True)(cls)


def check_numbers(options: Any) -> None:
    """Raise a ValueError for a number of a spec that is not finite or out of its range."""
    for field in fields(options):
        value = getattr(options, field.name)
        for number in walk_numbers(value):
            bounds = BOUNDS.get(field.name, ANY)
            require(bounds.low <= number <= bounds.high, field.name, bounds.must, value)
            if isinstance(number, int) and field.name != "seed":
                small = abs(number) <= LARGEST_COUNT
                require(small, field.name, "an integer below 2^31", value)


def walk_numbers(value: Any) -> Iterator[float]:
    """The numbers in a value and in tuples inside it."""
    if isinstance(value, tuple):
        for item in value:
            yield from walk_numbers(item)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def require(condition: bool, name: str, must: str, value: object) -> None:
    """Raise a ValueError unless an option is in its range: "`epochs` must be positive, got -1"."""
    if not condition:
        raise ValueError(f"`{name}` must be {must}, got {quote(value)}")


def members(union: Any) -> tuple[type, ...]:
    """The classes of an annotated union."""
    inner = get_args(union)[0]
    return get_args(inner) or (inner,)


def expand_name(value: Any) -> Any:
    """Expand `kd` to `{name: kd}`."""
    return {"name": value} if isinstance(value, str) else value


def expand_kind(value: Any) -> Any:
    """Expand `cosine` to `{kind: cosine}`."""
    return {"kind": value} if isinstance(value, str) else value


BY_NAME = BeforeValidator(expand_name)
BY_KIND = BeforeValidator(expand_kind)
