"""Every random number of a study comes from a named seed; nothing else sets or reads one."""

import hashlib
import hmac

import numpy as np
import torch

_SEED_BITS = 63
_TWISTER_WORDS = 624


def seed(base: int, *labels: str | int) -> int:
    """Return a seed in [0, 2^63) fixed by the study's base seed and labels (round, site, purpose).

    Different labels give independent seeds (SHA-256); the order of the labels counts.
    """
    text = "\x1f".join([str(base), *map(str, labels)])
    return _seed_of(hashlib.sha256(text.encode()).digest())


def secret_generator(
    key: bytes, *labels: str | int, device: str | torch.device = "cpu"
) -> torch.Generator:
    """Return a generator that nobody without the site's key can start again.

    Noise and Poisson draws use it: whoever knows their start can subtract the noise. On a CPU
    manual_seed keeps 32 bits, few enough to try them all; so the whole state of the Mersenne
    twister, 624 words of 32 bits, is filled from key and labels (SHAKE-256).
    """
    text = "\x1f".join(map(str, labels))
    digest = hmac.new(key, text.encode(), hashlib.sha256).digest()
    if torch.device(device).type != "cpu":
        return torch.Generator(device).manual_seed(_seed_of(digest))
    words = np.frombuffer(hashlib.shake_256(digest).digest(4 * _TWISTER_WORDS), dtype="<u4")
    # The words stand behind the seed (8 bytes), two counters and the position, each as 8 bytes.
    start = torch.Generator().manual_seed(0)
    state = start.get_state()
    state[24 : 24 + 8 * _TWISTER_WORDS] = torch.from_numpy(words.astype("<u8").view(np.uint8))
    start.set_state(state)
    return start


def generator(value: int) -> torch.Generator:
    """Return a CPU generator that starts at the seed."""
    return torch.Generator().manual_seed(value)


def _seed_of(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "big") >> (64 - _SEED_BITS)
