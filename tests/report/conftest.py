"""The page with everything on it, rendered once."""

from __future__ import annotations

import pytest

import pages
from stillhouse.report.render import render


@pytest.fixture(scope="session")
def rich_html() -> str:
    return render(pages.rich())
