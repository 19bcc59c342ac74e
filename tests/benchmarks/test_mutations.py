"""Each deliberate bug fits the package, and one of them is caught from end to end."""

from __future__ import annotations

import csv
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


def test_caught(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "mutations.csv"
    mutations.main(["--only", "holm_not_monotone", "--out", str(table)])
    with table.open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["caught"] == "yes"
    assert row["first_failure"].startswith("tests/study/test_statistics.py::")
    assert "1 of 1 caught" in capsys.readouterr().out


def test_kept_table() -> None:
    with (mutations.RESULTS / "mutations.csv").open(encoding="utf-8", newline="") as file:
        kept = {row["mutation"]: row["caught"] for row in csv.DictReader(file)}
    assert kept == {mutation.name: "yes" for mutation in MUTATIONS}
