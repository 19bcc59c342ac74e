"""A teacher whose logits are cached in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from stillhouse.errors import UserError
from stillhouse.teachers.base import Fixed, Teacher
from stillhouse.types import Trace

Storable = Callable[[Any], Tensor]  # a teacher's output -> one row per image (N, C)


class Keyed(Protocol):
    """A batch with the key and the view of each image."""

    @property
    def keys(self) -> Tensor:
        """The index of each sample in its data set: (N,)."""

    @property
    def views(self) -> Tensor:
        """The number of each image's augmentation: (N,)."""


B = TypeVar("B", bound=Keyed)


class MemoryCached(Fixed, Generic[B]):
    """Caches the logits of another teacher in memory, by sample and view, in full precision.

    The number of `views` must be finite, and only logits are cached. Raises UserError for fewer
    than one view.
    """

    def __init__(self, teacher: Teacher[B], samples: int, views: int, storable: Storable) -> None:
        if views < 1:
            raise UserError(
                "teacher.remember needs finitely many views of each image; "
                "set data.views=1 or teacher.remember=false"
            )
        self.teacher, self.samples, self.views = teacher, samples, views
        self.storable = storable
        self._rows: Tensor | None = None
        self._known = torch.zeros(0)

    @torch.no_grad()
    def __call__(self, batch: B) -> Trace:
        """The logits of a batch: (N, C); the network is called unless all rows are cached."""
        index = batch.views * self.samples + batch.keys
        if self._rows is not None and bool(self._known[index].all()):
            return Trace(self._rows[index])
        out = self.storable(self.teacher(batch).out)
        if self._rows is None:
            self._rows = out.new_zeros(self.views * self.samples, out.shape[1])
            self._known = torch.zeros(len(self._rows), dtype=torch.bool, device=out.device)
        self._rows[index], self._known[index] = out, True
        return Trace(out)

    def fingerprint(self) -> str:
        """The hash of the cached teacher."""
        return self.teacher.fingerprint()
