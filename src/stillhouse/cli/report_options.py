"""The options of commands that report a study."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from stillhouse.study.results import Study


@dataclass(frozen=True)
class ReportOptions:
    """Which arm the others are compared with, by which score, and with which interval."""

    against: str | None = None
    by: Literal["last", "best"] = "last"
    interval: Literal["t", "bootstrap"] = "t"
    explain: bool = True

    def read_study(self, folder: Path) -> Study:
        """The study in a folder, with these options.

        Raises:
            UserError: if there is no such study, or it has no arm `against`.
        """
        from stillhouse.study.results import read_study
        from stillhouse.study.table import check_against

        study = read_study(folder, self.by, self.interval)
        check_against(self.against, (arm.label for arm in study.arms))
        return study
