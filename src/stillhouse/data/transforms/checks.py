"""What several transforms refuse."""

from __future__ import annotations

from torch import Tensor

from stillhouse.errors import UserError


def check_channels(kind: str, image: Tensor) -> None:
    """Refuse an image that is neither grey nor RGB: (C, H, W)."""
    if len(image) not in (1, 3):
        raise UserError(
            f"{kind} changes images of 1 or 3 channels, and these have {len(image)}; "
            f"leave {kind} out of data.transforms and data.strong"
        )
