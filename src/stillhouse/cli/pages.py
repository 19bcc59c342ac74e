"""`explain`, `report` and `runs`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from stillhouse.cli.catalogue import format_rows
from stillhouse.cli.json_output import print_json
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
    from stillhouse.explain.predictions import ExplainOptions
    from stillhouse.report.write import explain_folder

    options = ExplainOptions(limit, layout, recompute=True)
    result = explain_folder(run, other, options, files)
    for section in result.sections:
        print(section.heading)
        notes = (section.note,) if section.note else ()
        print("\n".join(f"  {sentence}" for sentence in (*notes, *section.sentences)))
    print(f"report: {result.page}")
    if result.files is not None:
        charts, images, tables = result.files
        print(f"files: {files} ({charts} charts, {images} images, {tables} tables)")


def report_folders(
    folders: Sequence[Path],
    compare: bool,
    table: str | None,
    options: ReportOptions,
    out: Path | None,
) -> None:
    """Write a report, or print a table."""
    from stillhouse.report.write import write_comparison, write_report
    from stillhouse.study.table import format_table

    if compare and len(folders) != 2:
        raise UserError(f"--compare needs exactly two runs, got {len(folders)}")
    if table is not None:
        studies = [options.read_study(folder) for folder in folders]
        print("".join(format_table(study, table, options.against) for study in studies), end="")
        return
    page = (
        write_comparison(folders[0], folders[1], out)
        if compare
        else write_report(folders, out, options.against, options.by, options.interval)
    )
    print(f"report: {page}")


def print_runs(folder: Path, as_json: bool = False) -> None:
    """Print every run and study in a folder with its result, or why it cannot be read.

    Runs that failed before they trained anything are only counted.
    """
    from stillhouse.explain.phrases import count_of
    from stillhouse.study.index import UNSTARTED, list_runs

    found = list(list_runs(folder))
    entries = [entry for entry in found if entry.kind != UNSTARTED]
    unstarted = len(found) - len(entries)
    if as_json:
        runs = [
            {"folder": str(e.folder), "kind": e.kind, "summary": e.summary, **e.scores}
            for e in entries
        ]
        print_json({"folder": str(folder), "runs": runs, "unstarted": unstarted})
        return
    left = f"{count_of(unstarted, 'run')} failed before training and left out" if unstarted else ""
    if not entries:
        reason = f" ({left})" if left else ""
        raise UserError(
            f"there are no runs in {folder}{reason}; start one with `stillhouse run RECIPE`"
        )
    print(format_rows({str(entry.folder): entry.summary for entry in entries}))
    if left:
        print(left)
