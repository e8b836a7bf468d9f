"""What of an event is a number over the rounds, and what of it somebody is to be told of."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from server.report.reading import mean

Event = Mapping[str, Any]
BROKEN = (KeyError, TypeError, ValueError, AttributeError)
"""What an event raises that another version wrote: one such must not hold up all that follow."""


@dataclass(frozen=True)
class Number:
    """A number after a round."""

    name: str
    """As dice/st-marys; `mean` in the place of a site is over the sites."""
    value: float
    round: int
    time: float
    """Unix time."""


def numbers_of(event: Event) -> list[Number]:
    """Return the numbers that an event tells; none of most kinds, and none of a broken one."""
    try:
        return _numbers_of(event)
    except BROKEN:
        return []


def notices_of(event: Event) -> list[dict[str, Any]]:
    """Return what somebody is to be told of: an end, a site that is lost. No free text is in it."""
    try:
        return _notices_of(event)
    except BROKEN:
        return []


def _numbers_of(event: Event) -> list[Number]:
    told: dict[str, float | None] = {}
    if event["event"] == "measured":
        values = event["values"]
        told = {f"{event['metric']}/{site}": value for site, value in values.items()}
        told[f"{event['metric']}/mean"] = mean(values.values())
    elif event["event"] == "round done":
        parts = event.get("sites", {})
        told = {f"train_loss/{site}": part["train_loss"] for site, part in parts.items()}
        told |= {f"epsilon/{site}": spent for site, spent in event.get("epsilon", {}).items()}
        told["round/seconds"] = event["seconds"]
        told["round/bytes"] = sum(p["bytes_sent"] + p["bytes_received"] for p in parts.values())
        told["round/missing"] = len(event.get("missing", {}))
    return [
        Number(name, float(value), event["round"], event["time"])
        for name, value in told.items()
        if value is not None
    ]


def _notices_of(event: Event) -> list[dict[str, Any]]:
    kind = event["event"]
    if kind == "end":
        return [{"kind": "ended", "status": event["status"]}]
    if kind == "missing":
        return [{"kind": "site lost", "site": event["site"], "round": event["round"]}]
    if kind == "enrolled":
        return [{"kind": "site lost", "site": site, "round": 0} for site in event["absent"]]
    return []
