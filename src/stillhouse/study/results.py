"""What a study's folder holds: every cell that ended, and what can be said of all."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any, Literal, NamedTuple

from stillhouse.errors import UserError
from stillhouse.files import write_json, write_text
from stillhouse.recipes import load
from stillhouse.recipes.schema import Recipe, Searched
from stillhouse.runs.training import RESULT, Score
from stillhouse.study.jobs import read_failure
from stillhouse.study.plan import Plan
from stillhouse.study.statistics import Interval, Kind, interval, mean_ranks, p_value, spread

STUDY = "study.json"
RECIPE = "study.yaml"
TEACHERS = "teachers.json"
FORMAT = 1

By = Literal["last", "best"]


@dataclass(frozen=True)
class Found:
    """What came of one arm: scores by seed, and sentences where there is none."""

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
        """Whether nobody taught here."""
        return self.label == self.control

    def values(self, headline: str, by: By = "last") -> dict[int, float]:
        """The headline of each seed: on test after the last epoch, or the best on validation."""
        part = "test" if by == "last" else "best"
        return {seed: float(score[part][headline]) for seed, score in self.scores.items()}


class Pairs(NamedTuple):
    """Two arms at the seeds that both have."""

    ours: list[float]
    theirs: list[float]


@dataclass(frozen=True)
class Study:
    """Arms, teachers, and how they are compared."""

    folder: Path
    title: str
    headline: str
    arms: tuple[Found, ...]
    teachers: Mapping[str, Score]
    recipe: Recipe
    notes: tuple[str, ...] = ()
    by: By = "last"
    kind: Kind = "t"

    @property
    def searched(self) -> Mapping[str, Searched]:
        """How each method's options were chosen, where they were."""
        return self.recipe.study.searched if self.recipe.study else {}

    def arm(self, label: str) -> Found:
        """An arm by its label."""
        return next(arm for arm in self.arms if arm.label == label)

    def values(self, label: str) -> dict[int, float]:
        """The headline of each seed of an arm."""
        return self.arm(label).values(self.headline, self.by)

    @property
    def taught(self) -> list[Found]:
        """The arms with a teacher that have a score."""
        return [arm for arm in self.arms if not arm.is_control and arm.scores]

    def paper(self, arm: Found) -> float | None:
        """What the paper says of an arm."""
        whole = self.recipe.paper
        own = self.recipe.study.pairs if self.recipe.study else {}
        if arm.pair in own:
            return own[arm.pair].paper.get(arm.method)
        return whole.get(arm.label, whole.get(arm.method))

    def pairs(self, label: str, other: str) -> Pairs:
        """Two arms at the seeds that both have, in their order."""
        ours, theirs = self.values(label), self.values(other)
        seeds = sorted(ours.keys() & theirs.keys())
        return Pairs([ours[seed] for seed in seeds], [theirs[seed] for seed in seeds])

    def gain(self, label: str, other: str) -> Interval | None:
        """The mean difference of two arms with its interval; None below two common seeds."""
        pairs = self.pairs(label, other)
        return interval(*pairs, self.kind) if len(pairs.ours) > 1 else None

    def probabilities(self) -> dict[str, float]:
        """Each taught arm's p value against its control."""
        found = {arm.label: self.pairs(arm.label, arm.control) for arm in self.taught}
        return {label: p_value(*pairs) for label, pairs in found.items() if len(pairs.ours) > 1}

    def ranks(self) -> dict[str, float]:
        """The mean place of each arm over the seeds that all have."""
        return mean_ranks({arm.label: self.values(arm.label) for arm in self.arms if arm.scores})

    def best(self) -> Found | None:
        """The taught arm with the highest mean."""
        taught = self.taught
        return max(taught, key=lambda a: mean(self.values(a.label).values())) if taught else None

    def answers(self) -> list[str]:
        """One line a taught arm: did it help?"""
        return [answer(self, arm) for arm in self.taught]


def answer(study: Study, arm: Found) -> str:
    """Student, control and teacher, and the gain with its interval."""
    ours = list(study.values(arm.label).values())
    said = [f"student {about(ours)}"]
    theirs = list(study.values(arm.control).values())
    if theirs:
        said.append(f"control {about(theirs)}")
    teacher = study.teachers.get(arm.teacher)
    if teacher:
        part = "test" if study.by == "last" else "validation"
        said.append(f"teacher {teacher[part][study.headline]:.1f}")
    return f"{shown(arm.label)}: {', '.join(said)}: {gained(study, arm)}"


def gained(study: Study, arm: Found) -> str:
    """The gain over the control as a person reads it."""
    gain = study.gain(arm.label, arm.control)
    pairs = study.pairs(arm.label, arm.control)
    if gain is not None:
        kind = "interval" if study.kind == "t" else "bootstrap interval"
        inside = f"95 % {kind} {gain.low:.1f} … {gain.high:.1f}, {len(pairs.ours)} seeds"
        return f"{gain.mean:+.1f} ({inside})"
    if pairs.ours:
        return f"{pairs.ours[0] - pairs.theirs[0]:+.1f} (one seed: no interval can be given)"
    return "no control to compare it with yet"


def about(values: list[float]) -> str:
    """A mean and its spread."""
    return f"{mean(values):.1f} ± {spread(values):.1f}" if len(values) > 1 else f"{values[0]:.1f}"


def shown(label: str) -> str:
    """A label as it begins a sentence: `KD`, and `dist:temperature=4` as it is."""
    return label.upper() if label.isalpha() else label


# --------------------------------------------------------------------------------------- the folder


def write_plan(plan: Plan, folder: Path, headline: str) -> None:
    """What the folder is going to hold."""
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
    content = {"format": FORMAT, "title": title, "headline": headline}
    content |= {"seeds": list(plan.seeds), "arms": arms, "notes": list(plan.notes)}
    write_text(folder / RECIPE, load.to_yaml(plan.recipe))
    write_json(folder / STUDY, content)


def read_study(folder: Path, by: By = "last", kind: Kind = "t") -> Study:
    """The study of a folder, with every cell that can be read and a note of every other."""
    content = read_plan(folder)
    notes: list[str] = list(content["notes"])
    try:
        arms = tuple(
            read_arm(folder, arm, content["seeds"], content["headline"], notes)
            for arm in content["arms"]
        )
        title, headline = str(content["title"]), str(content["headline"])
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(damaged(folder / STUDY)) from error
    recipe = load.load(folder / RECIPE)
    teachers = read_teachers(folder, headline, notes)
    return Study(folder, title, headline, arms, teachers, recipe, tuple(notes), by, kind)


def read_plan(folder: Path) -> dict[str, Any]:
    """The plan that a study's folder was begun with."""
    path = folder / STUDY
    if not path.is_file():
        raise UserError(f"{folder} is no study: it has no {STUDY}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(damaged(path)) from error
    if not isinstance(content, dict) or not {"arms", "seeds", "notes", "headline"} <= set(content):
        raise UserError(damaged(path))
    if content.get("format") != FORMAT:
        raise UserError(f"{path} was written by another version of stillhouse; read it with that")
    return content


def damaged(path: Path) -> str:
    """The sentence for a file that cannot be what it should be."""
    return f"{path} is damaged; run the study again, which keeps every cell that is finished"


def read_arm(
    folder: Path, arm: Mapping[str, Any], seeds: list[int], headline: str, notes: list[str]
) -> Found:
    """The cells of one arm; what is missing or wrong becomes a note."""
    place = folder / arm["folder"]
    scores: dict[int, Score] = {}
    failures: dict[int, str] = {}
    for seed in seeds:
        score, sentence = read_cell(place / str(seed), headline)
        if score is not None:
            scores[seed] = score
        else:
            failures[seed] = sentence
            notes.append(f"{arm['label']}, seed {seed}: {sentence}")
    return Found(
        arm["label"],
        arm["method"],
        arm["teacher"],
        arm["control"],
        place,
        scores,
        failures,
        arm.get("pair", ""),
    )


def read_cell(folder: Path, headline: str) -> tuple[Score | None, str]:
    """The score of a cell, or why there is none."""
    path = folder / RESULT
    if not path.is_file():
        failure = read_failure(folder)
        return None, failure.sentence if failure else "not finished yet"
    try:
        score = json.loads(path.read_text(encoding="utf-8"))
        found = [float(score[part][headline]) for part in ("test", "best")]
    except (OSError, ValueError, KeyError, TypeError):
        return None, f"{path} is damaged; delete that folder and run the study again"
    if not all(map(math.isfinite, found)):
        return None, f"{path} holds no number for {headline}"
    return score, ""


def read_teachers(folder: Path, headline: str, notes: list[str]) -> dict[str, Score]:
    """The scores of the teachers by label; a file that cannot be read is a note."""
    path = folder / TEACHERS
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {
            label: score
            for label, score in content.items()
            if math.isfinite(score["test"][headline] + score["validation"][headline])
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        notes.append(damaged(path))
        return {}
