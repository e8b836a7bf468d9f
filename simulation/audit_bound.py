"""What an audit of privacy proves: from scores of canaries to a bound on epsilon. Pure functions.

Each of m canaries is in the training with probability 1/2, independently of the others; the auditor
guesses some of them, in or out (Steinke, Nasr and Jagielski, NeurIPS 2023; theorems are numbered as
in arXiv:2305.08846v1). Who is never wrong about 200 canaries shows an epsilon of about 4, and no
more: a larger claim can only be refuted as a whole curve of (epsilon, delta), see `refutes`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import bdtr, bdtrc
from scipy.stats import norm, rankdata

from common.checks import in_range, not_negative

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

SHARES = (1 / 8, 1 / 4, 1 / 2, 1.0)
"""Of the canaries that are guessed, the most certain ones; fixed before any score is seen."""
LARGEST_EPSILON = 100.0
"""No bound is said to be above this."""

NEXT_TO = 1e-12
"""As near to an area as its interval's ends may come."""


@dataclass(frozen=True, kw_only=True)
class Bound:
    """The best lower bound on epsilon that some guesses prove."""

    epsilon: float
    """The mechanism is not (epsilon', delta)-private for any epsilon' below; 0 says nothing."""
    guesses: int
    """Canaries that were guessed; on the others the auditor abstained."""
    correct: int
    """Right guesses among them."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate with its interval."""

    value: float
    low: float
    high: float


def p_value(epsilon: float, *, correct: int, guesses: int, canaries: int, delta: float) -> float:
    """Return the most that an (epsilon, delta)-private mechanism gives to so many right guesses.

    P[W >= v] + 2 m delta max_i P[v > W >= v - i] / i, where W is Binomial(r, e^epsilon / (1 +
    e^epsilon)), of m canaries r guessed and v of these right (Corollary 5.4 and Appendix D).

    Raises:
        ValueError: numbers that no audit can have.
    """
    if not 0 <= correct <= guesses <= canaries:
        raise ValueError(
            f"correct={correct}, guesses={guesses}, canaries={canaries} are not of one audit; give "
            "0 <= correct <= guesses <= canaries"
        )
    not_negative(epsilon=epsilon)
    in_range(0.0, 1.0, delta=delta)
    if correct == 0:
        return 1.0
    rate = 1 / (1 + math.exp(-epsilon))
    reached = float(bdtrc(correct - 1, guesses, rate))
    if delta == 0.0:
        return reached
    fewer = np.arange(1, correct + 1)
    below = correct - fewer - 1.0
    # bdtr(-1, ...) is not a number: nothing is below none.
    missed = bdtr(correct - 1, guesses, rate) - np.where(
        below < 0, 0.0, bdtr(np.maximum(below, 0), guesses, rate)
    )
    return min(1.0, reached + 2 * canaries * delta * float(np.max(missed / fewer)))


def epsilon_bound(
    correct: int, guesses: int, canaries: int, delta: float, confidence: float = 0.95
) -> float:
    """Return the largest epsilon that the guesses refute at delta with this confidence, 0 for none.

    It grows with the right guesses. Where not even epsilon 0 is refuted the answer is 0.

    Raises:
        ValueError: numbers that no audit can have.
    """
    in_range(0.0, 1.0, confidence=confidence)

    def excess(epsilon: float) -> float:
        p = p_value(epsilon, correct=correct, guesses=guesses, canaries=canaries, delta=delta)
        return p - (1 - confidence)

    if excess(0.0) >= 0.0:
        return 0.0
    if excess(LARGEST_EPSILON) < 0.0:
        return LARGEST_EPSILON
    return float(brentq(excess, 0.0, LARGEST_EPSILON, xtol=1e-9))


def best_bound(
    scores: Sequence[float] | Floats,
    present: Sequence[bool] | Bools,
    delta: float,
    confidence: float = 0.95,
) -> Bound:
    """Return the best bound over SHARES; each has its part of the error (Bonferroni).

    scores [m]: the higher, the surer that the canary was in. Of a share's guesses the highest half
    are guessed in, the lowest half out. present [m]: whether each was in.
    """
    order = np.argsort(np.asarray(scores, np.float64), kind="stable")
    truth = np.asarray(present, np.bool_)[order]
    canaries = len(truth)
    each = 1 - (1 - confidence) / len(SHARES)
    best = Bound(epsilon=-1.0, guesses=0, correct=0)
    for half in _halves(canaries):
        correct = _correct(truth, half)
        epsilon = epsilon_bound(correct, 2 * half, canaries, delta, each)
        if epsilon > best.epsilon:
            best = Bound(epsilon=epsilon, guesses=2 * half, correct=correct)
    return best


def most_to_show(canaries: int, delta: float, confidence: float = 0.95) -> float:
    """Return the bound of an auditor who is never wrong: no claim above it can be refuted."""
    truth = np.arange(canaries) >= canaries // 2
    return best_bound(np.arange(canaries, dtype=np.float64), truth, delta, confidence).epsilon


def auc_interval(
    scores: Sequence[float] | Floats, present: Sequence[bool] | Bools, confidence: float = 0.95
) -> Interval:
    """Return the area under the ROC curve, the chance that one in scores above one out.

    The interval is Newcombe's method 5 (Statistics in Medicine 2006, Part 2), which does not
    shrink to a point where the area is 1.

    Raises:
        ValueError: all canaries are in, or all are out.
    """
    truth = np.asarray(present, np.bool_)
    ins, outs = int(truth.sum()), int((~truth).sum())
    if not ins or not outs:
        raise ValueError(
            f"of {len(truth)} canaries {ins} are in: an AUC needs both kinds; take more canaries"
        )
    ranks = rankdata(np.asarray(scores, np.float64))
    area = (float(ranks[truth].sum()) - ins * (ins + 1) / 2) / (ins * outs)
    z = float(norm.ppf((1 + confidence) / 2))
    more = (ins + outs) / 2 - 1

    def error(true: float) -> float:
        spread = 1 + more * ((1 - true) / (2 - true) + true / (1 + true))
        return z * math.sqrt(true * (1 - true) * spread / (ins * outs))

    # At 0 and at 1 the error vanishes too: a root, but not the end of the interval.
    low = brentq(lambda t: area - t - error(t), 0.0, area - NEXT_TO) if area else 0.0
    high = brentq(lambda t: t - area - error(t), area + NEXT_TO, 1.0) if area < 1 else 1.0
    return Interval(value=area, low=float(low), high=float(high))


def roc_curve(
    scores: Sequence[float] | Floats, present: Sequence[bool] | Bools
) -> tuple[Floats, Floats]:
    """Return false and true positive rates, [m + 1] each, from (0, 0) to (1, 1)."""
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    truth = np.asarray(present, np.bool_)[order]
    false, true = (np.concatenate([[0.0], np.cumsum(t)]) for t in (~truth, truth))
    return false / false[-1], true / true[-1]


def _halves(canaries: int) -> list[int]:
    return [max(1, int(share * canaries) // 2) for share in SHARES]


def _correct(truth: Bools, half: int) -> int:
    return int(truth[-half:].sum() + (~truth[:half]).sum())
