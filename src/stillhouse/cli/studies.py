"""`study` and `sweep`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stillhouse.cli.report_options import View
from stillhouse.cli.training import first, stoppable, tell
from stillhouse.errors import UserError

if TYPE_CHECKING:
    from stillhouse.study.jobs import Workers
    from stillhouse.study.plan import Plan
    from stillhouse.study.results import Study


@dataclass(frozen=True)
class Named:
    """The words of a command that say what is compared."""

    recipe: str
    overrides: Sequence[str]
    methods: str | None
    seeds: int | None
    teachers: str | None
    grid: Sequence[str] = ()
    pairs: str | None = None

    def plan(self) -> Plan:
        """The trainings that the words ask for."""
        from stillhouse.recipes import load
        from stillhouse.study.plan import make_plan
        from stillhouse.study.results import RECIPE

        inside = Path(self.recipe) / RECIPE
        recipe = load.load(inside if inside.is_file() else self.recipe, self.overrides)
        return make_plan(recipe, self.methods, self.seeds, self.teachers, self.grid, self.pairs)

    def out(self, given: Path | None, suffix: str) -> Path:
        """The folder: as said, the study's own, or one that is called after the recipe."""
        from stillhouse.study.results import RECIPE

        if given is not None:
            return given
        if (Path(self.recipe) / RECIPE).is_file():
            return Path(self.recipe)
        return Path("runs") / f"{first(self.recipe)}-{suffix}"


@dataclass(frozen=True)
class Place:
    """The words of a command that say where trainings run."""

    jobs: int | None
    ray: str | None
    cpus: float
    gpus: float

    @contextmanager
    def workers(self, cells: int) -> Iterator[Workers]:
        """Processes of this machine, or of a cluster."""
        from stillhouse.study.cluster import cluster
        from stillhouse.study.jobs import crew, processes

        if self.ray is not None:
            with cluster(self.ray, self.cpus, self.gpus) as many:
                yield many
            return
        with crew(min(self.jobs or processes(), max(1, cells))) as few:
            yield few


def study(named: Named, place: Place, out: Path | None, overwrite: bool, view: View) -> None:
    """Train all cells, and print and write what came of them."""
    from stillhouse.study.runner import conduct
    from stillhouse.study.table import check_against

    plan, folder = named.plan(), named.out(out, "study")
    check_against(view.against, (arm.label for arm in plan.arms))  # before hours are spent on it
    with (
        stoppable(f"stillhouse study {folder}"),
        place.workers(plan.size) as workers,
    ):
        conduct(plan, folder, workers, tell, overwrite=overwrite)
    conclude(view.read(folder), view)


def conclude(found: Study, view: View) -> None:
    """Print the answers, and write tables and the page."""
    from stillhouse.report.study import write_study
    from stillhouse.study.table import write_tables

    tables = write_tables(found, view.against)
    page = write_study(found, view.against, explain=view.explain)
    print("\n".join([*lines(found, view.against), f"table: {tables[0]}", f"report: {page}"]))
    failures = [sentence for arm in found.arms for sentence in arm.failures.values()]
    if failures:
        raise UserError(
            f"{len(failures)} runs failed, the first with: {failures[0]} "
            f"(`stillhouse study {found.folder}` tries them again)"
        )


def lines(found: Study, against: str | None) -> list[str]:
    """What a person reads at the end: answers, the best first, and what the search cost."""
    from stillhouse.study.table import answers, make_rows, search_lines

    rows = make_rows(found, against)
    return [*answers(found, rows), *search_lines(found, rows)]


def sweep(
    named: Named,
    place: Place,
    out: Path | None,
    trials: int,
    seed: int,
    prune: bool,
    space: Sequence[str],
) -> None:
    """Search options on the validation split, and say where the study's recipe is."""
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise UserError("sweep needs the extra: pip install 'stillhouse[sweep]'") from error
    from stillhouse.study.space import parse_space
    from stillhouse.study.sweep import sweep as search

    asked = parse_space(space)
    plan, folder = named.plan(), named.out(out, "sweep")
    again = f"the same command, with --out {folder}"
    with stoppable(again), place.workers(plan.size) as workers:
        chosen = search(
            plan, folder, workers, tell, trials=trials, seed=seed, prune=prune, space=asked
        )
    print(f"chosen: {chosen}\nnow: stillhouse study {chosen} --seeds 5")
