"""What a teacher was trained for, as far as the recipe or the file beside its weights says it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stillhouse.build.class_names import read_class_names
from stillhouse.build.contract import Contract
from stillhouse.build.data import Sources
from stillhouse.errors import UserError
from stillhouse.recipes.schema import TeacherMember

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]  # mean and std


@dataclass(frozen=True)
class Origin:
    """The classes, normalisation and size of images of a teacher; None where they are unknown."""

    classes: tuple[str, ...] | None
    count: int | None  # of classes, of which the names may be unknown
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    size: tuple[int, int] | None

    @property
    def unknown(self) -> tuple[str, ...]:
        """The keys of the recipe that would say what is unknown."""
        known = {"classes": self.count, "mean": self.mean, "std": self.std, "size": self.size}
        return tuple(f"teacher.{key}" for key, value in known.items() if value is None)

    def covers(self, classes: Sequence[str]) -> bool:
        """Whether it has a score for each of some classes; assumed where nothing is known."""
        if self.classes is not None:
            return set(classes) <= set(self.classes)
        return self.count in (None, len(classes))

    def normalisation(self, sources: Sources) -> Normalisation | None:
        """Its mean and std where they differ from those of the data; what is unknown is theirs."""
        mean, std = self.mean or sources.mean, self.std or sources.std
        return None if (mean, std) == (sources.mean, sources.std) else (mean, std)


def read_origin(spec: TeacherMember, contract: Contract | None, sources: Sources) -> Origin:
    """What the recipe says, and for all other keys what the contract says, if there is one.

    Raises UserError for a normalisation of another number of channels than the images have.
    """
    names = contract.classes if contract else None
    count = len(names) if names is not None else None
    if isinstance(spec.classes, int):
        names, count = None, spec.classes
    elif spec.classes is not None:
        names = read_class_names(spec.classes)
        count = len(names)
    for key in ("mean", "std"):
        values = getattr(spec, key)
        if values is not None and len(values) != sources.channels:
            raise UserError(
                f"teacher.{key} has {len(values)} values, but the images have {sources.channels} "
                "channels; give one value for each channel"
            )
    return Origin(
        names,
        count,
        spec.mean or (contract.mean if contract else None),
        spec.std or (contract.std if contract else None),
        spec.size or (contract.size if contract else None),
    )
