"""Table 1, from records."""

from __future__ import annotations

from repro.papers.fifth.regression.experiment import runs  # type: ignore[import-not-found]

from repro.experiment import Results, artifact
from repro.report.cells import Cell
from repro.report.tables import Column, Row, Table


@artifact("table1", runs=runs)
def table1(results: Results) -> Table:
    ((published,),) = results.published["rows"].values()
    cell = Cell(published, results.values("Regression", "test/distance"))
    columns = [Column("distance", "Distance", "lower")]
    return Table("Table 1. Distance", results.provenance(), columns, [Row("Regression", {"distance": cell})])
