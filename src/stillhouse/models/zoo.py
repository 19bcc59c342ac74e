"""Networks by name, without a download. Only this file imports timm and torchvision.models."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from types import ModuleType
from typing import Any

from torch import nn

from stillhouse.errors import UserError, did_you_mean, quote
from stillhouse.models import small
from stillhouse.models.cifar import catalogue as cifar
from stillhouse.models.detectors import catalogue as detectors
from stillhouse.models.detectors.torchvision.adapter import COLUMNS
from stillhouse.models.detectors.torchvision.columns import read_columns
from stillhouse.models.factories import call_factory, import_factory, load_factory, plugins
from stillhouse.models.mobilenet_v1 import MobileNetV1
from stillhouse.models.places import ATTRIBUTE, Places
from stillhouse.models.segmenters import catalogue as segmenters
from stillhouse.models.transformers_networks import (
    SEGMENTERS,
    transformers_names,
    transformers_network,
)

_MOBILE = "mobilenetv1"

# Options that would download weights, and those that are arguments of `create`.
_REFUSED = {
    **dict.fromkeys(
        ("pretrained", "weights", "weights_backbone", "checkpoint_path"),
        "a network is made without weights; load them from a file afterwards",
    ),
    **dict.fromkeys(("num_classes", "in_chans"), "write 'classes' and 'channels' instead"),
}
# Without auxiliary outputs beside the logits.
_SINGLE_OUTPUT = {"aux_logits": False, "init_weights": True}
_TORCHVISION_OPTIONS = {"googlenet": _SINGLE_OUTPUT, "inception_v3": _SINGLE_OUTPUT}
_TORCHVISION_DETECTORS = (
    "fcos_resnet50_fpn",
    "retinanet_resnet50_fpn",
    "retinanet_resnet50_fpn_v2",
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "maskrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn_v2",
)
_TWO_STAGE = ("fasterrcnn", "maskrcnn")  # whose first column is the background
_TORCHVISION_SEGMENTERS = (
    "deeplabv3_mobilenet_v3_large",
    "deeplabv3_resnet50",
    "deeplabv3_resnet101",
    "fcn_resnet50",
    "fcn_resnet101",
    "lraspp_mobilenet_v3_large",
)
# that all weights of torchvision's detectors and segmenters are trained with
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """The normalisation and size of images for the published weights of a network."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int, int]  # channels, height, width
    fixed: bool = False  # whether the network takes no other size


def create(name: str, classes: int, channels: int = 3, **options: Any) -> nn.Module:
    """A network with random weights: (N, channels, H, W) -> (N, classes).

    `timm/NAME`, `torchvision/NAME`, `cifar/NAME`, `stillhouse/NAME`, `transformers/CLASS`, a name
    that an installed
    package registers in the entry point group `stillhouse.models`, or, where such names are trusted
    (see `models.factories`), `package.module:factory`.
    `detector/NAME` returns a `Dense` instead (see `models.detectors`). A detector of torchvision is
    returned as it is, and adapted by the task; its option `columns` is for weights with other
    columns than the classes of the data (see `models.detectors.torchvision.columns`).
    `segmenter/NAME` returns a `Segmentation` (see `models.segmenters`), a segmenter of torchvision
    a mapping that `read_segmentation` reads.
    """
    for option in options:
        if option in _REFUSED:
            raise UserError(f"{name}: option {option!r} is not accepted; {_REFUSED[option]}")
    source, _, rest = name.partition("/")
    if source in _SOURCES:
        _check_known(name)
        return _make(name, _SOURCES[source], rest, classes, channels, **options)
    known = plugins()
    if name not in known and ":" not in name:
        raise UserError(_unknown(name, known))
    factory = load_factory(name, known[name]) if name in known else import_factory(name)
    network = call_factory(name, factory, classes, channels, options)
    if not isinstance(network, nn.Module):
        raise UserError(
            f"{name}: the factory returned a {type(network).__name__}, not an nn.Module"
        )
    return network


def list_models(pattern: str = "") -> list[str]:
    """All known names that contain a word, or match a glob with `*`, sorted."""
    source, _, rest = pattern.partition("/")
    sources = [source] if rest and source in _SOURCES else _SOURCES  # some take seconds to import
    known = [*plugins(), *(name for source in sources for name in _listed(source))]
    if any(sign in pattern for sign in "*?["):
        return sorted(name for name in known if fnmatch(name.lower(), pattern.lower()))
    return sorted(name for name in known if pattern.lower() in name.lower())


def is_detector(name: str) -> bool:
    """Whether a name is that of a detector: `detector/NAME`, or one of torchvision's."""
    source, _, rest = name.partition("/")
    return source == "detector" or (source == "torchvision" and rest in _TORCHVISION_DETECTORS)


def is_segmenter(name: str) -> bool:
    """Whether a name is that of a network for semantic segmentation."""
    source, _, rest = name.partition("/")
    if source == "transformers":
        return rest.endswith(SEGMENTERS)
    return source == "segmenter" or (source == "torchvision" and rest in _TORCHVISION_SEGMENTERS)


def preprocessing(name: str) -> Preprocessing | None:
    """The preprocessing of the published weights of that name; None where there are none."""
    source, _, rest = name.partition("/")
    if source in ("timm", "torchvision"):
        _check_known(name)
    if source == "timm":
        config = _library("timm").get_pretrained_cfg(rest)
        if config is None:
            return None
        fixed = bool(config.fixed_input_size)
        return Preprocessing(tuple(config.mean), tuple(config.std), config.input_size, fixed)
    if source == "torchvision" and is_detector(name):
        return Preprocessing(*_IMAGENET, (3, 800, 1333))
    if source == "torchvision" and is_segmenter(name):
        return Preprocessing(*_IMAGENET, (3, 520, 520))
    if source == "torchvision":
        published = _library("torchvision.models").get_model_weights(rest)
        preset = getattr(published, "IMAGENET1K_V1", published.DEFAULT).transforms()
        side = preset.crop_size[0]
        return Preprocessing(tuple(preset.mean), tuple(preset.std), (3, side, side))
    return None


# ----------------------------------------------------------------------------------------- sources


def _cifar(name: str, classes: int, channels: int, **options: Any) -> nn.Module:
    return cifar.cifar_network(name, classes, channels, **options)


def _stillhouse(name: str, classes: int, channels: int, **options: Any) -> nn.Module:
    if name == _MOBILE:
        return MobileNetV1(classes, channels, **options)
    return small.small_resnet(name, classes, channels, **options)


def _detector(name: str, classes: int, channels: int, **options: Any) -> nn.Module:
    return detectors.make_detector(name, classes, channels, create, **options)


def _segmenter(name: str, classes: int, channels: int, **options: Any) -> nn.Module:
    return segmenters.make_segmenter(name, classes, channels, create, **options)


def _timm(name: str, classes: int, channels: int, **options: Any) -> nn.Module:
    create_model = _library("timm").create_model
    network: nn.Module = create_model(
        name, pretrained=False, num_classes=classes, in_chans=channels, **options
    )
    return network


def _torchvision(name: str, classes: int, channels: int, **options: Any) -> nn.Module:
    if name in _TORCHVISION_DETECTORS:
        return _torchvision_detector(name, classes, channels, **options)
    if name in _TORCHVISION_SEGMENTERS:
        return _torchvision_segmenter(name, classes, channels, **options)
    options = {**_TORCHVISION_OPTIONS.get(name, {}), **options}
    network = _from_torchvision(name, channels, num_classes=classes, **options)
    if name.startswith("densenet"):
        # Its last ReLU is a function, so that no module returns the map that is pooled. This one
        # does, and changes nothing: after an nn.ReLU that function could not write in place.
        features: Any = network.get_submodule("features")
        features.add_module("relu5", nn.Threshold(0.0, 0.0))
    return network


def _torchvision_detector(
    name: str, classes: int, channels: int, columns: str | None = None, **options: Any
) -> nn.Module:
    width, chosen = classes + name.startswith(_TWO_STAGE), None
    if columns is not None:
        width, chosen = read_columns(columns, f"torchvision/{name}", classes)
    network = _from_torchvision(name, channels, num_classes=width, weights_backbone=None, **options)
    # torchvision's transform of images takes any option, and ignores what it does not know
    known = [*inspect.signature(type(network)).parameters, "trainable_backbone_layers", "columns"]
    for option in options:
        if option not in known:
            hint = did_you_mean(option, known)
            raise UserError(f"torchvision/{name} has no option {option!r}{hint}")
    if chosen is not None:
        setattr(network, COLUMNS, chosen)
    _set_pretrained_part(network, "backbone.body")
    return network


def _torchvision_segmenter(
    name: str, classes: int, channels: int, aux_loss: bool = False
) -> nn.Module:
    light = name.startswith("lraspp")
    if light and aux_loss:
        raise UserError(f"torchvision/{name} has no auxiliary head; remove aux_loss")
    options = {"num_classes": classes, "weights_backbone": None, "aux_loss": aux_loss}
    network = _from_torchvision(name, channels, **options)
    resnet = {f"stage{n}": f"backbone.layer{n}" for n in (1, 2, 3, 4)}
    classifier = "classifier" if light else "classifier.4"  # its head sums scores of two maps
    setattr(network, ATTRIBUTE, Places(resnet if "resnet" in name else {}, classifier=classifier))
    _set_pretrained_part(network, "backbone")
    return network


def _set_pretrained_part(network: nn.Module, path: str) -> None:
    """Say where weights of a classifier belong."""
    # not registered as a module, so that each parameter has one name
    object.__setattr__(network, "pretrained_part", network.get_submodule(path))


def _from_torchvision(name: str, channels: int, **options: Any) -> nn.Module:
    network: nn.Module = _library("torchvision.models").get_model(name, weights=None, **options)
    if channels != 3:
        _replace_first_convolution(network, channels)
    return network


_Maker = Callable[..., nn.Module]
_SOURCES: Mapping[str, _Maker] = {
    "stillhouse": _stillhouse,
    "cifar": _cifar,
    "detector": _detector,
    "segmenter": _segmenter,
    "timm": _timm,
    "torchvision": _torchvision,
    "transformers": transformers_network,
}


def _make(name: str, maker: _Maker, *arguments: Any, **options: Any) -> nn.Module:
    try:
        return maker(*arguments, **options)
    except (TypeError, ValueError, AssertionError) as error:
        if not options:
            raise
        # The library's message names the option; a traceback would not help.
        reason = str(error).partition("\n")[0].rpartition("() ")[2] or type(error).__name__
        given = ", ".join(f"{option}={value!r}" for option, value in options.items())
        raise UserError(f"{name} cannot be made with {given}: {reason}") from error


def _listed(source: str) -> list[str]:
    if source == "stillhouse":
        listed: Iterable[str] = (*small.SIZES, _MOBILE)
    elif source == "cifar":
        listed = cifar.cifar_names()
    elif source == "detector":
        listed = detectors.FAMILIES
    elif source == "segmenter":
        listed = segmenters.FAMILIES
    elif source == "transformers":
        listed = transformers_names()
    elif source == "timm":
        listed = _library("timm").list_models()
    else:
        models = _library("torchvision.models")
        listed = [
            *models.list_models(module=models),
            *_TORCHVISION_DETECTORS,
            *_TORCHVISION_SEGMENTERS,
        ]
    return [f"{source}/{name}" for name in listed]


def _check_known(name: str) -> None:
    source, _, rest = name.partition("/")
    listed = _listed(source)
    # `resnet18.a1_in1k` is timm's resnet18 with one of its published sets of weights.
    if source == "timm" and "." in rest:
        listed += [f"timm/{name}" for name in _library("timm").list_pretrained()]
    if name not in listed:
        if not listed:
            raise UserError(f"{name} needs {source}, which is not installed: pip install {source}")
        hint = did_you_mean(rest, _likeliest_first(rest, [n.partition("/")[2] for n in listed]))
        raise UserError(f"{source} has no network {quote(rest)}{hint}")


def _likeliest_first(word: str, known: Iterable[str]) -> list[str]:
    return sorted(known, key=lambda name: (not name.endswith(f"/{word}"), len(name), name))


def _unknown(name: str, installed: Iterable[str]) -> str:
    source, slash, _ = name.partition("/")
    spaces = sorted({*_SOURCES, *(plugin.partition("/")[0] for plugin in installed)})
    ways = f"known are {', '.join(f'{space}/…' for space in spaces)} and package.module:factory"
    if not slash:
        hint = did_you_mean(name, _likeliest_first(name, list_models()))
        return f"{quote(name)} does not say where the network comes from: {ways}{hint}"
    if source in spaces:
        return f"{source} has no network {quote(name)}{did_you_mean(name, installed)}"
    return (
        f"unknown source {quote(source)} of the network {quote(name)}: {ways}"
        f"{did_you_mean(source, spaces)}"
    )


def _library(module: str) -> ModuleType:
    """timm or torchvision, imported late because each takes seconds."""
    try:
        return importlib.import_module(module)
    except (RuntimeError, ImportError, OSError) as error:
        if "torchvision" in str(error) and "nms" in str(error):
            raise UserError(
                "torch and torchvision come from different builds (operator torchvision::nms is "
                "missing); install both of one release from one index, as in "
                "`pip install --force-reinstall torch torchvision`"
            ) from error
        raise


def _replace_first_convolution(network: nn.Module, channels: int) -> None:
    """Replace the first convolution of a network by one for another number of channels."""
    convolutions = ((p, m) for p, m in network.named_modules() if isinstance(m, nn.Conv2d))
    path, old = next(convolutions, ("", None))
    if old is None or old.in_channels != 3:
        raise UserError(
            f"{type(network).__name__} has no first convolution of 3 channels that could be "
            f"replaced by one of {channels}"
        )
    geometry: Any = {
        key: getattr(old, key) for key in ("kernel_size", "stride", "padding", "dilation")
    }
    new = nn.Conv2d(channels, old.out_channels, bias=old.bias is not None, **geometry)
    # With the scale of the weights that it replaces.
    nn.init.normal_(new.weight, std=float(old.weight.detach().std()))
    if new.bias is not None and old.bias is not None:
        new.bias.data.copy_(old.bias.data)
    parent, _, child = path.rpartition(".")
    setattr(network.get_submodule(parent), child, new)
