"""Converting and checking targets, for all axes."""

from dataclasses import replace

from torch import Tensor

from stillhouse.errors import UserError
from stillhouse.types import Site


def as_class_index(target: Tensor | None, logits: Tensor, kind: str) -> Tensor:
    """The class index of each row as a column: (N,) or one-hot (N, C) -> (N, 1).

    Raises a ValueError that names the stage, `kind`, where there is none, and a UserError where
    some rows have none; on an accelerator that would wait for the device, and is not checked.
    """
    if target is None:
        raise ValueError(f"{kind} needs labels, but the site has none")
    if target.ndim == 1 and not target.is_floating_point():
        if target.device.type == "cpu" and bool((target < 0).any()):
            raise UserError(
                f"{kind} needs the label of every image, but some images of the batch have none; "
                "leave them out, or choose a method that needs no labels, such as kd"
            )
        return target[:, None]
    if target.shape == logits.shape and bool(((target > 0).sum(1) == 1).all()):
        return target.argmax(1, keepdim=True)
    raise ValueError(
        f"{kind} needs one class per row, as an index or one-hot, "
        f"got {target.dtype} of shape {tuple(target.shape)}"
    )


def leave_out_background(site: Site) -> Site:
    """A dense site whose rows without a class, of target -1, have weight 0 and any target.

    Other sites are returned as they are: there a missing label is an error.
    """
    target = site.target
    if site.mass is None or target is None or target.ndim != 1:
        return site
    counted = (target >= 0).to(site.student.dtype)
    weight = counted if site.weight is None else counted * site.weight
    return replace(site, target=target.clamp(min=0), weight=weight)


def as_multi_hot(target: Tensor | None, logits: Tensor, kind: str) -> Tensor:
    """The multi-hot target of each row: (N,) or (N, C) -> (N, C).

    A row whose class index is -1, as the background of a detector, has no class.
    """
    if target is None:
        raise ValueError(f"{kind} needs labels, but the site has none")
    if target.ndim == 1:
        known = (target >= 0)[:, None].to(logits.dtype)
        return logits.new_zeros(logits.shape).scatter(1, target.clamp(min=0)[:, None], known)
    if target.shape != logits.shape:
        raise ValueError(
            f"{kind} needs labels of shape {tuple(logits.shape)}, got {tuple(target.shape)}"
        )
    return target
