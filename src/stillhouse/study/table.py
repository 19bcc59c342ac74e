"""The table of a study: a row an arm, for people and for papers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from stillhouse.errors import UserError, did_you_mean
from stillhouse.files import csv_text, finite, write_text
from stillhouse.methods.control import CONTROL
from stillhouse.study.results import Found, Study, answer
from stillhouse.study.statistics import holm, spread


@dataclass(frozen=True)
class Row:
    """What is said of one arm; None where there is nothing to say."""

    method: str
    seeds: int
    mean: float | None = None
    deviation: float | None = None
    gain: float | None = None  # over the control, with its 95 % interval
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_holm: float | None = None  # corrected for all taught arms
    rank: float | None = None
    against: float | None = None  # over the arm that was named, with its interval
    against_low: float | None = None
    against_high: float | None = None
    paper: float | None = None
    trials: int | None = None  # spent on choosing its options
    searched: str = ""  # what was tried
    failed: int = 0
    seconds: float | None = None  # of a training, on average


def make_rows(study: Study, against: str | None = None) -> list[Row]:
    """A row an arm: the control first, the others from the best to the worst."""
    check_against(against, (arm.label for arm in study.arms))
    p, ranks = study.probabilities(), study.ranks()
    corrected = holm(p)
    rows = []
    for arm in study.arms:
        label = arm.label
        tested: dict[str, Any] = {
            "p": p.get(label),
            "p_holm": corrected.get(label),
            "rank": ranks.get(label),
        }
        rows.append(Row(**describe(study, arm), **tested, **versus(study, arm, against)))
    controls = [arm.label for arm in study.arms if arm.is_control]
    return sorted(rows, key=lambda r: (r.method not in controls, -(r.mean or float("-inf"))))


def check_against(against: str | None, labels: Iterable[str]) -> None:
    """Refuse to compare with an arm that is not there."""
    known = list(labels)
    if against is not None and against not in known:
        hint = did_you_mean(against, known) or f"; there are {', '.join(known)}"
        raise UserError(f"--against: no arm is called {against!r}{hint}")


def answers(study: Study, rows: Sequence[Row]) -> list[str]:
    """The answer of every taught arm, in the order of the rows."""
    taught = {arm.label: arm for arm in study.taught}
    return [answer(study, taught[row.method]) for row in rows if row.method in taught]


def describe(study: Study, arm: Found) -> dict[str, Any]:
    """Scores, the gain over the control, and how the options were chosen."""
    values = [*study.values(arm.label).values()]
    search = study.searched.get(arm.method)
    said: dict[str, Any] = {
        "method": arm.label,
        "seeds": len(values),
        "failed": len(arm.failures),
        "paper": study.paper(arm),
        "trials": 0 if arm.is_control else search and search.trials,
        "searched": "; ".join(f"{k} in {v}" for k, v in search.space.items()) if search else "",
    }
    if values:
        seconds = mean(float(score["seconds"]) for score in arm.scores.values())
        said |= {"mean": mean(values), "deviation": spread(values), "seconds": seconds}
    gain = None if arm.is_control else study.gain(arm.label, arm.control)
    return said | ({} if gain is None else dict(zip(("gain", "low", "high"), gain, strict=True)))


def versus(study: Study, arm: Found, against: str | None) -> dict[str, Any]:
    """The difference to the arm that was named."""
    found = study.gain(arm.label, against) if against and against != arm.label else None
    if found is None:
        return {}
    return {"against": found.mean, "against_low": found.low, "against_high": found.high}


# ---------------------------------------------------------------------------------- as people read


def columns(rows: Sequence[Row], headline: str, against: str | None) -> dict[str, list[str]]:
    """The cells of each column as text; a column in which nothing is said is left out."""
    found = {
        "method": [row.method for row in rows],
        "seeds": [
            str(row.seeds) + (f" ({row.failed} missing)" if row.failed else "") for row in rows
        ],
        headline: [within(row.mean, row.deviation) for row in rows],
        "gain": [spanned(row.gain, row.low, row.high) for row in rows],
        "p (Holm)": [probability(row.p_holm) for row in rows],
        "rank": [number(row.rank, 1) for row in rows],
        f"over {against}": [
            spanned(row.against, row.against_low, row.against_high) for row in rows
        ],
        "paper": [number(row.paper, 2) for row in rows],
        "trials": ["" if row.trials is None else str(row.trials) for row in rows],
    }
    return {name: cells for name, cells in found.items() if any(cells)}


def within(value: float | None, deviation: float | None) -> str:
    """A mean and its deviation."""
    return "" if value is None else f"{value:.2f} ± {deviation or 0:.2f}"


def spanned(value: float | None, low: float | None, high: float | None) -> str:
    """A difference and its interval."""
    return "" if value is None else f"{value:+.2f} ({low:.2f} … {high:.2f})"


def number(value: float | None, digits: int) -> str:
    """A number, or nothing."""
    return "" if value is None else f"{value:.{digits}f}"


def probability(value: float | None) -> str:
    """A probability that does not pretend to more digits than it has."""
    if value is None:
        return ""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


# ----------------------------------------------------------------------------------------- as files


def as_csv(rows: Sequence[Row], headline: str, against: str | None) -> str:
    """Comma-separated values, a column a number."""
    return csv_text([asdict(row) for row in rows])


def as_json(rows: Sequence[Row], headline: str, against: str | None) -> str:
    """A list of objects, with the name of what was measured."""
    content = {"headline": headline, "against": against, "rows": [asdict(row) for row in rows]}
    return json.dumps(finite(content), indent=1, ensure_ascii=False) + "\n"


def as_markdown(rows: Sequence[Row], headline: str, against: str | None) -> str:
    """A table of GitHub's Markdown."""
    found = columns(rows, headline, against)
    lines = [[*found], ["---" if name == "method" else "---:" for name in found]]
    lines += [list(cells) for cells in zip(*found.values(), strict=True)]
    marked = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in marked)


def as_latex(rows: Sequence[Row], headline: str, against: str | None) -> str:
    """A tabular for a paper; it needs booktabs."""
    found = columns(rows, headline, against)
    body = [[*found]] + [list(cells) for cells in zip(*found.values(), strict=True)]
    head, *lines = (" & ".join(map(latex, line)) + r" \\" for line in body)
    start = rf"\begin{{tabular}}{{l{'r' * (len(found) - 1)}}}"
    parts = [start, r"\toprule", head, r"\midrule", *lines, r"\bottomrule", r"\end{tabular}"]
    return "\n".join(parts) + "\n"


SIGNS = {
    "\\": r"\textbackslash{}",
    "±": r"$\pm$",
    "…": r"\ldots{}",
    "<": "$<$",
    ">": "$>$",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


def latex(text: str) -> str:
    """Text with every sign that means something to LaTeX made to stand for itself."""
    return "".join(SIGNS.get(sign, sign) for sign in text)


Format = Callable[[Sequence[Row], str, str | None], str]
FORMATS: dict[str, Format] = {
    "csv": as_csv,
    "json": as_json,
    "markdown": as_markdown,
    "latex": as_latex,
}
FILES = {"csv": "table.csv", "json": "table.json", "markdown": "table.md", "latex": "table.tex"}


def text_of(study: Study, kind: str, against: str | None = None) -> str:
    """The table in one of the formats."""
    if kind not in FORMATS:
        hint = did_you_mean(kind, FORMATS) or f"; there are {', '.join(FORMATS)}"
        raise UserError(f"--table: there is no format {kind!r}{hint}")
    return FORMATS[kind](make_rows(study, against), study.headline, against)


def write_tables(study: Study, against: str | None = None) -> list[Path]:
    """The table in every format, and every cell, in the study's folder."""
    paths, rows = [], make_rows(study, against)
    for kind, name in FILES.items():
        paths.append(study.folder / name)
        write_text(paths[-1], FORMATS[kind](rows, study.headline, against))
    paths.append(study.folder / "cells.csv")
    write_text(paths[-1], every_cell(study))
    return paths


def every_cell(study: Study) -> str:
    """Every training in a line, with all that was measured on test."""
    lines: list[dict[str, Any]] = []
    for arm in study.arms:
        for seed, score in arm.scores.items():
            test = {f"test/{name}": value for name, value in score["test"].items()}
            line = {"method": arm.label, "teacher": arm.teacher, "seed": seed, **test}
            lines.append(line | {f"best/{study.headline}": score["best"][study.headline]})
    return csv_text(lines, ["method"])


def called(label: str) -> str:
    """An arm as a sentence calls it."""
    return "the control" if label == CONTROL else label


def search_lines(study: Study, rows: Sequence[Row]) -> list[str]:
    """What choosing each method's options cost, one line for all that cost the same."""
    if not study.searched:
        return ["search: none; every method has the options of its paper or of the recipe"]
    trials = {row.method: row.trials or 0 for row in rows}
    groups: dict[int, list[str]] = {}
    for method, count in trials.items():
        groups.setdefault(count, []).append(method)
    told = [
        f"search: {count} trials on validation each for {', '.join(methods)}"
        if count
        else f"search: none for {', '.join(called(method) for method in methods)}"
        for count, methods in sorted(groups.items(), reverse=True)
    ]
    at_edges = [f"{n} ({', '.join(s.edges)})" for n, s in study.searched.items() if s.edges]
    if at_edges:
        told.append(f"search: chosen at the edge of what was tried: {'; '.join(at_edges)}")
    return told
