"""The results of a study, read from its folder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any, Literal, NamedTuple

from stillhouse.data.record import ScoreSplit
from stillhouse.errors import UserError
from stillhouse.files import check_inside, read_json, write_json, write_text
from stillhouse.recipes import load
from stillhouse.recipes.schema import Recipe, Searched
from stillhouse.runs.scores import Score, parse_result, parse_score, read_manifest
from stillhouse.runs.training import RESULT
from stillhouse.study.jobs import read_failure
from stillhouse.study.plan import StudyPlan
from stillhouse.study.statistics import (
    Interval,
    IntervalKind,
    difference_interval,
    mean_ranks,
    p_value,
    standard_deviation,
)

STUDY_FILE = "study.json"
STUDY_RECIPE_FILE = "study.yaml"
TEACHERS_FILE = "teachers.json"
STUDY_FORMAT = 1
REMEDY = "run the study again, finished runs are kept"  # for a damaged file

ScoreBy = Literal["last", "best"]  # after the last epoch, or validation at its best epoch


@dataclass(frozen=True)
class ArmResult:
    """The scores of one arm by seed, and the reason for each seed without a score."""

    label: str
    method: str
    teacher: str
    control: str
    folder: Path
    scores: Mapping[int, Score] = field(default_factory=dict)
    failures: Mapping[int, str] = field(default_factory=dict)
    pair: str = ""  # the label of its pair, where the study has pairs

    @property
    def is_control(self) -> bool:
        """Whether the arm has no teacher."""
        return self.label == self.control

    def values(self, headline: str, by: ScoreBy = "last") -> dict[int, float]:
        """The headline metric by seed: after the last epoch, or the best on validation."""
        return {
            seed: float(score[score["split"] if by == "last" else "best"][headline])
            for seed, score in self.scores.items()
        }


class PairedValues(NamedTuple):
    """The values of an arm and of the arm it is compared with, at the seeds that both have."""

    values: list[float]
    baseline: list[float]


@dataclass(frozen=True)
class Study:
    """The results of all arms and teachers, and how they are compared."""

    folder: Path
    title: str
    headline: str
    arms: tuple[ArmResult, ...]
    teachers: Mapping[str, Score]
    recipe: Recipe
    notes: tuple[str, ...] = ()
    by: ScoreBy = "last"
    kind: IntervalKind = "t"
    measured: ScoreSplit = "test"  # the split of the scores after the last epoch
    images: Mapping[str, str] = field(default_factory=dict)  # fingerprint of each split

    @property
    def split(self) -> ScoreSplit:
        """The split of the scores that are compared."""
        return self.measured if self.by == "last" else "validation"

    @property
    def searched_on_same(self) -> list[str]:
        """The methods whose options a search chose on the images of the scores, as far as known."""
        images = self.images.get("val" if self.split == "validation" else "test")
        return [label for label, one in self.searched.items() if images and one.images == images]

    @property
    def searched(self) -> Mapping[str, Searched]:
        """How the options of each method were searched; empty without a search."""
        return self.recipe.study.searched if self.recipe.study else {}

    def arm(self, label: str) -> ArmResult:
        """An arm by its label."""
        return next(arm for arm in self.arms if arm.label == label)

    def values(self, label: str) -> dict[int, float]:
        """The headline metric of an arm by seed."""
        return self.arm(label).values(self.headline, self.by)

    @property
    def taught(self) -> list[ArmResult]:
        """The arms with a teacher that have a score."""
        return [arm for arm in self.arms if not arm.is_control and arm.scores]

    def paper(self, arm: ArmResult) -> float | None:
        """The result that the paper reports for an arm; None if the recipe has none."""
        pairs = self.recipe.study.pairs if self.recipe.study else {}
        if arm.pair in pairs:
            return pairs[arm.pair].paper.get(arm.method)
        return self.recipe.paper.get(arm.label, self.recipe.paper.get(arm.method))

    def paired_values(self, label: str, baseline: str) -> PairedValues:
        """The values of two arms at the seeds that both have, in the order of the seeds."""
        first, second = self.values(label), self.values(baseline)
        seeds = sorted(first.keys() & second.keys())
        return PairedValues([first[seed] for seed in seeds], [second[seed] for seed in seeds])

    def gain(self, label: str, baseline: str) -> Interval | None:
        """The mean difference of two arms with its interval; None below two common seeds."""
        pairs = self.paired_values(label, baseline)
        return difference_interval(*pairs, self.kind) if len(pairs.values) > 1 else None

    def p_values(self) -> dict[str, float]:
        """The p value of each arm with a teacher against its control, by label."""
        pairs = {arm.label: self.paired_values(arm.label, arm.control) for arm in self.taught}
        return {label: p_value(*pair) for label, pair in pairs.items() if len(pair.values) > 1}

    def ranks(self) -> dict[str, float]:
        """The mean rank of each arm over the seeds that all arms have, by label."""
        return mean_ranks({arm.label: self.values(arm.label) for arm in self.arms if arm.scores})

    def best(self) -> ArmResult | None:
        """The arm with a teacher that has the highest mean; None before any is finished."""
        taught = self.taught
        return max(taught, key=lambda a: mean(self.values(a.label).values())) if taught else None

    def summaries(self) -> list[str]:
        """One line for each arm with a teacher: its score, its control, its teacher, the gain."""
        return [summarize_arm(self, arm) for arm in self.taught]


def summarize_arm(study: Study, arm: ArmResult) -> str:
    """Student, control and teacher in one line, and the gain with its interval."""
    parts = [f"student {format_mean(list(study.values(arm.label).values()))}"]
    control = list(study.values(arm.control).values())
    if control:
        parts.append(f"control {format_mean(control)}")
    teacher = study.teachers.get(arm.teacher)
    if teacher:
        parts.append(f"teacher {teacher[study.split][study.headline]:.1f}")
    gain = format_gain(study, arm)
    return f"{display_label(arm.label)}: {', '.join(parts)} on {study.split}: {gain}"


def format_gain(study: Study, arm: ArmResult) -> str:
    """The gain over the control with its interval, or why there is none."""
    gain = study.gain(arm.label, arm.control)
    pairs = study.paired_values(arm.label, arm.control)
    if gain is not None:
        kind = "interval" if study.kind == "t" else "bootstrap interval"
        inside = f"95 % {kind} {gain.low:.1f} … {gain.high:.1f}, {len(pairs.values)} seeds"
        return f"{gain.mean:+.1f} ({inside})"
    if pairs.values:
        return f"{pairs.values[0] - pairs.baseline[0]:+.1f} (one seed: no interval can be given)"
    return "no result of the control to compare with yet"


def format_mean(values: list[float]) -> str:
    """The mean with the standard deviation, or a single value."""
    if len(values) == 1:
        return f"{values[0]:.1f}"
    return f"{mean(values):.1f} ± {standard_deviation(values):.1f}"


def display_label(label: str) -> str:
    """A label at the start of a line: `KD` for `kd`; `dist:temperature=4` stays as it is."""
    return label.upper() if label.isalpha() else label


# --------------------------------------------------------------------------------------- the folder


def write_plan(plan: StudyPlan, folder: Path, headline: str, split: ScoreSplit) -> None:
    """Write the arms, the seeds and the recipe of a study, and the split of its scores."""
    folders = plan.folders
    arms = [
        {
            "label": arm.label,
            "method": arm.method,
            "teacher": arm.teacher,
            "control": arm.control,
            "folder": folders[arm.label],
            "pair": arm.pair,
        }
        for arm in plan.arms
    ]
    title = plan.recipe.title or plan.recipe.student.name
    content = {"format": STUDY_FORMAT, "title": title, "headline": headline, "split": split}
    content |= {"seeds": list(plan.seeds), "arms": arms, "notes": list(plan.notes)}
    write_text(folder / STUDY_RECIPE_FILE, load.to_yaml(plan.recipe))
    write_json(folder / STUDY_FILE, content)


def read_study(folder: Path, by: ScoreBy = "last", kind: IntervalKind = "t") -> Study:
    """The study in a folder: the score of every job that can be read, and a note for the others.

    Raises:
        UserError: if the folder holds no study, or its plan is damaged.
    """
    content = read_plan(folder)
    notes, headline = list[str](content["notes"]), content["headline"]
    split = content["split"]
    arms = tuple(
        read_arm(folder, arm, content["seeds"], headline, split, notes) for arm in content["arms"]
    )
    jobs = [(arm.folder / str(seed), arm.scores[seed]) for arm in arms for seed in arm.scores]
    measured: Any = split or next((score["split"] for _, score in jobs), "test")
    described = read_manifest(jobs[0][0]) if jobs else {}
    return Study(
        folder,
        content["title"],
        headline,
        arms,
        read_teacher_scores(folder, headline, measured, notes),
        load.load_resolved(folder / STUDY_RECIPE_FILE),
        tuple(notes),
        by,
        kind,
        measured,
        described.get("data", {}),
    )


def read_plan(folder: Path) -> dict[str, Any]:
    """The content of `study.json`."""
    path = folder / STUDY_FILE
    if not path.is_file():
        raise UserError(f"{folder} is not a study folder: it has no {STUDY_FILE}")
    plan = read_json(path, parse_plan, REMEDY)
    if plan["format"] != STUDY_FORMAT:
        raise UserError(
            f"{path} was written by another version of stillhouse; read it with that version"
        )
    return plan


def parse_plan(content: dict[str, Any]) -> dict[str, Any]:
    """The content of `study.json`; raises ValueError, KeyError or TypeError."""
    if content["format"] != STUDY_FORMAT:
        return content
    texts = [content["title"], content["headline"], *content["notes"]]
    split = content.get("split", "")  # files of older versions do not name it
    if split not in ("test", "validation", ""):
        raise ValueError("there is no such split")
    arms = [{"pair": "", **arm} for arm in content["arms"]]
    texts += [arm[key] for arm in arms for key in ("label", "method", "teacher", "pair", "folder")]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("not a text")
    if not all(type(seed) is int for seed in content["seeds"]):
        raise TypeError("a seed is not a whole number")
    if not content["headline"] or not {a["control"] for a in arms} <= {a["label"] for a in arms}:
        raise ValueError("there is no such control")
    return {**content, "arms": arms, "split": split}


def read_arm(
    folder: Path,
    arm: Mapping[str, Any],
    seeds: list[int],
    headline: str,
    split: str,
    notes: list[str],
) -> ArmResult:
    """The results of one arm; a note is added for each seed without a score of the split."""
    arm_folder = folder / arm["folder"]
    check_inside(arm_folder, folder)
    scores: dict[int, Score] = {}
    failures: dict[int, str] = {}
    for seed in seeds:
        score, reason = read_job_score(arm_folder / str(seed), headline, folder)
        if score is not None and split and score["split"] != split:
            reason = f"its scores are of {score['split']}, and those of the study of {split}"
            score = None
        if score is not None:
            scores[seed] = score
            warnings = score.get("warnings", ())
            notes += [f"{arm['label']}, seed {seed}: {warning}" for warning in warnings]
        else:
            failures[seed] = reason
            notes.append(f"{arm['label']}, seed {seed}: {reason}")
    return ArmResult(
        arm["label"],
        arm["method"],
        arm["teacher"],
        arm["control"],
        arm_folder,
        scores,
        failures,
        arm["pair"],
    )


def read_job_score(folder: Path, headline: str, study: Path) -> tuple[Score | None, str]:
    """The score of a job, or None and the reason why there is none."""
    path = folder / RESULT
    if not path.is_file():
        failure = read_failure(folder)
        return None, failure.message if failure else "not finished yet"

    def parse(content: dict[str, Any]) -> Score:
        score = parse_result(content, folder)
        if None in (score[part][headline] for part in (score["split"], "best")):
            raise UserError(f"{headline} in {path} is not a finite number")
        return score

    try:
        return read_json(path, parse, "delete its folder and run the study again", study), ""
    except UserError as error:
        return None, str(error)


def read_teacher_scores(
    folder: Path, headline: str, split: str, notes: list[str]
) -> dict[str, Score]:
    """The scores of the teachers by label; a note is added if their file is damaged."""
    path = folder / TEACHERS_FILE
    if not path.is_file():
        return {}

    def parse(content: dict[str, Any]) -> dict[str, Score]:
        scores = {label: parse_score(score) for label, score in content.items()}
        return {
            label: score
            for label, score in scores.items()
            if math.isfinite(score[split][headline] + score["validation"][headline])
        }

    try:
        return read_json(path, parse, REMEDY)
    except UserError as error:
        notes.append(str(error))
        return {}
