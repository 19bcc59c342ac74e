"""The layers that a network ends with."""

from __future__ import annotations

from torch import Tensor, nn

from stillhouse.errors import UserError
from stillhouse.models.stages import staged, stages


def closing(model: nn.Module, example: Tensor) -> list[str]:
    """Paths of the last block that learns before the classifier, and of the classifier.

    The block is the last child of the last stage, or the stage itself where that has no blocks.
    """
    known = stages(model, example)
    numbered = [path for name, path in known.items() if staged(name)]
    heads = [path for path, part in model.named_modules() if isinstance(part, nn.Linear)]
    if not numbered or not heads:
        raise UserError(
            f"{type(model).__name__} shows no last stage and classifier; name the layers that "
            "acclimation moves, as in method.layers=[layer4.1, fc]"
        )
    stage = numbered[-1]
    blocks = [
        name
        for name, child in model.get_submodule(stage).named_children()
        if next(child.parameters(), None) is not None
    ]
    listed = isinstance(model.get_submodule(stage), nn.Sequential | nn.ModuleList)
    block = f"{stage}.{blocks[-1]}" if blocks and listed else stage
    return [block, heads[-1]]
