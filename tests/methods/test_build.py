"""From what a recipe says of methods to methods."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from quick import quick
from stillhouse.errors import UserError
from stillhouse.methods import plugin
from stillhouse.methods.base import Method
from stillhouse.methods.build import make_method
from stillhouse.methods.combined import Combined, NoTerms
from stillhouse.methods.control import Control
from stillhouse.methods.feature import Features
from stillhouse.methods.logit import Logits
from stillhouse.methods.plugin import Plugin
from stillhouse.methods.setting import Setting
from stillhouse.objectives import presets
from tiny import Net, lesson, site

EXAMPLE = torch.zeros(2, 3, 12, 12)


class Own(Method):
    """What a package might bring."""

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__()
        self.strength = strength


class Point:
    """An entry point."""

    def __init__(self, name: str, load: Any) -> None:
        self.name, self._load = name, load

    def load(self) -> Any:
        return self._load


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [Point("own", Own), Point("loss", nn.MSELoss)]
    monkeypatch.setattr(
        plugin, "entry_points", lambda group: points if group == plugin.GROUP else []
    )


def made(*specs: Any, student: nn.Module | None = None) -> Method:
    return make_method(specs, Setting(student or Net(4), Net(8), EXAMPLE))


@pytest.mark.parametrize("name", presets.catalogue())
def test_every_preset_becomes_a_method_of_two_small_networks(name: str) -> None:
    preset = presets.catalogue()[name]()
    if not isinstance(preset, presets.FeaturePreset):
        method = made(preset)
        assert isinstance(method, Logits) and not list(method.parameters())
    else:
        preset = presets.catalogue()[name](pairs=(("stem", "stem"),), adapter="pointwise")
        method = made(preset)
        assert isinstance(method, Features)
        assert (method.student_taps, method.teacher_taps) == (("stem",), ("stem",))
    assert method.label_share == preset.label_share


def test_the_recipes_words_are_the_same() -> None:
    (spec,) = quick("method={name: dkd, beta: 2}").method
    method = made(spec)
    assert isinstance(method, Logits) and method.preset == presets.dkd(beta=2.0)


def test_none_is_no_term() -> None:
    method = make_method([Control()], Setting(Net(), Net(), EXAMPLE))
    assert isinstance(method, NoTerms)
    assert method(lesson({"class": site()})) == {} and method.label_share == 1


def test_adapters_fit_the_channels_of_each_pair() -> None:
    method = made(presets.cwd(pairs=(("stem", "stem"), ("body", "body"))))
    shapes = [tuple(p.shape) for p in method.parameters() if p.ndim == 4]
    assert shapes == [(8, 4, 1, 1), (16, 8, 1, 1)]


def test_without_an_adapter_channels_must_be_alike() -> None:
    alike = make_method([presets.pkd(pairs=(("stem", "stem"),))], Setting(Net(4), Net(4), EXAMPLE))
    assert not list(alike.parameters())
    with pytest.raises(UserError, match="adapter"):
        made(presets.pkd(pairs=(("stem", "stem"),)))


def test_a_wrong_layer_is_named() -> None:
    with pytest.raises(UserError, match=r"no module or alias 'stam'; did you mean 'stem'"):
        made(presets.cwd(pairs=(("stam", "stem"),)))


def test_several_are_told_apart() -> None:
    method = made(presets.kd(), presets.dist(), presets.kd(temperature=1.0))
    assert isinstance(method, Combined) and list(method.methods) == ["kd1", "dist", "kd2"]


def test_a_package_can_bring_one(installed: None) -> None:
    method = made(Plugin("own", {"strength": 3.0}))
    assert isinstance(method, Own) and method.strength == 3


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ("onw", r"provides a method 'onw'; did you mean 'own'"),
        ("xyz", r"provides a method 'xyz'; 2 are registered in stillhouse\.methods"),
        ("loss", r"must return a stillhouse Method, got MSELoss"),
    ],
)
def test_a_package_that_does_not(installed: None, entry: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        made(Plugin(entry))


def test_a_package_s_method_that_takes_no_such_option(installed: None) -> None:
    with pytest.raises(UserError, match=r"method 'own' .*unexpected keyword argument 'stength'"):
        made(Plugin("own", {"stength": 3.0}))
