"""A student that starts with some weights of its teacher."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stillhouse.build.networks import TeacherNetwork
from stillhouse.errors import UserError
from stillhouse.models.last_layers import find_classifier
from stillhouse.models.teacher_wrapper import TeacherWrapper

# The modules that are a part, also inside of one wrapper: `head`, `model.head`.
MODULES = {"backbone": ("backbone",), "neck": ("neck", "backbone.fpn"), "head": ("head",)}


def inherit_weights(student: nn.Module, teacher: TeacherNetwork, parts: Sequence[str]) -> str:
    """Copy parts of the teacher into the student, where names and shapes of tensors agree.

    -> what was copied, as a sentence. Raises UserError for a part that a network does not have, and
    for one of which no tensor agrees.
    """
    if "head" in parts:
        check_class_order(teacher, "student.inherit takes the teacher's head")
    counts = [copy_part(student, teacher.inner, part) for part in parts]
    texts = [
        f"{copied} of {total} tensors of its {part}"
        for part, (copied, total) in zip(parts, counts, strict=True)
    ]
    return f"the student starts with the teacher's weights in {' and '.join(texts)}"


def copy_part(student: nn.Module, teacher: nn.Module, part: str) -> tuple[int, int]:
    """Copy one part: -> the number of tensors that agree, and of all in the student's part."""
    own, other = state_of(student, part, "student"), state_of(teacher, part, "teacher")
    agreeing = [name for name in own if name in other and own[name].shape == other[name].shape]
    if not agreeing:
        raise UserError(
            f"student.inherit: no tensor of the student's {part} has the name and shape of one of "
            f"the teacher's; leave {part} out, or give both networks the same {part}"
        )
    with torch.no_grad():
        for name in agreeing:
            own[name].copy_(other[name])
    return len(agreeing), len(own)


def state_of(network: nn.Module, part: str, side: str) -> dict[str, Tensor]:
    """The parameters and buffers of a part, by their names inside it; not copied.

    A part inside of it is left out: the pyramid in the backbone of torchvision's detectors.
    """
    found = find_parts(network)
    if part not in found:
        raise UserError(
            f"student.inherit: the {side} {type(network).__name__} has no {part}; "
            f"it has {', '.join(found) or 'none of ' + ', '.join(MODULES)}"
        )
    prefix = f"{found[part]}."
    inside = tuple(f"{path}." for path in found.values() if path.startswith(prefix))
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in network.state_dict().items()
        if name.startswith(prefix) and not name.startswith(inside)
    }


def find_parts(network: nn.Module) -> dict[str, str]:
    """The paths of the parts of a network, by part; a classifier is a head, too."""
    paths = {path for path, _ in network.named_modules()}
    children = [name for name, _ in network.named_children() if name not in MODULES]
    wrappers = ["", *(f"{name}." for name in children)]
    found: dict[str, str] = {}
    for part, names in MODULES.items():
        for place in (f"{wrapper}{name}" for wrapper in wrappers for name in names):
            if place in paths:
                found.setdefault(part, place)
    classifier = None if "head" in found else find_classifier(network)
    return found | ({"head": classifier} if classifier else {})


def check_class_order(teacher: TeacherNetwork, reason: str) -> None:
    """Raise UserError for a teacher whose own classes are not those of the data in their order.

    `reason` says what reads its head, as the beginning of a sentence.
    """
    for one in teacher.members or (teacher,):
        wrapper = one.network if isinstance(one.network, TeacherWrapper) else None
        if wrapper is not None and (wrapper.select is not None or wrapper.features_only):
            raise UserError(
                f"{reason}, but the teacher's classes are others than those of the data, or in "
                "another order; train the teacher on these data"
            )
