"""The teacher that training calls: a network, remembered in memory, or read from its store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stillhouse.build.networks import TeacherNetwork, example_of
from stillhouse.build.store import Say, filled_store, silent, view_count
from stillhouse.build.workshop import Workshop
from stillhouse.errors import UserError
from stillhouse.methods.base import Method
from stillhouse.models.last_layers import closing
from stillhouse.models.stages import paths
from stillhouse.recipes.schema import Recipe
from stillhouse.teachers.base import Teacher
from stillhouse.teachers.frozen import Absent, Frozen
from stillhouse.teachers.learner import Learner
from stillhouse.teachers.memory import Remembering
from stillhouse.teachers.store.cached import Cached

NEEDS = {"moves": "trains the teacher", "views": "needs two views of each image"}


def make_teacher(
    recipe: Recipe,
    shop: Workshop,
    loaded: TeacherNetwork | None,
    method: Method,
    say: Say = silent,
) -> Teacher[Any]:
    """The teacher of a recipe; a store that is not full is filled first."""
    teacher = recipe.teacher
    if loaded is None or teacher is None:
        return Absent()
    check_storable(recipe, method)
    if teacher.store:
        return Cached(filled_store(teacher, shop, loaded, say))
    live = make_live(shop, loaded, method)
    if teacher.remember:
        views = view_count(recipe.data)
        return Remembering(live, len(shop.sources.train), views, shop.task.storable)
    return live


def make_live(shop: Workshop, loaded: TeacherNetwork, method: Method) -> Frozen[Any] | Learner[Any]:
    """The network itself: frozen, or with layers that the method trains."""
    if method.moves_teacher:
        return make_learner(shop, loaded, method)
    return make_frozen(shop, loaded, method.teacher_taps)


def make_frozen(shop: Workshop, loaded: TeacherNetwork, taps: Sequence[str] = ()) -> Frozen[Any]:
    """The frozen network, on its device."""
    loaded.network.cpu()
    example = example_of(shop.sources)
    frozen: Frozen[Any] = Frozen(
        loaded.network, shop.task.inputs, loaded.taps(taps, example), (example,)
    )
    frozen.network.to(shop.hardware.device)
    return frozen


def make_learner(shop: Workshop, loaded: TeacherNetwork, method: Method) -> Learner[Any]:
    """The network with the layers that the method trains, on its device."""
    loaded.network.cpu()
    example = example_of(shop.sources)
    named = paths(loaded.inner, method.teacher_layers, example)
    places = list(named.values()) or closing(loaded.inner, example)
    # moved before its parameters are collected: on another device they would be other parameters
    loaded.network.to(shop.hardware.device)
    return Learner(
        loaded.network,
        shop.task.inputs,
        loaded.taps(places, example).values(),
        loaded.taps(method.teacher_taps, example),
        (example.to(shop.hardware.device),),
    )


def check_storable(recipe: Recipe, method: Method | None = None) -> None:
    """Refuse to store outputs for endless views, or for a method that needs more than logits."""
    teacher = recipe.teacher
    if teacher is None or not (teacher.remember or teacher.store):
        return
    key = "store" if teacher.store else "remember"
    spec = next((m for m in recipe.method if m.storable is False), None)
    if spec or (method and (method.teacher_taps or method.views > 1 or method.moves_teacher)):
        raise UserError(
            f"teacher.{key} keeps logits only, but method {(spec or recipe.method[0]).name} "
            f"{describe_need(spec, method)}; set teacher.{key}=false"
        )
    if recipe.data.mix:
        raise UserError(
            f"teacher.{key} keeps the outputs for images that come again, but data.mix makes new "
            "ones; leave one of them out"
        )
    if not view_count(recipe.data):
        raise UserError(
            f"teacher.{key} needs finitely many views of each image; set data.views=1, or leave "
            f"{key} out"
        )


def describe_need(spec: Any, method: Method | None) -> str:
    """What a method needs of the teacher beside logits."""
    needs = set(spec.needs if spec else ())
    if method is not None:
        needs |= {"moves"} if method.moves_teacher else set()
        needs |= {"views"} if method.views > 1 else set()
    for need, text in NEEDS.items():
        if need in needs:
            return text
    pairs = getattr(spec, "pairs", None)
    if pairs and not isinstance(pairs, str):
        return f"needs the teacher's {pairs[0][1]}"
    return f"needs the teacher's {method.teacher_taps[0]}" if method else "taps its layers"
