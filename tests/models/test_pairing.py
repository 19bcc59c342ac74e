import torch

from stillhouse.models import zoo
from stillhouse.models.aliases import find_aliases
from stillhouse.models.pairing import pair_last_stages, pair_stages_in_order, suggest_pairs
from stillhouse.models.taps import tap_shapes


def maps(*sides: int, last: int | None = None, **more: torch.Size) -> dict[str, torch.Size]:
    found = {f"stage{n}": torch.Size((2, 8 * n, side, side)) for n, side in enumerate(sides, 1)}
    return found | ({"last": torch.Size((2, 9, last, last))} if last else {}) | more


def test_stages_of_one_size_make_a_pair() -> None:
    assert suggest_pairs(maps(32, 16, 8), maps(32, 16, 8)) == [
        ("stage1", "stage1"),
        ("stage2", "stage2"),
        ("stage3", "stage3"),
    ]
    assert suggest_pairs(maps(16, 8, 4), maps(32, 16, 8, 4)) == [
        ("stage1", "stage2"),
        ("stage2", "stage3"),
        ("stage3", "stage4"),
    ]


def test_of_several_stages_of_one_size_the_last_is_taken() -> None:
    assert suggest_pairs(maps(16, 8, 4, 2), maps(16, 8, 4, 4)) == [
        ("stage1", "stage1"),
        ("stage2", "stage2"),
        ("stage3", "stage4"),
    ]


def test_height_and_width_both_count() -> None:
    flat = {"stage1": torch.Size((2, 4, 8, 4)), "stage2": torch.Size((2, 4, 4, 2))}
    high = {"stage1": torch.Size((2, 4, 8, 8)), "stage2": torch.Size((2, 4, 4, 2))}
    assert suggest_pairs(flat, high) == [("stage2", "stage2")]


def test_without_a_common_size_the_order_from_the_deep_end_decides() -> None:
    assert suggest_pairs(maps(14, 7), maps(32, 16, 8)) == [
        ("stage1", "stage2"),
        ("stage2", "stage3"),
    ]
    assert suggest_pairs(maps(30, 15, 9), maps(8)) == [("stage3", "stage1")]


def test_stages_are_paired_by_number_whatever_their_sizes() -> None:
    student, teacher = maps(16, 8, 4), maps(32, 16, 8, 4)
    expected = [("stage1", "stage1"), ("stage2", "stage2"), ("stage3", "stage3")]
    assert pair_stages_in_order(student, teacher) == expected
    assert pair_stages_in_order(teacher, student | maps(last=4)) == expected
    assert pair_stages_in_order({}, teacher) == []


def test_the_deepest_stages_make_one_pair() -> None:
    assert pair_last_stages(maps(16, 8, last=2), maps(32, 16, 8, 4)) == [("stage2", "stage4")]
    many = maps(*range(40, 29, -1))
    assert pair_last_stages(many, maps(8)) == [("stage11", "stage1")]
    assert pair_last_stages({}, maps(8)) == []


def test_the_last_maps_come_last_where_both_have_one() -> None:
    assert suggest_pairs(maps(8, 4, last=4), maps(8, 2, last=2)) == [
        ("stage1", "stage1"),
        ("last", "last"),
    ]
    assert suggest_pairs(maps(8, last=4), maps(8)) == [("stage1", "stage1")]
    assert suggest_pairs({}, maps(8, last=4)) == []


def test_other_aliases_and_the_order_of_names_do_not_matter() -> None:
    more = {"penultimate": torch.Size((2, 8)), "stage1@pre": torch.Size((2, 8, 32, 32))}
    many = maps(*range(40, 28, -1))
    twisted = dict(sorted(many.items(), reverse=True)) | more
    expected = [(f"stage{n}", f"stage{n}") for n in range(1, 13)]
    assert suggest_pairs(twisted, many) == expected


def test_tokens_are_paired_with_tokens_only() -> None:
    tokens = {f"stage{n}": torch.Size((2, 17, 8)) for n in (1, 2, 3)}
    assert suggest_pairs(tokens, tokens) == [("stage3", "stage3")]
    fewer = {f"stage{n}": torch.Size((2, 5, 8)) for n in (1, 2)}
    assert suggest_pairs(fewer, tokens) == [("stage1", "stage2"), ("stage2", "stage3")]
    assert suggest_pairs(tokens, maps(8, 4)) == []


def test_networks_of_two_families() -> None:
    image = torch.zeros(2, 3, 32, 32)
    student, teacher = (zoo.create(f"cifar/{name}", 5) for name in ("shufflenetv1", "wrn_16_1"))
    seen = [tap_shapes(model, find_aliases(model, image), image) for model in (student, teacher)]
    assert suggest_pairs(*seen) == [("stage1", "stage2"), ("stage2", "stage3"), ("last", "last")]
