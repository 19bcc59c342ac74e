"""What the outputs of a store depend on: the teacher, the data and the row format."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stillhouse.errors import UserError
from stillhouse.files import read_json
from stillhouse.teachers.store.outputs import RowFormat

STORE_FORMAT = 2  # of the folder
STORE_REMEDY = "delete it, or give another teacher.store.path"
# The message for a field that differs; only the first one is given.
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
class StoreIdentity:
    """Everything that stored outputs depend on, and their format."""

    teacher: Mapping[str, Any]  # `state` is the hash of its weights
    data: str  # the fingerprint
    samples: int
    transforms: Sequence[Mapping[str, Any]]
    mean: Sequence[float]
    std: Sequence[float]
    views: int
    row_format: RowFormat

    @property
    def rows(self) -> int:
        """The number of outputs: one for each view of each sample."""
        return self.views * self.samples

    def plain(self) -> dict[str, Any]:
        """The content of the store's identity.json, as it is read back."""
        content = {k: getattr(self, k) for k in self.__dataclass_fields__ if k != "row_format"}
        content |= {"format": STORE_FORMAT, **asdict(self.row_format)}
        plain = json.loads(json.dumps(content, default=str))
        assert isinstance(plain, dict)
        return plain

    def digest(self) -> str:
        """The SHA-256 of the identity, in hex."""
        return hashlib.sha256(json.dumps(self.plain(), sort_keys=True).encode()).hexdigest()

    def check(self, path: Path) -> None:
        """Raise UserError for the identity.json of another store, or one that is damaged."""
        stored = read_json(path, dict, STORE_REMEDY)
        if stored.get("format") != STORE_FORMAT:
            raise UserError(
                f"{path.parent} was filled by another version of this program (format "
                f"{stored.get('format')}, expected {STORE_FORMAT}); {STORE_REMEDY}"
            )
        expected = self.plain()
        for name, difference in DIFFERS.items():
            if name not in stored or stored[name] != expected[name]:
                raise UserError(f"{path.parent} {difference}; {STORE_REMEDY}")
