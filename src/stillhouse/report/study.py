"""The page of a study."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from stillhouse.build.session import Session
from stillhouse.explain.phrases import metric_name
from stillhouse.explain.predictions import DEFAULT_OPTIONS, ExplainOptions
from stillhouse.explain.roles import CONTROL as CONTROL_NAME
from stillhouse.explain.section import BarChart, Cell, Chart, Section, Series, Table
from stillhouse.methods.control import CONTROL
from stillhouse.recipes import load
from stillhouse.recipes.schema import Comparison, Recipe
from stillhouse.report import draft
from stillhouse.report.changes import ERRORS, SCORES, change_table, error_chart
from stillhouse.report.page import Page, ScoreBar
from stillhouse.report.render import write_page
from stillhouse.report.trainings import Training, one_training, training_tables
from stillhouse.runs.costs import NetworkSpec, student_spec
from stillhouse.runs.diagnosis import Student, diagnose, keep_or_compute
from stillhouse.runs.training import STUDENT
from stillhouse.study import table
from stillhouse.study.changes import error_changes, score_changes
from stillhouse.study.results import ArmResult, Study
from stillhouse.study.table import StudyRow, make_rows, search_lines


def write_study(study: Study, against: str | None = None, *, explain: bool = True) -> Path:
    """Write the page of a study into its folder."""
    page = study_page(study, against, explain=explain)
    return write_page(page, study.folder / draft.PAGE_FILE)


def study_page(
    study: Study,
    against: str | None = None,
    options: ExplainOptions = DEFAULT_OPTIONS,
    *,
    explain: bool = True,
) -> Page:
    """The content of the page of a study: every method, the best first."""
    rows, recipe = make_rows(study, against), study.recipe
    parts = draft.Draft(recipe, study.notes)
    networks = {**teacher_specs(recipe), **student_specs(recipe), **reshaped_specs(recipe)}
    costs = parts.costs(networks, study.folder)
    sections = (
        parts.sections(lambda session: study_sections(study, session, options)) if explain else ()
    )
    trainings = parts.attempt(
        "The training curves", "read", lambda: study_trainings(study), dict[str, Training]()
    )
    curves = (*result_charts(study, rows), *parts.curves(trainings, study.headline))
    return Page(
        title=study.title,
        answers=answer_lines(study, rows),
        headline=study.headline,
        split=study.split,
        bars=study_bars(study, rows),
        costs=costs.costs,
        machine=costs.machine,
        notes=(
            *draft.split_notes(recipe, study.measured),
            *parts.notes,
            *method_notes(study, rows),
        ),
        curves=curves,
        tables=(*result_tables(study, rows, against), *training_tables(trainings)),
        sections=sections,
        recipe=load.to_yaml(recipe),
        environment=first_environment(study),
        usage=best_usage(study),
        again=(
            "# save the recipe above as study.yaml",
            "stillhouse study study.yaml",
            f"stillhouse report {study.folder} --table latex",
        ),
    )


def teacher_specs(recipe: Recipe) -> dict[str, NetworkSpec]:
    """The teachers by name on the page: `teacher`, or with their label where there are several."""
    comparison = recipe.study or Comparison()
    named = {
        **comparison.teachers,
        **{label: pair.teacher for label, pair in comparison.pairs.items()},
    }
    several = len(named) > 1
    return {f"teacher {label}" if several else "teacher": one for label, one in named.items()}


def student_specs(recipe: Recipe) -> dict[str, NetworkSpec]:
    """The student, or those of all pairs."""
    pairs = recipe.study.pairs if recipe.study else {}
    named: dict[str, NetworkSpec] = {f"student of {k}": one.student for k, one in pairs.items()}
    return named or {"student": recipe.student}


def reshaped_specs(recipe: Recipe) -> dict[str, NetworkSpec]:
    """The students whose shape a method changes, by the label of the method."""
    methods = recipe.study.methods if recipe.study else {}
    specs = {label: student_spec(replace(recipe, method=m)) for label, m in methods.items()}
    return {f"student of {k}": one for k, one in specs.items() if isinstance(one, Recipe)}


def answer_lines(study: Study, rows: list[StudyRow]) -> tuple[str, ...]:
    """The answer of every method, the best first."""
    return tuple(table.summarize_rows(study, rows)) or ("No method has a finished run yet",)


def study_bars(study: Study, rows: list[StudyRow]) -> tuple[ScoreBar, ...]:
    """Teachers, then the control, then methods from the best to the worst."""
    pairs = study.recipe.study.pairs if study.recipe.study else {}
    named = {k: one.paper["teacher"] for k, one in pairs.items() if "teacher" in one.paper}
    paper = study.recipe.paper | named
    several = len(study.teachers) > 1
    teachers = [
        ScoreBar(
            f"teacher {label}" if several else "teacher",
            score[study.split][study.headline],
            paper=paper.get(label, paper.get("teacher")),
        )
        for label, score in study.teachers.items()
    ]
    return (*teachers, *(arm_bar(row) for row in rows if row.mean is not None))


def arm_bar(row: StudyRow) -> ScoreBar:
    """The bar of one arm."""
    assert row.mean is not None
    name = CONTROL_NAME if row.method == CONTROL else row.method
    return ScoreBar(name, row.mean, row.deviation or 0.0, row.paper)


def method_notes(study: Study, rows: list[StudyRow]) -> tuple[str, ...]:
    """How scores, intervals and p-values were computed."""
    split = (
        f"on {study.split} after the last epoch"
        if study.by == "last"
        else "on validation at the best epoch, which is optimistic for all methods"
    )
    kind = (
        "Student's t over paired seeds"
        if study.kind == "t"
        else "percentile bootstrap over paired seeds, too narrow for few seeds"
    )
    return (
        f"{metric_name(study.headline)}: {split}. Confidence intervals: {kind}. p-values: paired "
        "t-test with Holm correction over all methods.",
        *search_lines(study, rows),
    )


def result_tables(study: Study, rows: list[StudyRow], against: str | None) -> tuple[Table, ...]:
    """The comparison, the score of every seed, other scores, kinds of errors, and the search."""
    tables = [comparison_table(study, rows, against), seed_table(study, rows)]
    scores = [row for row in score_changes(study) if row.name != study.headline]
    changes = change_table(scores, SCORES), change_table(error_changes(study), ERRORS)
    tables += [one for one in changes if one is not None]
    if study.searched:
        tables.append(search_table(study))
    return tuple(tables)


def comparison_table(study: Study, rows: list[StudyRow], against: str | None) -> Table:
    """One row per arm and one number per column, so that each column can be sorted."""
    named = {
        "method": "method",
        "seeds": "seeds",
        "mean": score_name(study),
        "deviation": "std",
        "gain": "gain",
        "low": "gain, 95 % CI low",
        "high": "gain, 95 % CI high",
        "p_holm": "p (Holm)",
        "rank": "mean rank",
        "against": f"gain over {against}",
        "against_low": f"over {against}, CI low",
        "against_high": f"over {against}, CI high",
        "paper": "paper",
        "trials": "trials",
        "seconds": "seconds per run",
    }
    held = {
        key: name for key, name in named.items() if any(getattr(r, key) is not None for r in rows)
    }
    cells: list[tuple[Cell, ...]] = [tuple(getattr(row, key) for key in held) for row in rows]
    return Table(tuple(held.values()), tuple(cells), "Comparison of the methods", digits=3)


def score_name(study: Study) -> str:
    """The metric and the split of the scores that are compared."""
    return f"{metric_name(study.headline)} on {study.split}"


def seed_table(study: Study, rows: list[StudyRow]) -> Table:
    """One column per seed."""
    seeds = sorted({seed for arm in study.arms for seed in (*arm.scores, *arm.failures)})
    cells: list[tuple[Cell, ...]] = []
    for row in rows:
        values = study.values(row.method)
        cells.append((row.method, *(values.get(seed) for seed in seeds)))
    columns = ("method", *(f"seed {seed}" for seed in seeds))
    return Table(columns, tuple(cells), f"{score_name(study)} of every seed")


def search_table(study: Study) -> Table:
    """The hyperparameter search of each method, and the options that it chose."""
    section = study.recipe.study
    assert section is not None
    cells: list[tuple[Cell, ...]] = []
    for label, search in study.searched.items():
        chosen = "; ".join(chosen_options(one) for one in section.methods[label])
        space = "; ".join(
            f"{key.removeprefix('method.')} {axis}" for key, axis in search.space.items()
        )
        cells.append((label, search.trials, search.pruned, search.score, space, chosen))
    columns = ("method", "trials", "pruned", "validation score", "search space", "chosen")
    return Table(columns, tuple(cells), "Hyperparameter search on the validation split")


def chosen_options(method: object) -> str:
    """The options of a method that differ from the defaults."""
    options = load.method_to_dict(method)
    default = load.method_to_dict(type(method)())
    changed = {key: value for key, value in options.items() if value != default.get(key)}
    texts = (f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in changed.items())
    return ", ".join(texts) or "the defaults"


def study_trainings(study: Study) -> dict[str, Training]:
    """The training of each arm at its first seed."""
    return {arm_name(study, arm): one_training(first_run(arm)) for arm in study.arms if arm.scores}


def shown_arms(study: Study) -> list[ArmResult]:
    """The control of the best arm, all other arms with the same teacher, and the best arm."""
    best = study.best()
    if best is None:
        return [arm for arm in study.arms if arm.scores][:1]
    control = study.arm(best.control)
    others = [arm for arm in study.taught if arm.teacher == best.teacher and arm is not best]
    return [*([control] if control.scores else []), *others, best]


def arm_name(study: Study, arm: ArmResult) -> str:
    """The name of an arm in diagnoses: `control`, or its label."""
    best = study.best()
    return CONTROL_NAME if best is not None and arm.label == best.control else arm.label


def first_run(arm: ArmResult) -> Path:
    """The run of an arm at its first seed."""
    return arm.folder / str(min(arm.scores))


def best_usage(study: Study) -> tuple[str, ...]:
    """The lines of Python that load the best student, at its first seed."""
    best = study.best()
    return () if best is None else draft.student_usage(first_run(best))


def first_environment(study: Study) -> str:
    """The environment of the first finished run."""
    folders = [arm.folder / str(seed) for arm in study.arms for seed in arm.scores]
    return draft.environment_text(folders[0]) if folders else ""


def result_charts(study: Study, rows: list[StudyRow]) -> tuple[Chart, ...]:
    """The gains, and the changes of each kind of error where runs tell them apart."""
    errors = error_chart(error_changes(study))
    return (gain_chart(study, rows), *([] if errors is None else [errors]))


def gain_chart(study: Study, rows: list[StudyRow]) -> Chart:
    """The gain of every method with its confidence interval."""
    known = [row for row in rows if row.gain is not None]
    places = tuple(float(place) for place in range(len(known)))
    values = tuple(row.gain for row in known)
    halves = tuple(((row.high or 0) - (row.low or 0)) / 2 for row in known)
    series = Series("gain", places, values, error=halves)
    labels = tuple(row.method for row in known)
    title = f"{score_name(study)}: gain over the control with 95 % interval"
    return BarChart(title, "gain", labels, (series,))


# ------------------------------------------------------------------------------------- diagnostics


def study_sections(
    study: Study, session: Session | None, options: ExplainOptions
) -> tuple[Section, ...]:
    """The diagnoses of the best arm and the arms shown beside it, at their first seed."""
    students = [
        Student(
            arm_name(study, arm),
            load.load_resolved(first_run(arm) / load.RECIPE_FILE),
            first_run(arm) / STUDENT,
        )
        for arm in shown_arms(study)
    ]
    if not students:
        return ()

    def compute(opened: Session) -> tuple[Section, ...]:
        return diagnose(students[-1].recipe, students, opened, options)

    return keep_or_compute(study.folder, students, options, session, compute)
