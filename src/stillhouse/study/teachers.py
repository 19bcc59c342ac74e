"""The teachers of a study: trained where they have no weights, and measured before they teach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stillhouse.build.networks import TeacherNetwork
from stillhouse.build.session import Session
from stillhouse.build.store import Say, prefill
from stillhouse.build.teacher import check_storable
from stillhouse.errors import UserError
from stillhouse.recipes.schema import Recipe, TeacherSpec
from stillhouse.runs.scores import Score
from stillhouse.runs.teacher import (
    check_teacher,
    find_teacher,
    member_folder,
    member_recipe,
    member_weights,
)
from stillhouse.study.jobs import Failure, Job, Outcome


@dataclass
class StudyTeachers:
    """The teachers of a study by label, their scores, and why some were rejected."""

    recipe: Recipe
    teachers: Mapping[str, TeacherSpec]
    session: Session
    say: Say
    blind: bool = False  # never evaluate on the test split
    scores: dict[str, Score] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)  # label -> reason
    pending: dict[str, list[Job]] = field(default_factory=dict)  # label -> trainings it waits for

    def prepare(self) -> list[Job]:
        """Measure the teachers that have weights; return the jobs that train the others."""
        for label, teacher in self.teachers.items():
            untrained = [
                member_recipe(self.recipe, member)
                for member in teacher.networks
                if member_weights(self.recipe, member, self.session) is None
            ]
            if not untrained:
                self.measure(label)
                continue
            self.pending[label] = [Job(recipe, member_folder(recipe)) for recipe in untrained]
            folders = ", ".join(str(job.folder) for job in self.pending[label])
            self.say(f"teacher {label}: is trained first; saved in {folders}")
        jobs = [job for jobs in self.pending.values() for job in jobs]
        return list({job.folder: job for job in jobs}.values())  # a shared member is trained once

    def measure_trained(self, outcomes: Mapping[Path, Outcome]) -> None:
        """Measure the teachers whose jobs `prepare` returned; reject those whose job failed."""
        for label, jobs in self.pending.items():
            ends = [outcomes[job.folder] for job in jobs]
            failures = [end for end in ends if isinstance(end, Failure)]
            if failures:
                self.reject(label, f"training the teacher {label} failed: {failures[0].message}")
            else:
                self.measure(label)

    def measure(self, label: str) -> None:
        """Evaluate a teacher; reject it if its accuracy is no better than chance."""
        try:
            score = check_teacher(
                self.teachers[label], self.load(label), self.session, blind=self.blind
            )
        except UserError as error:
            self.reject(label, str(error))
            return
        self.scores[label] = score
        split = "validation" if self.blind else self.session.score_split
        headline = self.session.task.headline
        self.say(f"teacher {label}: {headline} {score[split][headline]:.1f} on {split}")

    def reject(self, label: str, reason: str) -> None:
        """Continue without a teacher.

        Raises:
            UserError: if no teacher is left.
        """
        self.rejected[label] = reason
        if len(self.rejected) == len(self.teachers):
            raise UserError(reason)
        self.say(f"teacher {label} is not used: {reason}")

    def load(self, label: str) -> TeacherNetwork:
        """A teacher with its weights, prepared for the data of the recipe."""
        teacher = self.teachers[label]
        taught = find_teacher(self.recipe, teacher, self.session)
        assert taught is not None
        return taught

    def fill_stores(self, recipes: Mapping[str, Sequence[Recipe]]) -> None:
        """Compute the outputs of each teacher once, for all recipes that read them from a store.

        `recipes` are those of its students, by the label of the teacher.
        """
        for label, students in recipes.items():
            stored = [r for r in students if r.teacher is not None and r.teacher.store]
            if stored and label not in self.rejected:
                check_storable(stored[0])
                prefill(stored[0].teacher, self.session, self.load(label), self.say)
