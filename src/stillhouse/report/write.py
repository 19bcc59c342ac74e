"""From folders to pages: one of each kind, or many in one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from stillhouse.errors import UserError
from stillhouse.explain.predictions import AS_EVER, Look
from stillhouse.explain.section import Section
from stillhouse.report.compare import compare_page
from stillhouse.report.chart_files import Written, make_folder, write_files
from stillhouse.report.page import Page
from stillhouse.report.draft import PAGE
from stillhouse.report.render import write_page, write_pages
from stillhouse.report.run import run_page
from stillhouse.report.study import study_page
from stillhouse.study.findings import By, read_study
from stillhouse.study.shelf import browse, is_run, is_study
from stillhouse.study.statistics import Kind


def page_of(
    folder: Path,
    against: str | None = None,
    by: By = "last",
    kind: Kind = "t",
    look: Look = AS_EVER,
) -> Page:
    """The page of a run or of a study."""
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; `stillhouse runs ls` shows those there are")
    if not is_study(folder) and not is_run(folder) and [*browse(folder)]:
        raise UserError(
            f"{folder} holds runs and is none; name one of `stillhouse runs ls {folder}`"
        )
    if is_study(folder):
        return study_page(read_study(folder, by, kind), against, look)
    return run_page(folder, look)


def write_folders(
    folders: Sequence[Path],
    out: Path | None = None,
    against: str | None = None,
    by: By = "last",
    kind: Kind = "t",
) -> Path:
    """One page of all folders; those that cannot be read are named on it, and the rest shown."""
    pages: list[Page] = []
    wrong: list[str] = []
    for folder in folders:
        try:
            pages.append(page_of(folder, against, by, kind))
        except UserError as error:
            wrong.append(str(error))
    if not pages:
        raise UserError("; ".join(wrong))
    pages[0] = replace(pages[0], notes=(*wrong, *pages[0].notes))
    if len(folders) == 1:
        return write_page(pages[0], out or folders[0] / PAGE)
    return write_pages(pages, out or Path(PAGE))


def write_compared(first: Path, second: Path, out: Path | None = None) -> Path:
    """The page of two runs."""
    return write_page(compare_page(first, second), out or Path("compare.html"))


class Explained(NamedTuple):
    """What came of diagnosing: the page, what it says, and the files beside it."""

    page: Path
    sections: tuple[Section, ...]
    written: Written | None = None


def explained(folder: Path, other: Path | None, look: Look, files: Path | None = None) -> Explained:
    """Diagnose a run, a study or two runs anew, and write the page and, where asked for, files."""
    if files is not None:
        make_folder(files)
    if other is None:
        page, path = page_of(folder, look=look), folder / PAGE
    else:
        page, path = compare_page(folder, other, look), Path("compare.html")
    write_page(page, path)
    written = None if files is None else write_files(page, files)
    return Explained(path, page.sections, written)
