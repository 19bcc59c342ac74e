"""The teachers of a study: trained where they have no weights, looked at before they teach."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stillhouse.build.networks import TeacherNetwork
from stillhouse.build.store import prefill
from stillhouse.build.teacher import check_storable
from stillhouse.build.session import Session
from stillhouse.errors import UserError
from stillhouse.recipes.schema import Recipe, TeacherSpec
from stillhouse.runs.teacher import (
    check_teacher,
    find_teacher,
    member_folder,
    member_recipe,
    member_weights,
)
from stillhouse.runs.training import Score
from stillhouse.study.cells import Cell, Failure, Outcome

Say = Callable[[str], None]


@dataclass
class Faculty:
    """Teachers by label, their scores, and why some of them cannot teach."""

    recipe: Recipe
    teachers: Mapping[str, TeacherSpec]
    session: Session
    say: Say
    blind: bool = False  # never look at the test split
    scores: dict[str, Score] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)
    waiting: dict[str, list[Cell]] = field(default_factory=dict)

    def gather(self) -> list[Cell]:
        """Admit those that have weights, before anything is trained; the others' trainings."""
        for label, teacher in self.teachers.items():
            untrained = [
                member_recipe(self.recipe, member)
                for member in teacher.networks
                if member_weights(self.recipe, member, self.session) is None
            ]
            if not untrained:
                self.admit(label)
                continue
            self.waiting[label] = [Cell(alone, member_folder(alone)) for alone in untrained]
            kept = ", ".join(str(cell.folder) for cell in self.waiting[label])
            self.say(f"teacher {label}: is trained first, and kept in {kept}")
        every = [cell for cells in self.waiting.values() for cell in cells]
        return list({cell.folder: cell for cell in every}.values())  # a member of two comes once

    def graduate(self, outcomes: Mapping[Path, Outcome]) -> None:
        """Admit those that had to be trained."""
        for label, cells in self.waiting.items():
            ends = [outcomes[cell.folder] for cell in cells]
            failures = [end for end in ends if isinstance(end, Failure)]
            if failures:
                self.refuse(label, f"the teacher {label} was not trained: {failures[0].sentence}")
            else:
                self.admit(label)

    def admit(self, label: str) -> None:
        """Measure a teacher, and refuse one that cannot teach."""
        try:
            score = check_teacher(
                self.teachers[label], self.taught(label), self.session, blind=self.blind
            )
        except UserError as error:
            self.refuse(label, str(error))
            return
        self.scores[label] = score
        split, headline = "validation" if self.blind else "test", self.session.task.headline
        self.say(f"teacher {label}: {headline} {score[split][headline]:.1f} on {split}")

    def refuse(self, label: str, sentence: str) -> None:
        """Go on without a teacher, unless it is the last."""
        self.wrong[label] = sentence
        if len(self.wrong) == len(self.teachers):
            raise UserError(sentence)
        self.say(f"teacher {label} does not teach: {sentence}")

    def taught(self, label: str) -> TeacherNetwork:
        """A teacher as its pupils meet it."""
        teacher = self.teachers[label]
        taught = find_teacher(self.recipe, teacher, self.session)
        assert taught is not None
        return taught

    def store(self, recipes: Mapping[str, Sequence[Recipe]]) -> None:
        """Ask each teacher once for all that its pupils, by the teacher's label, will ask it."""
        for label, pupils in recipes.items():
            stored = [r for r in pupils if r.teacher is not None and r.teacher.store]
            if stored and label not in self.wrong:
                check_storable(stored[0])
                prefill(stored[0].teacher, self.session, self.taught(label), self.say)
