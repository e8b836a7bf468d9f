"""The sites as points of a plane, nearly as far apart as a measure says: the report's map."""

from collections.abc import Mapping

import numpy as np

LEAST_SITES = 3
"""Of fewer, a plane tells nothing that the distances do not."""


def places_of(distances: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Return x and y by site, in the measure's own unit; empty of fewer than three sites.

    distances: by site and site, both ways. Classical multidimensional scaling (Torgerson,
    Psychometrika 1952), turned so that the same distances give the same places.
    """
    sites = sorted(distances)
    if len(sites) < LEAST_SITES:
        return {}
    square_SS = np.array([[distances[a].get(b, 0.0) ** 2 for b in sites] for a in sites])
    centring_SS = np.eye(len(sites)) - 1 / len(sites)
    values, vectors = np.linalg.eigh(-centring_SS @ square_SS @ centring_SS / 2)
    plane_S2 = vectors[:, -1:-3:-1] * np.sqrt(np.maximum(values[-1:-3:-1], 0.0))
    # An axis has no direction of its own: the site furthest out is to the right, and above.
    furthest = np.abs(plane_S2).argmax(0)
    plane_S2 = plane_S2 * np.where(plane_S2[furthest, [0, 1]] < 0, -1.0, 1.0)
    return {
        site: {"x": float(x), "y": float(y)} for site, (x, y) in zip(sites, plane_S2, strict=True)
    }
