"""Builds the teacher of a run: a network, cached in memory or read from a store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stillhouse.build.networks import TeacherNetwork, example_of
from stillhouse.build.session import Session
from stillhouse.build.store import Say, filled_store, silent, view_count
from stillhouse.errors import UserError
from stillhouse.methods.base import Method
from stillhouse.models.aliases import resolve_paths
from stillhouse.models.last_layers import last_layers
from stillhouse.recipes.schema import Recipe
from stillhouse.teachers.base import Teacher
from stillhouse.teachers.frozen import Frozen, NoTeacher
from stillhouse.teachers.learner import Learner
from stillhouse.teachers.memory import MemoryCached
from stillhouse.teachers.store.cached import DiskCached

NEED_TEXTS = {
    "moves": "trains the teacher",
    "views": "needs two views of each image",
}  # in messages


def make_teacher(
    recipe: Recipe,
    session: Session,
    loaded: TeacherNetwork | None,
    method: Method,
    say: Say = silent,
) -> Teacher[Any]:
    """The teacher of a recipe; its store is filled first, if it has one."""
    teacher = recipe.teacher
    if loaded is None or teacher is None:
        return NoTeacher()
    check_storable(recipe, method)
    if teacher.store:
        return DiskCached(filled_store(teacher, session, loaded, say))
    live = make_live(session, loaded, method)
    if teacher.remember:
        views = view_count(recipe.data)
        return MemoryCached(live, len(session.sources.training), views, session.task.storable)
    return live


def make_live(
    session: Session, loaded: TeacherNetwork, method: Method
) -> Frozen[Any] | Learner[Any]:
    """The teacher's network without a cache: frozen, or with layers that the method trains."""
    if method.moves_teacher:
        return make_learner(session, loaded, method)
    return make_frozen(session, loaded, method.teacher_taps)


def make_frozen(session: Session, loaded: TeacherNetwork, taps: Sequence[str] = ()) -> Frozen[Any]:
    """The frozen network, on its device."""
    loaded.network.cpu()
    example = example_of(session.sources)
    frozen: Frozen[Any] = Frozen(
        loaded.network, session.task.inputs, loaded.taps(taps, example), (example,)
    )
    frozen.network.to(session.hardware.device)
    return frozen


def make_learner(session: Session, loaded: TeacherNetwork, method: Method) -> Learner[Any]:
    """The network with the layers that the method trains, on its device."""
    loaded.network.cpu()
    example = example_of(session.sources)
    named = resolve_paths(loaded.inner, method.teacher_layers, example)
    layers = list(named.values()) or last_layers(loaded.inner, example)
    # moved before its parameters are collected, because moving may replace them
    loaded.network.to(session.hardware.device)
    return Learner(
        loaded.network,
        session.task.inputs,
        loaded.taps(layers, example).values(),
        loaded.taps(method.teacher_taps, example),
        (example.to(session.hardware.device),),
    )


def check_storable(recipe: Recipe, method: Method | None = None) -> None:
    """Raise UserError where the teacher's outputs cannot be cached as the recipe says.

    The views of images must be finite, and the method must need nothing but logits.
    """
    teacher = recipe.teacher
    if teacher is None or not (teacher.remember or teacher.store):
        return
    key = "store" if teacher.store else "remember"
    if not recipe.task.storable:
        raise UserError(
            f"teacher.{key} keeps one row of logits per image, but task={recipe.task.name} has "
            f"predictions at every location of an image; set teacher.{key}=false"
        )
    spec = next((m for m in recipe.method if m.storable is False), None)
    if spec or (method and (method.teacher_taps or method.views > 1 or method.moves_teacher)):
        raise UserError(
            f"teacher.{key} keeps logits only, but method {(spec or recipe.method[0]).name} "
            f"{describe_need(spec, method)}; set teacher.{key}=false"
        )
    if recipe.data.mix:
        raise UserError(
            f"teacher.{key} caches outputs of repeated images, but data.mix makes new images; "
            "leave one of them out"
        )
    if not view_count(recipe.data):
        raise UserError(
            f"teacher.{key} needs finitely many views of each image; set data.views=1, or leave "
            f"{key} out"
        )


def describe_need(spec: Any, method: Method | None) -> str:
    """What a method needs of the teacher besides logits, for messages."""
    needs = set(spec.needs if spec else ())
    if method is not None:
        needs |= {"moves"} if method.moves_teacher else set()
        needs |= {"views"} if method.views > 1 else set()
    for need, text in NEED_TEXTS.items():
        if need in needs:
            return text
    pairs = getattr(spec, "pairs", None)
    if pairs and not isinstance(pairs, str):
        return f"needs the teacher's {pairs[0][1]}"
    return f"needs the teacher's {method.teacher_taps[0]}" if method else "taps its layers"
