"""The store of a recipe's teacher: its identity, its folder, and how it is filled."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import asdict
from typing import Any

from stillhouse.batches import Batch
from stillhouse.build.data import data_is_finite, make_filling_loader
from stillhouse.build.networks import TeacherNetwork, example_of
from stillhouse.build.session import Session
from stillhouse.data.cache import cache_folder
from stillhouse.data.loader import Loader
from stillhouse.data.transforms import is_random
from stillhouse.engine.interrupt import Interrupt, Stopped
from stillhouse.models import weights
from stillhouse.recipes.schema import Data, TeacherSpec
from stillhouse.teachers.frozen import Frozen
from stillhouse.teachers.store.fill import (
    Filling,
    compute_rows,
    describe_filling,
    fill,
    measure_pace,
)
from stillhouse.teachers.store.identity import StoreIdentity
from stillhouse.teachers.store.outputs import RowFormat
from stillhouse.teachers.store.store import Store, format_size

Say = Callable[[str], None]


def silent(text: str) -> None:
    """Print nothing."""


def view_count(data: Data) -> int:
    """The number of different views of an image; 0 for a new one in each epoch."""
    if not data_is_finite(data):
        return 0
    return data.views if data.views and is_random(data.transforms) else 1


def prefill(
    teacher: TeacherSpec | None, session: Session, loaded: TeacherNetwork | None, say: Say = silent
) -> None:
    """Fill the store of a teacher, if it has one, before many runs share it."""
    if teacher is not None and loaded is not None and teacher.store:
        filled_store(teacher, session, loaded, say).open()


def filled_store(teacher: TeacherSpec, session: Session, loaded: TeacherNetwork, say: Say) -> Store:
    """The full store; raises Stopped on an interrupt, with all rows computed so far written."""
    store = make_store(teacher, session, loaded)
    with Interrupt() as interrupt:
        fill(store, make_filling(teacher, session, loaded, say, lambda: interrupt.requested))
        # the only communication between ranks: any of them may have filled the store
        stop = interrupt.requested_on_any_rank(session.hardware.device)
    loaded.network.cpu()
    if stop:
        raise Stopped
    return store


def describe_store(teacher: TeacherSpec, session: Session, loaded: TeacherNetwork) -> str:
    """The size of the store and the time to fill it, for `doctor`; nothing is written."""
    store = make_store(teacher, session, loaded)
    left = store.rows - store.kept()
    if not left:
        return f"stored: {store.rows:,} outputs in {format_size(store.size)} at {store.folder}"
    filling = make_filling(teacher, session, loaded, silent, bool)
    with closing(filling.read(0)) as batches:
        outputs = (
            compute_rows(filling.teacher, batch, store, filling.storable) for batch in batches
        )
        pace = measure_pace(outputs)[1]
    return f"to store: {describe_filling(store, teacher.name, pace, left)}"


def make_filling(
    teacher: TeacherSpec,
    session: Session,
    loaded: TeacherNetwork,
    say: Say,
    stop: Callable[[], bool],
) -> Filling[Any]:
    """The teacher's frozen network, and the batches of all views of all training images."""
    device = session.hardware.device
    loader = make_filling_loader(session.data, session.sources, device, session.workers)
    views = view_count(session.data)
    loaded.network.cpu()
    network: Frozen[Any] = Frozen(
        loaded.network, session.task.inputs, (), (example_of(session.sources),)
    )
    network.network.to(device)
    return Filling(
        network,
        session.task.storable,
        teacher.name,
        lambda row: batches_from(row, loader, views),
        say,
        stop,
    )


def batches_from(row: int, loader: Loader, views: int) -> Generator[Batch[Any], None, None]:
    """All views of all samples, view by view, from a row of the store on."""
    first, key = divmod(row, len(loader.source))
    for view in range(first, views):
        start, skipped = divmod(key, loader.sampler.batch)
        for batch in loader.epoch(view, start):
            yield batch.rows(slice(skipped, None))
            skipped = 0
        key = 0


def make_store(teacher: TeacherSpec, session: Session, loaded: TeacherNetwork) -> Store:
    """The store of a teacher; by default in the cache folder, under the hash of its identity."""
    sources, spec = session.sources, teacher.store
    assert spec is not None
    identity = StoreIdentity(
        teacher=describe_teacher(teacher, loaded),
        data=sources.training.fingerprint,
        samples=len(sources.training),
        transforms=[asdict(transform) for transform in session.data.transforms],
        mean=sources.mean,
        std=sources.std,
        views=view_count(session.data),
        row_format=RowFormat(len(sources.classes), spec.precision, spec.top),
    )
    return Store(spec.path or cache_folder() / "outputs" / identity.digest()[:16], identity)


def describe_teacher(teacher: TeacherSpec, loaded: TeacherNetwork) -> dict[str, object]:
    """The teacher's part of the identity of a store; `state` includes buffers of the wrapper."""
    return {
        "name": teacher.name,
        "options": teacher.options,
        "state": weights.state_hash(loaded.network),
        "size": loaded.size,
    }
