"""Names for places that every network has, found by running it once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from stillhouse.errors import UserError, did_you_mean
from stillhouse.models.pre_activation import before_relu
from stillhouse.models.recording import Call, first_tensor, record
from stillhouse.models.rules import INPUT, deepest, maps, penultimate, stage_paths

__all__ = ["ALIASES", "INPUT", "PRE", "first_tensor", "paths", "resolve", "staged", "stages"]

PRE = "@pre"  # after a name: the map before the ReLU that makes it what the module gives
ALIASES = ("stage1", "last", "penultimate", "logits")  # what most networks have, for hints


def stages(model: nn.Module, *example: Any) -> dict[str, str]:
    """Aliases of a network: alias -> path, from one dry forward that leaves it as it was.

    `stage1` .. `stageK`: the modules of these names where the network has them. Else, for each
    resolution of the maps (N, C, H, W), in the order of execution, the outermost module there that
    finished last. Only modules with two linear layers or more count, so that neither a stem nor a
    pool is a stage. A network without such modules (VGG) gives its bare layers, one of tokens
    (N, T, C) its blocks, one of maps with channels last nothing.
    `last`: the deepest map of the last stage's resolution, which may lie behind that stage.
    `penultimate`: the vector (N, C) that the classifier reads, as the module that gives it or,
    where a function does, as `PATH@input`. `logits`: the output itself. An alias that is the path
    of another module is left out, because a path always means that module.
    `stage1@pre` .. `stageK@pre`, `last@pre`: the map before the ReLU that ends the stage, for each
    that ends so (see `before_relu`).
    """
    calls = record(model, *example)
    found = _aliases(model, calls, example)
    for alias, path in list(found.items()):
        before = before_relu(calls, path) if alias.startswith("stage") or alias == "last" else None
        if before is not None:
            found[alias + PRE] = before
    return found


def staged(name: str) -> bool:
    """Whether an alias is that of a stage after its activation: `stage3`."""
    return name.startswith("stage") and name.removeprefix("stage").isdigit()


def resolve(model: nn.Module, name: str, *example: Any) -> str:
    """The path that a path or an alias means; aliases need an example batch."""
    return paths(model, [name], *example)[name]


def paths(model: nn.Module, names: Iterable[str], *example: Any) -> dict[str, str]:
    """The paths that names mean, each a path or an alias, in one dry forward or none.

    `NAME@pre` may be asked of any path or alias.
    """
    modules = {path for path, _ in model.named_modules()}
    names = list(names)
    found = {name: name for name in names if name.removesuffix(INPUT) in modules}
    if len(found) == len(set(names)):
        return found
    calls = record(model, *example) if example else []
    aliases = _aliases(model, calls, example) if example else {"logits": ""}
    for name in names:
        if name in found:
            continue
        base = name.removesuffix(PRE)
        path = aliases.get(base, base if base in modules else None)
        if path is None or (base != name and not example):
            raise UserError(_unknown(model, name, modules, aliases, bool(example)))
        found[name] = path if base == name else _before(model, calls, name, path)
    return found


def _aliases(model: nn.Module, calls: Sequence[Call], example: Iterable[Any]) -> dict[str, str]:
    found = maps(calls, _canvas(example))
    places = stage_paths(model, calls, found)
    aliases: dict[str, str | None] = {f"stage{n}": path for n, path in enumerate(places, 1)}
    aliases |= {"last": deepest(found, places), "penultimate": penultimate(calls), "logits": ""}
    own = {path for path, _ in model.named_modules()}
    return {
        alias: path
        for alias, path in aliases.items()
        if path is not None and (alias not in own or alias == path)
    }


def _canvas(example: Iterable[Any]) -> tuple[int, int] | None:
    image = first_tensor(list(example))
    return None if image is None or image.ndim < 3 else (image.shape[-2], image.shape[-1])


def _before(model: nn.Module, calls: Sequence[Call], name: str, path: str) -> str:
    before = before_relu(calls, path)
    if before is None:
        raise UserError(
            f"{type(model).__name__} has no {name!r}, because {path or 'its output'!r} neither "
            "ends with the module of a ReLU nor is read by a BatchNorm; tap a place that does, or "
            f"{name.removesuffix(PRE)!r} as it is"
        )
    return before


def _unknown(
    model: nn.Module, name: str, modules: set[str], aliases: Mapping[str, str], looked: bool
) -> str:
    known = sorted(modules - {""}, key=lambda path: (path.count("."), path))
    word = name.removesuffix(INPUT).removesuffix(PRE)
    hint = did_you_mean(word, [*(aliases if looked else ALIASES), *known])
    mend = "" if looked else ", and an alias such as 'stage1' needs an example batch"
    return f"{type(model).__name__} has no module or alias {name!r}{mend}{hint}"
