"""From what a recipe says of networks to networks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from stillhouse.batches import Batch
from stillhouse.build.contract import Contract, read_contract
from stillhouse.build.data import Sources
from stillhouse.build.workshop import Workshop
from stillhouse.errors import UserError
from stillhouse.methods.build import reshaped
from stillhouse.methods.setting import Setting
from stillhouse.models import weights, zoo
from stillhouse.models.dry_run import undisturbed
from stillhouse.models.ensemble import Ensemble
from stillhouse.models.fitted import Fitted, order_of
from stillhouse.models.stages import INPUT, resolve
from stillhouse.recipes.schema import Network, Recipe, TeacherMember, TeacherSpec


def make_network(
    spec: Network | TeacherMember,
    sources: Sources,
    path: Path | None = None,
    *,
    classes: int | None = None,
    size: tuple[int, int] | None = None,
) -> nn.Module:
    """A network by name, with the weights of a file where there is one.

    `classes` and the `size` of its images are those of the data, unless it was made for others.
    """
    count = len(sources.classes) if classes is None else classes
    network = zoo.create(spec.name, count, sources.channels, **spec.options)
    if path is None and spec.start is not None:
        weights.begin(network, spec.start)
    if spec.head is not None:
        blank = torch.zeros(2, sources.channels, *(size or sources.size))
        with readable_errors(spec.name, tuple(blank.shape[1:])):
            network = spec.head.build(network, count, blank)
    if path is not None:
        weights.load(network, path)
    return network


def make_student(spec: Network, shop: Workshop) -> nn.Module:
    """The student for the classes, channels and size of the data."""
    network = make_network(spec, shop.sources, spec.weights)
    check_output(network, spec.name, shop)
    return network


def make_deployed(recipe: Recipe, sources: Sources, path: Path | None) -> nn.Module:
    """The student as it is shipped, with the weights of a file where there is one.

    It is the network that the recipe names, unless the method gives it another shape.
    """
    network = make_network(replace(recipe.student, start=None), sources)
    specs = [spec for spec in recipe.method if spec.reshapes]
    if specs and recipe.teacher is not None and not recipe.teacher.members:
        teacher = make_network(replace(recipe.teacher, start=None), sources)
        network = reshaped(specs, Setting(network, teacher, example_of(sources)))
    if path is not None:
        weights.load(network, path)
    return network


@dataclass(frozen=True)
class TeacherNetwork:
    """A teacher's network as it is called, and how its inner paths are reached from outside."""

    network: nn.Module
    inner: nn.Module
    notes: tuple[str, ...] = ()
    members: tuple[TeacherNetwork, ...] = ()

    def taps(self, names: Iterable[str], example: Tensor) -> Mapping[str, str]:
        """What a method calls taps, as paths of the network that is called."""
        if self.members:
            return {name: self.of_member(name, example) for name in names}
        if self.network is self.inner:
            return {name: name for name in names}
        known = {path for path, _ in self.inner.named_modules()}
        return {n: f"model.{n}" if n.removesuffix(INPUT) in known - {""} else n for n in names}

    def of_member(self, name: str, example: Tensor) -> str:
        """`members.0.last` as a path: a member's aliases are its own."""
        head, number, *rest = name.split(".")
        if not rest:
            return name
        member = self.members[int(number)]
        found = resolve(member.inner, ".".join(rest), example)
        inside = "" if member.network is member.inner else "model."
        return f"{head}.{number}.{inside}{found}".rstrip(".")


def load_teacher(spec: TeacherSpec, paths: Sequence[Path], shop: Workshop) -> TeacherNetwork:
    """The teacher with its weights, or the ensemble that its members are."""
    loaded = [load_member(one, path, shop) for one, path in zip(spec.networks, paths, strict=True)]
    if not spec.members:
        return loaded[0]
    notes = tuple(
        f"{g.name}: {n}" for g, t in zip(spec.networks, loaded, strict=True) for n in t.notes
    )
    whole = Ensemble(one.network for one in loaded)
    return TeacherNetwork(whole, whole, notes, tuple(loaded))


def untrained_teacher(spec: TeacherSpec, shop: Workshop) -> TeacherNetwork:
    """A teacher that is still to be trained, with random weights, for its shapes."""
    loaded = []
    for member in spec.networks:
        network = make_network(member, shop.sources)
        # weights may be of other classes; a network without them must fit the data as it is
        if member.weights is None:
            check_output(network, member.name, shop)
        loaded.append(TeacherNetwork(network, network))
    if not spec.members:
        return loaded[0]
    whole = Ensemble(one.network for one in loaded)
    return TeacherNetwork(whole, whole, (), tuple(loaded))


def load_member(spec: TeacherMember, path: Path, shop: Workshop) -> TeacherNetwork:
    """One network with its weights, fitted to the data where it was made for others."""
    sources = shop.sources
    contract = read_contract(path)
    if contract and contract.name != spec.name:
        raise UserError(
            f"{path} holds weights of {contract.name}, and the recipe's teacher is {spec.name}"
        )
    refuse_head(spec, path, contract)
    classes = len(contract.classes) if contract else None
    channels = contract.channels if contract else sources.channels
    if channels != sources.channels:
        raise UserError(
            f"the teacher of {path} takes {channels} channels, and the data have {sources.channels}"
        )
    inner = make_network(spec, sources, path, classes=classes, size=size_of(spec, contract))
    loaded = fit(spec, inner, contract, sources)
    check_output(loaded.network, spec.name, shop)
    return loaded


def size_of(spec: TeacherMember, contract: Contract | None) -> tuple[int, int] | None:
    """The size of image that a teacher was made for, where that is known."""
    return spec.size or (contract.size if contract else None)


def refuse_head(spec: TeacherMember, path: Path, contract: Contract | None) -> None:
    """Refuse weights of another head than the recipe names."""
    head = "" if spec.head is None else spec.head.kind
    if contract and contract.head != head:
        there, mend = (
            (f"a {contract.head} head", contract.head) if contract.head else ("none", "null")
        )
        raise UserError(
            f"{path} holds weights of {spec.name} with {there}, and the recipe's teacher has "
            f"{f'a {head} head' if head else 'none'}; say teacher.head={mend}"
        )


def fit(
    spec: TeacherMember, inner: nn.Module, contract: Contract | None, sources: Sources
) -> TeacherNetwork:
    """Put around a teacher what makes up for other normalisation, size and order of classes."""
    notes = []
    own = None
    mean, std = spec.mean or (contract and contract.mean), spec.std or (contract and contract.std)
    if mean and std and (tuple(mean), tuple(std)) != (sources.mean, sources.std):
        own = (mean, std)
        notes.append("images are normalised anew for the teacher")
    size = size_of(spec, contract)
    if size and tuple(size) != sources.size:
        notes.append(f"images are resized to {size[0]} x {size[1]} for the teacher")
    around = bool(notes)
    select = order_of(contract.classes, sources.classes) if contract else None
    if select is not None:
        notes.append("the teacher's classes are put in the data's order")
    reorder = getattr(inner, "select_classes", None)
    if select is not None and callable(reorder):
        reorder(select)  # so that what belongs to each class inside is in that order, too
        select = None
    if not around and select is None:
        return TeacherNetwork(inner, inner, tuple(notes))
    data = (sources.mean, sources.std)
    return TeacherNetwork(
        Fitted(inner, data=data, own=own, size=size, select=select), inner, tuple(notes)
    )


def check_output(network: nn.Module, name: str, shop: Workshop) -> None:
    """Refuse a network whose output for two blank images does not fit the task."""
    example = example_of(shop.sources)
    blank = Batch(example, None, torch.arange(2), torch.zeros(2, dtype=torch.int64))
    with undisturbed(network), readable_errors(name, tuple(example.shape[1:])):
        out = network(*shop.task.inputs(blank))
    shop.task.check_output(out, name, len(example))


@contextmanager
def readable_errors(name: str, shape: tuple[int, ...]) -> Iterator[None]:
    """What a network cannot take, in one sentence: it says it in its own way."""
    try:
        yield
    except (RuntimeError, ValueError, TypeError, AssertionError, IndexError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        size = " x ".join(map(str, shape))
        raise UserError(f"{name} does not take images of {size}: {said}") from error


def example_of(sources: Sources) -> Tensor:
    """A batch of two blank images: (2, C, H, W)."""
    return torch.zeros(2, sources.channels, *sources.size)


def contract_of(spec: Network, sources: Sources) -> Contract:
    """What a network trained on these data was trained for."""
    return Contract(
        spec.name,
        tuple(sources.classes),
        sources.channels,
        sources.size,
        sources.mean,
        sources.std,
        "" if spec.head is None else spec.head.kind,
    )
