from dataclasses import replace

import pytest
from rich.console import Console

from simulation.outcomes import Outcome
from simulation.shift_table import Place, curves_of, rows_of, summaries_of, tables_of
from simulation.table_config import TableConfig

TABLE = TableConfig(
    seeds=[0, 1],
    experiments={"retina": {"left_out": ["st-a"]}},
    rows={
        "local": {"run": "fedavg", "model": "local"},
        "pooled": {"run": "fedavg", "model": "pooled"},
        "fedavg": {},
        "fedprox": {"not_at": ["hippocampus"]},
    },
)


def outcome(
    own: dict[str, float],
    local: dict[str, float] | None = None,
    pooled: dict[str, float] | None = None,
    higher: bool = True,
) -> Outcome:
    values = {"federated": own, "local": local, "pooled": pooled}
    return Outcome(
        place="",
        key="",
        status="completed",
        reason=None,
        metric="dice",
        higher_is_better=higher,
        weighted_by_held_out=False,
        values={model: of for model, of in values.items() if of is not None},
        rounds=3,
        megabytes=18.0,
        seconds=7.0,
        made_with="",
    )


LOCAL, POOLED = {"st-a": 0.7, "st-b": 0.6}, {"st-a": 0.9, "st-b": 0.8}
RESULTS: dict[Place, Outcome] = {
    ("retina", "fedavg", 0, None): outcome({"st-a": 0.8, "st-b": 0.5}, LOCAL, POOLED),
    ("retina", "fedavg", 1, None): outcome({"st-a": 0.6, "st-b": 0.9}, LOCAL, POOLED),
    ("retina", "fedavg", 0, "st-a"): outcome({"st-a": 0.3, "st-b": 0.9}),
    ("retina", "fedprox", 0, None): outcome({"st-a": 0.75, "st-b": 0.75}),
}


def test_a_row_is_the_mean_over_the_seeds() -> None:
    rows = {row["row"]: row for row in rows_of(TABLE, RESULTS)}
    fedavg = rows["fedavg"]
    assert fedavg["mean"] == pytest.approx((0.65 + 0.75) / 2)
    assert fedavg["spread"] == pytest.approx(0.05)
    # The worst of each seed, and not the worst of the means.
    assert fedavg["worst"] == pytest.approx((0.5 + 0.6) / 2)
    assert fedavg["sites"] == pytest.approx({"st-a": 0.7, "st-b": 0.7})
    assert (fedavg["left_out"], fedavg["left_out_sites"]) == (0.3, {"st-a": 0.3})
    assert (fedavg["rounds"], fedavg["megabytes"], fedavg["seconds"]) == (3, 18.0, 7.0)
    assert rows["fedprox"]["spread"] is None
    assert rows["local"]["megabytes"] is None


def test_the_best_row_is_held_against_pooled_and_each_sites_own() -> None:
    (found,) = summaries_of(rows_of(TABLE, RESULTS))
    assert found["best"] == "fedprox"
    assert found["gap_to_pooled"] == pytest.approx(0.75 - 0.85)
    assert (found["least_over_local_at"], found["least_over_local"]) == (
        "st-a",
        pytest.approx(0.05),
    )


def test_a_site_that_loses_is_told_though_another_is_worse() -> None:
    results: dict[Place, Outcome] = {
        ("retina", "fedavg", 0, None): outcome(
            {"st-a": 0.8, "st-b": 0.5}, {"st-a": 0.95, "st-b": 0.4}, POOLED
        )
    }
    (found,) = summaries_of(rows_of(TABLE, results))
    assert found["least_over_local_at"] == "st-a"
    assert found["least_over_local"] == pytest.approx(-0.15)


@pytest.mark.parametrize("status", ["partial", "failed"])
def test_a_run_that_lost_a_site_is_counted_and_not_averaged(status: str) -> None:
    lost = replace(outcome({"st-a": 0.99}), status=status)
    results = {**RESULTS, ("retina", "fedprox", 1, None): lost}
    rows = {row["row"]: row for row in rows_of(TABLE, results)}
    assert (rows["fedprox"]["runs"], rows["fedprox"]["completed"]) == (2, 1)
    assert rows["fedprox"]["mean"] == pytest.approx(0.75)
    (found,) = summaries_of(list(rows.values()))
    assert found["best"] == "fedavg"


def test_a_row_whose_weights_the_tested_patients_set_is_marked_and_not_the_best() -> None:
    tuned = replace(outcome({"st-a": 0.99, "st-b": 0.99}), weighted_by_held_out=True)
    results = {**RESULTS, ("retina", "fedprox", 0, None): tuned}
    rows = rows_of(TABLE, results)
    (found,) = summaries_of(rows)
    assert found["best"] == "fedavg"
    shown = next(iter(tables_of(rows, [found])))
    assert "fedprox *" in list(shown.columns[0].cells)
    assert "its weights follow" in str(shown.caption)


def test_where_less_is_better_the_least_is_best_and_the_most_is_worst() -> None:
    results: dict[Place, Outcome] = {
        place: outcome({"st-a": 2.0, "st-b": value}, {"st-b": 4.0}, {"st-a": 1.0}, higher=False)
        for place, value in (
            (("retina", "fedavg", 0, None), 5.0),
            (("retina", "fedprox", 0, None), 3.0),
        )
    }
    rows = rows_of(TABLE, results)
    assert {row["row"]: row["worst"] for row in rows if row["worst"]}["fedavg"] == 5.0
    (found,) = summaries_of(rows)
    assert (found["best"], found["least_over_local_at"]) == ("fedprox", "st-b")
    assert found["least_over_local"] == pytest.approx(1.0)
    assert found["gap_to_pooled"] == pytest.approx(-1.5)


def test_the_tables_show_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_of(TABLE, RESULTS)
    for table in tables_of(rows, summaries_of(rows)):
        Console(width=120).print(table)
    shown = capsys.readouterr().out
    assert "retina: dice" in shown
    assert next(line.split("│")[1:6] for line in shown.splitlines() if "fedavg" in line) == [
        " fedavg  ",
        " 3 of 3 ",
        " 0.700 ",
        "   0.050 ",
        "      0.550 ",
    ]
    assert "0.050" in next(line for line in shown.splitlines() if "st-a" in line)
    # Its caption names what has no row, and so no figure that could be missed.
    assert "not run here" not in shown


def test_a_method_that_is_not_run_at_a_data_set_is_named_under_its_table() -> None:
    table = replace(TABLE, rows={**TABLE.rows, "fedbn": {"not_at": ["retina"]}, "rank": {}})
    rows = rows_of(table, RESULTS)
    assert [row["row"] for row in rows if not row["runs"]] == ["fedbn", "rank"]
    (shown, _) = tables_of(rows, summaries_of(rows))
    assert shown.caption == "not run here: fedbn, rank"
    assert not {"fedbn", "rank"} & set(shown.columns[0].cells)


def test_where_there_are_left_out_runs_alone_they_are_what_it_costs() -> None:
    table = replace(TABLE, experiments={"retina": {"left_out": ["st-a", "st-b"], "whole": False}})
    cheap, dear = (
        replace(outcome({site: 0.3}), megabytes=megabytes, seconds=seconds)
        for site, megabytes, seconds in (("st-a", 10.0, 4.0), ("st-b", 20.0, 8.0))
    )
    results: dict[Place, Outcome] = {
        ("retina", "fedavg", 0, "st-a"): cheap,
        ("retina", "fedavg", 1, "st-b"): dear,
    }
    rows = {row["row"]: row for row in rows_of(table, results)}
    assert (rows["fedavg"]["megabytes"], rows["fedavg"]["seconds"]) == (15.0, 6.0)
    assert rows["pooled"]["megabytes"] is None
    # With runs of all sites these alone count: without a site it is cheaper.
    rows = {row["row"]: row for row in rows_of(TABLE, {**RESULTS, **results})}
    assert rows["fedavg"]["megabytes"] == 18.0


def test_where_every_run_leaves_a_site_out_the_best_row_is_the_best_there() -> None:
    table = replace(TABLE, experiments={"retina": {"left_out": ["st-a"], "whole": False}})
    results: dict[Place, Outcome] = {
        ("retina", "fedavg", 0, "st-a"): outcome({"st-a": 0.3}, pooled={"st-a": 0.7}),
        ("retina", "fedprox", 0, "st-a"): outcome({"st-a": 0.6}),
    }
    (found,) = summaries_of(rows_of(table, results))
    assert (found["best"], found["by"]) == ("fedprox", "left_out")
    assert found["gap_to_pooled"] == pytest.approx(-0.1)
    assert found["least_over_local"] is None
    shown = list(tables_of(rows_of(table, results), [found]))[-1]
    assert list(shown.columns[0].cells) == ["retina, left out"]


def test_curves_are_means_over_the_seeds_beside_what_the_first_row_sent() -> None:
    def told(*points: tuple[int, float, float]) -> Outcome:
        return replace(outcome({"st-a": 0.8}), curve=list(points))

    results: dict[Place, Outcome] = {
        ("retina", "fedavg", 0, None): told((0, 0.0, 0.1), (1, 20.0, 0.3), (2, 40.0, 0.8)),
        ("retina", "fedavg", 1, None): told((0, 0.0, 0.3), (2, 40.0, 0.6)),
        ("retina", "fedprox", 0, None): told((0, 0.0, 0.2), (2, 10.0, 0.5)),
    }
    rows = rows_of(TABLE, results)
    assert next(r["curve"] for r in rows if r["row"] == "fedavg") == [
        (0, 0.0, pytest.approx(0.2)),
        (2, 40.0, pytest.approx(0.7)),
    ]
    (table,) = curves_of(rows)
    assert [column.header for column in table.columns] == [
        "method",
        "MB sent",
        "of first",
        "0",
        "2",
    ]
    assert [list(column.cells) for column in table.columns] == [
        ["fedavg", "fedprox"],
        ["40.0", "10.0"],
        ["100.0 %", "25.0 %"],
        ["0.200", "0.200"],
        ["0.700", "0.500"],
    ]


def test_what_was_sent_is_held_against_the_first_row_or_nothing() -> None:
    results: dict[Place, Outcome] = {
        ("retina", "fedavg", 0, None): outcome({"st-a": 0.8}),
        ("retina", "fedprox", 0, None): replace(outcome({"st-a": 0.8}), curve=[(2, 10.0, 0.5)]),
    }
    (table,) = curves_of(rows_of(TABLE, results))
    assert [list(column.cells) for column in table.columns][:3] == [["fedprox"], ["10.0"], ["-"]]


def test_a_row_of_another_model_of_the_run_has_no_curve_of_the_federated() -> None:
    table = replace(TABLE, rows={**TABLE.rows, "ditto": {"run": "fedavg", "model": "personal"}})
    results: dict[Place, Outcome] = {
        ("retina", "fedavg", 0, None): replace(outcome({"st-a": 0.8}), curve=[(2, 10.0, 0.5)])
    }
    curves = {row["row"]: row["curve"] for row in rows_of(table, results)}
    assert curves["fedavg"] == [(2, 10.0, 0.5)]
    assert curves["ditto"] == curves["local"] == []


def test_runs_of_before_there_were_curves_have_no_table_of_them() -> None:
    assert list(curves_of(rows_of(TABLE, RESULTS))) == []
