"""Specs: dataclasses that a recipe can contain, and checks of their options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar, dataclass_transform, get_args

from pydantic import BeforeValidator

from stillhouse.errors import quote

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def spec(cls: type[T]) -> type[T]:
    """Make a frozen dataclass that pydantic validates, without unknown options."""
    cls.__pydantic_config__ = {"extra": "forbid"}  # type: ignore[attr-defined]
    return dataclass(frozen=True)(cls)


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
