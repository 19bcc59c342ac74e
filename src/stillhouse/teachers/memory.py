"""A teacher whose logits are kept in memory."""

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
    """A batch that knows which samples it has, in which view."""

    @property
    def keys(self) -> Tensor:
        """Index of each sample: (N,)."""

    @property
    def views(self) -> Tensor:
        """Number of its augmentation: (N,)."""


B = TypeVar("B", bound=Keyed)


class Remembering(Fixed, Generic[B]):
    """Keeps the logits of another teacher in memory, by sample and view, in full precision.

    Only for finitely many views and for methods that need logits alone: the output for an image
    that was seen before is the one that the network gave, and costs one look-up.
    """

    def __init__(self, teacher: Teacher[B], samples: int, views: int, storable: Storable) -> None:
        if views < 1:
            raise UserError(
                "teacher.remember needs finitely many views of each image; "
                "set data.views=1, or leave remember out"
            )
        self.teacher, self.samples, self.views = teacher, samples, views
        self.storable = storable
        self._rows: Tensor | None = None
        self._known = torch.zeros(0)

    @torch.no_grad()
    def __call__(self, batch: B) -> Trace:
        """The logits of a batch, from memory where all of it is known."""
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
        """The hash of the network behind."""
        return self.teacher.fingerprint()
