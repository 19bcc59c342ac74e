"""Checks that several axes share."""

from torch import Tensor


def labels(target: Tensor | None, logits: Tensor, asker: str) -> Tensor:
    """The class index of each row as a column: (N,) or one-hot (N, C) -> (N, 1)."""
    if target is None:
        raise ValueError(f"{asker} needs labels, and the site has none")
    if target.ndim == 1 and not target.is_floating_point():
        return target[:, None]
    if target.shape == logits.shape and bool(((target > 0).sum(1) == 1).all()):
        return target.argmax(1, keepdim=True)
    raise ValueError(
        f"{asker} needs one class a row, as an index or one-hot, "
        f"and got {target.dtype} of shape {tuple(target.shape)}"
    )


def multi_hot(target: Tensor | None, logits: Tensor, asker: str) -> Tensor:
    """Which classes each row has, a class index being one of them: (N,) or (N, C) -> (N, C)."""
    if target is None:
        raise ValueError(f"{asker} needs labels, and the site has none")
    if target.ndim == 1:
        return logits.new_zeros(logits.shape).scatter(1, target[:, None], 1.0)
    if target.shape != logits.shape:
        raise ValueError(
            f"{asker} needs labels of shape {tuple(logits.shape)}, and got {tuple(target.shape)}"
        )
    return target
