"""Training all that a plan holds, however often it is begun."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stillhouse.build.networks import make_student, untrained_teacher
from stillhouse.build.session import Session
from stillhouse.engine.devices import launched_ranks
from stillhouse.engine.folder import MARK, claim
from stillhouse.errors import UserError
from stillhouse.files import write_json
from stillhouse.methods.control import Control
from stillhouse.recipes import load
from stillhouse.recipes.schema import Recipe
from stillhouse.study.cells import Cell, Failure, Outcome, Workers, failed
from stillhouse.study.faculty import Faculty, Say
from stillhouse.study.findings import TEACHERS, Study, read_study, write_plan
from stillhouse.study.plan import Arm, Plan


def conduct(
    plan: Plan, folder: Path, workers: Workers, say: Say = print, *, overwrite: bool = False
) -> Study:
    """Train every cell that is not finished yet, and read what came of all."""
    refuse_ranks()
    session = Session.open(plan.recipe, quiet=True)
    rehearse(plan, session)
    with claim(folder, resume=True, recipe=foundation(plan.recipe)):
        clear(plan.cells(folder), overwrite)
        write_plan(plan, folder, session.task.headline)
        Conductor(plan, folder, session, workers, say).run()
    return read_study(folder)


def rehearse(plan: Plan, session: Session) -> None:
    """Make every network once, lest hours pass before a wrong name is said."""
    make_student(plan.recipe.student, session)
    for teacher in plan.teachers.values():
        untrained_teacher(teacher, session)


def refuse_ranks() -> None:
    """Many trainings are not made faster by ranks that all do the same."""
    if launched_ranks() > 1:
        raise UserError(
            "a study runs whole trainings side by side, and is begun without torchrun; "
            "say --jobs, or --ray for many machines"
        )


def foundation(recipe: Recipe) -> str:
    """A hash of what all cells of a study share; methods, teachers and seeds may be added later."""
    bare = replace(recipe, method=(Control(),), teacher=None, seed=0, study=None)
    return load.digest(bare)


def clear(cells: Sequence[Cell], overwrite: bool) -> None:
    """Refuse cells that were trained under other options, or empty them if that is wanted."""
    for cell in cells:
        mark = cell.folder / MARK
        if not mark.is_file():
            continue
        if mark.read_text(encoding="utf-8").strip() == load.digest(cell.recipe):
            continue
        if not overwrite:
            raise UserError(
                f"{cell.folder} was trained with other options; give another --out, or "
                "--overwrite to train such cells anew"
            )
        shutil.rmtree(cell.folder)


@dataclass
class Conductor:
    """One go at a plan: teachers and controls first, then all that needs a teacher."""

    plan: Plan
    folder: Path
    session: Session
    workers: Workers
    say: Say
    ended: int = 0

    def run(self) -> None:
        """Everything in its order."""
        plan = self.plan
        self.say(f"{len(plan.arms)} arms x {len(plan.seeds)} seeds: {plan.size} runs")
        for note in plan.notes:
            self.say(f"note: {note}")
        faculty = Faculty(plan.recipe, plan.teachers, self.session, self.say)
        apprentices = faculty.gather()
        controls = plan.cells(self.folder, plan.controls)
        faculty.graduate(self.workers.train([*apprentices, *controls], self.note))
        write_json(self.folder / TEACHERS, faculty.scores)
        for label, sentence in faculty.wrong.items():
            for cell in plan.cells(self.folder, self.pupils(label)):
                self.note(cell, failed(cell, sentence))
        faculty.store({label: [a.recipe for a in self.pupils(label)] for label in plan.teachers})
        taught = [a for a in plan.arms if not a.is_control and a.teacher not in faculty.wrong]
        self.workers.train(plan.cells(self.folder, taught), self.note)

    def pupils(self, label: str) -> list[Arm]:
        """The arms under one teacher."""
        return [arm for arm in self.plan.arms if arm.teacher == label]

    def note(self, cell: Cell, outcome: Outcome) -> None:
        """Say how a cell ended."""
        if cell.folder.parent.parent != self.folder:
            return  # a teacher, of which more is said when it is measured
        self.ended += 1
        headline = self.session.task.headline
        arms = {name: label for label, name in self.plan.folders.items()}
        said = (
            f"failed: {outcome.sentence}"
            if isinstance(outcome, Failure)
            else f"{headline} {outcome['test'][headline]:.1f}"
        )
        arm = arms[cell.folder.parent.name]
        self.say(f"[{self.ended}/{self.plan.size}] {arm}, seed {cell.folder.name}: {said}")
