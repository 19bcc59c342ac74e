"""The teachers of a study: trained where they have no weights, looked at before they teach."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from stillhouse.errors import UserError
from stillhouse.recipes.build import Workshop
from stillhouse.recipes.listener import prefill
from stillhouse.recipes.networks import Taught, make_teacher
from stillhouse.recipes.schema import Recipe, Teacher
from stillhouse.recipes.teaching import check_teacher, teacher_file, teacher_folder, teacher_recipe
from stillhouse.recipes.training import Score
from stillhouse.study.cells import Cell, Failure, Outcome

Say = Callable[[str], None]


@dataclass
class Faculty:
    """Teachers by label, their scores, and why some of them cannot teach."""

    recipe: Recipe
    teachers: Mapping[str, Teacher]
    shop: Workshop
    say: Say
    blind: bool = False  # never look at the test split
    scores: dict[str, Score] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)
    waiting: dict[str, Cell] = field(default_factory=dict)

    def gather(self) -> list[Cell]:
        """Admit those that have weights, before anything is trained; the others' trainings."""
        for label, teacher in self.teachers.items():
            if teacher_file(self.recipe, teacher, self.shop) is not None:
                self.admit(label)
                continue
            alone = replace(teacher_recipe(self.recipe, teacher), study=None)
            self.waiting[label] = Cell(alone, teacher_folder(alone))
            self.say(f"teacher {label}: is trained first, and kept in {teacher_folder(alone)}")
        return [*self.waiting.values()]

    def graduate(self, outcomes: Mapping[Path, Outcome]) -> None:
        """Admit those that had to be trained."""
        for label, cell in self.waiting.items():
            outcome = outcomes[cell.folder]
            if isinstance(outcome, Failure):
                self.refuse(label, f"the teacher {label} was not trained: {outcome.sentence}")
            else:
                self.admit(label)

    def admit(self, label: str) -> None:
        """Measure a teacher, and refuse one that cannot teach."""
        try:
            score = check_teacher(
                self.teachers[label], self.taught(label), self.shop, blind=self.blind
            )
        except UserError as error:
            self.refuse(label, str(error))
            return
        self.scores[label] = score
        split, headline = "validation" if self.blind else "test", self.shop.task.headline
        self.say(f"teacher {label}: {headline} {score[split][headline]:.1f} on {split}")

    def refuse(self, label: str, sentence: str) -> None:
        """Go on without a teacher, unless it is the last."""
        self.wrong[label] = sentence
        if len(self.wrong) == len(self.teachers):
            raise UserError(sentence)
        self.say(f"teacher {label} does not teach: {sentence}")

    def taught(self, label: str) -> Taught:
        """A teacher as its pupils meet it."""
        teacher = self.teachers[label]
        path = teacher_file(self.recipe, teacher, self.shop)
        assert path is not None
        return make_teacher(teacher, path, self.shop.sources)

    def store(self, recipes: Mapping[str, Sequence[Recipe]]) -> None:
        """Ask each teacher once for all that its pupils, by the teacher's label, will ask it."""
        for label, pupils in recipes.items():
            stored = [r for r in pupils if r.teacher is not None and r.teacher.store]
            if stored and label not in self.wrong:
                prefill(stored[0], self.shop, self.taught(label), self.say)
