"""Builds the student and the teacher of a recipe."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stillhouse.batches import Batch
from stillhouse.build.contract import Contract, check_file, read_contract
from stillhouse.build.data import Sources
from stillhouse.build.origin import Origin, read_origin
from stillhouse.build.session import Session
from stillhouse.errors import UserError
from stillhouse.methods.build import reshape_student
from stillhouse.methods.setting import Setting
from stillhouse.models import weights, zoo
from stillhouse.models.aliases import resolve_path
from stillhouse.models.detectors.object_output import ObjectOutput
from stillhouse.models.dry_run import undisturbed
from stillhouse.models.ensemble import Ensemble
from stillhouse.models.tap_path import TapPath
from stillhouse.models.teacher_wrapper import TeacherWrapper, class_order
from stillhouse.recipes.schema import Network, Recipe, TeacherMember, TeacherSpec
from stillhouse.tasks.base import Facts, Task


def make_network(
    spec: Network | TeacherMember,
    sources: Sources,
    path: Path | None = None,
    *,
    task: Task[Any] | None = None,
    classes: int | None = None,
    size: tuple[int, int] | None = None,
) -> nn.Module:
    """A network by name, with the weights of `path` if given, adapted to the task if given.

    `classes` and the `size` of images default to those of the data.
    """
    count = len(sources.classes) if classes is None else classes
    network = zoo.create(spec.name, count, sources.channels, **spec.options)
    if path is None and spec.pretrained is not None:
        weights.load_pretrained(network, spec.pretrained)
    if spec.head is not None:
        blank = torch.zeros(2, sources.channels, *(size or sources.size))
        with readable_errors(spec.name, tuple(blank.shape[1:])):
            network = spec.head.build(network, count, blank)
    if path is not None:
        load_checked(network, path)
    return network if task is None else task.adapt(network)


def make_student(spec: Network, session: Session) -> nn.Module:
    """The student for the classes, channels and size of the data, checked by a dry run."""
    network = make_network(spec, session.sources, spec.weights, task=session.task)
    frozen = getattr(network, "frozen_parts", "")
    if frozen and spec.weights is None and spec.pretrained is None:
        raise UserError(
            f"{spec.name}: {frozen} would be frozen with random weights; set pretrained to a file "
            "of weights of the backbone, or options.frozen=0 and options.frozen_norms=false"
        )
    check_network(network, spec.name, session)
    return network


def make_deployed(recipe: Recipe, sources: Sources, path: Path | None) -> nn.Module:
    """The student as it is after training, with the weights of `path` if given.

    It is the network that the recipe names, unless a method changes its architecture.
    """
    task = recipe.task.build(Facts(recipe.data.name, sources.classes, None))
    specs = [spec for spec in recipe.method if spec.reshapes]
    reshaped = specs and recipe.teacher is not None and not recipe.teacher.members
    student = replace(recipe.student, pretrained=None)
    network = make_network(student, sources, None if reshaped else path, task=task)
    if not reshaped or recipe.teacher is None:
        return network
    teacher = make_network(replace(recipe.teacher, pretrained=None), sources, task=task)
    network = reshape_student(specs, Setting(network, teacher, example_of(sources)))
    if path is not None:
        load_checked(network, path)
    return network


def load_checked(network: nn.Module, path: Path) -> None:
    """Load a file of weights; raises UserError for one that has changed since it was written."""
    check_file(path)
    weights.load_weights(network, path)


@dataclass(frozen=True)
class TeacherNetwork:
    """A teacher with its weights, wrapped to take the images and classes of the data."""

    network: nn.Module  # what is called
    inner: nn.Module  # the network inside the wrapper, the same module if there is none
    notes: tuple[str, ...] = ()  # what the wrapper does, a sentence each
    members: tuple[TeacherNetwork, ...] = ()  # of an ensemble
    size: tuple[int, int] | None = None  # height and width that the wrapper resizes images to
    unknown: tuple[str, ...] = ()  # keys of the recipe that would say what it was trained for

    @property
    def features_only(self) -> bool:
        """Whether its scores belong to other classes than those of the data, and are not used."""
        networks = (member.network for member in self.members or (self,))
        return any(isinstance(n, TeacherWrapper) and n.features_only for n in networks)

    def taps(self, names: Iterable[str], example: Tensor) -> Mapping[str, str]:
        """The path in `network` of each tap that a method names for `inner`."""
        if self.members:
            return {name: self.member_path(name, example) for name in names}
        if self.network is self.inner:
            return {name: name for name in names}
        known = {path for path, _ in self.inner.named_modules()}
        return {n: f"model.{n}" if TapPath.parse(n).module in known - {""} else n for n in names}

    def member_path(self, name: str, example: Tensor) -> str:
        """The path of a tap of one member, `members.0.last`; aliases are those of the member."""
        head, number, *rest = name.split(".")
        if not rest:
            return name
        member = self.members[int(number)]
        path = resolve_path(member.inner, ".".join(rest), example)
        wrapper = "" if member.network is member.inner else "model."
        return f"{head}.{number}.{wrapper}{path}".rstrip(".")


def load_teacher(
    spec: TeacherSpec, paths: Sequence[Path], session: Session, *, features_only: bool = False
) -> TeacherNetwork:
    """The teacher with its weights, or the ensemble of its members.

    With `features_only`, its scores are not needed, and its classes may be any.
    """
    loaded = [
        load_member(member, path, session, features_only=features_only)
        for member, path in zip(spec.networks, paths, strict=True)
    ]
    if not spec.members:
        return loaded[0]
    notes = tuple(
        f"{member.name}: {note}"
        for member, teacher in zip(spec.networks, loaded, strict=True)
        for note in teacher.notes
    )
    ensemble = Ensemble(member.network for member in loaded)
    unknown = tuple(dict.fromkeys(key for member in loaded for key in member.unknown))
    return TeacherNetwork(ensemble, ensemble, notes, tuple(loaded), unknown=unknown)


def untrained_teacher(spec: TeacherSpec, session: Session) -> TeacherNetwork:
    """The teacher with random weights, for shapes and costs before it is trained."""
    loaded = []
    for member in spec.networks:
        network = make_network(member, session.sources, task=session.task)
        # weights may be for other classes; without them, the network must fit the data
        if member.weights is None:
            check_network(network, member.name, session)
        loaded.append(TeacherNetwork(network, network))
    if not spec.members:
        return loaded[0]
    ensemble = Ensemble(member.network for member in loaded)
    return TeacherNetwork(ensemble, ensemble, (), tuple(loaded))


def load_member(
    spec: TeacherMember, path: Path, session: Session, *, features_only: bool = False
) -> TeacherNetwork:
    """One network with its weights, wrapped if it was trained for other images or classes.

    Raises UserError where the weights do not fit the recipe or the data.
    """
    sources = session.sources
    contract = read_contract(path)
    if contract and contract.name != spec.name:
        raise UserError(
            f"{path} holds weights of {contract.name}, but the teacher is {spec.name}; set "
            f"teacher={contract.name}, or teacher.weights to weights of {spec.name}"
        )
    check_head(spec, path, contract)
    channels = contract.channels if contract else sources.channels
    if channels != sources.channels:
        raise UserError(
            f"the teacher of {path} takes {channels} channels, but the images have "
            f"{sources.channels}; set teacher.weights to a network for such images"
        )
    origin = read_origin(spec, contract, sources)
    inner = make_network(
        spec, sources, path, task=session.task, classes=origin.count, size=origin.size
    )
    loaded = fit_teacher(spec, inner, origin, sources, features_only=features_only)
    if not loaded.features_only:
        check_network(loaded.network, spec.name, session)
    return loaded


def check_head(spec: TeacherMember, path: Path, contract: Contract | None) -> None:
    """Raise UserError for weights of another head than the recipe names."""
    head = "" if spec.head is None else spec.head.kind
    if contract and contract.head != head:
        stored = f"a {contract.head} head" if contract.head else "its own classifier"
        named = f"a {head} head" if head else "its own classifier"
        raise UserError(
            f"{path} holds weights of {spec.name} with {stored}, but the teacher has {named}; set "
            f"teacher.head={contract.head or 'null'}"
        )


def fit_teacher(
    spec: TeacherMember,
    inner: nn.Module,
    origin: Origin,
    sources: Sources,
    *,
    features_only: bool = False,
) -> TeacherNetwork:
    """Wrap a teacher that was trained with another normalisation, size or order of classes."""
    notes = []
    normalisation = origin.normalisation(sources)
    if normalisation:
        notes.append("images are normalised with the teacher's mean and std")
    size = resized_to(spec, inner, origin.size, sources)
    if size and tuple(size) != sources.size:
        notes.append(f"images are resized to {size[0]} x {size[1]} for the teacher")
    changes_images = bool(notes)
    blind = features_only and not origin.covers(sources.classes)
    select = None if blind else class_order(origin.classes, sources.classes, origin.count)
    if blind:
        notes.append("the teacher has other classes than the data, and gives features only")
    if select is not None:
        notes.append("the teacher's classes are reordered to those of the data")
    reorder = getattr(inner, "select_classes", None)
    if select is not None and callable(reorder):
        reorder(select)  # so that features per class inside the network are in this order, too
        select = None
    if not changes_images and select is None and not blind:
        return TeacherNetwork(inner, inner, tuple(notes), unknown=origin.unknown)
    wrapped = TeacherWrapper(
        inner,
        data=(sources.mean, sources.std),
        teacher=normalisation,
        size=size,
        select=select,
        features_only=blind,
    )
    return TeacherNetwork(wrapped, inner, tuple(notes), size=size, unknown=origin.unknown)


def resized_to(
    spec: TeacherMember, inner: nn.Module, size: tuple[int, int] | None, sources: Sources
) -> tuple[int, int] | None:
    """The size that images are resized to for a teacher, None where they keep their own.

    A detector takes images of any size, and its predictions lie on the grid of its images:
    the size that it was trained for is ignored, and another one is refused.
    """
    if size is None:
        return None
    shape = (sources.channels, *size)
    with undisturbed(inner), readable_errors(spec.name, shape):
        is_detector = isinstance(inner(torch.zeros(1, *shape)), ObjectOutput)
    if is_detector and spec.size and tuple(spec.size) != sources.size:
        raise UserError(
            f"the images of a detector cannot be resized to {size[0]} x {size[1]}, because its "
            "predictions would lie on another grid than the student's; leave out teacher.size"
        )
    return None if is_detector else size


def check_network(network: nn.Module, name: str, session: Session) -> None:
    """Raise UserError for a network whose output for two blank images does not fit the task."""
    example = example_of(session.sources)
    blank = Batch(example, None, torch.arange(2), torch.zeros(2, dtype=torch.int64))
    with undisturbed(network), readable_errors(name, tuple(example.shape[1:])):
        out = network(*session.task.inputs(blank))
    session.task.check_output(out, name, len(example))


@contextmanager
def readable_errors(name: str, shape: tuple[int, ...]) -> Iterator[None]:
    """Raise UserError, in one sentence, for the errors of a network on images of a shape."""
    try:
        yield
    except (RuntimeError, ValueError, TypeError, AssertionError, IndexError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        size = " x ".join(map(str, shape))
        raise UserError(f"{name} does not take images of {size}: {reason}") from error


def example_of(sources: Sources) -> Tensor:
    """A batch of two blank images: (2, C, H, W)."""
    return torch.zeros(2, sources.channels, *sources.size)


def make_contract(spec: Network, sources: Sources) -> Contract:
    """The contract of a network that was trained on these data."""
    return Contract(
        spec.name,
        tuple(sources.classes),
        sources.channels,
        sources.size,
        sources.mean,
        sources.std,
        "" if spec.head is None else spec.head.kind,
    )
