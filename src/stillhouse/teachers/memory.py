"""A teacher that says a thing once and is quoted afterwards."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from stillhouse.errors import UserError
from stillhouse.teachers.base import Still, Teacher
from stillhouse.types import Trace


class Keyed(Protocol):
    """A batch that says which samples it holds, and in which view."""

    @property
    def key(self) -> Tensor:
        """Which sample: (N,)."""

    @property
    def view(self) -> Tensor:
        """Which augmentation of it: (N,)."""


B = TypeVar("B", bound=Keyed)


class Remembering(Still, Generic[B]):
    """Keeps the logits of another teacher in memory, by sample and view, in full precision.

    Only for finitely many views and for methods that ask for logits alone: then the answer to an
    image that was seen before is the one that the network gave, and costs one look-up.
    """

    def __init__(self, teacher: Teacher[B], samples: int, views: int) -> None:
        if views < 1:
            raise UserError(
                "teacher.remember needs finitely many views of each image; "
                "say data.views=1, or leave remember out"
            )
        self.teacher, self.samples, self.views = teacher, samples, views
        self._said: Tensor | None = None
        self._known = torch.zeros(0)

    @torch.no_grad()
    def __call__(self, batch: B) -> Trace:
        """The logits of a batch, from memory where all of it is known."""
        place = batch.view * self.samples + batch.key
        if self._said is not None and bool(self._known[place].all()):
            return Trace(self._said[place])
        out = self.teacher(batch).out
        if self._said is None:
            self._said = out.new_zeros(self.views * self.samples, out.shape[1])
            self._known = torch.zeros(len(self._said), dtype=torch.bool, device=out.device)
        self._said[place], self._known[place] = out, True
        return Trace(out)

    def fingerprint(self) -> str:
        """The hash of the network behind."""
        return self.teacher.fingerprint()
