"""Checks of a recipe before anything is trained."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import torch
from torch import nn

from stillhouse.build.data import make_training_loader
from stillhouse.build.networks import TeacherNetwork, example_of, make_student, untrained_teacher
from stillhouse.build.run import make_groups, make_pupil
from stillhouse.build.session import Session
from stillhouse.build.store import describe_store
from stillhouse.build.teacher import check_storable, make_live
from stillhouse.distributed import combine
from stillhouse.engine.pupil import Pupil
from stillhouse.errors import UserError
from stillhouse.methods.base import Method
from stillhouse.methods.setting import Setting
from stillhouse.models import cost, zoo
from stillhouse.recipes.schema import Recipe
from stillhouse.runs.tap_plan import describe_places, plan_of, suggestions
from stillhouse.runs.teacher import check_teacher, find_teacher
from stillhouse.teachers.base import Teacher, observe
from stillhouse.teachers.frozen import NoTeacher
from stillhouse.types import Clock

MEGABYTE = 2**20


class Check(NamedTuple):
    """The result of one check."""

    name: str
    passed: bool | None  # None: not run, because an earlier check failed
    message: str


class NotRun(Exception):
    """Raised by a check that needs the result of an earlier check, which failed."""


def check_recipe(recipe: Recipe, folder: Path = Path("runs")) -> Iterator[Check]:
    """Run all checks in turn; each gives one sentence, and a failed one does not stop the rest.

    `folder` is where runs are, whose disk is checked.
    """
    doctor = Doctor(recipe, folder)
    checks: dict[str, Callable[[], str]] = {
        "versions": doctor.check_versions,
        "data": doctor.check_data,
        "student": doctor.check_student,
        "teacher": doctor.check_teacher,
        "contract": doctor.check_contract,
        "taps": doctor.check_taps,
        "step": doctor.check_step,
        "disk": doctor.check_disk,
    }
    for name, check in checks.items():
        try:
            yield Check(name, True, check())
        except NotRun:
            yield Check(name, None, "not run, because a check above failed")
        except UserError as error:
            yield Check(name, False, str(error))


class Doctor:
    """The checks of a recipe, and the objects that they have built so far.

    Each check returns a sentence for the user, and raises UserError if it fails and NotRun if an
    earlier check that it needs has failed.
    """

    def __init__(self, recipe: Recipe, folder: Path = Path("runs")) -> None:
        self.recipe, self.folder = recipe, folder
        self._session: Session | None = None
        self._student: nn.Module | None = None
        self._teacher: TeacherNetwork | None = None
        self._pupil: Pupil[Any] | None = None

    @property
    def session(self) -> Session:
        """The data, task and device; raises NotRun before `check_data` has passed."""
        if self._session is None:
            raise NotRun
        return self._session

    @property
    def student(self) -> nn.Module:
        """The student; raises NotRun before `check_student` has passed."""
        if self._student is None:
            raise NotRun
        return self._student

    @property
    def teacher(self) -> TeacherNetwork | None:
        """The teacher, None without distillation; raises NotRun if it could not be built."""
        if self._teacher is None and self.recipe.distils:
            raise NotRun
        return self._teacher

    def check_versions(self) -> str:
        """Check that torch and torchvision fit together."""
        try:
            import torchvision
        except (ImportError, RuntimeError) as error:
            raise UserError(
                f"torchvision cannot be imported with torch {torch.__version__} ({error}); install "
                "matching releases of both"
            ) from error
        return f"torch {torch.__version__}, torchvision {torchvision.__version__}"

    def check_data(self) -> str:
        """Open all splits, and load one batch."""
        session = Session.open(self.recipe)
        sources = session.sources
        sizes = ", ".join(f"{len(one):,} {name}" for name, one in sources.by_name.items())
        if sources.test is None:
            sizes += ", no test split, so that scores are those of validation"
        loader = make_training_loader(self.recipe, sources, session.hardware.device)
        start = perf_counter()
        batch = next(iter(loader.epoch(0)))
        speed = len(batch) / (perf_counter() - start)
        shape = " x ".join(map(str, batch.images.shape[1:]))
        self._session = session
        return (
            f"{self.recipe.data.name}: {sizes}; {len(sources.classes)} classes; images {shape}; "
            f"first batch at {speed:,.0f} images/s" + "".join(f"; {note}" for note in sources.notes)
        )

    def check_student(self) -> str:
        """Build the student and call it once."""
        session = self.session
        self._student = student = make_student(self.recipe.student, session)
        return self.describe_size(student, self.recipe.student.name)

    def check_teacher(self) -> str:
        """Build the teacher, and evaluate it if it has weights."""
        session, teacher = self.session, self.recipe.teacher
        if teacher is None or not self.recipe.distils:
            return "none: the student is trained on labels only"
        loaded = find_teacher(self.recipe, teacher, session)
        if loaded is None:
            self._teacher = loaded = untrained_teacher(teacher, session)
            epochs = sum(member.train.epochs for member in teacher.networks if member.train)
            size = self.describe_size(loaded.inner, teacher.name)
            return f"{size}; it is trained first, for {epochs:g} epochs, and evaluated afterwards"
        self._teacher = loaded
        if loaded.features_only:
            size = self.describe_size(loaded.inner, teacher.name)
            return f"{size}; it gives features only, and has no score for the classes of the data"
        score = check_teacher(teacher, loaded, session)
        headline = session.task.headline
        value = f"{headline} {score['validation'][headline]:.2f} on validation"
        return f"{self.describe_size(loaded.inner, teacher.name)}; {value}"

    def check_contract(self) -> str:
        """Compare the classes, sizes and normalisations of both networks with the data."""
        teacher, sources = self.teacher, self.session.sources
        notes = list(teacher.notes) if teacher else []
        for network in (self.recipe.student, self.recipe.teacher):
            published = zoo.preprocessing(network.name) if network and network.weights else None
            data = (sources.mean, sources.std)
            if network and published and (published.mean, published.std) != data:
                notes.append(
                    f"published weights of {network.name} expect mean {published.mean} and std "
                    f"{published.std}, but the data have {sources.mean} and {sources.std}"
                )
        if teacher and teacher.unknown:
            notes.append(
                f"unknown: {', '.join(teacher.unknown)}; no file beside the weights says what the "
                "teacher was trained for, and the values of the data are used"
            )
        return "; ".join(notes) or "classes, size and normalisation are the same for both"

    def check_taps(self) -> str:
        """Build the method; lists its taps with shapes and adapters, and other possible taps."""
        teacher, built, example = self.teacher, self.student, example_of(self.session.sources)
        self._pupil = pupil = make_pupil(self.recipe, self.session, teacher)
        student = pupil.student.model
        if teacher is None:
            return f"none needed; taps of the student: {describe_places(student, example)}"
        setting = Setting(built, teacher.inner, example)
        if not pupil.method.student_taps:
            return "; ".join(
                part
                for part in (
                    f"none needed; taps of the student: {describe_places(student, example)}",
                    f"taps of the teacher: {describe_places(teacher.inner, example)}",
                    suggestions(setting),
                )
                if part
            )
        return "; ".join(
            [*plan_of(pupil.method, student, teacher.inner, example), suggestions(setting)]
        )

    def check_step(self) -> str:
        """Run and time one forward and backward pass; raises UserError for a non-finite loss."""
        session, pupil = self.session, self._pupil
        if pupil is None:
            raise NotRun
        pupil.to(session.hardware.device)
        teacher = self.make_teacher(pupil.method)
        make_groups(self.recipe.train, pupil, teacher)
        device, views = session.hardware.device, pupil.method.views
        loader = make_training_loader(self.recipe, session.sources, device, views)
        start = perf_counter()
        batch = next(iter(loader.epoch(0)))
        with session.hardware.autocast():
            terms = pupil(batch, observe(teacher, batch, views), Clock(0, 1, 1))
        loss = combine(terms)
        if not bool(loss.isfinite()):
            raise UserError(
                f"the first loss is {float(loss.detach())}; lower the weights, or train in float32"
            )
        loss.backward()
        seconds = perf_counter() - start
        total = round(self.recipe.train.epochs * len(loader))
        values = ", ".join(
            f"{n} {float(t.mean().detach()):.3g} x {t.weight:g}" for n, t in terms.items()
        )
        return f"{values}; {total:,} steps of about {seconds:.2g} s at most{self.describe_store()}"

    def make_teacher(self, method: Method) -> Teacher[Any]:
        """The teacher without its cache; raises UserError if its outputs cannot be cached."""
        if self.teacher is None:
            return NoTeacher()
        check_storable(self.recipe, method)
        return make_live(self.session, self.teacher, method)

    def describe_store(self) -> str:
        """The size of the teacher's store and the time to fill it; "" without a store."""
        teacher = self.recipe.teacher
        if self.teacher is None or teacher is None or not teacher.store:
            return ""
        return f"; {describe_store(teacher, self.session, self.teacher)}"

    def check_disk(self) -> str:
        """Check that there is space for the checkpoints of a run."""
        needed = 8 * sum(p.numel() * p.element_size() for p in self.student.parameters())
        free = shutil.disk_usage(existing_parent(self.folder)).free
        if free < 2 * needed:
            raise UserError(
                f"{free / MEGABYTE:,.0f} MB are free at {self.folder}, but checkpoints need about "
                f"{2 * needed / MEGABYTE:,.0f} MB; free some space or set another --out"
            )
        space = f"{free / MEGABYTE:,.0f} MB free at {self.folder}"
        return f"{space}, checkpoints need about {needed / MEGABYTE:,.1f} MB"

    def describe_size(self, network: nn.Module, name: str) -> str:
        """The parameters and operations of a network, for messages."""
        example = example_of(self.session.sources)[:1]
        work = cost.flops(network, example)
        size = f"{cost.parameters(network):,} parameters"
        return f"{name}: {size}, {work / 1e6:,.1f} MFLOPs per image"


def existing_parent(path: Path) -> Path:
    """The path, or its nearest parent that exists."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path
