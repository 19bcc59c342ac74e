"""The table of a study: one row for each arm, as text and in several file formats."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from stillhouse.errors import UserError, did_you_mean, quote
from stillhouse.files import csv_text, replace_nonfinite, write_text
from stillhouse.methods.control import CONTROL
from stillhouse.study.changes import write_changes
from stillhouse.study.results import ArmResult, Study, summarize_arm
from stillhouse.study.statistics import holm_correction, standard_deviation


@dataclass(frozen=True)
class StudyRow:
    """The numbers of one arm; None where there is no value."""

    method: str
    seeds: int
    split: str  # of its scores
    mean: float | None = None
    deviation: float | None = None
    gain: float | None = None  # over the control, with its 95 % interval
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_holm: float | None = None  # corrected for all arms with a teacher
    rank: float | None = None
    against: float | None = None  # difference to the arm of --against, with its interval
    against_low: float | None = None
    against_high: float | None = None
    paper: float | None = None
    trials: int | None = None  # of the search for its options
    searched: str = ""  # the search space
    failed: int = 0
    seconds: float | None = None  # of one training, on average


def make_rows(study: Study, against: str | None = None) -> list[StudyRow]:
    """One row for each arm: the controls first, then the others from best to worst."""
    check_against(against, (arm.label for arm in study.arms))
    p, ranks = study.p_values(), study.ranks()
    corrected = holm_correction(p)
    rows = []
    for arm in study.arms:
        label = arm.label
        tests: dict[str, Any] = {
            "p": p.get(label),
            "p_holm": corrected.get(label),
            "rank": ranks.get(label),
        }
        rows.append(
            StudyRow(**arm_values(study, arm), **tests, **against_values(study, arm, against))
        )
    controls = [arm.label for arm in study.arms if arm.is_control]
    return sorted(rows, key=lambda r: (r.method not in controls, -(r.mean or float("-inf"))))


def check_against(against: str | None, labels: Iterable[str]) -> None:
    """Raise if the arm of `--against` does not exist."""
    known = list(labels)
    if against is not None and against not in known:
        hint = did_you_mean(against, known) or f"; choose from {', '.join(known)}"
        raise UserError(f"--against: there is no arm {quote(against)}{hint}")


def summarize_rows(study: Study, rows: Sequence[StudyRow]) -> list[str]:
    """The summary of each arm with a teacher, in the order of the rows."""
    taught = {arm.label: arm for arm in study.taught}
    return [summarize_arm(study, taught[row.method]) for row in rows if row.method in taught]


def arm_values(study: Study, arm: ArmResult) -> dict[str, Any]:
    """The scores of an arm, its gain over the control, and the cost of its search."""
    values = [*study.values(arm.label).values()]
    search = study.searched.get(arm.method)
    row: dict[str, Any] = {
        "method": arm.label,
        "seeds": len(values),
        "split": study.split,
        "failed": len(arm.failures),
        "paper": study.paper(arm),
        "trials": 0 if arm.is_control else search and search.trials,
        "searched": "; ".join(f"{k} in {v}" for k, v in search.space.items()) if search else "",
    }
    if values:
        seconds = mean(float(score["seconds"]) for score in arm.scores.values())
        deviation = standard_deviation(values)
        row |= {"mean": mean(values), "deviation": deviation, "seconds": seconds}
    gain = None if arm.is_control else study.gain(arm.label, arm.control)
    return row | ({} if gain is None else dict(zip(("gain", "low", "high"), gain, strict=True)))


def against_values(study: Study, arm: ArmResult, against: str | None) -> dict[str, Any]:
    """The difference of an arm to the arm of `--against`, with its interval."""
    gain = study.gain(arm.label, against) if against and against != arm.label else None
    if gain is None:
        return {}
    return {"against": gain.mean, "against_low": gain.low, "against_high": gain.high}


# ----------------------------------------------------------------------------------------- as text


def text_columns(
    rows: Sequence[StudyRow], headline: str, against: str | None
) -> dict[str, list[str]]:
    """The table of at least one row as text by column; columns without a value are left out."""
    columns = {
        "method": [row.method for row in rows],
        "seeds": [
            str(row.seeds) + (f" ({row.failed} missing)" if row.failed else "") for row in rows
        ],
        f"{headline} on {rows[0].split}": [
            format_deviation(row.mean, row.deviation) for row in rows
        ],
        "gain": [format_interval(row.gain, row.low, row.high) for row in rows],
        "p (Holm)": [format_p_value(row.p_holm) for row in rows],
        "rank": [format_number(row.rank, 1) for row in rows],
        f"over {against}": [
            format_interval(row.against, row.against_low, row.against_high) for row in rows
        ],
        "paper": [format_number(row.paper, 2) for row in rows],
        "trials": ["" if row.trials is None else str(row.trials) for row in rows],
    }
    return {name: cells for name, cells in columns.items() if any(cells)}


def format_deviation(value: float | None, deviation: float | None) -> str:
    """A mean with its standard deviation; empty for None."""
    return "" if value is None else f"{value:.2f} ± {deviation or 0:.2f}"


def format_interval(value: float | None, low: float | None, high: float | None) -> str:
    """A difference with its interval; empty for None."""
    return "" if value is None else f"{value:+.2f} ({low:.2f} … {high:.2f})"


def format_number(value: float | None, digits: int) -> str:
    """A number with so many decimals; empty for None."""
    return "" if value is None else f"{value:.{digits}f}"


def format_p_value(value: float | None) -> str:
    """A p value with three decimals; empty for None."""
    if value is None:
        return ""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


# ----------------------------------------------------------------------------------------- as files


def as_csv(rows: Sequence[StudyRow], headline: str, against: str | None) -> str:
    """The table as CSV, one column for each number."""
    return csv_text([asdict(row) for row in rows])


def as_json(rows: Sequence[StudyRow], headline: str, against: str | None) -> str:
    """The table as JSON: a list of objects, with the name of the headline metric."""
    content = {"headline": headline, "against": against, "rows": [asdict(row) for row in rows]}
    return json.dumps(replace_nonfinite(content), indent=1, ensure_ascii=False) + "\n"


def as_markdown(rows: Sequence[StudyRow], headline: str, against: str | None) -> str:
    """The table in the Markdown of GitHub."""
    columns = text_columns(rows, headline, against)
    lines = [[*columns], ["---" if name == "method" else "---:" for name in columns]]
    lines += [list(cells) for cells in zip(*columns.values(), strict=True)]
    escaped = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)


def as_latex(rows: Sequence[StudyRow], headline: str, against: str | None) -> str:
    """The table as a LaTeX tabular; it needs the package booktabs."""
    columns = text_columns(rows, headline, against)
    body = [[*columns]] + [list(cells) for cells in zip(*columns.values(), strict=True)]
    head, *lines = (" & ".join(map(escape_latex, line)) + r" \\" for line in body)
    start = rf"\begin{{tabular}}{{l{'r' * (len(columns) - 1)}}}"
    parts = [start, r"\toprule", head, r"\midrule", *lines, r"\bottomrule", r"\end{tabular}"]
    return "\n".join(parts) + "\n"


LATEX_ESCAPES = {
    "\\": r"\textbackslash{}",
    "±": r"$\pm$",
    "…": r"\ldots{}",
    "<": "$<$",
    ">": "$>$",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def escape_latex(text: str) -> str:
    """Text with the special characters of LaTeX escaped."""
    return "".join(LATEX_ESCAPES.get(character, character) for character in text)


TableFormat = Callable[[Sequence[StudyRow], str, str | None], str]
FORMATS: dict[str, TableFormat] = {
    "csv": as_csv,
    "json": as_json,
    "markdown": as_markdown,
    "latex": as_latex,
}
TABLE_FILES = {
    "csv": "table.csv",
    "json": "table.json",
    "markdown": "table.md",
    "latex": "table.tex",
}
JOBS_FILE = "cells.csv"


def format_table(study: Study, kind: str, against: str | None = None) -> str:
    """The table in one of the formats: csv, json, markdown or latex."""
    if kind not in FORMATS:
        hint = did_you_mean(kind, FORMATS) or f"; choose from {', '.join(FORMATS)}"
        raise UserError(f"--table: unknown format {quote(kind)}{hint}")
    return FORMATS[kind](make_rows(study, against), study.headline, against)


def write_tables(study: Study, against: str | None = None) -> list[Path]:
    """Write the table in every format, and jobs, scores and kinds of errors as CSV."""
    paths, rows = [], make_rows(study, against)
    for kind, name in TABLE_FILES.items():
        paths.append(study.folder / name)
        write_text(paths[-1], FORMATS[kind](rows, study.headline, against))
    paths.append(study.folder / JOBS_FILE)
    write_text(paths[-1], jobs_csv(study))
    return [*paths, *write_changes(study)]


def jobs_csv(study: Study) -> str:
    """All jobs as CSV, one row each, with every metric on the split of the study's scores."""
    lines: list[dict[str, Any]] = []
    for arm in study.arms:
        for seed, score in arm.scores.items():
            split, headline = study.measured, study.headline
            values = {f"{split}/{name}": value for name, value in score[split].items()}
            line = {"method": arm.label, "teacher": arm.teacher, "seed": seed, **values}
            lines.append(line | {f"validation/best_{headline}": score["best"][headline]})
    return csv_text(lines, ["method"])


def search_lines(study: Study, rows: Sequence[StudyRow]) -> list[str]:
    """The number of search trials of each method, one line for each number."""
    if not study.searched:
        return ["search: none; options are those of the papers or of the recipe"]
    groups: dict[int, list[str]] = {}
    for row in rows:
        name = "the control" if row.method == CONTROL else row.method
        groups.setdefault(row.trials or 0, []).append(name)
    lines = [
        f"search: {count} trials on validation each for {', '.join(methods)}"
        if count
        else f"search: none for {', '.join(methods)}"
        for count, methods in sorted(groups.items(), reverse=True)
    ]
    at_edge = [f"{n} ({', '.join(s.edges)})" for n, s in study.searched.items() if s.edges]
    if at_edge:
        lines.append(f"search: chosen near the end of the searched range: {'; '.join(at_edge)}")
    if same := study.searched_on_same:
        lines.append(
            f"search: the options of {', '.join(same)} were chosen on the images of these scores, "
            "which favours them over the control"
        )
    return lines
