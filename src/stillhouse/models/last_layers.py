"""The layers that a network ends with."""

from __future__ import annotations

from torch import Tensor, nn

from stillhouse.errors import UserError
from stillhouse.models.aliases import find_aliases, refusal
from stillhouse.models.places import declared_places, is_stage
from stillhouse.models.tap_path import TapPath

HEAD = "head"  # of a dense detector
# The children of a head that give class scores: of DenseHead, of RepPoints, and of torchvision.
CLASS_LAYERS = ("class_tower", "class_points", "score", "classification_head")
# The class scores of the first stage of two-stage detectors, ours and torchvision's.
REGION_LAYERS = ("heads.0.scores", "roi_heads.box_predictor.cls_score")


def last_layers(model: nn.Module, example: Tensor) -> list[str]:
    """Paths of the last block that learns before the classifier, and of the classifier.

    The block is the last child of the last stage, or the stage itself where that has no blocks.
    The classifier is the declared one, or else the last linear layer; of a dense detector it is the
    layers of the head that only class scores are made of, of a two-stage one the class scores of
    the first stage. Raises UserError for a network whose stages or classifier are not known.
    """
    aliases = find_aliases(model, example)
    stages = [path for name, path in aliases.items() if is_stage(name)]
    classifier = find_class_layers(model)
    if not stages or not classifier:
        raise UserError(
            refusal(model, "stage1", example)
            or f"no last stage and classifier were found in {type(model).__name__}; name the "
            "layers that acclimation moves, as in method.layers=[layer4.1, fc]"
        )
    stage = TapPath.parse(stages[-1]).module
    blocks = [
        name
        for name, child in model.get_submodule(stage).named_children()
        if next(child.parameters(), None) is not None
    ]
    listed = isinstance(model.get_submodule(stage), nn.Sequential | nn.ModuleList)
    block = f"{stage}.{blocks[-1]}" if blocks and listed else stage
    return [block, *classifier]


def find_class_layers(model: nn.Module) -> list[str]:
    """Paths of the layers of a detector's head that give class scores, or of a classifier."""
    layers = [
        path
        for path, part in model.named_modules()
        for parent, _, name in [path.rpartition(".")]
        if (name in CLASS_LAYERS and parent.rpartition(".")[2] == HEAD)
        or f".{path}".endswith(tuple(f".{layer}" for layer in REGION_LAYERS))
    ]
    classifier = find_classifier(model)
    return layers or ([classifier] if classifier else [])


def find_classifier(model: nn.Module) -> str | None:
    """The path of the declared classifier, or else of the last linear layer; None for neither."""
    linear = [path for path, part in model.named_modules() if isinstance(part, nn.Linear)]
    return declared_places(model).classifier or next(reversed(linear), None)
