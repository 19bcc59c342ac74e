"""A teacher whose outputs are read from a store."""

from __future__ import annotations

from typing import Generic, TypeVar

from stillhouse.teachers.base import Fixed
from stillhouse.teachers.memory import Keyed
from stillhouse.teachers.store.store import Store
from stillhouse.types import Trace

B = TypeVar("B", bound=Keyed)


class DiskCached(Fixed, Generic[B]):
    """Reads the logits of each sample and view from a full store, without the network.

    Raises UserError for a store that is not full or damaged.
    """

    def __init__(self, store: Store) -> None:
        store.open()
        self.store = store

    def __call__(self, batch: B) -> Trace:
        """The logits of a batch, in float32 on its device."""
        rows = (batch.views * self.store.identity.samples + batch.keys).cpu().numpy()
        return Trace(self.store.row_format.unpack(self.store.take(rows), batch.keys.device))

    def fingerprint(self) -> str:
        """The hash of the teacher that filled the store."""
        return str(self.store.identity.teacher["state"])
