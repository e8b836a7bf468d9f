"""MONAI imported by itself: without the packages that it takes along wherever they are installed.

`import monai` imports all its modules, and these import MLflow, Matplotlib, pandas and others for
parts that nothing here calls. That is half of the time in which a process starts, so they are
hidden from MONAI while it is imported; who asks for one of them afterwards gets it, but MONAI
itself goes on as if they were not installed.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType

MONAI = "monai"
HIDDEN = ("mlflow", "matplotlib", "pandas", "scipy.signal", "skimage", "sklearn")


class _Alone(SourceFileLoader):
    """A loader that hides some packages while it loads."""

    def exec_module(self, module: ModuleType) -> None:
        hidden = dict.fromkeys(name for name in HIDDEN if name not in sys.modules)
        # What sys.modules has as None cannot be imported.
        sys.modules.update(hidden)  # type: ignore[arg-type]
        try:
            super().exec_module(module)
        finally:
            for name in hidden:
                sys.modules.pop(name, None)


class _Finder(MetaPathFinder):
    """Finds MONAI."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != MONAI:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Alone(spec.loader.name, spec.loader.path)
        return spec


def import_monai_alone() -> None:
    """Have MONAI imported so whenever it is; once a process."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
