"""The benchmark of dense losses runs, and counts memory as it is."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

import dense_losses


def test_it_writes_a_row_for_each_loss(tmp_path: Path) -> None:
    path = tmp_path / "dense.csv"
    words = ["--rounds", "1", "--warmup", "0", "--out", str(path)]
    dense_losses.main(words, shape=(512, 20))
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["loss"] for row in rows] == list(dense_losses.PAIRS)
    assert all(float(row["ratio_to_plain"]) > 0 for row in rows)


def test_what_is_freed_does_not_count_twice() -> None:
    def function() -> None:
        for _ in range(3):
            torch.empty(1000)
        kept = torch.empty(500)
        del kept

    assert dense_losses.peak_bytes(function) == 4000


@pytest.mark.parametrize("name", dense_losses.PAIRS)
def test_a_plain_formula_is_that_of_its_loss(name: str) -> None:
    student, teacher = (x.double() for x in dense_losses.logits((400, 20)))
    pair = dense_losses.PAIRS[name]
    torch.testing.assert_close(pair.ours(student, teacher), pair.plain(student, teacher))
