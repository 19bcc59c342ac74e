"""`explain`, `report` and `runs`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from stillhouse.cli.catalogue import format_rows
from stillhouse.cli.report_options import ReportOptions
from stillhouse.errors import UserError


def explain_run(
    run: Path,
    other: Path | None,
    limit: int,
    layout: Literal["tsne", "pca"],
    files: Path | None = None,
) -> None:
    """Compute the diagnostics of a run, write its report, and print the findings."""
    from stillhouse.explain.hearing import Look
    from stillhouse.report.folder import explained

    result = explained(run, other, Look(limit, layout, fresh=True), files)
    for section in result.sections:
        print(section.title)
        print("\n".join(f"  {sentence}" for sentence in section.said))
    print(f"report: {result.page}")
    if result.written is not None:
        charts, pictures, tables = result.written
        print(f"files: {files} ({charts} charts, {pictures} pictures, {tables} tables)")


def report_folders(
    folders: Sequence[Path],
    compare: bool,
    table: str | None,
    options: ReportOptions,
    out: Path | None,
) -> None:
    """Write a report, or print a table."""
    from stillhouse.report.folder import write_compared, write_folders
    from stillhouse.study.table import format_table

    if compare and len(folders) != 2:
        raise UserError(f"--compare needs exactly two runs, got {len(folders)}")
    if table is not None:
        studies = [options.read_study(folder) for folder in folders]
        print("".join(format_table(study, table, options.against) for study in studies), end="")
        return
    page = (
        write_compared(folders[0], folders[1], out)
        if compare
        else write_folders(folders, out, options.against, options.by, options.interval)
    )
    print(f"report: {page}")


def print_runs(folder: Path) -> None:
    """Print every run and study in a folder with its result, or why it cannot be read."""
    from stillhouse.study.index import list_runs

    entries = list(list_runs(folder))
    if not entries:
        raise UserError(f"there are no runs in {folder}; start one with `stillhouse run RECIPE`")
    print(format_rows({str(entry.folder): entry.summary for entry in entries}))
