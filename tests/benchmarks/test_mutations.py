"""Each deliberate bug fits the package, and one of them is caught from end to end."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import pytest

import mutations
from mutations import MUTATIONS, PACKAGE, ROOT, Mutation


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.name)
def test_place(mutation: Mutation, tmp_path: Path) -> None:
    copy = tmp_path / mutation.file
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_text((PACKAGE / mutation.file).read_text(encoding="utf-8"), encoding="utf-8")
    mutations.apply(mutation, tmp_path)
    compile(copy.read_text(encoding="utf-8"), mutation.file, "exec")
    for name in mutation.tests.split():
        assert (ROOT / "tests" / name).is_file()


def test_names_are_unique() -> None:
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS) >= 30


def test_place_is_missing(tmp_path: Path) -> None:
    (tmp_path / "distributed.py").write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match="mass_of_one_rank: distributed.py has 0 places"):
        mutations.apply(MUTATIONS[0], tmp_path)


def test_caught() -> None:
    (mutation,) = (one for one in MUTATIONS if one.name == "holm_not_monotone")
    failed, seconds = mutations.check(mutation, mutation.tests.split())
    assert failed.startswith("tests/study/test_statistics.py::") and seconds > 0


def test_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(mutation: Mutation | None, tests: Sequence[str]) -> tuple[str, float]:
        return (mutation.name if mutation and mutation.name == "mean_for_a_sum" else ""), 1.0

    monkeypatch.setattr(mutations, "check", check)
    table, names = tmp_path / "mutations.csv", ["mass_of_one_rank", "mean_for_a_sum"]
    mutations.main(["--only", *names, "--out", str(table)])
    with table.open(encoding="utf-8", newline="") as file:
        rows = {
            row["mutation"]: (row["caught"], row["first_failure"]) for row in csv.DictReader(file)
        }
    assert rows == {"mass_of_one_rank": ("no", ""), "mean_for_a_sum": ("yes", "mean_for_a_sum")}
    assert "1 of 2 caught" in capsys.readouterr().out


def test_a_failure_without_a_mutation_ends_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mutations, "check", lambda mutation, tests: ("tests/test_x.py", 1.0))
    with pytest.raises(SystemExit, match="1"):
        mutations.main(["--out", str(tmp_path / "mutations.csv")])
    assert "tests/test_x.py fails without a mutation" in capsys.readouterr().err


def test_kept_table() -> None:
    with (mutations.RESULTS / "mutations.csv").open(encoding="utf-8", newline="") as file:
        kept = {row["mutation"]: row["caught"] for row in csv.DictReader(file)}
    assert kept == {mutation.name: "yes" for mutation in MUTATIONS}
