"""How often a model is right where it is so sure: points of a reliability curve."""

from collections.abc import Sequence

import numpy as np

from common.contract import Reliability
from common.tasks.task import Sums

LEAST_PATIENTS = 10
"""Of a point, whatever a policy allows: of fewer it is chance."""


def reliability(rows: Sequence[Sums], least: int) -> list[Reliability]:
    """Return the curve of the patients' images, from the least sure to the surest.

    DeGroot and Fienberg, The Statistician 1983; in the bins of the calibration (Guo et al., ICML
    2017), of which neighbours are put together until each has `least` patients or more, and
    LEAST_PATIENTS. Fewer patients than that have no curve.

    rows: of each patient, with `calibration` [3, M]: images, right answers, summed confidence.
    Those of a segmentation have none, and no curve.
    """
    least = max(least, LEAST_PATIENTS)
    known = [row["calibration"] for row in rows if "calibration" in row]
    each = np.stack(known) if known else np.zeros((0, 3, 0))
    groups: list[list[int]] = []
    for place in range(each.shape[2]):
        if groups and _patients(each[:, 0, groups[-1]]) < least:
            groups[-1].append(place)
        else:
            groups.append([place])
    while len(groups) > 1 and _patients(each[:, 0, groups[-1]]) < least:
        last = groups.pop()
        groups[-1] += last
    told = [places for places in groups if _patients(each[:, 0, places]) >= least]
    return [_point(each, places) for places in told]


def _patients(images_PM: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> int:
    return int(images_PM.any(axis=1).sum())


def _point(
    each_P3M: np.ndarray[tuple[int, ...], np.dtype[np.float64]], places: list[int]
) -> Reliability:
    images, right, confidence = each_P3M[:, :, places].sum(axis=(0, 2))
    return Reliability(
        confidence=float(confidence / images),
        accuracy=float(right / images),
        patients=_patients(each_P3M[:, 0, places]),
    )
