"""The model that a round begins with, as it came or as the step from the one that came before."""

from dataclasses import dataclass
from pathlib import Path

from common.bodies import MessageError
from common.compression import moved_by
from common.compression_config import CodecConfig
from common.contract import RefusalError, Request
from common.state import Arrays, arrays_of, digest_of, tensors_of
from common.tensor_files import read_tensors, write_tensors

FILE = "model_of_round.safetensors"


@dataclass(frozen=True)
class Arrivals:
    """Keeps the model of the last round, where the study sends steps."""

    folder: Path

    def model(self, request: Request, weights: Arrays, codec: CodecConfig) -> Arrays:
        """Return the model of the request's round; it is kept for the next.

        Raises:
            RefusalError: the step leads from a model that this site has not, or is none.
        """
        known = self._kept(request)
        asked = digest_of(weights)
        if request.before is None:
            model = weights
        elif known is not None and known[1] == asked:
            # The same question again: the model has been moved.
            return known[0]
        elif known is None or digest_of(known[0]) != request.before:
            raise RefusalError(
                "weights",
                "this site has not the model that the weights of this round lead on from; it gets "
                "the whole in the next",
            )
        else:
            try:
                model = dict(moved_by(known[0], weights, codec))
            except MessageError as error:
                raise RefusalError("weights", "the weights of this round cannot be read") from error
        about = {"study": request.study.digest, "from": asked}
        write_tensors(self.folder / FILE, tensors_of(model), about)
        return model

    def _kept(self, request: Request) -> tuple[Arrays, str] | None:
        """Return the model that was kept, and the digest of what brought it."""
        path = self.folder / FILE
        if not path.exists():
            return None
        tensors, about = read_tensors(path)
        if about["study"] != request.study.digest:
            return None
        return arrays_of(tensors), str(about["from"])
