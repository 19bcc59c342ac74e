"""Names for places that every network has, found by running it once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn

from stillhouse.errors import UserError, did_you_mean
from stillhouse.models.dry import undisturbed

INPUT = "@input"  # after a path: what the module is given, instead of what it gives
ALIASES = ("stage1", "last", "penultimate", "logits")  # what most networks have, for hints

_POOLS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.AvgPool2d, nn.MaxPool2d)


class Call(NamedTuple):
    """One module as it ran, in the order in which modules finished."""

    path: str
    module: nn.Module
    given: Tensor | None
    gave: Tensor | None


def stages(model: nn.Module, *example: Any) -> dict[str, str]:
    """Aliases of a network: alias -> path, from one dry forward that leaves it as it was.

    `stage1` .. `stageK`: for each resolution of the maps (N, C, H, W), in the order of execution,
    the outermost module there that finished last. Only modules with two linear layers or more
    count, so that neither a stem nor a pool is a stage. A network without such modules (VGG) gives
    its bare layers, one of tokens (N, T, C) its blocks, one of maps with channels last nothing.
    `last`: the deepest map of the last stage's resolution, which may lie behind that stage.
    `penultimate`: the vector (N, C) that the classifier reads, as the module that gives it or,
    where a function does, as `PATH@input`. `logits`: the output itself. An alias that is the path
    of another module is left out, because a path always means that module.
    """
    calls = _dry(model, example)
    maps = _maps(calls, _canvas(example))
    places = [_outermost(found)[-1].path for found in _by_size(maps, _is_stage)]
    if len(places) < 2:
        places = _tokens(calls)
    if not places and _is_convolutional(model):
        places = [_outermost(found)[-1].path for found in _by_size(maps, _is_no_pool)]
    aliases = {f"stage{number}": path for number, path in enumerate(places, 1)}
    deepest = _deepest(maps, places)
    penultimate = _penultimate(calls)
    if deepest is not None:
        aliases["last"] = deepest
    if penultimate is not None:
        aliases["penultimate"] = penultimate
    aliases["logits"] = ""
    own = {path for path, _ in model.named_modules()}
    return {alias: path for alias, path in aliases.items() if alias not in own or alias == path}


def resolve(model: nn.Module, name: str, *example: Any) -> str:
    """The path that a path or an alias means; aliases need an example batch."""
    return paths(model, [name], *example)[name]


def paths(model: nn.Module, names: Iterable[str], *example: Any) -> dict[str, str]:
    """The paths that names mean, each a path or an alias, in one dry forward or none."""
    modules = {path for path, _ in model.named_modules()}
    names = list(names)
    found = {name: name for name in names if name.removesuffix(INPUT) in modules}
    if len(found) == len(set(names)):
        return found
    aliases = stages(model, *example) if example else {"logits": ""}
    for name in names:
        if name not in found and name not in aliases:
            raise UserError(_unknown(model, name, modules, aliases, bool(example)))
        found.setdefault(name, aliases.get(name, name))
    return found


def first_tensor(value: Any) -> Tensor | None:
    """The first tensor of an output that may be a tensor, a sequence or a mapping of them."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            tensor = first_tensor(item)
            if tensor is not None:
                return tensor
    return None


def _unknown(
    model: nn.Module, name: str, modules: set[str], aliases: Mapping[str, str], looked: bool
) -> str:
    known = sorted(modules - {""}, key=lambda path: (path.count("."), path))
    hint = did_you_mean(name.removesuffix(INPUT), [*(aliases if looked else ALIASES), *known])
    mend = "" if looked else ", and an alias such as 'stage1' needs an example batch"
    return f"{type(model).__name__} has no module or alias {name!r}{mend}{hint}"


# --------------------------------------------------------------------------------- the dry forward


def _dry(model: nn.Module, example: Iterable[Any]) -> list[Call]:
    with undisturbed(model), _recorded(model) as calls:
        model(*example)
    return calls


@contextmanager
def _recorded(model: nn.Module) -> Iterator[list[Call]]:
    calls: list[Call] = []
    hooks = []
    for path, module in model.named_modules():

        def record(module: nn.Module, args: Any, output: Any, path: str = path) -> None:
            calls.append(Call(path, module, first_tensor(args), first_tensor(output)))

        hooks.append(module.register_forward_hook(record))
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def _canvas(example: Iterable[Any]) -> tuple[int, int] | None:
    image = first_tensor(list(example))
    return None if image is None or image.ndim < 3 else (image.shape[-2], image.shape[-1])


# ---------------------------------------------------------------------------------------- the rules


def _maps(calls: Iterable[Call], canvas: tuple[int, int] | None) -> list[Call]:
    return [
        call
        for call in calls
        if call.path and call.gave is not None and call.gave.ndim == 4 and _is_map(call, canvas)
    ]


def _is_map(call: Call, canvas: tuple[int, int] | None) -> bool:
    # A map with its channels last shows (W, C) where a resolution is expected; its aspect tells.
    if canvas is None:
        return True
    (height, width), (h, w) = canvas, _size(call)
    return h <= height and w <= width and abs(h * width - w * height) <= height + width


def _by_size(maps: Iterable[Call], counts: Callable[[nn.Module], bool]) -> list[list[Call]]:
    groups: dict[tuple[int, int], list[Call]] = {}
    for call in maps:
        if counts(call.module):
            groups.setdefault(_size(call), []).append(call)
    return list(groups.values())


def _size(call: Call) -> tuple[int, int]:
    assert call.gave is not None
    return call.gave.shape[-2], call.gave.shape[-1]


def _is_stage(module: nn.Module) -> bool:
    return sum(isinstance(part, nn.Conv2d | nn.Linear) for part in module.modules()) > 1


def _is_no_pool(module: nn.Module) -> bool:
    return not isinstance(module, _POOLS)


def _is_convolutional(model: nn.Module) -> bool:
    parts = list(model.modules())
    linear = sum(isinstance(part, nn.Linear) for part in parts)
    return sum(isinstance(part, nn.Conv2d) for part in parts) > linear


def _outermost(calls: list[Call]) -> list[Call]:
    paths = [call.path for call in calls]
    return [c for c in calls if not any(c.path.startswith(f"{path}.") for path in paths)]


def _deepest(maps: list[Call], places: list[str]) -> str | None:
    """The shallowest name, and of those the last to finish, at the last stage's resolution."""
    final = [call for call in maps if places and call.path == places[-1]]
    learned = [call for call in maps if next(call.module.parameters(), None) is not None]
    same = [call.path for call in learned if final and _size(call) == _size(final[-1])]
    return min(reversed(same), key=lambda path: path.count("."), default=None)


def _tokens(calls: Iterable[Call]) -> list[str]:
    """The largest family of sisters of one class that give tokens: the blocks of a transformer."""
    families = [
        (call.path.rpartition(".")[0], type(call.module), call.path)
        for call in calls
        if call.gave is not None and call.gave.ndim == 3 and _is_stage(call.module)
    ]
    common = Counter((parent, kind) for parent, kind, _ in families).most_common(1)
    if not common or common[0][1] < 2:
        return []
    return [path for parent, kind, path in families if (parent, kind) == common[0][0]]


def _penultimate(calls: list[Call]) -> str | None:
    """Where the vector is that the last linear layer reads, if that layer gives the output."""
    linear = [call for call in calls if isinstance(call.module, nn.Linear)]
    if not linear or calls[-1].gave is None or linear[-1].gave is None:
        return None
    vector, logits = linear[-1].given, calls[-1].gave
    if vector is None or vector.ndim != 2 or logits.shape != linear[-1].gave.shape:
        return None
    # Dropout gives its input unchanged here, and something else while the network learns.
    givers = [
        call.path
        for call in calls
        if _same(call.gave, vector) and not isinstance(call.module, nn.Dropout)
    ]
    if givers:
        return givers[-1]
    readers = [call.path for call in calls if _same(call.given, vector)]
    return min(readers, key=lambda path: path.count(".")) + INPUT


def _same(tensor: Tensor | None, other: Tensor) -> bool:
    return (
        tensor is not None
        and tensor.shape == other.shape
        and tensor.stride() == other.stride()
        and tensor.data_ptr() == other.data_ptr()
    )
