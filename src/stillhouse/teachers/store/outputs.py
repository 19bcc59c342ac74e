"""How answers are kept: a row each, in columns of fixed width."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stillhouse.errors import UserError

VALUES = "answers"  # the column that every form has
Rows = Mapping[str, NDArray[Any]]  # the same rows of every column, by its name


class Column(NamedTuple):
    """What one row holds under one name."""

    kind: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes of a row."""
        return self.kind.itemsize * math.prod(self.shape)


@dataclass(frozen=True)
class Form:
    """Logits of so many classes, all of them or the highest with the mass of the rest."""

    classes: int
    precision: Literal["half", "full"] = "half"
    top: int | None = None

    def __post_init__(self) -> None:
        if self.top is not None and not 0 < self.top < self.classes:
            raise UserError(
                f"teacher.store.top must be from 1 to {self.classes - 1} for {self.classes} "
                f"classes, and is {self.top}; leave it out to keep them all"
            )

    def columns(self) -> Mapping[str, Column]:
        """The columns by name, each of which is a file."""
        half = self.precision == "half"
        kind, single = np.dtype(np.float16 if half else np.float32), np.dtype(np.float32)
        found = {VALUES: Column(kind, (self.top or self.classes,))}
        if self.top is not None:
            index = np.dtype(np.uint16 if self.classes <= 2**16 else np.int32)
            found["indices"] = Column(index, (self.top,))
            found["rest"] = Column(single, ())  # log of the sum of all other exponentials
        if half:
            found["highest"] = Column(single, ())  # which the values are differences to
        return found

    def pack(self, out: Tensor) -> Rows:
        """Logits as columns: (N, C)."""
        out = out.detach().to("cpu", torch.float32)
        if not bool(out.isfinite().all()):
            raise UserError(
                "the teacher's answers are no finite numbers and cannot be stored; check its "
                "weights and its normalisation"
            )
        found, values = {}, out
        if self.top is not None:
            values, indices = out.topk(self.top, dim=1)
            found["indices"] = indices.numpy().astype(self.columns()["indices"].kind)
            found["rest"] = out.scatter(1, indices, -torch.inf).logsumexp(1).numpy()
        if self.precision == "half":
            # Half precision is finest near zero, which is where the probable classes then are.
            highest = out.amax(1)
            found["highest"] = highest.numpy()
            values = _halved(values - highest[:, None])
        return {VALUES: values.numpy(), **found}

    def unpack(self, rows: Rows, device: torch.device) -> Tensor:
        """Columns as logits: -> (N, C) in float32.

        The mass of what was not kept is spread evenly, so that softmax gives every kept class its
        own probability, and all others together theirs.
        """
        values = torch.from_numpy(rows[VALUES]).to(device).float()
        if self.precision == "half":
            values += torch.from_numpy(rows["highest"]).to(device)[:, None]
        if self.top is None:
            return values
        indices = torch.from_numpy(rows["indices"].astype(np.int64)).to(device)
        rest = torch.from_numpy(rows["rest"]).to(device) - math.log(self.classes - self.top)
        return rest[:, None].repeat(1, self.classes).scatter_(1, indices, values)


def _halved(values: Tensor) -> Tensor:
    half = values.half()
    if not bool(half.isfinite().all()):
        raise UserError(
            f"the teacher's answers to one image are {float(values.abs().max()):.3g} apart, which "
            "half precision cannot hold; say teacher.store.precision=full"
        )
    return half
