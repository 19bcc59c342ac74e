"""Diagnoses of the networks in folders of runs, computed and kept in diagnosis.json."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
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
from stillhouse.build.session import Session
from stillhouse.build.teacher import make_live
from stillhouse.data.source import Source, classes_of, take
from stillhouse.data.stratify import stratify
from stillhouse.engine import checkpoints, environment
from stillhouse.engine.pupil import Pupil
from stillhouse.engine.state import STATE
from stillhouse.errors import UserError
from stillhouse.explain import gradients
from stillhouse.explain.catalogue import MISSING, collector, missing_section, run_diagnoses
from stillhouse.explain.compared import Compared
from stillhouse.explain.guard import failed_section, failure_sentence
from stillhouse.explain.predictions import DEFAULT_OPTIONS, ExplainOptions
from stillhouse.explain.roles import CONTROL, STUDENT, TEACHER
from stillhouse.explain.section import Section, sections_from_json, sections_to_json
from stillhouse.explain.subset import SubsetLoader
from stillhouse.explain.train_mode import temporary_train_mode
from stillhouse.files import read_json, write_json
from stillhouse.methods.combined import NoTerms
from stillhouse.methods.control import Control
from stillhouse.recipes.schema import Recipe
from stillhouse.runs import training
from stillhouse.runs.teacher import find_teacher
from stillhouse.teachers.base import observe
from stillhouse.types import STRONG, Clock, Trace

DIAGNOSIS_FILE = "diagnosis.json"
GRADIENT_BATCHES = 4  # whose gradients are averaged
PREDICTIONS = "predictions"  # the section that says why there are no predictions
EARLIER = "Computed earlier"


class Student(NamedTuple):
    """A trained student: its name on the page, its recipe, and its weights."""

    name: str
    recipe: Recipe
    weights: Path


def diagnose(
    recipe: Recipe,
    students: Sequence[Student],
    session: Session,
    options: ExplainOptions = DEFAULT_OPTIONS,
    baseline: str = CONTROL,
) -> tuple[Section, ...]:
    """The diagnoses that the task names, for the teacher of a recipe and students.

    They are of the split that scores are measured on, as each section says.

    The page is about the last student; `baseline` names the one that it is compared with. What
    fails becomes a section that says why.
    """
    names = session.task.examine
    if not names:
        return ()
    try:
        predictions = predict(recipe, students, session, options)
    except Exception as error:
        return (failed_section(PREDICTIONS, "Predictions", error),)
    compared = replace(predictions, baseline=baseline, layout=options.layout)
    sections = run_diagnoses(names, compared, recipe.method)
    return tuple(
        section
        if section.failed or section.name == MISSING
        else replace(section, split=session.score_split)
        for section in sections
    )


def predict(
    recipe: Recipe, students: Sequence[Student], session: Session, options: ExplainOptions
) -> Compared[Any]:
    """What the task's diagnoses read, of the teacher and of students on the measured images.

    Raises if the last one has no outputs.
    """
    networks, missing = load_networks(recipe, students, session)
    images = stratified_sample(session.sources.measured, options.limit)
    loader = session.loader(images)
    collect = collector(session.task.examine)
    predictions = collect(
        networks,
        session.task,
        lambda: loader.epoch(0),
        session.sources.classes,
        lambda key: images[key].image,
        len(images),
        subset_loader(images, session),
    )
    missing = {**missing, **predictions.missing}
    return replace(predictions, missing=missing, source=session.sources.measured.name)


def load_networks(
    recipe: Recipe, students: Sequence[Student], session: Session
) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """Networks by name in eval mode on their device, and why others cannot be loaded."""
    networks: dict[str, nn.Module] = {}
    loaded, reason = try_teacher(recipe, session)
    missing = {TEACHER: reason} if reason else {}
    if loaded is not None:
        networks[TEACHER] = loaded.network
    for student in students:
        try:
            network = make_deployed(student.recipe, session.sources, student.weights)
        except Exception as error:
            if student is students[-1]:
                raise
            what = f"The network of {student.name}"
            missing[student.name] = failure_sentence(what, error, "loaded")
        else:
            networks[student.name] = network
    for network in networks.values():
        network.to(session.hardware.device).eval()
    return networks, missing


def try_teacher(recipe: Recipe, session: Session) -> tuple[TeacherNetwork | None, str]:
    """The teacher of a recipe, or the reason why it cannot be loaded; ("" without a teacher)."""
    if recipe.teacher is None or not recipe.distils:
        return None, ""
    try:
        loaded = find_teacher(recipe, recipe.teacher, session)
    except Exception as error:
        return None, failure_sentence(f"The teacher {recipe.teacher.name}", error, "loaded")
    if loaded is None:
        return None, (
            f"The weights of the teacher {recipe.teacher.name} are not in the cache any more; run "
            "the recipe again to train it."
        )
    if loaded.features_only:
        return None, f"The teacher {recipe.teacher.name} has no scores for the classes of the data."
    return loaded, ""


def subset_loader(images: Source, session: Session) -> SubsetLoader:
    """Loads some images again, as batches and as pixels without normalisation."""
    sources, device = session.sources, session.hardware.device
    mean, std = (torch.tensor(x, device=device)[:, None, None] for x in (sources.mean, sources.std))

    def batches(keys: Tensor) -> Iterable[Batch[Any]]:
        return session.loader(take(images, keys, images.name)).epoch(0)

    def pixels(inputs: Tensor) -> Tensor:
        return (255 * (inputs * std + mean)).round().clamp(0, 255).to(torch.uint8)

    return SubsetLoader(batches, pixels)


def stratified_sample(source: Source, limit: int) -> Source:
    """At most `limit` images, with the class frequencies of the source."""
    if len(source) <= limit:
        return source
    keys = stratify(classes_of(source), len(source.classes), limit, 0)
    return take(source, keys, f"{source.name}, {limit} of them")


# --------------------------------------------------------------------------------- of one run


def students_of(folder: Path, recipe: Recipe) -> list[Student]:
    """The control of a run, if there is one, and its student."""
    alone = replace(recipe, method=(Control(),), teacher=None, control=False)
    control = Student(CONTROL, alone, folder / "control" / training.STUDENT)
    student = Student(STUDENT, recipe, folder / training.STUDENT)
    return [control, student] if control.weights.is_file() else [student]


def diagnose_run(
    folder: Path, recipe: Recipe, session: Session, options: ExplainOptions = DEFAULT_OPTIONS
) -> tuple[Section, ...]:
    """The diagnoses of one run: its networks, and the gradients of its loss terms."""
    sections = diagnose(recipe, students_of(folder, recipe), session, options)
    try:
        gradient = diagnose_gradients(folder, recipe, session)
    except Exception as error:
        gradient = failed_section(gradients.NAME, gradients.TITLE, error)
    return sections if gradient is None else (*sections, gradient)


def diagnose_gradients(folder: Path, recipe: Recipe, session: Session) -> Section | None:
    """The gradient of each term at the start and at the end of a run; None without a teacher."""
    loaded, reason = try_teacher(recipe, session)
    if loaded is None:
        if reason and not session.task.examine:  # no other section says so
            return missing_section({TEACHER: reason})
        return None
    environment.seed_everything(recipe.seed, recipe.engine.deterministic)
    pupil = make_pupil(recipe, session, loaded).to(session.hardware.device)
    method = pupil.method
    teacher = make_live(session, loaded, method)
    loader = make_training_loader(recipe, session.sources, session.hardware.device, method.views)
    state = checkpoints.load_checkpoint(folder / STATE)
    steps = int(state["step"])
    moments = {}

    def traces(batch: Batch[Any]) -> Mapping[str, Trace]:
        return observe(teacher, batch, method.views)

    for moment, step in (("at the start", 0), ("at the end", max(0, steps - 1))):
        if step:
            pupil.load_state_dict(state["pupil"])
            teacher.restore(state["teacher"])
        batches = [*islice(loader.epoch(0), GRADIENT_BATCHES)]
        parameters = pupil.student.parameters()
        clock = Clock(step, steps, max(1, len(loader)))
        labels = label_terms(pupil, batches[0], traces(batches[0]), clock)
        moments[moment] = gradients.term_gradients(
            pupil, parameters, traces, batches, clock, labels
        )
    return gradients.section(moments)


def label_terms(
    pupil: Pupil[Any], batch: Batch[Any], traces: Mapping[str, Trace], clock: Clock
) -> tuple[str, ...]:
    """The names of the terms of the labels, which are those of a pupil without a method."""
    with temporary_train_mode(pupil), torch.no_grad():
        names = tuple(Pupil(pupil.student, NoTerms(), pupil.task)(batch, traces, clock))
    return (*names, *(f"{name}_{STRONG}" for name in names))


# ------------------------------------------------------------------------------- what is kept


@dataclass(frozen=True)
class Kept:
    """The content of diagnosis.json."""

    weights: tuple[str, ...]  # name and hash of each student
    sections: tuple[Section, ...]


def sections_of_run(
    folder: Path,
    recipe: Recipe,
    session: Session | None,
    options: ExplainOptions = DEFAULT_OPTIONS,
) -> tuple[Section, ...]:
    """The diagnoses of a run: kept ones, or computed; without `session` only kept ones."""

    def compute(opened: Session) -> tuple[Section, ...]:
        return diagnose_run(folder, recipe, opened, options)

    return keep_or_compute(folder, students_of(folder, recipe), options, session, compute)


def keep_or_compute(
    folder: Path,
    students: Sequence[Student],
    options: ExplainOptions,
    session: Session | None,
    compute: Callable[[Session], tuple[Section, ...]],
) -> tuple[Section, ...]:
    """The sections that a folder keeps of these students, else computed ones, which it then keeps.

    `session` is None where the data cannot be opened. Sections of the same weights are replaced
    only by sections that did not fail and have the outputs of as many networks.
    """
    kept = read_kept(folder, damaged_is_none=options.recompute)
    ids = weight_ids(students)
    if kept is not None and kept.weights == ids and not options.recompute:
        return kept.sections
    earlier = kept.sections if kept is not None and {*ids} <= {*kept.weights} else ()
    if session is None:
        return tuple(replace(section, note=f"{EARLIER}.") for section in earlier)
    sections = merge_diagnoses(compute(session), earlier)
    write_kept(folder, students, sections)
    return sections


def merge_diagnoses(new: Sequence[Section], earlier: Sequence[Section]) -> tuple[Section, ...]:
    """New sections, and earlier ones in place of those that failed or lack a network."""
    by_name = {section.name: section for section in earlier}
    failed = {section.name for section in new if section.failed}
    incomplete = bool({MISSING, PREDICTIONS} & {section.name for section in new})
    merged = [prefer(section, by_name.pop(section.name, None)) for section in new]
    left = [s for s in by_name.values() if not s.failed and s.name not in (MISSING, PREDICTIONS)]
    if left and (incomplete or failed):
        merged += [replace(s, note=s.note or f"{EARLIER}.") for s in left]
        order = {section.name: place for place, section in enumerate(earlier)}
        notices = dict.fromkeys((MISSING, PREDICTIONS), -1)
        merged.sort(key=lambda section: (order | notices).get(section.name, len(order)))
    return tuple(merged)


def prefer(new: Section, earlier: Section | None) -> Section:
    """The new section, or the earlier one where the new one is failed or lacks a network."""
    if earlier is None or earlier.failed or new.name == MISSING:
        return new
    if new.failed:
        reason = " ".join(new.sentences)
        return replace(earlier, note=f"{EARLIER}. {reason}")
    lacking = [name for name in new.missing if name not in earlier.missing]
    if lacking:
        return replace(earlier, note=f"{EARLIER}, with the outputs of {', '.join(lacking)}.")
    return new


def weight_ids(students: Sequence[Student]) -> tuple[str, ...]:
    """The name of each student with a hash of its weights."""
    return tuple(f"{s.name} {sha256(s.weights.read_bytes()).hexdigest()[:16]}" for s in students)


def write_kept(folder: Path, students: Sequence[Student], sections: Sequence[Section]) -> None:
    """Write diagnosis.json."""
    content = {"about": weight_ids(students), "sections": sections_to_json(sections)}
    write_json(folder / DIAGNOSIS_FILE, content)


def read_kept(folder: Path, *, damaged_is_none: bool = False) -> Kept | None:
    """The content of diagnosis.json; None without the file, UserError if it is damaged."""
    path = folder / DIAGNOSIS_FILE
    if not path.is_file():
        return None
    try:
        return read_json(path, parse_kept, f"run `stillhouse explain {folder}` to write it again")
    except UserError:
        if damaged_is_none:
            return None
        raise


def parse_kept(content: dict[str, Any]) -> Kept:
    """The content of diagnosis.json; raises ValueError, KeyError or TypeError."""
    return Kept(tuple(map(str, content["about"])), sections_from_json(content["sections"]))
