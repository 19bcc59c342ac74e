"""From what a recipe says of networks to networks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from stillhouse.errors import UserError
from stillhouse.methods.build import reshaped
from stillhouse.methods.setting import Setting
from stillhouse.models import weights, zoo
from stillhouse.models.dry_run import undisturbed
from stillhouse.models.ensemble import Ensemble
from stillhouse.models.fitted import Fitted, order_of
from stillhouse.models.labelwise import Labelwise, labelwise
from stillhouse.models.scores import class_scores
from stillhouse.models.aliases import resolve_path
from stillhouse.models.tap_path import TapPath
from stillhouse.build.contract import Contract, read_contract
from stillhouse.recipes.schema import Guide, Network, Recipe, Teacher
from stillhouse.build.data import Sources


def make_network(
    spec: Network | Guide,
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
    if spec.head is not None:
        blank = torch.zeros(2, sources.channels, *(size or sources.size))
        with explained(spec.name, tuple(blank.shape[1:])):
            network = labelwise(network, count, blank, spec.head)
    if path is not None:
        weights.load(network, path)
    elif spec.start is not None:
        weights.begin(
            network.trunk.model if isinstance(network, Labelwise) else network, spec.start
        )
    return network


def make_student(spec: Network, sources: Sources) -> nn.Module:
    """The student for the classes, channels and size of the data."""
    network = make_network(spec, sources, spec.weights)
    check_answer(network, spec.name, sources)
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
class Taught:
    """A teacher's network as it is called, and how its inner paths are reached from outside."""

    network: nn.Module
    inner: nn.Module
    notes: tuple[str, ...] = ()
    members: tuple[Taught, ...] = ()

    def taps(self, names: Iterable[str], example: Tensor) -> Mapping[str, str]:
        """What a method calls taps, as paths of the network that is called."""
        if self.members:
            return {name: self.of_member(name, example) for name in names}
        if self.network is self.inner:
            return {name: name for name in names}
        known = {path for path, _ in self.inner.named_modules()}
        return {n: f"model.{n}" if TapPath.parse(n).module in known - {""} else n for n in names}

    def of_member(self, name: str, example: Tensor) -> str:
        """`members.0.last` as a path: a member's aliases are its own."""
        head, number, *rest = name.split(".")
        if not rest:
            return name
        member = self.members[int(number)]
        found = resolve_path(member.inner, ".".join(rest), example)
        inside = "" if member.network is member.inner else "model."
        return f"{head}.{number}.{inside}{found}".rstrip(".")


def make_teacher(spec: Teacher, paths: Sequence[Path], sources: Sources) -> Taught:
    """The teacher with its weights, or the ensemble that its members are."""
    taught = [make_guide(one, path, sources) for one, path in zip(spec.guides, paths, strict=True)]
    if not spec.members:
        return taught[0]
    notes = tuple(
        f"{g.name}: {n}" for g, t in zip(spec.guides, taught, strict=True) for n in t.notes
    )
    whole = Ensemble(one.network for one in taught)
    return Taught(whole, whole, notes, tuple(taught))


def blank_teacher(spec: Teacher, sources: Sources) -> Taught:
    """A teacher that is still to be trained, with random weights, for its shapes."""
    taught = []
    for guide in spec.guides:
        network = make_network(guide, sources)
        # weights may be of other classes; a network without them must fit the data as it is
        if guide.weights is None:
            check_answer(network, guide.name, sources)
        taught.append(Taught(network, network))
    if not spec.members:
        return taught[0]
    whole = Ensemble(one.network for one in taught)
    return Taught(whole, whole, (), tuple(taught))


def make_guide(spec: Guide, path: Path, sources: Sources) -> Taught:
    """One network with its weights, fitted to the data where it was made for others."""
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
    taught = fit(spec, inner, contract, sources)
    check_answer(taught.network, spec.name, sources)
    return taught


def size_of(spec: Guide, contract: Contract | None) -> tuple[int, int] | None:
    """The size of image that a teacher was made for, where that is known."""
    return spec.size or (contract.size if contract else None)


def refuse_head(spec: Guide, path: Path, contract: Contract | None) -> None:
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


def fit(spec: Guide, inner: nn.Module, contract: Contract | None, sources: Sources) -> Taught:
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
    if select is not None and isinstance(inner, Labelwise):
        inner.select(select)  # so that its embeddings are in that order, too
        select = None
    if not around and select is None:
        return Taught(inner, inner, tuple(notes))
    data = (sources.mean, sources.std)
    return Taught(Fitted(inner, data=data, own=own, size=size, select=select), inner, tuple(notes))


def check_answer(network: nn.Module, name: str, sources: Sources) -> None:
    """Refuse a network whose answer to two blank images is not one score a class."""
    example = example_of(sources)
    with undisturbed(network), explained(name, tuple(example.shape[1:])):
        out = class_scores(network(example))
    wanted = (2, len(sources.classes))
    if tuple(out.shape) != wanted:
        raise UserError(
            f"{name} answers two images with {tuple(out.shape)}, and should with {wanted}"
        )


@contextmanager
def explained(name: str, shape: tuple[int, ...]) -> Iterator[None]:
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
