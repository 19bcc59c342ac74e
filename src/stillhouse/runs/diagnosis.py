"""From folders of runs to diagnoses: load the networks, hear them, and keep what was found."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from stillhouse.batches import Batch
from stillhouse.build.data import make_training_loader
from stillhouse.build.networks import TeacherNetwork, make_deployed
from stillhouse.build.run import make_pupil
from stillhouse.build.teacher import make_live
from stillhouse.build.workshop import Workshop
from stillhouse.data.source import Source, take, targets_of
from stillhouse.data.stratify import stratify
from stillhouse.engine import checkpoints, environment
from stillhouse.engine.state import STATE
from stillhouse.errors import UserError
from stillhouse.explain import gradient
from stillhouse.explain.close import Closer
from stillhouse.explain.hear import listen
from stillhouse.explain.hearing import AS_EVER, CONTROL, TEACHER, Look
from stillhouse.explain.parts import sections
from stillhouse.explain.section import Section, dump, parse
from stillhouse.files import write_json
from stillhouse.methods.control import Control
from stillhouse.recipes.schema import Recipe
from stillhouse.runs.teaching import find_teacher
from stillhouse.runs.training import STUDENT
from stillhouse.types import Clock

KEPT = "diagnosis.json"
BATCHES = 4  # whose gradients are averaged


class Student(NamedTuple):
    """A trained student: what it is called, the recipe that it was trained by, its weights."""

    name: str
    recipe: Recipe
    weights: Path


def diagnose(
    recipe: Recipe,
    students: Sequence[Student],
    shop: Workshop,
    look: Look = AS_EVER,
    base: str = CONTROL,
) -> tuple[Section, ...]:
    """What the task's diagnoses say of the teacher of a recipe and of students, on test.

    The last student is the one that they are about, and `base` the one that it is compared with.
    """
    networks: dict[str, nn.Module] = {}
    loaded = teacher_of(recipe, shop)
    if loaded is not None:
        networks[TEACHER] = loaded.network
    sources, device = shop.sources, shop.hardware.device
    for student in students:
        networks[student.name] = make_deployed(student.recipe, sources, student.weights)
    for network in networks.values():
        network.to(device).eval()
    heard = sample(sources.test, look.limit)
    loader = shop.loader(heard)
    hearing = listen(
        networks,
        shop.task,
        lambda: loader.epoch(0),
        sources.classes,
        lambda key: heard[key].image,
        len(heard),
        closer(heard, shop),
    )
    found = sections(shop.task, replace(hearing, base=base, layout=look.layout))
    return found if loaded or not recipe.distils else (unheard(recipe), *found)


def unheard(recipe: Recipe) -> Section:
    """That the teacher is missing, and how it comes back."""
    name = recipe.teacher.name if recipe.teacher else TEACHER
    said = (
        f"The teacher {name} was not heard: it was trained for this recipe, and the cache does not "
        "hold it any more. A run of the recipe trains it again; here students speak alone."
    )
    return Section("unheard", "What is not shown", (said,))


def closer(heard: Source, shop: Workshop) -> Closer:
    """Some samples once more, as networks are given them and as one looks at them."""
    sources, device = shop.sources, shop.hardware.device
    mean, std = (torch.tensor(x, device=device)[:, None, None] for x in (sources.mean, sources.std))

    def batches(keys: Tensor) -> Iterable[Batch[Any]]:
        return shop.loader(take(heard, keys, heard.name)).epoch(0)

    def pixels(images: Tensor) -> Tensor:
        return (255 * (images * std + mean)).round().clamp(0, 255).to(torch.uint8)

    return Closer(batches, pixels)


def sample(source: Source, limit: int) -> Source:
    """At most so many samples, every class with its share: files may come sorted by class."""
    if len(source) <= limit:
        return source
    return take(
        source,
        stratify(targets_of(source), len(source.classes), limit, 0),
        f"{source.name}, {limit} of them",
    )


def teacher_of(recipe: Recipe, shop: Workshop) -> TeacherNetwork | None:
    """The teacher of a recipe, where it has one whose weights are there."""
    if recipe.teacher is None or not recipe.distils:
        return None
    return find_teacher(recipe, recipe.teacher, shop)


def diagnose_run(
    folder: Path, recipe: Recipe, shop: Workshop, look: Look = AS_EVER
) -> tuple[Section, ...]:
    """What can be said of one run: its networks on test, and the gradients of its terms."""
    found = diagnose(recipe, students_of(folder, recipe), shop, look)
    pulls = gradients_of(folder, recipe, shop)
    return found if pulls is None else (*found, pulls)


def students_of(folder: Path, recipe: Recipe) -> list[Student]:
    """The control of a run, where it has one, and its student."""
    alone = replace(recipe, method=(Control(),), teacher=None, control=False)
    control = Student(CONTROL, alone, folder / "control" / STUDENT)
    student = Student("student", recipe, folder / STUDENT)
    return [control, student] if control.weights.is_file() else [student]


def gradients_of(folder: Path, recipe: Recipe, shop: Workshop) -> Section | None:
    """How each term pulls the student as the run begins, and as it ends."""
    loaded = teacher_of(recipe, shop)
    if loaded is None:
        return None
    environment.seed_everything(recipe.seed, recipe.engine.deterministic)
    pupil = make_pupil(recipe, shop, loaded).to(shop.hardware.device)
    method = pupil.method
    teacher = make_live(shop, loaded, method)
    loader = make_training_loader(recipe, shop.sources, shop.hardware.device, method.views)
    state = checkpoints.load_checkpoint(folder / STATE)
    steps = int(state["step"])
    moments = {}
    for moment, step in (("at the start", 0), ("at the end", max(0, steps - 1))):
        if step:
            pupil.load_state_dict(state["pupil"])
            teacher.restore(state["teacher"])
        batches = [*islice(loader.epoch(0), BATCHES)]
        own = pupil.student.parameters()
        clock = Clock(step, steps, max(1, len(loader)))
        moments[moment] = gradient.gradients(pupil, own, teacher, batches, clock)
    return gradient.section(moments)


# --------------------------------------------------------------------------------- what is kept


def sections_of(
    folder: Path, recipe: Recipe, shop: Workshop, look: Look = AS_EVER
) -> tuple[Section, ...]:
    """The diagnoses of a run: those that its folder keeps, or made now and kept."""
    students = students_of(folder, recipe)
    found = None if look.fresh else kept(folder, students)
    if found is None:
        found = diagnose_run(folder, recipe, shop, look)
        keep(folder, students, found)
    return found


def about(students: Sequence[Student]) -> list[str]:
    """Whom diagnoses are about: names, and the weights that they had."""
    return [f"{s.name} {sha256(s.weights.read_bytes()).hexdigest()[:16]}" for s in students]


def keep(folder: Path, students: Sequence[Student], found: Sequence[Section]) -> None:
    """Write diagnoses down, with whom they are about."""
    write_json(folder / KEPT, {"about": about(students), "sections": dump(found)})


def kept(folder: Path, students: Sequence[Student]) -> tuple[Section, ...] | None:
    """The diagnoses that a folder keeps of these networks; None where it keeps none of them."""
    path = folder / KEPT
    if not path.is_file():
        return None
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        return parse(content["sections"]) if content["about"] == about(students) else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is damaged; make it anew with `stillhouse explain {folder}`"
        ) from error
