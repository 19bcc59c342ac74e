"""Whose answers a store holds, to what, and how it keeps them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stillhouse.errors import UserError
from stillhouse.teachers.store.outputs import Form

FORMAT = 1  # of the folder
MEND = "delete it, or give another teacher.store.path"
# What is wrong where a field differs, the first that does being said.
DIFFERS = {
    "teacher": "was filled by another teacher",
    "data": "was filled for other data",
    "samples": "was filled for other data",
    "classes": "was filled for other classes",
    "transforms": "was filled for other transforms",
    "mean": "was filled for another normalisation",
    "std": "was filled for another normalisation",
    "views": "was filled for another number of views",
    "precision": "was filled in another precision",
    "top": "was filled with another number of kept classes",
}


@dataclass(frozen=True)
class Identity:
    """All that the answers depend on, and their form."""

    teacher: Mapping[str, Any]  # `state` is the hash of its weights
    data: str  # the fingerprint
    samples: int
    transforms: Sequence[Mapping[str, Any]]
    mean: Sequence[float]
    std: Sequence[float]
    views: int
    form: Form

    @property
    def rows(self) -> int:
        """Answers that there are: one for each view of each sample."""
        return self.views * self.samples

    def plain(self) -> dict[str, Any]:
        """What the folder says of itself, as JSON gives it back."""
        content = {k: getattr(self, k) for k in self.__dataclass_fields__ if k != "form"}
        content |= {"format": FORMAT, **asdict(self.form)}
        plain = json.loads(json.dumps(content, default=str))
        assert isinstance(plain, dict)
        return plain

    def digest(self) -> str:
        """A hash of it."""
        return hashlib.sha256(json.dumps(self.plain(), sort_keys=True).encode()).hexdigest()

    def check(self, path: Path) -> None:
        """Refuse a file that says something else."""
        found = _read(path)
        if found.get("format") != FORMAT:
            raise UserError(
                f"{path.parent} was filled by another version of this program (format "
                f"{found.get('format')}, and this one has {FORMAT}); {MEND}"
            )
        wanted = self.plain()
        for name, words in DIFFERS.items():
            if name not in found or found[name] != wanted[name]:
                raise UserError(f"{path.parent} {words}; {MEND}")


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}; {MEND}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} says nothing of a store; {MEND}")
    return content
