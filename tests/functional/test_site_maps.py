"""Pieces of maps: their rows are those of the whole, each once."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from stillhouse.functional import site_maps
from stillhouse.functional.resize import resize_lines, resize_maps
from stillhouse.functional.site_maps import SiteMaps


def some_maps(theirs: tuple[int, int] = (5, 7)) -> SiteMaps:
    student, teacher = torch.randn(3, 4, 5, 7), torch.randn(3, 4, *theirs)
    target = torch.randint(-1, 4, (3 * 5 * 7,))
    weight = (target >= 0).float()
    return SiteMaps(student, teacher, target, weight, weight.sum())


@pytest.mark.parametrize("theirs", [(5, 7), (3, 4), (9, 2)])
@pytest.mark.parametrize("limit", [1, 4 * 7 * 2, 4 * 7 * 5, 4 * 7 * 5 * 2, 10**6])
def test_the_rows_of_all_pieces_are_those_of_the_whole(
    limit: int, theirs: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site_maps, "LARGE", 1)
    monkeypatch.setitem(site_maps.ELEMENTS_OF_A_PIECE, "cpu", limit)
    maps = some_maps(theirs)
    pieces = [maps.site(maps.student[p], n) for n, p in enumerate(maps.places())]
    whole = maps.whole()
    assert maps.large and (len(pieces) > 1) == (limit < 4 * 7 * 5 * 3)
    for name in ("student", "teacher", "target", "weight"):
        joined = torch.cat([getattr(piece, name) for piece in pieces])
        torch.testing.assert_close(joined, getattr(whole, name), rtol=1e-5, atol=1e-6)
    assert sum(float(piece.mass) for piece in pieces if piece.mass is not None) == maps.mass


def test_pieces_are_no_larger_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site_maps, "LARGE", 1)
    monkeypatch.setitem(site_maps.ELEMENTS_OF_A_PIECE, "cpu", 4 * 7 * 2)
    maps = some_maps()
    assert max(maps.student[place].numel() for place in maps.places()) == 4 * 7 * 2


def test_rows_without_a_class_can_be_left_out() -> None:
    maps = some_maps().labelled()
    assert maps.target is not None and maps.weight is not None
    assert int(maps.target.min()) == 0 and torch.equal(maps.weight, some_weight(maps))
    plain = replace(maps, mass=None, target=maps.target - 1)
    assert plain.labelled() is plain  # there a missing label is an error


def some_weight(maps: SiteMaps) -> torch.Tensor:
    return maps.weights() * (maps.weights() > 0)


def test_weights_are_ones_in_full_precision_where_none_are_given() -> None:
    half = SiteMaps(torch.zeros(2, 3, 4, 5).bfloat16(), torch.zeros(2, 3, 4, 5).bfloat16())
    assert half.weights().dtype is torch.float32 and half.weights().sum() == 40


@pytest.mark.parametrize("size", [(9, 6), (2, 3), (1, 4), (4, 5)])
def test_lines_are_those_of_the_resized_maps(size: tuple[int, int]) -> None:
    maps = torch.randn(2, 3, 4, 5, dtype=torch.double)
    whole = resize_maps(maps, size)
    for start in range(size[0]):
        found = resize_lines(maps, size, start, size[0])
        torch.testing.assert_close(found, whole[:, :, start:])
