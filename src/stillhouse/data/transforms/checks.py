"""Checks that several transforms share."""

from __future__ import annotations

from torch import Tensor

from stillhouse.errors import UserError


def check_size(size: int) -> None:
    """Refuse a side without pixels."""
    if size < 1:
        raise ValueError(f"size must be at least 1, and is {size}")


def check_probability(probability: float) -> None:
    """Refuse what is no probability."""
    if not 0 <= probability <= 1:
        raise ValueError(f"probability must lie in [0, 1], and is {probability}")


def check_rising(name: str, bounds: tuple[float, float]) -> None:
    """Refuse bounds of nothing, or in the wrong order."""
    if not 0 < bounds[0] <= bounds[1]:
        raise ValueError(f"{name} must rise from above 0, and is {bounds}")


def check_channels(kind: str, image: Tensor) -> None:
    """Raise UserError for an image that is neither grey nor RGB: (C, H, W)."""
    if len(image) not in (1, 3):
        raise UserError(
            f"{kind} needs images of 1 or 3 channels, but these have {len(image)}; "
            f"leave {kind} out of data.transforms and data.strong"
        )
