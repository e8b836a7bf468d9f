"""The model that a round begins with, as it came or as the step from the one that came before."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from common.bodies import MessageError
from common.compression import moved_by
from common.compression_config import CodecConfig
from common.contract import NO_BASE, RefusalError, Request
from common.framed_files import Layout, layout_of
from common.secret_files import private_folder
from common.state import Arrays, arrays_of, digest_of, tensors_of
from common.study import Study
from common.tensor_files import read_tensors, write_tensors

FOLDER, SUFFIX = "models_of_rounds", ".safetensors"
KEPT = 4
"""Studies whose last model a site keeps; of an older one it gets the whole again."""


@dataclass(frozen=True)
class Arrivals:
    """Keeps the model of each study's last round, where the study sends steps."""

    state: Path
    """The site's folder for what outlives a process."""

    def model(
        self,
        request: Request,
        weights: Arrays,
        codec: CodecConfig,
        layout: Mapping[str, Layout],
    ) -> Arrays:
        """Return the model of the request's round; it is kept for the next.

        layout: of the study's model.

        Raises:
            RefusalError: the step leads from a model that this site has not (code NO_BASE), or
                what came is no model of the study.
        """
        asked = digest_of(weights)
        if request.before is None:
            model = weights
        else:
            known = self._kept(request)
            if known is not None and known[1] == asked:
                # The same question again: the model has been moved.
                return known[0]
            if known is None or digest_of(known[0]) != request.before:
                raise RefusalError(
                    NO_BASE,
                    "this site has not the model that the weights of this round lead on from",
                )
            try:
                model = dict(moved_by(known[0], weights, codec))
            except MessageError as error:
                raise RefusalError("weights", "the weights of this round cannot be read") from error
        check_layout(model, layout)
        self._keep(request, model, asked)
        return model

    def _kept(self, request: Request) -> tuple[Arrays, str] | None:
        """Return the model that was kept, and the digest of what brought it."""
        try:
            tensors, about = read_tensors(self._path(request))
            return arrays_of(tensors), str(about["from"])
        # Whatever is wrong with the file, the whole model makes it good.
        except Exception:
            return None

    def _keep(self, request: Request, model: Arrays, asked: str) -> None:
        private_folder(self.state / FOLDER)
        path = self._path(request)
        write_tensors(path, tensors_of(model), {"from": asked})
        kept = sorted(path.parent.glob(f"*{SUFFIX}"), key=lambda file: file.stat().st_mtime_ns)
        for old in kept[:-KEPT]:
            old.unlink(missing_ok=True)

    def _path(self, request: Request) -> Path:
        return self.state / FOLDER / f"{request.study.digest[:32]}{SUFFIX}"


def check_layout(model: Arrays, layout: Mapping[str, Layout]) -> None:
    """Refuse tensors of other names, shapes or kinds than the study's.

    Raises:
        RefusalError: with no more than that.
    """
    if layout_of(model) != dict(layout):
        raise RefusalError("study", "the weights do not fit the study's model")


def check_beginning(study: Study, request: Request, weights: Arrays) -> None:
    """Refuse to train, or to test in an ensemble, other weights than the study's `begins_with`.

    weights: of the request's round, whole. Those of a later round are what the sites made of them.

    Raises:
        RefusalError: the centre sent others than this site's data officer has approved.
    """
    if study.begins_with is None or (request.round != 1 and study.model.members is None):
        return
    if digest_of(weights) != study.begins_with:
        raise RefusalError(
            "weights",
            "the weights are not those that the study begins with; ask the centre for these",
        )
