"""From what a recipe says of methods to methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import Any

from stillhouse.errors import UserError, did_you_mean
from stillhouse.methods.base import Method
from stillhouse.methods.feature import Features
from stillhouse.methods.logit import Logits
from stillhouse.methods.paired import Pair
from stillhouse.methods.setting import Composed, Setting
from stillhouse.methods.several import Nothing, Several
from stillhouse.models.adapters import Direct, Pointwise
from stillhouse.models.ensemble import Ensemble
from stillhouse.objectives.presets import FeaturePreset, Preset
from stillhouse.objectives.published import Published
from stillhouse.recipes.schema import Control, Plugged

PLUGINS = "stillhouse.methods"  # the entry point group: NAME -> factory(**options) -> Method
ADAPTERS: dict[str, Direct | Pointwise] = {"none": Direct(), "pointwise": Pointwise()}


def make_method(specs: Sequence[Any], setting: Setting) -> Method:
    """One method, or several under their names."""
    if len(specs) == 1:
        return make_one(specs[0], setting)
    names = [spec.name for spec in specs]
    return Several(
        {unique(i, names): make_one(spec, setting) for i, spec in enumerate(specs)},
    )


def make_one(spec: Any, setting: Setting) -> Method:
    """The method that one spec says."""
    refuse_ensemble(spec, setting)
    match spec:
        case Control():
            return Nothing()
        case Plugged():
            return plugged(spec)
        case FeaturePreset():
            return features(spec, setting)
        case Preset():
            return Logits(spec)
        case Composed():
            return spec.build(setting)
    raise TypeError(f"{type(spec).__name__} says no method")


def features(preset: FeaturePreset, setting: Setting) -> Features:
    """A feature method, its adapters made for the shapes that a dry forward shows."""
    taps = list(zip(*preset.pairs, strict=True))
    ours, theirs = setting.student_shapes(taps[0]), setting.teacher_shapes(taps[1])
    adapter = ADAPTERS[preset.adapter]
    return Features(
        preset, [Pair(s, t, adapter.build(ours[s], theirs[t])) for s, t in preset.pairs]
    )


def refuse_ensemble(spec: Any, setting: Setting) -> None:
    """Refuse to look for one place in several networks."""
    if not isinstance(setting.teacher, Ensemble) or storable(spec) or isinstance(spec, Plugged):
        return
    pairs = getattr(spec, "pairs", ())
    if (
        isinstance(pairs, str)
        or not all(tap.startswith("members.") for _, tap in pairs)
        or not pairs
    ):
        raise UserError(
            f"method {spec.name} looks inside one teacher, and this one has members; say "
            "teacher.teach=apart, or name the taps of one of them, as in members.0.layer4"
        )


def storable(spec: Any) -> bool:
    """Whether a method asks for nothing but logits that a teacher may have said long ago."""
    return isinstance(spec, Control) or (isinstance(spec, Published) and spec.card.storable)


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
