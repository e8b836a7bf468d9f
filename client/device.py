"""The device that a person names, or why this machine has none of that name."""

import torch

from common.schema import SettingsError


def usable_device(name: str) -> torch.device:
    """Return the device of a name: cpu, cuda or cuda:N.

    Raises:
        SettingsError: no such name, or this machine or its PyTorch has no such GPU.
    """
    kind, _, number = name.partition(":")
    known = name == "cpu" or (kind == "cuda" and (number.isdecimal() or name == "cuda"))
    if not known:
        raise SettingsError(f"device {name!r} is not known; give cpu, cuda or cuda:N")
    there = torch.cuda.device_count()
    if kind == "cuda" and int(number or 0) >= there:
        raise SettingsError(
            f"device {name!r} is not here: PyTorch sees {there} GPUs; give cpu, mend the "
            "driver, or install a PyTorch for this machine's GPU"
        )
    return torch.device(name)
