"""Every number of every key, method, transform, optimiser and schedule has a range."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Iterator
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from pydantic import TypeAdapter, ValidationError

from stillhouse.methods.catalogue import published
from stillhouse.objectives import presets
from stillhouse.recipes.schema import Recipe, Training

HUGE = 1e300
WRONG = (math.nan, math.inf, -math.inf, HUGE, -HUGE)
NEGATIVE = {"mean", "initial", "score"}
SAMPLES = {"name": "digits/raw", "student": "stillhouse/tiny", "data": "digits/raw"}
VALID = {"Recipe": {"method": "none"}, "Mix": {"mixup": 0.5}}


def inside(kind: Any) -> Iterator[Any]:
    """The types in an annotation."""
    if get_origin(kind) is typing.Literal:
        return
    if get_origin(kind) is typing.Annotated:
        yield from inside(get_args(kind)[0])
    elif get_args(kind):
        for part in get_args(kind):
            yield from inside(part)
    else:
        yield kind


@cache
def specs() -> dict[type, dict[str, Any]]:
    """Every class of options that a recipe can have, with the types of its fields."""
    found: dict[type, dict[str, Any]] = {}

    def visit(kind: Any) -> None:
        for part in inside(kind):
            if dataclasses.is_dataclass(part) and part not in found:
                hints = get_type_hints(part, include_extras=True)
                found[part] = {f.name: hints[f.name] for f in dataclasses.fields(part)}
                for hint in found[part].values():
                    visit(hint)

    visit(Recipe)
    return found


@cache
def numbers() -> list[tuple[type, str, Any]]:
    return [
        (spec, name, kind)
        for spec, hints in specs().items()
        for name, kind in hints.items()
        if {int, float} & set(inside(kind)) and get_origin(kind) is not dict
    ]


def content(spec: type, name: str, kind: Any, value: Any) -> dict[str, Any]:
    """The options of a spec in which one is a value, or has it as all of its items."""
    needed = {
        field.name: 1 if {int, float} & set(inside(hint)) else SAMPLES.get(field.name, "x")
        for field, hint in zip(dataclasses.fields(spec), specs()[spec].values(), strict=True)
        if field.default is field.default_factory is dataclasses.MISSING
    }
    default = next(f.default for f in dataclasses.fields(spec) if f.name == name)
    if isinstance(default, tuple):
        value = [value] * len(default)
    elif any(get_origin(part) is tuple for part in (kind, *get_args(kind))):
        value = [value, value]
    return {**needed, **VALID.get(spec.__name__, {}), name: value}


def test_there_are_numbers() -> None:
    assert len(numbers()) > 300
    assert {"KD", "SGD", "CosineSchedule", "Crop", "Engine"} <= {
        s.__name__ for s, _, _ in numbers()
    }


@pytest.mark.parametrize("spec", specs(), ids=lambda spec: spec.__name__)
def test_numbers_out_of_range_are_one_sentence_with_the_key(spec: type) -> None:
    adapter = TypeAdapter(spec)
    for kind, name, hint in numbers():
        if kind is not spec:
            continue
        refused = (*WRONG, 2**63) if float not in inside(hint) else WRONG
        for value in (*refused, -1, 0, 2**63):
            try:
                adapter.validate_python(content(spec, name, hint, value))
            except ValidationError as error:
                problem = error.errors()[0]
                said = f"{'.'.join(map(str, problem['loc']))} {problem['msg']}"
                assert any(field in said for field in specs()[spec]), said
                assert "\n" not in said
            else:
                assert value not in refused, f"{spec.__name__}.{name} takes {value}"
                assert value != -1 or name in NEGATIVE, f"{spec.__name__}.{name} takes -1"


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("clip", -1.0, "`clip` must be non-negative and finite, got -1"),
        ("epochs", math.inf, "`epochs` must be non-negative and at most 1e9, got inf"),
    ],
)
def test_the_sentence_has_the_range(key: str, value: float, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Training(**{key: value})


def test_methods_made_in_python_are_checked_too() -> None:
    with pytest.raises(ValueError, match="`weight` must be non-negative and finite, got -1"):
        presets.kd(weight=-1)
    with pytest.raises(ValueError, match="`label_weight` must be"):
        presets.dist(label_weight=math.nan)
    for method in published().values():
        assert method(warmup=3.0).warmup == 3.0
