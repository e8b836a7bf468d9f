"""Numbers as people read them."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

LARGEST_SHOWN = 0.9999
NOT_DEFINED = "not defined"
_MINUS = "\N{MINUS SIGN}"
_DASH = "\N{EN DASH}"
_KILO = 1000


def number(value: float | None) -> str:
    """Return about three significant digits; "not defined" for None and NaN."""
    if value is None or math.isnan(value):
        return NOT_DEFINED
    if math.isinf(value):
        return "infinite" if value > 0 else f"{_MINUS}infinite"
    if value and not 1e-3 <= abs(value) < 1e5:
        text = f"{value:.2g}"
    else:
        decimals = 3 if abs(value) < 1 else 2 if abs(value) < 100 else 1
        text = f"{value:.{decimals}f}"
    return text.replace("-", _MINUS)


def sentence(text: str) -> str:
    """Return a text with a capital at its beginning; names in it stay as they are."""
    return text[:1].upper() + text[1:]


def signed(value: float | None) -> str:
    """Return a difference with its sign."""
    text = number(value)
    return f"+{text}" if value is not None and value > 0 else text


def interval(estimate: Mapping[str, Any]) -> str:
    """Return "value (low-high)" of an estimate; without the interval where it has none."""
    value, low, high = (estimate.get(key) for key in ("value", "low", "high"))
    if value is None or low is None or high is None or math.isnan(value):
        return number(value)
    return f"{number(value)} ({number(low)}{_DASH}{number(high)})"


def data_size(size_bytes: float) -> str:
    """Return a size in B, kB, MB or GB (powers of 1000)."""
    for unit in ("B", "kB", "MB"):
        if size_bytes < _KILO:
            return f"{size_bytes:.0f} B" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= _KILO
    return f"{size_bytes:.1f} GB"


def duration(seconds: float | None) -> str:
    """Return a time as "12.3 s", "4 min 05 s" or "2 h 07 min"."""
    if seconds is None:
        return NOT_DEFINED
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def ranges(numbers: Iterable[int]) -> str:
    """Return numbers as "1, 3-5, 9"."""
    runs: list[list[int]] = []
    for value in sorted(set(numbers)):
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    return ", ".join(f"{r[0]}{_DASH}{r[-1]}" if len(r) > 1 else str(r[0]) for r in runs)


def plain(value: object) -> str:
    """Return a setting as text: yes and no, a list with commas, a dash for nothing."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(plain(item) for item in value) or "none"
    return "none" if value is None or value == "" else str(value)


def chance(value: float) -> str:
    """Return a probability in per cent; nothing is ever shown as certain."""
    if value > LARGEST_SHOWN:
        return f"over {100 * LARGEST_SHOWN:.2f} %"
    return f"{100 * value:.2f} %"
