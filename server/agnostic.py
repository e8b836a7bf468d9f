"""AFL: the sites' weights climb to where the model is worst.

Mohri, Sivek and Suresh, Agnostic Federated Learning, ICML 2019, Algorithm 1: the model is made for
the worst mixture of the sites, not for the one that their patients happen to make, so a hospital
whose images are like no other's is not outvoted.
"""

from collections.abc import Mapping

from server.evaluation.distance import shares as nearest_shares
from server.generalisation import LEAST


def ascended(
    shares: Mapping[str, float], losses: Mapping[str, float], step: float
) -> dict[str, float]:
    """Return the projection of lambda + step x losses onto the simplex, not below LEAST.

    shares: lambda by site. losses: of the model at each; a site whose loss is not known, as it was
    missing, is taken to have the mean of the others, which moves it with none of them.
    """
    mean = sum(losses.values()) / len(losses) if losses else 0.0
    moved = [share + step * losses.get(site, mean) for site, share in shares.items()]
    # Where a site alone hands in an update, it has to count for something.
    kept = [max(share, LEAST) for share in nearest_shares(moved).tolist()]
    return {site: share / sum(kept) for site, share in zip(shares, kept, strict=True)}
