"""What a recipe can name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar, dataclass_transform, get_args

from pydantic import BeforeValidator

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def spec(cls: type[T]) -> type[T]:
    """A frozen dataclass that a recipe may spell out; it refuses options that it does not have."""
    cls.__pydantic_config__ = {"extra": "forbid"}  # type: ignore[attr-defined]
    return dataclass(frozen=True)(cls)


def require(condition: bool, name: str, must: str, value: object) -> None:
    """Raise a ValueError unless an option is in its range: "`epochs` must be positive, got -1"."""
    if not condition:
        raise ValueError(f"`{name}` must be {must}, got {value!r}")


def members(union: Any) -> tuple[type, ...]:
    """The classes of an annotated union: the registry that it is."""
    inner = get_args(union)[0]
    return get_args(inner) or (inner,)


def named(value: Any) -> Any:
    """`{name: kd}` for `kd`, wherever a thing is known by its name."""
    return {"name": value} if isinstance(value, str) else value


def kinded(value: Any) -> Any:
    """`{kind: cosine}` for `cosine`, wherever a thing is known by its kind."""
    return {"kind": value} if isinstance(value, str) else value


SHORT = BeforeValidator(named)
KIND = BeforeValidator(kinded)
