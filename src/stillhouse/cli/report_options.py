"""How a study is looked at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from stillhouse.study.results import Study


@dataclass(frozen=True)
class View:
    """The words of a command that say what is compared with what, and how."""

    against: str | None = None
    by: Literal["last", "best"] = "last"
    interval: Literal["t", "bootstrap"] = "t"
    explain: bool = True

    def read(self, folder: Path) -> Study:
        """A study's folder, looked at so; an arm that is not there is refused."""
        from stillhouse.study.results import read_study
        from stillhouse.study.table import make_rows

        found = read_study(folder, self.by, self.interval)
        make_rows(found, self.against)
        return found
