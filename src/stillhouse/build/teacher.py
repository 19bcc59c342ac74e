"""The teacher as the loop asks it: live, remembered, or out of its store."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import last_layers as closed
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from stillhouse.batches import Labelled
from stillhouse.data.cache import cache_folder
from stillhouse.data.loader import Loader
from stillhouse.data.transforms import is_random
from stillhouse.engine.interrupt import Interrupt, Stopped
from stillhouse.errors import UserError
from stillhouse.methods.acclimation import Acclimation
from stillhouse.methods.base import Method
from stillhouse.models import weights
from stillhouse.models.last_layers import last_layers
from stillhouse.models.fitted import Fitted
from stillhouse.models.aliases import resolve_paths
from stillhouse.build.networks import Taught, example_of
from stillhouse.methods.plugin import Plugin
from stillhouse.recipes.schema import Data, Recipe, Teacher
from stillhouse.build.data import data_is_finite, make_filling_loader
from stillhouse.teachers.store.outputs import Form
from stillhouse.teachers.base import Teacher as Listener
from stillhouse.teachers.store.cached import Cached
from stillhouse.teachers.store.fill import Filling, answer, begin, fill, words
from stillhouse.teachers.frozen import Absent, Frozen
from stillhouse.teachers.store.identity import Identity
from stillhouse.teachers.learner import Learner
from stillhouse.teachers.memory import Remembering
from stillhouse.teachers.ensemble import Panel
from stillhouse.teachers.store.store import Store, amount
from stillhouse.teachers.views import BothViews

if TYPE_CHECKING:
    from stillhouse.build.workshop import Workshop

Say = Callable[[str], None]


def silent(text: str) -> None:
    """Say nothing."""


def make_listener(
    recipe: Recipe, shop: Workshop, taught: Taught | None, method: Method, say: Say = silent
) -> Listener[Labelled]:
    """The teacher as a recipe wants it asked; a store that is not full is filled now."""
    teacher = recipe.teacher
    if taught is None or teacher is None:
        return Absent()
    check_keeping(recipe, method)
    if teacher.store:
        return Cached(filled(recipe, shop, taught, say))
    live = make_live(recipe, shop, taught, method)
    if teacher.remember:
        return Remembering(live, len(shop.sources.train), views_of(recipe.data))
    return live


def make_live(recipe: Recipe, shop: Workshop, taught: Taught, method: Method) -> Listener[Labelled]:
    """The network itself, as the method wants it: still, learning, or several; of both views."""
    made: Listener[Labelled]
    if method.moves_teacher:
        made = make_learner(recipe, shop, taught, method)
    else:
        frozen = make_frozen(shop, taught, method.teacher_taps)
        apart = recipe.teacher is not None and recipe.teacher.teach == "apart"
        made = Panel(frozen, len(taught.members)) if apart else frozen
    return BothViews(made, shop.task.second) if method.views > 1 else made


def make_frozen(shop: Workshop, taught: Taught, taps: Sequence[str] = ()) -> Frozen[Labelled]:
    """The network itself, on its device."""
    taught.network.cpu()
    example = example_of(shop.sources)
    paths = taught.taps(taps, example)
    frozen: Frozen[Labelled] = Frozen(taught.network, shop.task.inputs, paths, (example,))
    frozen.network.to(shop.hardware.device)
    return frozen


def make_learner(
    recipe: Recipe, shop: Workshop, taught: Taught, method: Method
) -> Learner[Labelled]:
    """The network with the layers that acclimation moves, on its device."""
    taught.network.cpu()
    example = example_of(shop.sources)
    layers = next((m.layers for m in recipe.method if isinstance(m, Acclimation)), ())
    places = list(resolve_paths(taught.inner, layers, example).values()) or last_layers(taught.inner, example)
    # moved before it is looked into: parameters on another device would be other parameters
    taught.network.to(shop.hardware.device)
    return Learner(
        taught.network,
        shop.task.inputs,
        taught.taps(places, example).values(),
        taught.taps(method.teacher_taps, example),
        (example.to(shop.hardware.device),),
    )


def learner_of(listener: Listener[Labelled]) -> Learner[Labelled] | None:
    """The teacher that learns, whatever asks it; None where it does not."""
    inside = listener.teacher if isinstance(listener, BothViews) else listener
    return inside if isinstance(inside, Learner) else None


def check_keeping(recipe: Recipe, method: Method | None = None) -> None:
    """Refuse to keep answers to endless views, or for a method that asks for more than logits."""
    teacher = recipe.teacher
    if teacher is None or not (teacher.remember or teacher.store):
        return
    key = "store" if teacher.store else "remember"
    spec = next((m for m in recipe.method if m.storable is False), None)
    if spec or (method and (method.teacher_taps or method.views > 1 or method.moves_teacher)):
        raise UserError(
            f"teacher.{key} keeps logits alone, and method {(spec or recipe.method[0]).name} "
            f"{asked(spec, method)}; say teacher.{key}=false"
        )
    if recipe.data.mix:
        raise UserError(
            f"teacher.{key} keeps answers to images that come back, and data.mix makes new ones; "
            "leave one of them out"
        )
    if not views_of(recipe.data):
        raise UserError(
            f"teacher.{key} needs finitely many views of each image; say data.views=1, or leave "
            f"{key} out"
        )


def asked(spec: Any, method: Method | None) -> str:
    """What a method asks of the teacher beside logits."""
    needs = spec.needs if spec else ()
    if "moves" in needs or (method and method.moves_teacher):
        return "moves the teacher"
    if "views" in needs or (method and method.views > 1):
        return "asks about two views of each image"
    pairs = getattr(spec, "pairs", None)
    if pairs and not isinstance(pairs, str):
        return f"asks for the teacher's {pairs[0][1]}"
    return f"asks for the teacher's {method.teacher_taps[0]}" if method else "looks inside it"


def views_of(data: Data) -> int:
    """How many views of an image there are; 0: a new one each epoch."""
    if not data_is_finite(data):
        return 0
    return data.views if data.views and is_random(data.transforms) else 1


# ------------------------------------------------------------------------------------- the store


def prefill(recipe: Recipe, shop: Workshop, taught: Taught | None, say: Say = silent) -> None:
    """Fill the store of a recipe that asks for one, before many runs share it."""
    if taught is not None and recipe.teacher is not None and recipe.teacher.store:
        check_keeping(recipe)
        filled(recipe, shop, taught, say).open()


def filled(recipe: Recipe, shop: Workshop, taught: Taught, say: Say) -> Store:
    """The store with every answer in it; a stop that is asked for meanwhile keeps those it has."""
    store = store_of(recipe, shop, taught)
    with Interrupt() as interrupt:
        fill(store, filling_of(recipe, shop, taught, say, lambda: interrupt.asked))
        # the only word between the ranks, each of which may have been the one that filled
        stop = interrupt.agreed(shop.hardware.device)
    taught.network.cpu()
    if stop:
        raise Stopped
    return store


def forecast(recipe: Recipe, shop: Workshop, taught: Taught) -> str:
    """What filling the store would take, or that it is full; nothing is written."""
    store = store_of(recipe, shop, taught)
    assert recipe.teacher is not None
    left = store.rows - store.kept()
    if not left:
        return f"stored: {store.rows:,} answers in {amount(store.size)} at {store.folder}"
    filling = filling_of(recipe, shop, taught, silent, bool)
    with closed(filling.read(0)) as batches:
        pace = begin(answer(filling.teacher, batch, store) for batch in batches)[1]
    return f"to store: {words(store, recipe.teacher.name, pace, left)}"


def filling_of(
    recipe: Recipe, shop: Workshop, taught: Taught, say: Say, stop: Callable[[], bool]
) -> Filling[Labelled]:
    """The teacher, and all that it is asked."""
    assert recipe.teacher is not None
    loader = make_filling_loader(recipe, shop.sources, shop.hardware.device)
    views = views_of(recipe.data)
    return Filling(
        make_frozen(shop, taught),
        recipe.teacher.name,
        lambda row: batches_from(row, loader, views),
        say,
        stop,
    )


def batches_from(row: int, loader: Loader, views: int) -> Generator[Labelled, None, None]:
    """Every view of every sample, view after view, from a row on."""
    first, key = divmod(row, len(loader.source))
    for view in range(first, views):
        start, skipped = divmod(key, loader.plan.batch)
        for batch in loader.epoch(view, start):
            yield batch.rows(slice(skipped, None))
            skipped = 0
        key = 0


def store_of(recipe: Recipe, shop: Workshop, taught: Taught) -> Store:
    """The store that a recipe means, by all that its answers depend on."""
    assert recipe.teacher is not None and recipe.teacher.store is not None
    sources, said = shop.sources, recipe.teacher.store
    identity = Identity(
        teacher=described(recipe.teacher, taught),
        data=sources.train.fingerprint,
        samples=len(sources.train),
        transforms=[asdict(transform) for transform in recipe.data.transforms],
        mean=sources.mean,
        std=sources.std,
        views=views_of(recipe.data),
        form=Form(len(sources.classes), said.precision, said.top),
    )
    return Store(said.path or cache_folder() / "answers" / identity.digest()[:16], identity)


def described(teacher: Teacher, taught: Taught) -> dict[str, object]:
    """Which network it is, with what stands around it: all but the size is in its state."""
    network = taught.network
    return {
        "name": teacher.name,
        "options": teacher.options,
        "state": weights.state_hash(network),
        "size": network.size if isinstance(network, Fitted) else None,
    }
