"""The format of stored outputs: one row per output, in columns of fixed width."""

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

VALUES = "logits"  # name of the column of logits, which every format has
RowArrays = Mapping[str, NDArray[Any]]  # the same rows of every column, by column name


class ColumnFormat(NamedTuple):
    """The dtype and shape of one row of a column."""

    kind: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """The number of bytes of a row."""
        return self.kind.itemsize * math.prod(self.shape)


@dataclass(frozen=True)
class RowFormat:
    """The format of the logits of one image: all classes, or the `top` highest and the rest.

    With `top`, the classes that are not kept are stored as the log of the sum of their
    exponentials. Raises UserError for a `top` that is out of range.
    """

    classes: int
    precision: Literal["half", "full"] = "half"
    top: int | None = None

    def __post_init__(self) -> None:
        if self.top is not None and not 0 < self.top < self.classes:
            raise UserError(
                f"teacher.store.top must be from 1 to {self.classes - 1} for {self.classes} "
                f"classes, got {self.top}; leave it out to keep all classes"
            )

    def columns(self) -> Mapping[str, ColumnFormat]:
        """The columns by name; each is a file."""
        half = self.precision == "half"
        kind, single = np.dtype(np.float16 if half else np.float32), np.dtype(np.float32)
        columns = {VALUES: ColumnFormat(kind, (self.top or self.classes,))}
        if self.top is not None:
            index = np.dtype(np.uint16 if self.classes <= 2**16 else np.int32)
            columns["indices"] = ColumnFormat(index, (self.top,))
            columns["rest"] = ColumnFormat(single, ())  # log-sum-exp of all other logits
        if half:
            columns["highest"] = ColumnFormat(single, ())  # the logit that is subtracted
        return columns

    def pack(self, out: Tensor) -> RowArrays:
        """Logits as columns: (N, C); raises UserError for logits that are not finite."""
        out = out.detach().to("cpu", torch.float32)
        if not bool(out.isfinite().all()):
            raise UserError(
                "the teacher's outputs are not finite and cannot be stored; check its weights and "
                "its normalisation"
            )
        columns, values = {}, out
        if self.top is not None:
            values, indices = out.topk(self.top, dim=1)
            columns["indices"] = indices.numpy().astype(self.columns()["indices"].kind)
            columns["rest"] = out.scatter(1, indices, -torch.inf).logsumexp(1).numpy()
        if self.precision == "half":
            # Half precision is finest near zero; with the highest logit subtracted, probable
            # classes are near zero.
            highest = out.amax(1)
            columns["highest"] = highest.numpy()
            values = _to_half(values - highest[:, None])
        return {VALUES: values.numpy(), **columns}

    def unpack(self, rows: RowArrays, device: torch.device) -> Tensor:
        """Columns as logits: -> (N, C) in float32.

        Classes that were not kept share the remaining probability evenly, so that softmax gives
        every kept class its own probability.
        """
        values = torch.from_numpy(rows[VALUES]).to(device).float()
        if self.precision == "half":
            values += torch.from_numpy(rows["highest"]).to(device)[:, None]
        if self.top is None:
            return values
        indices = torch.from_numpy(rows["indices"].astype(np.int64)).to(device)
        rest = torch.from_numpy(rows["rest"]).to(device) - math.log(self.classes - self.top)
        return rest[:, None].repeat(1, self.classes).scatter_(1, indices, values)


def _to_half(values: Tensor) -> Tensor:
    half = values.half()
    if not bool(half.isfinite().all()):
        raise UserError(
            f"the teacher's logits of one image differ by up to {float(values.abs().max()):.3g}, "
            "which half precision cannot represent; set teacher.store.precision=full"
        )
    return half
