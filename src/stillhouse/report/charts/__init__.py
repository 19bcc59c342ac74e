"""Charts of a diagnosis -> SVG that stands inside the page."""

from __future__ import annotations

from typing import assert_never

from stillhouse.explain.section import Bars, Cloud, Heat, Joint, Lines
from stillhouse.report.charts import bars, lines
from stillhouse.report.charts import scatter as cloud
from stillhouse.report.charts import heatmap as heat
from stillhouse.report.charts import density as joint
from stillhouse.report.charts.canvas import styled
from stillhouse.report.charts.drawing import Drawing

Drawn = Lines | Bars | Heat | Cloud | Joint


def draw(chart: Drawn, ident: str) -> Drawing:
    """The drawing of one chart; `ident` begins every name in it, and no other chart of the page."""
    with styled():
        return _drawn(chart, ident)


def _drawn(chart: Drawn, ident: str) -> Drawing:
    match chart:
        case Lines():
            return lines.draw(chart, ident)
        case Bars():
            return bars.draw(chart, ident)
        case Heat():
            return heat.draw(chart, ident)
        case Cloud():
            return cloud.draw(chart, ident)
        case Joint():
            return joint.draw(chart, ident)
        case _:
            assert_never(chart)
