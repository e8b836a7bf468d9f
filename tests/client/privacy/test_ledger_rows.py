from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.privacy.ledger_rows import (
    CHARGE,
    DATA,
    GENESIS,
    Chain,
    Row,
    canonical,
    check_links,
    next_row,
    patient_hash,
)

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
COST: dict[str, Any] = {
    "release": "r",
    "study": "s",
    "purpose": "training",
    "noise_multiplier": 1.0,
    "sample_rate": 0.1,
    "steps": 5,
}
BEGINNING = {"fingerprint": "f", "patients": 2}
PATIENTS = {"salt": "5a", "patients": [patient_hash("5a", "p0"), patient_hash("5a", "p1")]}


def rows_of(charges: int = 3) -> list[Row]:
    """Return a whole chain, with a change of the data in its middle."""
    rows = [next_row(None, NOON, GENESIS, BEGINNING, PATIENTS)]
    rows.append(next_row(rows[-1], NOON, DATA, {"fingerprint": "g"}, {"patients": ["x"]}))
    for number in range(charges):
        cost = {**COST, "release": str(number)}
        rows.append(next_row(rows[-1], NOON + timedelta(hours=number), CHARGE, cost))
    return rows


ROWS = rows_of()


def test_a_chain_tells_what_was_put_into_it() -> None:
    chain = Chain(tuple(ROWS))
    assert (chain.first_fingerprint, chain.fingerprint) == ("f", "g")
    assert chain.patients == {*PATIENTS["patients"], "x"}
    assert chain.hashes_of(["p0", "p1"]) == set(PATIENTS["patients"])
    assert list(chain.charges) == ["0", "1", "2"]
    assert asdict(chain.charges["1"]) == {**COST, "release": "1"}
    assert chain.newest_time == NOON + timedelta(hours=2)


@given(data=st.data())
def test_any_changed_letter_of_a_row_is_found(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(ROWS) - 1))
    row = ROWS[at]
    columns = [name for name, value in asdict(row).items() if isinstance(value, str) and value]
    column = data.draw(st.sampled_from(columns))
    text = getattr(row, column)
    place = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.characters(codec="utf-8").filter(lambda c: c != text[place]))
    changed = replace(row, **{column: text[:place] + letter + text[place + 1 :]})
    with pytest.raises(ValueError, match=r"row \d|kind of row"):
        Chain((*ROWS[:at], changed, *ROWS[at + 1 :]))


@given(at=st.integers(0, len(ROWS) - 2))
def test_a_removed_row_is_found(at: int) -> None:
    with pytest.raises(ValueError, match=f"row {at + 1} is missing"):
        Chain((*ROWS[:at], *ROWS[at + 1 :]))


@given(at=st.permutations(range(len(ROWS))).filter(lambda order: order != sorted(order)))
def test_another_order_is_found_even_when_renumbered(at: list[int]) -> None:
    with pytest.raises(ValueError, match="row"):
        Chain(tuple(ROWS[i] for i in at))
    with pytest.raises(ValueError, match="row"):
        Chain(tuple(replace(ROWS[i], seq=seq) for seq, i in enumerate(at, start=1)))


@pytest.mark.parametrize(
    ("time", "kind", "fields", "secret", "told"),
    [
        (NOON - timedelta(1), CHARGE, COST, None, "older than the row before"),
        (NOON.replace(tzinfo=timezone(timedelta(hours=1))), CHARGE, COST, None, "not in UTC"),
        (NOON, "gift", COST, None, "kind of row 2='gift'"),
        (NOON, GENESIS, BEGINNING, PATIENTS, "kind of row 2='genesis'"),
        (NOON, DATA, {"fingerprint": "g"}, None, "patients are missing"),
        (NOON, CHARGE, COST, {"patients": []}, "where none belong"),
        (NOON, CHARGE, {**COST, "steps": -5}, None, "steps=-5"),
        (NOON, CHARGE, {**COST, "study": ""}, None, "study=''"),
    ],
)
def test_a_row_that_is_hashed_but_wrong_is_refused(
    time: datetime, kind: str, fields: dict[str, Any], secret: dict[str, Any] | None, told: str
) -> None:
    rows = (ROWS[0], next_row(ROWS[0], time, kind, fields, secret))
    with pytest.raises(ValueError, match=told):
        Chain(rows)


def test_a_chain_begins_with_its_genesis() -> None:
    with pytest.raises(ValueError, match="no rows"):
        Chain(())
    with pytest.raises(ValueError, match="kind of row 1"):
        Chain((next_row(None, NOON, CHARGE, COST),))


@pytest.mark.parametrize(("column", "value"), [("seq", "1"), ("seq", True), ("body", b"{}")])
def test_a_value_of_another_type_is_refused(column: str, value: object) -> None:
    with pytest.raises(ValueError, match="another type"):
        replace(ROWS[0], **{column: value})


def test_no_row_holds_what_is_not_a_number() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical({"noise": float("nan")})


@pytest.mark.parametrize("part", ["body", "hash", "previous", "time", "kind", "seq"])
def test_rows_without_their_secrets_still_prove_their_chain(part: str) -> None:
    told = [{**asdict(row), "body": row.fields(), "secret": None} for row in ROWS]
    check_links(told)
    other: dict[str, Any] = {"body": {**COST, "steps": 1}, "seq": 9}
    told[3][part] = other.get(part, "other")
    with pytest.raises(ValueError, match="row 4"):
        check_links(told)
