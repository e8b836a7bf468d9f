"""Every random number of a study comes from a named seed; nothing else sets or reads one."""

import hashlib
import hmac

import torch

_SEED_BITS = 63


def seed(base: int, *labels: str | int) -> int:
    """Return a seed in [0, 2^63) fixed by the study's base seed and labels (round, site, purpose).

    Different labels give independent seeds (SHA-256); the order of the labels counts.
    """
    text = "\x1f".join([str(base), *map(str, labels)])
    return _seed_of(hashlib.sha256(text.encode()).digest())


def secret_seed(key: bytes, *labels: str | int) -> int:
    """Return a seed in [0, 2^63) that nobody without the site's key can compute (HMAC-SHA-256).

    Noise and Poisson draws use it: whoever knows their seed can subtract the noise.
    """
    text = "\x1f".join(map(str, labels))
    return _seed_of(hmac.new(key, text.encode(), hashlib.sha256).digest())


def generator(value: int) -> torch.Generator:
    """Return a CPU generator that starts at the seed."""
    return torch.Generator().manual_seed(value)


def _seed_of(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "big") >> (64 - _SEED_BITS)
