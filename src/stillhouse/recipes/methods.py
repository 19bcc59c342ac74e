"""From what a recipe says of methods to methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import Any

from torch import Tensor, nn

from stillhouse.errors import UserError, did_you_mean
from stillhouse.methods.base import Method
from stillhouse.methods.feature import Features, Pair
from stillhouse.methods.logit import Logits
from stillhouse.methods.several import Nothing, Several
from stillhouse.models.adapters import Direct, Pointwise
from stillhouse.models.probe import shapes
from stillhouse.objectives.presets import FeaturePreset, Preset
from stillhouse.recipes.schema import Control, Plugged

PLUGINS = "stillhouse.methods"  # the entry point group: NAME -> factory(**options) -> Method
ADAPTERS: dict[str, Direct | Pointwise] = {"none": Direct(), "pointwise": Pointwise()}


def make_method(
    specs: Sequence[Any], student: nn.Module, teacher: nn.Module | None, example: Tensor
) -> Method:
    """One method, or several under their names."""
    if len(specs) == 1:
        return make_one(specs[0], student, teacher, example)
    return Several(
        {
            unique(index, [spec.name for spec in specs]): make_one(spec, student, teacher, example)
            for index, spec in enumerate(specs)
        }
    )


def make_one(spec: Any, student: nn.Module, teacher: nn.Module | None, example: Tensor) -> Method:
    """The method that one spec says."""
    match spec:
        case Control():
            return Nothing()
        case Plugged():
            return plugged(spec)
        case FeaturePreset():
            assert teacher is not None  # the recipe was refused otherwise
            return features(spec, student, teacher, example)
        case Preset():
            return Logits(spec)
    raise TypeError(f"{type(spec).__name__} says no method")


def features(
    preset: FeaturePreset, student: nn.Module, teacher: nn.Module, example: Tensor
) -> Features:
    """A feature method, its adapters made for the shapes that a dry forward shows."""
    taps = list(zip(*preset.pairs, strict=True))
    ours = shapes(student, taps[0], example)
    theirs = shapes(teacher, taps[1], example)
    adapter = ADAPTERS[preset.adapter]
    return Features(
        preset, [Pair(s, t, adapter.build(ours[s], theirs[t])) for s, t in preset.pairs]
    )


def plugged(spec: Plugged) -> Method:
    """A method that an installed package brings."""
    found = {point.name: point for point in entry_points(group=PLUGINS)}
    if spec.entry not in found:
        raise UserError(
            f"no installed package brings a method {spec.entry!r}"
            + (did_you_mean(spec.entry, found) or f"; there are {len(found)} in {PLUGINS}")
        )
    factory: Callable[..., Any] = found[spec.entry].load()
    try:
        method = factory(**spec.options)
    except (TypeError, ValueError) as error:
        raise UserError(f"method {spec.entry!r} cannot be made: {error}") from error
    if not isinstance(method, Method):
        raise UserError(
            f"method {spec.entry!r} is a {type(method).__name__}, not a stillhouse Method"
        )
    return method


def unique(index: int, names: Sequence[str]) -> str:
    """The name of one of several, numbered where two are alike."""
    name = names[index]
    return name if names.count(name) == 1 else f"{name}{names[: index + 1].count(name)}"
