"""Which spatial frequencies are low (common/fourier.py); it loads no torch."""

from collections.abc import Sequence

HIGHEST = {2: 2, 3: 1}
"""Highest frequency along each axis that is low, in periods a picture, by spatial dimensions."""


def count_of(dims: int) -> int:
    """Return F, the number of low frequencies."""
    return int((2 * HIGHEST[dims] + 1) ** dims)


def check_amplitudes(amplitudes: Sequence[Sequence[float]], size: Sequence[int]) -> None:
    """Raise ValueError where amplitudes are not those of sites with images of this size."""
    dims = len(size)
    wrong = [len(of) for of in amplitudes if len(of) != count_of(dims)]
    if not amplitudes or wrong:
        raise ValueError(
            f"data.amplitudes has {len(amplitudes)} sites with {wrong} numbers, but "
            f"{count_of(dims)} are the low frequencies in {dims} dimensions; give a list a site, "
            "as shift.amplitudes of a result.json (evaluation.amplitudes=true)"
        )
    if min(size) < 2 * HIGHEST[dims] + 1:
        raise ValueError(
            f"data.size={list(size)} has no room for data.amplitudes; give "
            f"{2 * HIGHEST[dims] + 1} voxels or more along each axis"
        )
