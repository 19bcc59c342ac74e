"""Choosing the options of methods on the validation split, as many trials for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import Any

from stillhouse.build.networks import example_of, make_network, make_student
from stillhouse.build.session import Session
from stillhouse.engine.folder import claim
from stillhouse.errors import UserError
from stillhouse.files import csv_text, write_text
from stillhouse.models.stages import staged, stages
from stillhouse.recipes import load
from stillhouse.recipes.schema import Comparison, Recipe, Searched
from stillhouse.runs.training import Score
from stillhouse.study.cells import Cell, Failure, Outcome, Workers
from stillhouse.study.conduct import clear, foundation, refuse_ranks, rehearse
from stillhouse.study.faculty import Faculty, Say
from stillhouse.study.plan import Arm, Plan
from stillhouse.study.space import Space, default_space, edges, narrowed, propose, start
from stillhouse.study.words import Choice, held, labels

CHOSEN = "chosen.yaml"
TRIALS = "trials.csv"
APART = 1000  # added to seeds, so that a study repeats none of the trainings that chose for it
FIRST = 3  # trials at random; fixed, so that more trials later begin with the same ones
RUNG = 1 / 3  # of the epochs, after which a trial may be given up


@dataclass
class Trial:
    """One set of options of one method, and what came of it."""

    number: int
    asked: Any  # optuna's own
    choices: list[Choice]
    score: float | None = None
    state: str = "running"  # then complete, pruned or failed


@dataclass
class Search:
    """The trials of one method."""

    label: str
    recipe: Recipe
    space: Space
    study: Any  # optuna's own
    trials: list[Trial] = field(default_factory=list)

    def ask(self) -> Trial:
        """The next options to try."""
        asked = self.study.ask()
        self.trials.append(Trial(len(self.trials), asked, propose(asked, self.space)))
        return self.trials[-1]

    def best(self) -> Trial | None:
        """The trial with the highest score."""
        done = [trial for trial in self.trials if trial.state == "complete"]
        return max(done, key=lambda trial: trial.score or 0, default=None)

    def recipe_of(self, trial: Trial) -> Recipe:
        """The recipe with the options of a trial."""
        words = [choice.word for choice in trial.choices]
        return load.changed(self.recipe, {"study": None}, words)


@dataclass
class Sweep:
    """Searches side by side: each round asks every method for one trial."""

    plan: Plan
    folder: Path
    session: Session
    workers: Workers
    say: Say
    trials: int
    seed: int = 0
    prune: bool = True
    given: Space = field(default_factory=dict)

    def run(self) -> list[Search]:
        """All rounds; what is finished from an earlier go is only read."""
        faculty = Faculty(self.plan.recipe, self.plan.teachers, self.session, self.say, blind=True)
        faculty.graduate(self.workers.train(faculty.gather(), lambda cell, outcome: None))
        searches = [self.search(arm) for arm in self.plan.arms if not arm.is_control]
        teacher = next(iter(self.plan.teachers))
        faculty.store({teacher: [search.recipe for search in searches]})
        self.say(
            f"{len(searches)} methods x {self.trials} trials x {len(self.plan.seeds)} seeds, "
            "by the validation split alone"
        )
        for number in range(self.trials):
            self.round(number, searches)
        return searches

    def search(self, arm: Arm) -> Search:
        """An empty search for one method, which begins at the method's own options."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        methods = arm.recipe.method
        tapped = any(hasattr(method, "pairs") for method in methods)
        taps = common_taps(arm.recipe, self.session) if tapped else ()
        fixed = held(arm.method)
        space = narrowed(default_space(methods, taps, fixed), self.given, methods)
        space = {key: a for key, a in space.items() if key.removeprefix("method.") not in fixed}
        if not space:
            raise UserError(f"{arm.method} has no option to search; leave it out, or say --space")
        study = optuna.create_study(
            direction="maximize",
            sampler=optuna.samplers.TPESampler(seed=self.seed, n_startup_trials=FIRST),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=FIRST),
        )
        own = start(space, methods)
        if own is not None:
            study.enqueue_trial(own)
        return Search(arm.method, arm.recipe, space, study)

    def round(self, number: int, searches: Sequence[Search]) -> None:
        """One trial of every method."""
        asked = [(search, search.ask()) for search in searches]
        rung = self.rung()
        if rung is not None:
            outcomes = self.train(asked, rung)
            for search, trial in asked:
                self.judge(search, trial, outcomes, rung)
        outcomes = self.train([(s, t) for s, t in asked if t.state == "running"], None)
        for search, trial in asked:
            self.tell(search, trial, outcomes)
        found = [f"{search.label} {said(trial)}" for search, trial in asked]
        self.say(f"[{number + 1}/{self.trials}] {', '.join(found)}")

    def rung(self) -> float | None:
        """The epoch after which a trial may be given up; None where there are too few."""
        epochs = self.plan.recipe.train.epochs
        return float(round(epochs * RUNG)) if self.prune and epochs >= 3 else None

    def train(
        self, asked: Sequence[tuple[Search, Trial]], until: float | None
    ) -> Mapping[Path, Outcome]:
        """Train the cells of some trials, all or up to an epoch."""
        cells = [c for search, trial in asked for c in self.cells(search, trial, until)]
        clear(cells, overwrite=False)
        return self.workers.train(cells, lambda cell, outcome: None)

    def cells(self, search: Search, trial: Trial, until: float | None) -> list[Cell]:
        """The trainings of one trial, one a seed."""
        recipe = search.recipe_of(trial)
        recipe = replace(recipe, engine=replace(recipe.engine, evaluate_every=1.0))
        place = self.folder / labels(self.plan.methods())[search.label]
        return [
            Cell(
                replace(recipe, seed=self.plan.recipe.seed + APART + seed),
                place / f"{trial.number}-{seed}",
                until,
                blind=True,
            )
            for seed in self.plan.seeds
        ]

    def scores(
        self, search: Search, trial: Trial, outcomes: Mapping[Path, Outcome], until: float | None
    ) -> list[float] | None:
        """The validation score of each seed; None where a training failed."""
        found = [outcomes[cell.folder] for cell in self.cells(search, trial, until)]
        if any(isinstance(outcome, Failure) for outcome in found):
            return None
        epochs = self.plan.recipe.train.epochs
        share = 1.0 if until is None else until / epochs
        return [value_at(s, share, self.session.task.headline) for s in found if isinstance(s, dict)]

    def judge(
        self, search: Search, trial: Trial, outcomes: Mapping[Path, Outcome], rung: float
    ) -> None:
        """Give a trial up whose score at the rung is below the median of earlier ones."""
        found = self.scores(search, trial, outcomes, rung)
        if found is None:
            return  # told with the others
        score = mean(found)
        trial.asked.report(score, step=int(rung))
        if trial.asked.should_prune():
            trial.state, trial.score = "pruned", score

    def tell(self, search: Search, trial: Trial, outcomes: Mapping[Path, Outcome]) -> None:
        """Let the search learn from a trial."""
        import optuna

        states = optuna.trial.TrialState
        if trial.state == "pruned":
            search.study.tell(trial.asked, state=states.PRUNED)
            return
        found = self.scores(search, trial, outcomes, None)
        if found is None:
            trial.state = "failed"
            search.study.tell(trial.asked, state=states.FAIL)
            return
        trial.state, trial.score = "complete", mean(found)
        search.study.tell(trial.asked, trial.score)


def said(trial: Trial) -> str:
    """A trial in a word or two."""
    return (
        trial.state
        if trial.score is None
        else f"{trial.score:.1f}" + (" (pruned)" if trial.state == "pruned" else "")
    )


def value_at(score: Score, share: float, headline: str) -> float:
    """The validation score after a share of the steps."""
    history = score["history"]
    total = score["of"]
    reached = [line for line in history if line["step"] <= round(share * total)]
    return float((reached or history)[-1][headline])


def common_taps(recipe: Recipe, session: Session) -> list[str]:
    """The stages that student and teacher both have, by one name."""
    assert recipe.teacher is not None
    sources, example = session.sources, example_of(session.sources)
    if recipe.teacher.members:
        return []  # the places of several networks have no common names
    student = make_student(recipe.student, session)
    teacher = make_network(recipe.teacher, sources)
    ours, theirs = stages(student, example), stages(teacher, example)
    common = [name for name in ours if name in theirs and ours[name]]
    return [name for name in common if staged(name)]


def sweep(
    plan: Plan,
    folder: Path,
    workers: Workers,
    say: Say = print,
    *,
    trials: int = 8,
    seed: int = 0,
    prune: bool = True,
    space: Space | None = None,
) -> Path:
    """Search every method of a plan alike, and write the recipe of a study with what was chosen."""
    refuse_ranks()
    if len(plan.teachers) > 1:
        raise UserError("a sweep has one teacher; name one with --teachers")
    session = Session.open(plan.recipe, quiet=True)
    rehearse(plan, session)
    with claim(folder, resume=True, recipe=foundation(plan.recipe)):
        made = Sweep(plan, folder, session, workers, say, trials, seed, prune, space or {})
        searches = made.run()
        write_text(folder / TRIALS, every_trial(searches))
        write_text(folder / CHOSEN, load.text(chosen(plan, searches)))
    return folder / CHOSEN


def chosen(plan: Plan, searches: Sequence[Search]) -> Recipe:
    """The recipe with the best options of every method, and how they were found."""
    section = plan.recipe.study
    assert section is not None
    methods, searched = {}, {}
    for search in searches:
        best = search.best()
        if best is None:
            raise UserError(f"no trial of {search.label} came to an end; see {TRIALS}")
        methods[search.label] = search.recipe_of(best).method
        searched[search.label] = Searched(
            len(search.trials),
            len(plan.seeds),
            sum(trial.state == "pruned" for trial in search.trials),
            plan.recipe.train.epochs,
            {key: str(axis) for key, axis in search.space.items()},
            best.score,
            edges(best.choices, search.space),
        )
    study = Comparison(methods, section.teachers, searched=searched)
    return replace(plan.recipe, study=study)


def every_trial(searches: Sequence[Search]) -> str:
    """Every trial in a line."""
    return csv_text(
        [
            {
                "method": search.label,
                "trial": trial.number,
                "state": trial.state,
                "validation": "" if trial.score is None else f"{trial.score:.4f}",
                "options": " ".join(choice.word for choice in trial.choices),
            }
            for search in searches
            for trial in search.trials
        ]
    )
