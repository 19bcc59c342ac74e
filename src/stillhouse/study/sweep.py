"""A search for the options of methods on the validation split, with equal trials for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from stillhouse.build.networks import example_of, make_network, make_student
from stillhouse.build.session import Session
from stillhouse.build.store import Say
from stillhouse.engine.devices import describe_excess_workers
from stillhouse.engine.folder import lock_folder
from stillhouse.errors import UserError
from stillhouse.explain.phrases import count_of
from stillhouse.files import csv_text, write_text
from stillhouse.models.aliases import find_aliases
from stillhouse.models.places import is_stage
from stillhouse.recipes import load
from stillhouse.recipes.schema import Comparison, Network, Recipe, Searched, TeacherSpec
from stillhouse.runs.scores import Score
from stillhouse.study.arguments import GridValue, fixed_options, folder_names
from stillhouse.study.checks import check_trainings
from stillhouse.study.jobs import Failure, Job, Outcome, Workers
from stillhouse.study.plan import Arm, StudyPlan
from stillhouse.study.runner import check_options, refuse_torchrun, shared_digest
from stillhouse.study.space import (
    Axis,
    Space,
    check_space,
    default_space,
    extreme_points,
    initial_values,
    options_at_edge,
    select_space,
    suggest_values,
)
from stillhouse.study.teachers import StudyTeachers

CHOSEN_FILE = "chosen.yaml"
TRIALS_FILE = "trials.csv"
SEED_OFFSET = 1000  # added to the seeds, so that a study repeats no training of the search
RANDOM_TRIALS = 3  # fixed, so that a longer search starts with the same trials
PRUNE_AFTER = 1 / 3  # of the epochs


@dataclass
class Trial:
    """One set of options for a method, and its result."""

    number: int
    handle: Any  # optuna.Trial
    values: list[GridValue]
    score: float | None = None
    state: str = "running"  # then complete, pruned or failed


@dataclass
class MethodSearch:
    """The trials of one method."""

    label: str
    recipe: Recipe
    space: Space
    sampler: Any  # optuna.Study
    trials: list[Trial] = field(default_factory=list)

    def ask(self) -> Trial:
        """A new trial with the options to try next."""
        handle = self.sampler.ask()
        self.trials.append(Trial(len(self.trials), handle, suggest_values(handle, self.space)))
        return self.trials[-1]

    def best(self) -> Trial | None:
        """The complete trial with the highest score; None if there is none."""
        complete = [trial for trial in self.trials if trial.state == "complete"]
        return max(complete, key=lambda trial: trial.score or 0, default=None)

    def recipe_of(self, trial: Trial) -> Recipe:
        """The recipe with the options of a trial."""
        overrides = [value.override for value in trial.values]
        return load.replace_sections(self.recipe, {"study": None}, overrides)


class SweepResult(NamedTuple):
    """The recipe with the chosen options, and what was chosen for each method, a line each."""

    recipe: Path
    choices: list[str]


RoundTrials = Sequence[tuple[MethodSearch, Trial]]


@dataclass
class Sweep:
    """Searches over all methods of a plan in parallel: each round has one trial of each method."""

    plan: StudyPlan
    folder: Path
    session: Session
    workers: Workers
    say: Say
    trials: int
    seed: int = 0
    prune: bool = True
    spaces: Mapping[str, Space] = field(default_factory=dict)  # by the label of the arm

    def run(self) -> list[MethodSearch]:
        """Run all rounds; finished trials in the folder are only read."""
        plan = self.plan
        teachers = StudyTeachers(plan.recipe, plan.teachers, self.session, self.say, blind=True)
        jobs = teachers.prepare()
        teachers.measure_trained(self.workers.train(jobs, lambda job, outcome: None))
        searches = [self.start_search(arm) for arm in plan.arms if not arm.is_control]
        teacher = next(iter(plan.teachers))
        teachers.fill_stores({teacher: [search.recipe for search in searches]})
        if crowded := describe_excess_workers(plan.recipe.engine.workers):
            self.say(f"warning: {crowded}")
        self.say(
            f"{len(searches)} methods x {self.trials} trials x {len(plan.seeds)} seeds, "
            "evaluated on the validation split only"
        )
        for number in range(self.trials):
            self.run_round(number, searches)
        return searches

    def start_search(self, arm: Arm) -> MethodSearch:
        """A search for one method, whose first trial has the method's own options."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        space = self.spaces[arm.label]
        sampler = optuna.create_study(
            direction="maximize",
            sampler=optuna.samplers.TPESampler(seed=self.seed, n_startup_trials=RANDOM_TRIALS),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=RANDOM_TRIALS),
        )
        initial = initial_values(space, arm.recipe.method)
        if initial is not None:
            sampler.enqueue_trial(initial)
        return MethodSearch(arm.method, arm.recipe, space, sampler)

    def run_round(self, number: int, searches: Sequence[MethodSearch]) -> None:
        """Run one trial of every method."""
        started = [(search, search.ask()) for search in searches]
        epoch = self.pruning_epoch()
        if epoch is not None:
            outcomes = self.train(started, epoch)
            for search, trial in started:
                self.maybe_prune(search, trial, outcomes, epoch)
        outcomes = self.train([(s, t) for s, t in started if t.state == "running"], None)
        for search, trial in started:
            self.tell(search, trial, outcomes)
        results = [f"{search.label} {format_trial(trial)}" for search, trial in started]
        self.say(f"[{number + 1}/{self.trials}] {', '.join(results)} on validation")

    def pruning_epoch(self) -> float | None:
        """The epoch after which a trial may be pruned; None if there are too few epochs."""
        epochs = self.plan.recipe.train.epochs
        return float(round(epochs * PRUNE_AFTER)) if self.prune and epochs >= 3 else None

    def train(self, started: RoundTrials, until: float | None) -> Mapping[Path, Outcome]:
        """Run the jobs of some trials, to the end or up to an epoch."""
        jobs = [job for search, trial in started for job in self.jobs(search, trial, until)]
        check_options(jobs, overwrite=False)
        return self.workers.train(jobs, lambda job, outcome: None)

    def jobs(self, search: MethodSearch, trial: Trial, until: float | None) -> list[Job]:
        """The jobs of one trial, one for each seed."""
        recipe = search.recipe_of(trial)
        recipe = replace(recipe, engine=replace(recipe.engine, evaluate_every=1.0))
        folder = self.folder / folder_names(self.plan.methods())[search.label]
        return [
            Job(
                replace(recipe, seed=self.plan.recipe.seed + SEED_OFFSET + seed),
                folder / f"{trial.number}-{seed}",
                until,
                blind=True,
            )
            for seed in self.plan.seeds
        ]

    def scores(
        self,
        search: MethodSearch,
        trial: Trial,
        outcomes: Mapping[Path, Outcome],
        until: float | None,
    ) -> list[float] | None:
        """The validation score of each seed; None if a job failed."""
        ends = [outcomes[job.folder] for job in self.jobs(search, trial, until)]
        if any(isinstance(outcome, Failure) for outcome in ends):
            return None
        share = 1.0 if until is None else until / self.plan.recipe.train.epochs
        headline = self.session.task.headline
        return [score_at(score, share, headline) for score in ends if isinstance(score, dict)]

    def maybe_prune(
        self, search: MethodSearch, trial: Trial, outcomes: Mapping[Path, Outcome], epoch: float
    ) -> None:
        """Prune a trial whose score at an epoch is below the median of earlier trials."""
        scores = self.scores(search, trial, outcomes, epoch)
        if scores is None:
            return  # `tell` records the failure
        score = mean(scores)
        trial.handle.report(score, step=int(epoch))
        if trial.handle.should_prune():
            trial.state, trial.score = "pruned", score

    def tell(self, search: MethodSearch, trial: Trial, outcomes: Mapping[Path, Outcome]) -> None:
        """Give the result of a trial to the sampler."""
        import optuna

        states = optuna.trial.TrialState
        if trial.state == "pruned":
            search.sampler.tell(trial.handle, state=states.PRUNED)
            return
        scores = self.scores(search, trial, outcomes, None)
        if scores is None:
            trial.state = "failed"
            search.sampler.tell(trial.handle, state=states.FAIL)
            return
        trial.state, trial.score = "complete", mean(scores)
        search.sampler.tell(trial.handle, trial.score)


def summarize_search(search: MethodSearch, headline: str) -> str:
    """The chosen options of a method, their score on validation, and the number of trials."""
    best = search.best()
    assert best is not None and best.score is not None
    options = ", ".join(value.override.removeprefix("method.") for value in best.values)
    pruned = sum(trial.state == "pruned" for trial in search.trials)
    count = count_of(len(search.trials), "trial") + (f", {pruned} pruned" if pruned else "")
    return f"{search.label}: {options}: {headline} {best.score:.2f} on validation ({count})"


def format_trial(trial: Trial) -> str:
    """The score of a trial, or its state."""
    if trial.score is None:
        return trial.state
    return f"{trial.score:.1f}" + (" (pruned)" if trial.state == "pruned" else "")


def score_at(score: Score, share: float, headline: str) -> float:
    """The validation score after a share of the steps."""
    history = score["history"]
    reached = [line for line in history if line["step"] <= round(share * score["of"])]
    return float((reached or history)[-1][headline])


def search_space(arm: Arm, session: Session, requested: Space) -> dict[str, Axis]:
    """The options of an arm that are searched, and their ranges; raises UserError for none."""
    methods = arm.recipe.method
    tapped = any(hasattr(method, "pairs") for method in methods)
    student, teacher = arm.recipe.student, arm.recipe.teacher
    taps = common_stages(student, teacher, session) if tapped and teacher else ()
    fixed = fixed_options(arm.method)
    space = select_space(default_space(methods, taps, fixed), requested, methods)
    space = {key: a for key, a in space.items() if key.removeprefix("method.") not in fixed}
    if not space:
        raise UserError(
            f"{arm.method} has no option to search; leave it out, or name one with --space"
        )
    return space


def search_extremes(plan: StudyPlan, spaces: Mapping[str, Space]) -> dict[str, Recipe]:
    """The recipes of each arm with its own options, and at the ends of its space, by label."""
    recipes = {}
    for arm in plan.arms:
        points: dict[str, list[GridValue]] = {"": []} | extreme_points(spaces.get(arm.label, {}))
        for name, values in points.items():
            label = f"{arm.label} at {name}" if name else arm.label
            overrides = [value.override for value in values]
            try:
                recipes[label] = load.replace_sections(arm.recipe, {"study": None}, overrides)
            except UserError as error:
                raise UserError(f"arm {label}: {error}") from error
    return recipes


def common_stages(student: Network, teacher: TeacherSpec, session: Session) -> list[str]:
    """The names of stages that student and teacher both have."""
    sources, example = session.sources, example_of(session.sources)
    if teacher.members:
        return []  # several networks have no common names of stages
    student_stages = find_aliases(make_student(student, session), example)
    teacher_stages = find_aliases(make_network(teacher, sources, task=session.task), example)
    common = [name for name in student_stages if name in teacher_stages and student_stages[name]]
    return [name for name in common if is_stage(name)]


def run_sweep(
    plan: StudyPlan,
    folder: Path,
    workers: Workers,
    say: Say = print,
    *,
    trials: int = 8,
    seed: int = 0,
    prune: bool = True,
    space: Space | None = None,
) -> SweepResult:
    """Search the options of every method of a plan, and write a recipe with the best of each.

    The recipe is `chosen.yaml` in the folder, which `run_study` can train.
    """
    refuse_torchrun()
    if len(plan.teachers) > 1:
        raise UserError("a sweep needs exactly one teacher; name one with --teachers")
    arms = [arm.recipe.method for arm in plan.arms if not arm.is_control]
    check_space(space or {}, plan.recipe, arms)
    session = Session.open(plan.recipe, quiet=True)
    spaces = {
        arm.label: search_space(arm, session, space or {})
        for arm in plan.arms
        if not arm.is_control
    }
    check_trainings(plan, search_extremes(plan, spaces), session, folder)
    with lock_folder(folder, resume=True, recipe=shared_digest(plan.recipe)):
        sweep = Sweep(plan, folder, session, workers, say, trials, seed, prune, spaces)
        searches = sweep.run()
        write_text(folder / TRIALS_FILE, trials_csv(searches))
        write_text(folder / CHOSEN_FILE, load.to_yaml(make_chosen_recipe(plan, searches, session)))
        choices = [summarize_search(search, session.task.headline) for search in searches]
    return SweepResult(folder / CHOSEN_FILE, choices)


def make_chosen_recipe(
    plan: StudyPlan, searches: Sequence[MethodSearch], session: Session
) -> Recipe:
    """The recipe with the best options of every method, and how they were searched."""
    section = plan.recipe.study
    assert section is not None
    methods, changes, searched = {}, {}, {}
    for search in searches:
        best = search.best()
        if best is None:
            raise UserError(f"all trials of {search.label} failed; see {TRIALS_FILE}")
        methods[search.label] = search.recipe_of(best).method
        if trained := tuple(v.override for v in best.values if v.key.startswith("train.")):
            changes[search.label] = trained
        searched[search.label] = Searched(
            len(search.trials),
            len(plan.seeds),
            sum(trial.state == "pruned" for trial in search.trials),
            plan.recipe.train.epochs,
            {key: str(axis) for key, axis in search.space.items()},
            best.score,
            options_at_edge(best.values, search.space),
            session.sources.val.fingerprint,
        )
    study = Comparison(methods, section.teachers, changes=changes, searched=searched)
    return replace(plan.recipe, study=study)


def trials_csv(searches: Sequence[MethodSearch]) -> str:
    """All trials as CSV, one row each."""
    return csv_text(
        [
            {
                "method": search.label,
                "trial": trial.number,
                "state": trial.state,
                "validation": "" if trial.score is None else f"{trial.score:.4f}",
                "options": " ".join(value.override for value in trial.values),
            }
            for search in searches
            for trial in search.trials
        ]
    )
