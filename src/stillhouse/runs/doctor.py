"""Everything that can fail, tried before anything runs."""

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
from stillhouse.build.store import describe_store
from stillhouse.build.teacher import check_storable, make_live
from stillhouse.build.workshop import Workshop
from stillhouse.distributed import combine
from stillhouse.engine.pupil import Pupil
from stillhouse.errors import UserError
from stillhouse.methods.base import Method
from stillhouse.methods.setting import Setting
from stillhouse.models import cost, zoo
from stillhouse.recipes.schema import Recipe
from stillhouse.runs.tap_plan import places, plan_of, suggestions
from stillhouse.runs.teaching import check_teacher, find_teacher
from stillhouse.teachers.base import Teacher, observe
from stillhouse.teachers.frozen import Absent
from stillhouse.types import Clock

MEGABYTE = 2**20


class Check(NamedTuple):
    """One thing that was tried; None: it was not, because something before it failed."""

    name: str
    passed: bool | None
    said: str


class Untried(Exception):
    """A check that needs what an earlier one did not get."""


def examine(recipe: Recipe) -> Iterator[Check]:
    """Every check in turn, each a sentence."""
    patient = Patient(recipe)
    looks: dict[str, Callable[[], str]] = {
        "versions": patient.versions,
        "data": patient.data,
        "student": patient.network,
        "teacher": patient.member,
        "contract": patient.contract,
        "taps": patient.taps,
        "step": patient.step,
        "disk": patient.disk,
    }
    for name, look in looks.items():
        try:
            yield Check(name, True, look())
        except Untried:
            yield Check(name, None, "not tried, because of what failed above")
        except UserError as error:
            yield Check(name, False, str(error))


class Patient:
    """What the checks have found so far."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self._shop: Workshop | None = None
        self._student: nn.Module | None = None
        self._taught: TeacherNetwork | None = None
        self._pupil: Pupil[Any] | None = None

    @property
    def shop(self) -> Workshop:
        """Data and device, if they are there."""
        if self._shop is None:
            raise Untried
        return self._shop

    @property
    def student(self) -> nn.Module:
        """The student, if it could be made."""
        if self._student is None:
            raise Untried
        return self._student

    @property
    def loaded(self) -> TeacherNetwork | None:
        """The teacher, if it could be made; None where there is no teaching."""
        if self._taught is None and self.recipe.distils:
            raise Untried
        return self._taught

    def versions(self) -> str:
        """Whether torch and torchvision come from one release."""
        try:
            import torchvision
        except (ImportError, RuntimeError) as error:
            raise UserError(
                f"torchvision does not load beside torch {torch.__version__} ({error}); install "
                "the builds of one release of both"
            ) from error
        return f"torch {torch.__version__}, torchvision {torchvision.__version__}"

    def data(self) -> str:
        """Open every split, and load a batch."""
        shop = Workshop.open(self.recipe)
        sources = shop.sources
        sizes = ", ".join(
            f"{len(getattr(sources, name)):,} {name}" for name in ("train", "val", "test")
        )
        loader = make_training_loader(self.recipe, sources, shop.hardware.device)
        since = perf_counter()
        batch = next(iter(loader.epoch(0)))
        speed = len(batch) / (perf_counter() - since)
        shape = " x ".join(map(str, batch.images.shape[1:]))
        self._shop = shop
        return (
            f"{self.recipe.data.name}: {sizes}; {len(sources.classes)} classes; images {shape}; "
            f"first batch at {speed:,.0f} images/s" + "".join(f"; {note}" for note in sources.notes)
        )

    def network(self) -> str:
        """Make the student and let it speak."""
        shop = self.shop
        self._student = student = make_student(self.recipe.student, shop)
        return self.size_of(student, self.recipe.student.name)

    def member(self) -> str:
        """Make the teacher, and measure it where it has weights."""
        shop, teacher = self.shop, self.recipe.teacher
        if teacher is None or not self.recipe.distils:
            return "none: the student learns from labels alone"
        loaded = find_teacher(self.recipe, teacher, shop)
        if loaded is None:
            self._taught = loaded = untrained_teacher(teacher, shop)
            epochs = sum(member.train.epochs for member in teacher.networks if member.train)
            said = f"{self.size_of(loaded.inner, teacher.name)}; is trained first, {epochs:g}"
            return f"{said} epochs, and measured then"
        self._taught = loaded
        score = check_teacher(teacher, loaded, shop)
        headline = shop.task.headline
        reached = f"{headline} {score['validation'][headline]:.2f} on validation"
        return f"{self.size_of(loaded.inner, teacher.name)}; {reached}"

    def contract(self) -> str:
        """Whether classes, sizes and normalisations of both networks fit the data."""
        loaded, sources = self.loaded, self.shop.sources
        notes = list(loaded.notes) if loaded else []
        for who in (self.recipe.student, self.recipe.teacher):
            published = zoo.preprocessing(who.name) if who and who.weights else None
            if who and published and (published.mean, published.std) != (sources.mean, sources.std):
                notes.append(
                    f"published weights of {who.name} expect mean {published.mean} and std "
                    f"{published.std}; yours come with {sources.mean} and {sources.std}"
                )
        return "; ".join(notes) or "classes, size and normalisation are the same for both"

    def taps(self) -> str:
        """What the method taps, with paths, shapes and adapters, and what else could be tapped."""
        loaded, bare, example = self.loaded, self.student, example_of(self.shop.sources)
        self._pupil = pupil = make_pupil(self.recipe, self.shop, loaded)
        student = pupil.student.model
        if loaded is None:
            return f"none needed; the student's places: {places(student, example)}"
        setting = Setting(bare, loaded.inner, example)
        if not pupil.method.student_taps:
            return "; ".join(
                part
                for part in (
                    f"none needed; the student's places: {places(student, example)}",
                    f"the teacher's: {places(loaded.inner, example)}",
                    suggestions(setting),
                )
                if part
            )
        return "; ".join(
            [*plan_of(pupil.method, student, loaded.inner, example), suggestions(setting)]
        )

    def step(self) -> str:
        """One forward and backward of everything, timed."""
        shop, pupil = self.shop, self._pupil
        if pupil is None:
            raise Untried
        pupil.to(shop.hardware.device)
        teacher = self.live(pupil.method)
        make_groups(self.recipe.train, pupil, teacher)
        device, views = shop.hardware.device, pupil.method.views
        loader = make_training_loader(self.recipe, shop.sources, device, views)
        since = perf_counter()
        batch = next(iter(loader.epoch(0)))
        with shop.hardware.autocast():
            terms = pupil(batch, observe(teacher, batch, views), Clock(0, 1, 1))
        loss = combine(terms)
        if not bool(loss.isfinite()):
            raise UserError(
                f"the first loss is {float(loss.detach())}; lower the weights, or train in float32"
            )
        loss.backward()
        seconds = perf_counter() - since
        total = round(self.recipe.train.epochs * len(loader))
        said = ", ".join(
            f"{n} {float(t.mean().detach()):.3g} x {t.weight:g}" for n, t in terms.items()
        )
        return f"{said}; {total:,} steps of about {seconds:.2g} s at most{self.stored()}"

    def live(self, method: Method) -> Teacher[Any]:
        """The teacher itself, after what is to keep its answers was looked at."""
        if self.loaded is None:
            return Absent()
        check_storable(self.recipe, method)
        return make_live(self.shop, self.loaded, method)

    def stored(self) -> str:
        """What the teacher's store will take, where there is to be one."""
        teacher = self.recipe.teacher
        if self.loaded is None or teacher is None or not teacher.store:
            return ""
        return f"; {describe_store(teacher, self.shop, self.loaded)}"

    def disk(self) -> str:
        """Whether a few checkpoints fit."""
        needed = 8 * sum(p.numel() * p.element_size() for p in self.student.parameters())
        free = shutil.disk_usage(existing(Path("runs"))).free
        if free < 2 * needed:
            raise UserError(
                f"{free / MEGABYTE:,.0f} MB are free here and checkpoints need about "
                f"{2 * needed / MEGABYTE:,.0f} MB; free some space or give another --out"
            )
        return f"{free / MEGABYTE:,.0f} MB free, checkpoints need about {needed / MEGABYTE:,.1f} MB"

    def size_of(self, network: nn.Module, name: str) -> str:
        """A network's parameters and operations."""
        example = example_of(self.shop.sources)[:1]
        work = cost.flops(network, example)
        return f"{name}: {cost.parameters(network):,} parameters, {work / 1e6:,.1f} MFLOPs an image"


def existing(path: Path) -> Path:
    """The nearest folder above a path that is there."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path
