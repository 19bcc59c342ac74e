"""`explain`, `report` and `runs`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from stillhouse.cli.catalogue import rows
from stillhouse.cli.view import View
from stillhouse.errors import UserError


def explain(
    run: Path,
    other: Path | None,
    limit: int,
    layout: Literal["tsne", "pca"],
    files: Path | None = None,
) -> None:
    """Diagnose anew, write the page, and print what the diagnoses say."""
    from stillhouse.explain.predictions import ExplainOptions
    from stillhouse.report.write import explain_folder

    options = ExplainOptions(limit, layout, recompute=True)
    result = explain_folder(run, other, options, files)
    for section in result.sections:
        print(section.title)
        notes = (section.note,) if section.note else ()
        print("\n".join(f"  {sentence}" for sentence in (*notes, *section.sentences)))
    print(f"report: {result.page}")
    if result.files is not None:
        charts, images, tables = result.files
        print(f"files: {files} ({charts} charts, {images} images, {tables} tables)")


def report(
    folders: Sequence[Path], compare: bool, table: str | None, view: View, out: Path | None
) -> None:
    """Write a page, or print a table."""
    from stillhouse.report.write import write_comparison, write_report
    from stillhouse.study.table import text_of

    if compare and len(folders) != 2:
        raise UserError(f"--compare sets two runs beside each other, and got {len(folders)}")
    if table is not None:
        found = [view.read(folder) for folder in folders]
        print("".join(text_of(study, table, view.against) for study in found), end="")
        return
    page = (
        write_comparison(folders[0], folders[1], out)
        if compare
        else write_report(folders, out, view.against, view.by, view.interval)
    )
    print(f"report: {page}")


def runs(folder: Path) -> None:
    """Every run and study below a folder, a line each; what cannot be read has its sentence."""
    from stillhouse.study.shelf import browse

    found = list(browse(folder))
    if not found:
        raise UserError(f"{folder} holds no runs yet; `stillhouse run RECIPE` makes one")
    print(rows({str(item.folder): item.said for item in found}))
