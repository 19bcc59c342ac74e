"""Guesses at the places of a network that declares none, from the calls of its modules."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from torch import Tensor, nn

from stillhouse.errors import UserError
from stillhouse.models.recording import Call, Recording, count_tensors, is_same, path_of_call
from stillhouse.models.scores import main_tensor
from stillhouse.models.segmenters.output import Segmentation, read_segmentation

_POOLS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.AvgPool2d, nn.MaxPool2d)
_NAMED = re.compile(r"(?:(.*)\.)?stage(\d+)")


class NotSafe(Exception):
    """Why a guess would not be safe, as a clause that follows the name of the network."""


def map_calls(calls: Iterable[Call], size: tuple[int, int] | None) -> list[Call]:
    """The calls that returned maps (N, C, H, W) of an image of that height and width."""
    return [call for call in calls if call.path and len(call.shape) == 4 and _is_map(call, size)]


def check_single_output(recording: Recording) -> None:
    """Raise NotSafe for a network with several outputs; class scores beside others are safe."""
    output = recording.output
    main = main_tensor(output)
    count = count_tensors(output)
    if isinstance(main, Tensor) and (main.ndim == 2 or count == 1):
        return
    kind = f"an output of type {type(output).__name__}"
    raise NotSafe(f"returns {f'{count} tensors' if count > 1 else kind}")


def check_encoder(recording: Recording, maps: Sequence[Call]) -> None:
    """Raise NotSafe for a network that upsamples, as one for segmentation does."""
    smallest = min((_area(call) for call in maps), default=0)
    final = recording.calls[-1]
    if len(final.shape) == 4 and _area(final) > smallest:
        raise NotSafe("returns a map that is larger than its deepest map")


def check_single_run(recording: Recording, path: str) -> None:
    """Raise NotSafe for a module that is called more than once."""
    runs = recording.runs(path)
    if runs > 1:
        raise NotSafe(f"calls {path!r} {runs} times in one forward ({path}@0 is the first)")


def guess_stages(model: nn.Module, recording: Recording, maps: Sequence[Call]) -> list[str]:
    """The paths of the stages, shallowest first, `maps` being the calls that returned maps."""
    paths = _named_stages(maps)
    if len(paths) < 2:
        paths = [_outermost(group)[-1].path for group in _by_size(maps, has_layers)]
    if len(paths) < 2:
        paths = _token_blocks(recording.calls)
    if not paths and _is_convolutional(model):
        paths = [_outermost(group)[-1].path for group in _by_size(maps, _is_not_pool)]
    for path in paths:
        check_single_run(recording, path)
    return paths


def guess_last(recording: Recording, maps: Sequence[Call], stages: Sequence[str]) -> str | None:
    """The shallowest path, and of those the last to finish, at the resolution of the last stage."""
    final = [call for call in maps if stages and call.path == stages[-1]]
    learned = [call for call in maps if next(call.module.parameters(), None) is not None]
    candidates = [call.path for call in learned if final and _size(call) == _size(final[-1])]
    path = min(reversed(candidates), key=lambda path: path.count("."), default=None)
    if path is not None:
        check_single_run(recording, path)
    return path


def guess_classifier(recording: Recording) -> str | None:
    """The path of the last linear layer, if its output has the shape of the network's."""
    calls = recording.calls
    linear = [call for call in calls if isinstance(call.module, nn.Linear)]
    if not linear or not calls[-1].shape or calls[-1].shape != linear[-1].shape:
        return None
    return linear[-1].path


def map_classifier(recording: Recording, declared: str | None) -> str | None:
    """The path of the convolution that gives the class scores of each place; None where unknown.

    It is the declared classifier. Else it is the last convolution of all, if that is a 1x1
    convolution with a bias, whose output the modules around it return or resize.
    """
    out = _segmentation(recording.output)
    calls = [call for call in recording.calls if isinstance(call.module, nn.Conv2d)]
    if declared is not None:
        calls = [call for call in calls if call.path == declared]
    if out is None or not calls or calls[-1].shape[1] != out.classes:
        return None
    last = calls[-1]
    alone = out.auxiliary is None and count_tensors(recording.output) < 2
    if declared is None and not (alone and _is_classifier(recording.calls, last)):
        return None
    check_single_run(recording, last.path)
    return last.path


def vector_before(recording: Recording, classifier: str) -> str | None:
    """The tap of the vector (N, C) that a classifier reads; None where it reads something else."""
    calls = recording.calls
    check_single_run(recording, classifier)
    vector = next((call.input for call in calls if call.path == classifier), None)
    if vector is None or vector.tensor.ndim != 2:
        return None
    # Dropout returns its input in eval mode, and something else in training.
    sources = [
        call
        for call in calls
        if is_same(call.output, vector) and not isinstance(call.module, nn.Dropout)
    ]
    if sources:
        return path_of_call(calls, sources[-1])
    readers = [call for call in calls if is_same(call.input, vector)]
    return path_of_call(calls, min(readers, key=lambda call: call.path.count(".")), is_input=True)


def has_layers(module: nn.Module) -> bool:
    """Whether it has two linear layers or convolutions, as neither a stem nor a pool has."""
    return sum(isinstance(part, nn.Conv2d | nn.Linear) for part in module.modules()) > 1


def _segmentation(output: object) -> Segmentation | None:
    try:
        return read_segmentation(output)
    except UserError:
        return None


def _is_classifier(calls: Sequence[Call], call: Call) -> bool:
    conv = call.module
    if not isinstance(conv, nn.Conv2d) or conv.kernel_size != (1, 1) or conv.bias is None:
        return False
    around = (c for c in calls if not c.path or call.path.startswith(f"{c.path}."))
    return all(
        is_same(c.output, call.output, unwritten=True)
        for c in around
        if c.shape[-2:] == call.shape[-2:]
    )


def _is_map(call: Call, image: tuple[int, int] | None) -> bool:
    # A map with its channels last shows (W, C) where a resolution is expected; the aspect ratio
    # tells them apart.
    if image is None:
        return True
    (height, width), (h, w) = image, _size(call)
    return h <= height and w <= width and abs(h * width - w * height) <= height + width


def _named_stages(maps: Iterable[Call]) -> list[str]:
    """The siblings `stage1`, `stage2`, .. of a network whose modules have these names."""
    called = {call.path for call in maps}
    parents = [match[1] or "" for path in called if (match := _NAMED.fullmatch(path))]
    paths: list[str] = []
    if parents:
        parent = min(parents, key=lambda path: (path.count("."), len(path), path))
        prefix = f"{parent}." if parent else ""
        while (path := f"{prefix}stage{len(paths) + 1}") in called:
            paths.append(path)
    return paths


def _by_size(maps: Iterable[Call], counts: Callable[[nn.Module], bool]) -> list[list[Call]]:
    groups: dict[tuple[int, ...], list[Call]] = {}
    for call in maps:
        if counts(call.module):
            groups.setdefault(_size(call), []).append(call)
    return list(groups.values())


def _size(call: Call) -> tuple[int, ...]:
    return call.shape[-2:]


def _area(call: Call) -> int:
    height, width = _size(call)
    return height * width


def _is_not_pool(module: nn.Module) -> bool:
    return not isinstance(module, _POOLS)


def _is_convolutional(model: nn.Module) -> bool:
    parts = list(model.modules())
    linear = sum(isinstance(part, nn.Linear) for part in parts)
    return sum(isinstance(part, nn.Conv2d) for part in parts) > linear


def _outermost(calls: list[Call]) -> list[Call]:
    paths = [call.path for call in calls]
    return [c for c in calls if not any(c.path.startswith(f"{path}.") for path in paths)]


def _token_blocks(calls: Iterable[Call]) -> list[str]:
    """The largest group of siblings of one class that return tokens: a transformer's blocks."""
    blocks = [
        (call.path.rpartition(".")[0], type(call.module), call.path)
        for call in calls
        if len(call.shape) == 3 and has_layers(call.module)
    ]
    common = Counter((parent, kind) for parent, kind, _ in blocks).most_common(1)
    if not common or common[0][1] < 2:
        return []
    return [path for parent, kind, path in blocks if (parent, kind) == common[0][0]]
