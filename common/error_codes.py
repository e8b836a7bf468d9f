"""A code for every kind of error, which docs/errors.md explains; a test holds the two together."""

import re


def code_of(error: BaseException) -> str:
    """Return the code of an error: its class's name in small letters, without `Error`.

    A class of Python's own has none that would tell anything: `value` and `system` are what a
    setting or a file of the machine is not fit for.
    """
    for kind in type(error).__mro__:
        if kind.__module__.split(".")[0] in ("common", "client", "server", "simulation"):
            return code_of_class(kind.__name__)
    return "system" if isinstance(error, OSError) else "value"


def code_of_class(name: str) -> str:
    """Return the code of a class by its name: `bad-file` of BadFileError."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name.strip("_").removesuffix("Error"))
    return words.lower()
