"""The table of answers: one row an image."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from client.prediction.answers import Answer
from common.finished import Finished

OK, BROKEN = "ok", "broken"
INSIDE, OUTSIDE, UNKNOWN = "inside", "outside", "unknown"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One image in the table."""

    name: str
    status: str
    """OK or BROKEN."""
    reason: str
    """Why it is broken, why its mask is no DICOM-SEG or why it has no heat map; else empty."""
    mask: str
    """File of the mask, below the output folder; empty without one."""
    answer: Answer | None
    domain: str
    """INSIDE, OUTSIDE or UNKNOWN; empty of a broken file."""
    domain_note: str
    """Why it is unknown; else empty."""
    distance: float | None
    """From the domain's centre, over its limit; None where it is unknown."""
    volume_ml: dict[str, float] | None
    """Of each class of the mask; None where the file does not tell its voxels' size."""


def table_of(rows: Sequence[Row], finished: Finished) -> str:
    """Return the rows as CSV with a header."""
    dense, classes = finished.task.config.dense, finished.task.config.classes
    of_mask = [f"{what}_{name}" for what in ("voxels", "ml") for name in classes]
    of_class = [f"score_{name}" for name in classes]
    header = ["file", "status", "reason", *(["mask", *of_mask] if dense else ["answer", *of_class])]
    header += ["entropy", "domain", "domain_distance", "domain_note"]
    text = io.StringIO()
    writer = csv.DictWriter(text, header, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: v for k, v in _cells(row).items() if k in header} for row in rows)
    return text.getvalue()


def _cells(row: Row) -> dict[str, Any]:
    cells: dict[str, Any] = {"file": row.name, "status": row.status, "reason": row.reason}
    if row.answer is None:
        return cells
    cells |= {"mask": row.mask, "answer": row.answer.label}
    cells |= {f"score_{name}": f"{p:.6f}" for name, p in row.answer.scores.items()}
    cells |= {f"voxels_{name}": count for name, count in row.answer.voxels.items()}
    cells |= {f"ml_{name}": f"{ml:.3f}" for name, ml in (row.volume_ml or {}).items()}
    cells |= {"entropy": f"{row.answer.entropy:.4f}", "domain": row.domain}
    if row.distance is not None:
        cells["domain_distance"] = f"{row.distance:.3f}"
    return {**cells, "domain_note": row.domain_note}
