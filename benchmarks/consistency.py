"""How the students of a study rank the classes beside their teacher, with paired intervals.

`.venv/bin/python benchmarks/consistency.py STUDY --against ARM` prints, for every arm or those that
`--arms` names (`kd 'dist*'`), the share of test images whose true class has the teacher's rank (TC)
and the mean Spearman correlation of the others (NC), over seeds, and the paired difference of NC to
the arm named, with a 95 % interval. An arm whose teacher moved is compared with that teacher, too.
The table is written to consistency.csv in the study's folder.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor, nn

from stillhouse.build.networks import make_deployed
from stillhouse.build.session import Session
from stillhouse.explain.consistency import consistency
from stillhouse.explain.predictions import Outputs
from stillhouse.models import weights
from stillhouse.recipes import load
from stillhouse.recipes.schema import Recipe
from stillhouse.runs.teacher import find_teacher
from stillhouse.runs.training import STUDENT, TRAINED_TEACHER
from stillhouse.study.results import ArmResult, Study, read_study
from stillhouse.study.statistics import difference_interval

Pair = tuple[float, float]  # TC in percent, NC


@torch.no_grad()
def said(network: nn.Module, images: Tensor) -> Tensor:
    return torch.cat([network.eval()(part) for part in images.split(500)])


class Judge:
    """The test images of a study, and what its teacher says of them."""

    def __init__(self, recipe: Recipe) -> None:
        assert recipe.teacher is not None
        self.session = Session.open(recipe, quiet=True)
        batches = list(self.session.measured())
        self.images = torch.cat([batch.images for batch in batches])
        self.labels = torch.cat([batch.target for batch in batches])
        taught = find_teacher(recipe, recipe.teacher, self.session)
        assert taught is not None
        self.teacher = taught.network
        self.original = said(self.teacher, self.images)
        self.state = {name: x.clone() for name, x in self.teacher.state_dict().items()}

    def moved(self, file: Path) -> Tensor:
        """What the teacher of one run says after it moved."""
        weights.load_weights(self.teacher, file)
        logits = said(self.teacher, self.images)
        self.teacher.load_state_dict(self.state)
        return logits

    def look(self, folder: Path, teacher: Tensor) -> Pair:
        """TC and NC of one run's student."""
        recipe = load.load(folder / load.RECIPE_FILE)
        student = make_deployed(recipe, self.session.sources, folder / STUDENT)
        ours = Outputs("student", said(student, self.images))
        found = consistency(ours, Outputs("teacher", teacher), self.labels)
        assert found.others.value is not None
        return 100 * found.target, found.others.value


def judged(study: Study, judge: Judge, arms: list[str]) -> dict[str, dict[int, Pair]]:
    """Each arm's numbers by seed; a moved teacher makes a row of its own."""
    found: dict[str, dict[int, Pair]] = {}
    named = [arm for arm in study.arms if any(fnmatchcase(arm.label, name) for name in arms)]
    for arm in named if arms else study.arms:
        for seed in arm.scores:
            place = cell(arm, seed)
            found.setdefault(arm.label, {})[seed] = judge.look(place, judge.original)
            if (place / TRAINED_TEACHER).is_file():
                label = f"{arm.label}, beside the teacher as it ended"
                moved = judge.moved(place / TRAINED_TEACHER)
                found.setdefault(label, {})[seed] = judge.look(place, moved)
    return found


def cell(arm: ArmResult, seed: int) -> Path:
    return arm.folder / str(seed)


def table(found: Mapping[str, Mapping[int, Pair]], against: str) -> list[dict[str, str]]:
    """A row an arm."""
    rows = []
    for label, seeds in found.items():
        common = sorted(seeds.keys() & found[against].keys())
        ours, theirs = ([one[s][1] for s in common] for one in (seeds, found[against]))
        row = {
            "arm": label,
            "seeds": str(len(seeds)),
            "tc": f"{mean(pair[0] for pair in seeds.values()):.1f}",
            "nc": f"{mean(pair[1] for pair in seeds.values()):.3f}",
            "nc_over": "",
        }
        if label != against and len(common) > 1:
            gain = difference_interval(ours, theirs)
            row["nc_over"] = f"{gain.mean:+.3f} ({gain.low:+.3f} … {gain.high:+.3f})"
        rows.append(row)
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--against", default="none")
    parser.add_argument("--arms", nargs="*", default=[])
    words = parser.parse_args(argv)
    study = read_study(words.study)
    taught = next(arm for arm in study.arms if not arm.is_control and arm.scores)
    judge = Judge(load.load(cell(taught, next(iter(taught.scores))) / load.RECIPE_FILE))
    rows = table(judged(study, judge, words.arms), words.against)
    with (words.study / "consistency.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*rows[0]], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print("{arm:<75} {seeds:>2} {tc:>6} {nc:>7} {nc_over}".format(**row))


if __name__ == "__main__":
    main()
