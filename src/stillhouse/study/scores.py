"""The scores of runs and studies as plain data for JSON: by role, split and metric."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from stillhouse.runs.execute import Result
from stillhouse.runs.scores import Score
from stillhouse.study.results import Study
from stillhouse.study.table import make_rows

SPLITS = ("validation", "test")
STEP = "step"  # of an evaluation, which is no score

Metrics = dict[str, float | None]


def split_scores(score: Score) -> dict[str, Metrics]:
    """The metrics of one network by split, without splits that it was not evaluated on."""
    return {
        split: {name: value for name, value in score[split].items() if name != STEP}
        for split in SPLITS
        if score.get(split)
    }


def run_scores(result: Result) -> dict[str, Any]:
    """The headline metric of a run and its scores: role -> split -> metric -> value."""
    by_role = {"teacher": result.teacher, "control": result.control, "student": result.student}
    scores = {role: split_scores(score) for role, score in by_role.items() if score is not None}
    return {"headline": result.headline, "scores": scores}


def study_scores(study: Study, against: str | None = None) -> dict[str, Any]:
    """The scores of a study, its table, and why runs have no score.

    Scores are by role, then by the label of the teacher or arm, then for arms by seed, then by
    split and metric.
    """
    roles: dict[str, dict[str, Mapping[str, Any]]] = {"teacher": {}, "control": {}, "student": {}}
    roles["teacher"] = {label: split_scores(score) for label, score in study.teachers.items()}
    for arm in study.arms:
        seeds = {str(seed): split_scores(score) for seed, score in arm.scores.items()}
        roles["control" if arm.is_control else "student"][arm.label] = seeds
    return {
        "headline": study.headline,
        "scores": roles,
        "table": [asdict(row) for row in make_rows(study, against)],
        "failures": {
            arm.label: {str(seed): reason for seed, reason in arm.failures.items()}
            for arm in study.arms
            if arm.failures
        },
    }
