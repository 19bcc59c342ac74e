"""Checks that several transforms share."""

from __future__ import annotations

from torch import Tensor

from stillhouse.errors import UserError


def check_channels(kind: str, image: Tensor) -> None:
    """Raise UserError for an image that is neither grey nor RGB: (C, H, W)."""
    if len(image) not in (1, 3):
        raise UserError(
            f"{kind} needs images of 1 or 3 channels, but these have {len(image)}; "
            f"leave {kind} out of data.transforms and data.strong"
        )


def unmovable(kind: str) -> UserError:
    """The error for a transform that boxes and masks cannot follow."""
    return UserError(
        f"{kind} rotates and shears images, but boxes and masks cannot follow it; use color_jitter "
        "for such data"
    )
