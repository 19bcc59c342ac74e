"""From folders of runs and studies to report files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from stillhouse.errors import UserError
from stillhouse.explain.predictions import DEFAULT_OPTIONS, ExplainOptions
from stillhouse.explain.section import Section
from stillhouse.report.chart_files import FileCounts, check_output_folder, write_chart_files
from stillhouse.report.compare import compare_page
from stillhouse.report.draft import PAGE_FILE
from stillhouse.report.page import Page
from stillhouse.report.render import write_page, write_pages
from stillhouse.report.run import run_page
from stillhouse.report.study import study_page
from stillhouse.study.index import is_run, is_study, list_runs
from stillhouse.study.results import ScoreBy, read_study
from stillhouse.study.statistics import IntervalKind

COMPARISON_FILE = "compare.html"


def make_page(
    folder: Path,
    against: str | None = None,
    by: ScoreBy = "last",
    kind: IntervalKind = "t",
    options: ExplainOptions = DEFAULT_OPTIONS,
) -> Page:
    """The page of a run or of a study."""
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; `stillhouse runs ls` lists the runs")
    if not is_study(folder) and not is_run(folder) and [*list_runs(folder)]:
        raise UserError(
            f"{folder} is not a run but a folder of runs; name one of `stillhouse runs ls {folder}`"
        )
    if is_study(folder):
        return study_page(read_study(folder, by, kind), against, options)
    return run_page(folder, options)


def write_report(
    folders: Sequence[Path],
    out: Path | None = None,
    against: str | None = None,
    by: ScoreBy = "last",
    kind: IntervalKind = "t",
) -> Path:
    """One page of all folders; folders that cannot be read become notes."""
    pages: list[Page] = []
    errors: list[str] = []
    for folder in folders:
        try:
            pages.append(make_page(folder, against, by, kind))
        except UserError as error:
            errors.append(str(error))
    if not pages:
        raise UserError("; ".join(errors))
    pages[0] = replace(pages[0], notes=(*errors, *pages[0].notes))
    if len(folders) == 1:
        return write_page(pages[0], out or folders[0] / PAGE_FILE)
    return write_pages(pages, out or Path(PAGE_FILE))


def write_comparison(first: Path, second: Path, out: Path | None = None) -> Path:
    """The page of two runs."""
    return write_page(compare_page(first, second), out or Path(COMPARISON_FILE))


class Explanation(NamedTuple):
    """The result of `stillhouse explain`: the page, its diagnoses, and the files written."""

    page: Path
    sections: tuple[Section, ...]
    files: FileCounts | None = None


def explain_folder(
    folder: Path, other: Path | None, options: ExplainOptions, files: Path | None = None
) -> Explanation:
    """Diagnose a run, a study or two runs, and write the page and, on request, its charts."""
    if files is not None:
        check_output_folder(files)
    if other is None:
        page, path = make_page(folder, options=options), folder / PAGE_FILE
    else:
        page, path = compare_page(folder, other, options), Path(COMPARISON_FILE)
    write_page(page, path)
    counts = None if files is None else write_chart_files(page, files)
    return Explanation(path, page.sections, counts)
