"""`models NAME`: what one network is, without images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from stillhouse.cli.catalogue import format_rows
from stillhouse.errors import UserError, quote
from stillhouse.models import zoo
from stillhouse.models.aliases import find_aliases
from stillhouse.models.backbones import EXAMPLE
from stillhouse.models.cost import parameters
from stillhouse.models.detectors.solov2 import SOLOv2
from stillhouse.models.detectors.suppress import Detections
from stillhouse.models.dry_run import undisturbed
from stillhouse.models.places import declared_places, is_stage
from stillhouse.models.taps import tap_shapes
from stillhouse.recipes.load import apply_overrides
from stillhouse.tasks.catalogue import TASKS

# of ImageNet, COCO and Cityscapes
CLASSES = {"classification": 1000, "detection": 80, "semantic": 19}
SIDES = (224, 32)  # of square images, for networks that do not take EXAMPLE
CANNOT_RUN = (RuntimeError, ValueError, TypeError, AssertionError, IndexError)


def print_network(name: str, words: Sequence[str]) -> None:
    """Print the parameters and places of a network, made with options `key=value`."""
    options = apply_overrides({}, words)
    task = task_of(name)
    classes = read_count(options, "classes", CLASSES[task])
    channels = read_count(options, "channels", 3)
    # a factory may return a detector of torchvision, with masks or without
    adapting = TASKS["semantic" if task == "semantic" else "instance"]()
    network = adapting.adapt(zoo.create(name, classes, channels, **options))
    trained = sum(part.numel() for part in network.parameters() if part.requires_grad)
    family = getattr(network, "family", None)
    task = task_with(family) if family else task
    rows = {
        "name": name,
        "classes": str(classes),
        "parameters": f"{parameters(network):,}, of which {trained:,} are trained",
        **describe_places(network, list(examples(name, channels, options))),
        "sites": ", ".join(sites_of(task, family)),
    }
    print(format_rows(rows | (describe_family(family) if family else {})))


def task_of(name: str) -> str:
    """The task that a network is for, by its name."""
    if zoo.is_detector(name):
        return "detection"
    return "semantic" if zoo.is_segmenter(name) else "classification"


def task_with(family: Any) -> str:
    """The task of networks of a family: with masks of objects, or with boxes alone."""
    masked = isinstance(family, SOLOv2) or getattr(family, "masked", False)
    return "instance" if masked else "detection"


def sites_of(task: str, family: Any) -> list[str]:
    """The sites of a network's task that its family has."""
    sites = list(TASKS[task]().sites)
    if family is None:
        return sites
    if hasattr(family, "masked"):  # two stages
        return [name for name in sites if name.startswith(("roi", "mask"))]
    bins = hasattr(family, "last")
    return [n for n in sites if not n.startswith("roi") and (bins or not n.startswith("edge"))]


def read_count(options: dict[str, Any], name: str, default: int) -> int:
    """A number of options, which is taken out of them; raises UserError unless it is positive."""
    value = options.pop(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"{name} must be a positive integer, got {quote(value)}")
    return value


def examples(name: str, channels: int, options: Mapping[str, Any]) -> Iterator[Tensor]:
    """Blank images that the network may take, the likeliest first: (1, C, H, W)."""
    inner = options.get("backbone_options")
    fixed = [o.get("img_size") for o in (options, inner) if isinstance(o, Mapping)]
    sizes = [(side, side) for side in fixed if isinstance(side, int)] + [EXAMPLE]
    published = zoo.preprocessing(name) if task_of(name) == "classification" else None
    sizes += [published.size[1:]] if published else []
    for height, width in [*sizes, *((side, side) for side in SIDES)]:
        yield torch.zeros(1, channels, height, width)


def describe_places(network: nn.Module, blanks: Sequence[Tensor]) -> dict[str, str]:
    """The levels and stages of a network with their strides, from a dry run on a blank image."""
    for blank in blanks:
        try:
            stages = [name for name in find_aliases(network, blank) if is_stage(name)]
            shapes = tap_shapes(network, stages, blank)
            with undisturbed(network):
                out = network(blank)
        except CANNOT_RUN:
            continue
        size = (blank.shape[-2], blank.shape[-1])
        strides = {name: stride_of(shapes[name], size) for name in stages}
        groups = {"levels": level_strides(network, out), "stages": strides}
        return {group: format_strides(found) for group, found in groups.items() if found}
    return {}


def level_strides(network: nn.Module, out: Any) -> dict[str, int | None]:
    """The levels of a detector with the strides of its priors, None where some have no name."""
    names = list(declared_places(network).levels)
    known = out.strides if isinstance(out, Detections) else ()
    return dict(zip(names, known if len(known) == len(names) else [None] * len(names), strict=True))


def stride_of(shape: Sequence[int], size: tuple[int, int]) -> int | None:
    """The stride of a map with its channels first or last; None for tokens."""
    height, width = size
    sides = (shape[2:], shape[1:3]) if len(shape) == 4 else ()
    found = (h for h, w in sides if abs(h * width - w * height) <= height + width)
    return next((round(height / h) for h in found), None)


def format_strides(strides: Mapping[str, int | None]) -> str:
    """`p3 (stride 8), p4 (stride 16)`."""
    return ", ".join(
        name if stride is None else f"{name} (stride {stride})" for name, stride in strides.items()
    )


def describe_family(family: Any) -> dict[str, str]:
    """The options of a family of detectors, and those of its detections."""
    own = [field.name for field in fields(family) if field.name != "suppression"]
    last = [field.name for field in fields(family.suppression)]
    return {
        "family": f"{type(family).__name__}: {format_values(family, own)}",
        "detections": format_values(family.suppression, last),
    }


def format_values(source: Any, names: Sequence[str]) -> str:
    """The values of attributes: `scale=8.0, last=16`."""
    return ", ".join(f"{name}={getattr(source, name)}" for name in names) or "no options"
