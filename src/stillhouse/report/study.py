"""The page of a study."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from stillhouse.build.workshop import Workshop
from stillhouse.explain.predictions import AS_EVER, Look
from stillhouse.explain.predictions import CONTROL as UNTAUGHT
from stillhouse.explain.section import Bars, Cell, Chart, Section, Series, Table
from stillhouse.methods.control import CONTROL
from stillhouse.recipes import load
from stillhouse.recipes.schema import Comparison, Recipe
from stillhouse.report import draft as parts
from stillhouse.report.page import Bar, Page
from stillhouse.report.render import write_page
from stillhouse.runs.costs import Priced, shipped
from stillhouse.runs.diagnosis import Student, diagnose, keep, kept
from stillhouse.runs.training import STUDENT
from stillhouse.study import table
from stillhouse.study.findings import Found, Study
from stillhouse.study.table import Row, make_rows, search_lines


def write_study(study: Study, against: str | None = None, *, explain: bool = True) -> Path:
    """The page of a study, in its folder."""
    page = study_page(study, against, explain=explain)
    return write_page(page, study.folder / parts.PAGE)


def study_page(
    study: Study,
    against: str | None = None,
    look: Look = AS_EVER,
    *,
    explain: bool = True,
) -> Page:
    """What is to be said of a study: every method, the best first."""
    rows, recipe = make_rows(study, against), study.recipe
    draft = parts.Draft(recipe, study.notes)
    networks = {**teachers(recipe), **students(recipe), **shaped(recipe)}
    priced = draft.priced(networks, study.folder)
    sections = draft.sections(lambda shop: sections_of(study, shop, look)) if explain else ()
    curves = (gains(study, rows), *draft.curves(courses(study), study.headline))
    return Page(
        title=study.title,
        answers=answers(study, rows),
        headline=study.headline,
        bars=bars(study, rows),
        costs=priced.costs,
        machine=priced.machine,
        notes=(*draft.notes, *how(study, rows)),
        curves=curves,
        tables=tables(study, rows, against),
        sections=sections,
        recipe=load.text(recipe),
        environment=environment(study),
        again=(
            "# save the recipe above as study.yaml",
            "stillhouse study study.yaml",
            f"stillhouse report {study.folder} --table latex",
        ),
    )


def teachers(recipe: Recipe) -> dict[str, Priced]:
    """Teachers as a page calls them: by what they are where there is one, by label else."""
    own = recipe.study or Comparison()
    named = {**own.teachers, **{label: pair.teacher for label, pair in own.pairs.items()}}
    several = len(named) > 1
    return {f"teacher {label}" if several else "teacher": one for label, one in named.items()}


def students(recipe: Recipe) -> dict[str, Priced]:
    """The student, or those of all pairs."""
    pairs = recipe.study.pairs if recipe.study else {}
    named: dict[str, Priced] = {f"student of {label}": one.student for label, one in pairs.items()}
    return named or {"student": recipe.student}


def shaped(recipe: Recipe) -> dict[str, Priced]:
    """The students to which a method gives a shape of their own, by the method's label."""
    methods = recipe.study.methods if recipe.study else {}
    found = {label: shipped(replace(recipe, method=specs)) for label, specs in methods.items()}
    return {f"student of {k}": one for k, one in found.items() if isinstance(one, Recipe)}


def answers(study: Study, rows: list[Row]) -> tuple[str, ...]:
    """Every method's answer, the best first."""
    return tuple(table.answers(study, rows)) or ("No method has a finished run yet",)


def bars(study: Study, rows: list[Row]) -> tuple[Bar, ...]:
    """Teachers, then the control, then methods from the best to the worst."""
    part = "test" if study.by == "last" else "validation"
    pairs = study.recipe.study.pairs if study.recipe.study else {}
    named = {k: one.paper["teacher"] for k, one in pairs.items() if "teacher" in one.paper}
    paper = study.recipe.paper | named
    several = len(study.teachers) > 1
    teachers = [
        Bar(
            f"teacher {label}" if several else "teacher",
            score[part][study.headline],
            paper=paper.get(label, paper.get("teacher")),
        )
        for label, score in study.teachers.items()
    ]
    return (*teachers, *(bar_of(study, row) for row in rows if row.mean is not None))


def bar_of(study: Study, row: Row) -> Bar:
    """One arm's bar; the control is called what it is."""
    assert row.mean is not None
    name = "control" if row.method == CONTROL else row.method
    return Bar(name, row.mean, row.deviation or 0.0, row.paper)


def how(study: Study, rows: list[Row]) -> tuple[str, ...]:
    """How the numbers came about."""
    split = (
        "the test split after the last epoch"
        if study.by == "last"
        else "the validation split at its best epoch, which flatters all alike"
    )
    kind = (
        "Student's t over paired seeds"
        if study.kind == "t"
        else "the percentile bootstrap over paired seeds, too narrow for few of them"
    )
    return (
        f"{study.headline} is of {split}; intervals are {kind}; p values are of the paired t test "
        "after Holm's correction for all methods",
        *search_lines(study, rows),
    )


def tables(study: Study, rows: list[Row], against: str | None) -> tuple[Table, ...]:
    """The comparison, every seed, and what was searched."""
    found = [comparison(study, rows, against), every_seed(study, rows)]
    if study.searched:
        found.append(searches(study))
    return tuple(found)


def comparison(study: Study, rows: list[Row], against: str | None) -> Table:
    """A row an arm, a column a number, so that each column sorts."""
    named = {
        "method": "method",
        "seeds": "seeds",
        "mean": study.headline,
        "deviation": "± sd",
        "gain": "gain",
        "low": "low",
        "high": "high",
        "p_holm": "p (Holm)",
        "rank": "rank",
        "against": f"over {against}",
        "against_low": "low of it",
        "against_high": "high of it",
        "paper": "paper",
        "trials": "trials",
        "seconds": "seconds",
    }
    held = {
        key: name for key, name in named.items() if any(getattr(r, key) is not None for r in rows)
    }
    cells: list[tuple[Cell, ...]] = [tuple(getattr(row, key) for key in held) for row in rows]
    return Table(
        tuple(held.values()),
        tuple(cells),
        "The methods compared, with 95 % intervals and mean ranks",
        digits=3,
    )


def every_seed(study: Study, rows: list[Row]) -> Table:
    """One column a seed."""
    seeds = sorted({seed for arm in study.arms for seed in (*arm.scores, *arm.failures)})
    cells: list[tuple[Cell, ...]] = []
    for row in rows:
        values = study.values(row.method)
        cells.append((row.method, *(values.get(seed) for seed in seeds)))
    columns = ("method", *(f"seed {seed}" for seed in seeds))
    return Table(columns, tuple(cells), f"{study.headline} of every seed")


def searches(study: Study) -> Table:
    """What choosing the options took, and what was chosen."""
    section = study.recipe.study
    assert section is not None
    cells: list[tuple[Cell, ...]] = []
    for label, search in study.searched.items():
        spelt = "; ".join(chosen_options(one) for one in section.methods[label])
        space = "; ".join(
            f"{key.removeprefix('method.')} {axis}" for key, axis in search.space.items()
        )
        cells.append((label, search.trials, search.pruned, search.score, space, spelt))
    columns = ("method", "trials", "given up early", "validation", "searched", "chosen")
    return Table(columns, tuple(cells), "How options were chosen: on the validation split alone")


def chosen_options(method: object) -> str:
    """A method's options that are not its defaults."""
    spelt = load.plain_method(method)
    default = load.plain_method(type(method)())
    told = {key: value for key, value in spelt.items() if value != default.get(key)}
    said = (f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in told.items())
    return ", ".join(said) or "the defaults"


def courses(study: Study) -> dict[str, Path]:
    """Whose curves are drawn: the control's and the best method's, at the first seed."""
    chosen = company(study)
    return {called(study, arm): cell(arm) for arm in (*chosen[:1], *chosen[-1:])}


def company(study: Study) -> list[Found]:
    """The best arm, its control before it, and between them all that had the same teacher."""
    best = study.best()
    if best is None:
        return [arm for arm in study.arms if arm.scores][:1]
    control = study.arm(best.control)
    others = [arm for arm in study.taught if arm.teacher == best.teacher and arm is not best]
    return [*([control] if control.scores else []), *others, best]


def called(study: Study, arm: Found) -> str:
    """An arm as a page of one comparison calls it."""
    best = study.best()
    return UNTAUGHT if best is not None and arm.label == best.control else arm.label


def cell(arm: Found) -> Path:
    """The run of an arm at its first seed."""
    return arm.folder / str(min(arm.scores))


def environment(study: Study) -> str:
    """Where the first run that is there ran."""
    folders = [arm.folder / str(seed) for arm in study.arms for seed in arm.scores]
    return parts.environment_text(folders[0]) if folders else ""


def gains(study: Study, rows: list[Row]) -> Chart:
    """The gain of every method with its interval."""
    told = [row for row in rows if row.gain is not None]
    places = tuple(float(place) for place in range(len(told)))
    values = tuple(row.gain for row in told)
    halves = tuple(((row.high or 0) - (row.low or 0)) / 2 for row in told)
    series = Series("gain", places, values, error=halves)
    labels = tuple(row.method for row in told)
    return Bars(f"Gain over the control, {study.headline}", "gain", labels, (series,))


# ------------------------------------------------------------------------------------- diagnostics


def sections_of(study: Study, shop: Workshop, look: Look) -> tuple[Section, ...]:
    """The diagnoses of the best arm and its company at one seed: those that are kept, or new."""
    students = [
        Student(called(study, arm), load.load(cell(arm) / load.RECIPE), cell(arm) / STUDENT)
        for arm in company(study)
    ]
    if not students:
        return ()
    found = None if look.fresh else kept(study.folder, students)
    if found is None:
        found = diagnose(students[-1].recipe, students, shop, look)
        keep(study.folder, students, found)
    return found
