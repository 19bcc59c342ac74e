"""How a network names its own places: its stages, its levels and its classifier."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from torch import nn

from stillhouse.errors import UserError, did_you_mean
from stillhouse.models.tap_path import TapPath

ATTRIBUTE = "places"
LAST, PENULTIMATE, LOGITS = "last", "penultimate", "logits"


@dataclass(frozen=True)
class Places:
    """The places of a network, which sets this as its attribute or property `places`.

    `stages` are the stages of the backbone by name, `stage1` .. `stageK`; their numbers may begin
    after 1. `levels` are the maps of a feature pyramid by names of its own, as `p3` .. `p7`. Both
    map a name to the path of a tap, and each name is then an alias of that tap: `p3` for `neck.p3`.
    `classifier` is the path of the last layer that gives class scores.

    What is left empty is guessed where that is safe (see `find_aliases`). A wrapper without
    parameters of its own has the places of the network that it holds.
    """

    stages: Mapping[str, str] = field(default_factory=dict)
    levels: Mapping[str, str] = field(default_factory=dict)
    classifier: str | None = None

    def inside(self, prefix: str) -> Places:
        """The same places of a network that holds this one at the path `prefix`."""

        def moved(path: str) -> str:
            return str(TapPath.parse(path).inside(prefix))

        return Places(
            {name: moved(path) for name, path in self.stages.items()},
            {name: moved(path) for name, path in self.levels.items()},
            None if self.classifier is None else moved(self.classifier),
        )


def declared_places(model: nn.Module) -> Places:
    """What a network declares of itself, checked; empty where it declares nothing.

    Raises UserError for a path that is not a module, and for a name that cannot be an alias.
    """
    prefix, holder = "", model
    while True:
        places = getattr(holder, ATTRIBUTE, None)
        if isinstance(places, Places):
            places = places.inside(prefix)
            _check(model, places)
            return places
        child = _only_network(holder)
        if child is None:
            return Places()
        name, holder = child
        prefix = f"{prefix}.{name}" if prefix else name


def is_stage(name: str) -> bool:
    """Whether a name is that of a stage, as `stage3`."""
    return name.startswith("stage") and name.removeprefix("stage").isdigit()


def is_alias(name: str) -> bool:
    """Whether a name is one that any network may have: of a stage, `last`, `penultimate`, ..."""
    return is_stage(name) or name in (LAST, PENULTIMATE, LOGITS)


def _only_network(model: nn.Module) -> tuple[str, nn.Module] | None:
    """The child that holds all parameters of a wrapper, and its name."""
    parameters = {id(parameter) for parameter in model.parameters()}
    for name, child in model.named_children():
        if parameters and {id(parameter) for parameter in child.parameters()} == parameters:
            return name, child
    return None


def _check(model: nn.Module, places: Places) -> None:
    modules = {path for path, _ in model.named_modules()}
    network = type(model).__name__
    for name in places.stages:
        if not is_stage(name):
            raise UserError(
                f"{network} declares a stage {name!r}; stages are called stage1, stage2, ..."
            )
    for name in places.levels:
        if is_alias(name) or "." in name or "@" in name:
            raise UserError(
                f"{network} declares a level {name!r}; call its levels p3, p4, ... or another word"
            )
    for name, path in [*places.stages.items(), *places.levels.items()]:
        if name in modules and name != path:
            raise UserError(
                f"{network} declares {name!r} at {path!r}, but has another module of the name "
                f"{name!r}; declare the place under another name"
            )
        _check_path(network, repr(name), path, modules)
    if places.classifier is not None:
        _check_path(network, "its classifier", places.classifier, modules)


def _check_path(network: str, what: str, path: str, modules: Collection[str]) -> None:
    module = TapPath.parse(path).module
    if module not in modules or not module:
        raise UserError(
            f"{network} declares {what} at {path!r}, which is not one of its modules"
            f"{did_you_mean(module, modules)}"
        )
