"""What a recipe can name, and how an option out of its range is refused."""

import pytest

from stillhouse.spec import require


def test_an_option_in_its_range_passes() -> None:
    require(True, "epochs", "positive", 3)


@pytest.mark.parametrize(
    ("value", "message"),
    [(-1, "`epochs` must be positive, got -1"), ("ten", "`epochs` must be positive, got 'ten'")],
)
def test_an_option_out_of_its_range_is_named_with_its_value(value: object, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        require(False, "epochs", "positive", value)
    assert str(caught.value) == message
