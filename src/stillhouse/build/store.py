"""The disk cache of a recipe's teacher: which folder it is, and how it is filled."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import asdict
from typing import Any

from stillhouse.batches import Batch
from stillhouse.build.data import data_is_finite, make_filling_loader
from stillhouse.build.networks import TeacherNetwork, example_of
from stillhouse.build.workshop import Workshop
from stillhouse.data.cache import cache_folder
from stillhouse.data.loader import Loader
from stillhouse.data.transforms import is_random
from stillhouse.engine.interrupt import Interrupt, Stopped
from stillhouse.models import weights
from stillhouse.models.fitted import Fitted
from stillhouse.recipes.schema import Data, TeacherSpec
from stillhouse.teachers.frozen import Frozen
from stillhouse.teachers.store.fill import Filling, answer, begin, fill, words
from stillhouse.teachers.store.identity import Identity
from stillhouse.teachers.store.outputs import Form
from stillhouse.teachers.store.store import Store, amount

Say = Callable[[str], None]


def silent(text: str) -> None:
    """Print nothing."""


def view_count(data: Data) -> int:
    """How many views of an image there are; 0: a new one each epoch."""
    if not data_is_finite(data):
        return 0
    return data.views if data.views and is_random(data.transforms) else 1


def prefill(
    teacher: TeacherSpec | None, shop: Workshop, loaded: TeacherNetwork | None, say: Say = silent
) -> None:
    """Fill the store of a teacher that has one, before many runs share it."""
    if teacher is not None and loaded is not None and teacher.store:
        filled_store(teacher, shop, loaded, say).open()


def filled_store(teacher: TeacherSpec, shop: Workshop, loaded: TeacherNetwork, say: Say) -> Store:
    """The store with every output in it; a requested stop keeps what is there."""
    store = store_of(teacher, shop, loaded)
    with Interrupt() as interrupt:
        fill(store, filling_of(teacher, shop, loaded, say, lambda: interrupt.requested))
        # the only exchange between ranks, each of which may have been the one that filled
        stop = interrupt.requested_on_any_rank(shop.hardware.device)
    loaded.network.cpu()
    if stop:
        raise Stopped
    return store


def describe_store(teacher: TeacherSpec, shop: Workshop, loaded: TeacherNetwork) -> str:
    """What filling the store would take, or that it is full; nothing is written."""
    store = store_of(teacher, shop, loaded)
    left = store.rows - store.kept()
    if not left:
        return f"stored: {store.rows:,} outputs in {amount(store.size)} at {store.folder}"
    filling = filling_of(teacher, shop, loaded, silent, bool)
    with closing(filling.read(0)) as batches:
        outputs = (answer(filling.teacher, batch, store, filling.storable) for batch in batches)
        pace = begin(outputs)[1]
    return f"to store: {words(store, teacher.name, pace, left)}"


def filling_of(
    teacher: TeacherSpec,
    shop: Workshop,
    loaded: TeacherNetwork,
    say: Say,
    stop: Callable[[], bool],
) -> Filling[Any]:
    """The teacher's network, and every batch that it is asked for."""
    device = shop.hardware.device
    loader = make_filling_loader(shop.data, shop.sources, device, shop.workers)
    views = view_count(shop.data)
    loaded.network.cpu()
    network: Frozen[Any] = Frozen(loaded.network, shop.task.inputs, (), (example_of(shop.sources),))
    network.network.to(device)
    return Filling(
        network,
        shop.task.storable,
        teacher.name,
        lambda row: batches_from(row, loader, views),
        say,
        stop,
    )


def batches_from(row: int, loader: Loader, views: int) -> Generator[Batch[Any], None, None]:
    """Every view of every sample, view after view, from a row on."""
    first, key = divmod(row, len(loader.source))
    for view in range(first, views):
        start, skipped = divmod(key, loader.sampler.batch)
        for batch in loader.epoch(view, start):
            yield batch.rows(slice(skipped, None))
            skipped = 0
        key = 0


def store_of(teacher: TeacherSpec, shop: Workshop, loaded: TeacherNetwork) -> Store:
    """The store of a teacher, identified by everything that its outputs depend on."""
    sources, spec = shop.sources, teacher.store
    assert spec is not None
    identity = Identity(
        teacher=describe_teacher(teacher, loaded),
        data=sources.train.fingerprint,
        samples=len(sources.train),
        transforms=[asdict(transform) for transform in shop.data.transforms],
        mean=sources.mean,
        std=sources.std,
        views=view_count(shop.data),
        form=Form(len(sources.classes), spec.precision, spec.top),
    )
    return Store(spec.path or cache_folder() / "answers" / identity.digest()[:16], identity)


def describe_teacher(teacher: TeacherSpec, loaded: TeacherNetwork) -> dict[str, object]:
    """Which network it is, with what stands around it: all but the size is in its state."""
    network = loaded.network
    return {
        "name": teacher.name,
        "options": teacher.options,
        "state": weights.state_hash(network),
        "size": network.size if isinstance(network, Fitted) else None,
    }
