"""Builds methods from their specs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from stillhouse.errors import UserError
from stillhouse.methods.base import Method
from stillhouse.methods.combined import Combined
from stillhouse.methods.feature import Features
from stillhouse.methods.logit import Logits
from stillhouse.methods.paired import AdaptedPair
from stillhouse.methods.setting import ComposedMethod, Setting
from stillhouse.models.adapters import NoAdapter, Pointwise, WhereNeeded
from stillhouse.models.ensemble import Ensemble
from stillhouse.objectives.presets import FeaturePreset, LogitPreset

ADAPTERS: dict[str, NoAdapter | Pointwise | WhereNeeded] = {
    "none": NoAdapter(),
    "pointwise": Pointwise(),
    "auto": WhereNeeded(),
}


def make_method(specs: Sequence[Any], setting: Setting) -> Method:
    """The method of one spec, or a `Combined` of several, each under its name."""
    if len(specs) == 1:
        return make_single_method(specs[0], setting)
    names = [spec.name for spec in specs]
    return Combined(
        {
            numbered_name(i, names): make_single_method(spec, setting)
            for i, spec in enumerate(specs)
        },
    )


def make_single_method(spec: Any, setting: Setting) -> Method:
    """The method of one spec; raises UserError where the networks do not fit it."""
    check_ensemble(spec, setting)
    if isinstance(spec, FeaturePreset):
        return make_feature_method(spec, setting)
    if isinstance(spec, LogitPreset):
        return Logits(spec)
    method: Method = spec.build(setting)
    return method


def make_feature_method(preset: FeaturePreset, setting: Setting) -> Features:
    """A feature method, with adapters for the tap shapes of a dry run."""
    pairs = setting.resolve_pairs(preset.pairs)
    taps = list(zip(*pairs, strict=True))
    student, teacher = setting.student_shapes(taps[0]), setting.teacher_shapes(taps[1])
    adapter = ADAPTERS[preset.adapter]
    return Features(
        preset, [AdaptedPair(s, t, adapter.build(student[s], teacher[t])) for s, t in pairs]
    )


def reshape_student(specs: Iterable[object], setting: Setting) -> nn.Module:
    """The student with the changes that the methods make to its architecture."""
    for spec in specs:
        if isinstance(spec, ComposedMethod):
            setting = replace(setting, student=spec.reshape(setting))
    return setting.student


def check_ensemble(spec: Any, setting: Setting) -> None:
    """Raise UserError for a method whose taps do not say which network of an ensemble they tap."""
    if not isinstance(setting.teacher, Ensemble) or spec.storable is not False:
        return
    pairs = getattr(spec, "pairs", ())
    if (
        isinstance(pairs, str)
        or not all(tap.startswith("members.") for _, tap in pairs)
        or not pairs
    ):
        raise UserError(
            f"method {spec.name} taps one teacher network, but this teacher is an ensemble; set "
            "teacher.ensemble=separate, or name the taps of one member, as in members.0.layer4"
        )


def numbered_name(index: int, names: Sequence[str]) -> str:
    """The name at an index, with a number appended where it occurs more than once."""
    name = names[index]
    return name if names.count(name) == 1 else f"{name}{names[: index + 1].count(name)}"
