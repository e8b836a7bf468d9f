"""A network as a file that other programs run: TorchScript, a torch.export program, ONNX.

Each file is read again and must answer as the network does, before it is given out. Images have the
study's size and any number stands in a batch. Shape suffix: B images, C channels, S spatial axes.
"""

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from typing import Any
from zipfile import ZipFile, ZipInfo

import torch
from torch import Tensor, nn

from common.finished import Finished
from common.seeding import generator

Graph = Callable[[Finished, Mapping[str, str]], bytes]
"""(study, its mark) -> the content of a file that carries the mark."""
TOLERANCE = 1e-4
"""Largest difference of a logit; the sums of another program are in another order."""
MOST_IMAGES = 4096
MARK = "wardround.json"
"""Name under which a TorchScript file and a torch.export program carry the mark."""
_JIT: Any = torch.jit
_EXPORTED, _ASKED = 2, 3
"""Images of the batch that a graph is made with, and of another that it is asked with."""


class ExportError(ValueError):
    """A network that cannot be made into such a file, here or at all; the text says why."""


def torchscript(finished: Finished, mark: Mapping[str, str]) -> bytes:
    """Return the network as TorchScript, by tracing it."""
    with _quiet(), _failing("TorchScript", finished):
        made = _JIT.trace(finished.network, images_for(finished, _EXPORTED), check_trace=False)
        saved = io.BytesIO()
        _JIT.save(made, saved, _extra_files={MARK: json.dumps(dict(mark))})
        content = _without_sources(saved)
        read = _JIT.load(io.BytesIO(content))
        _check(finished, "TorchScript", lambda images: read(images))
    return content


def program(finished: Finished, mark: Mapping[str, str]) -> bytes:
    """Return the network as a program of torch.export (a .pt2 file)."""
    with _quiet(), _failing("torch.export", finished):
        made = torch.export.export(
            finished.network, (images_for(finished, _EXPORTED),), dynamic_shapes=_any_batch()
        )
        for node in made.graph.nodes:
            # It names this machine's folders.
            node.meta.pop("stack_trace", None)
        content = io.BytesIO()
        torch.export.save(made, content, extra_files={MARK: json.dumps(dict(mark))})
        read = torch.export.load(io.BytesIO(content.getvalue())).module()
        _check(finished, "torch.export", lambda images: read(images))
    return content.getvalue()


def onnx(finished: Finished, mark: Mapping[str, str]) -> bytes:
    """Return the network as ONNX, by way of torch.export: `image` in, `logits` out.

    Raises:
        ExportError: the network has no such graph, or the libraries are not installed.
    """
    for needed in ("onnx", "onnxruntime", "onnxscript"):
        if find_spec(needed) is None:
            raise ExportError(
                f"ONNX needs {needed}, which is not installed; pip install 'wardround[export]'"
            )
    import onnx as files
    import onnxruntime

    with _quiet(), _failing("ONNX", finished):
        made = torch.onnx.export(
            finished.network,
            (images_for(finished, _EXPORTED),),
            dynamo=True,
            verbose=False,
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=_any_batch(),
        )
        assert made is not None
        model = made.model_proto
        for node in model.graph.node:
            # They name this machine's folders.
            del node.metadata_props[:]
        files.helper.set_model_props(model, dict(mark))
        content: bytes = model.SerializeToString()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        _check(
            finished,
            "ONNX Runtime",
            lambda images: torch.from_numpy(session.run(None, {"image": images.numpy()})[0]),
        )
    return content


def _without_sources(saved: io.BytesIO) -> bytes:
    """Return a TorchScript file without the lines of Python that it was traced from.

    Only its errors quote them, and they name this machine's folders.
    """
    content = io.BytesIO()
    with ZipFile(saved) as whole, ZipFile(content, "w") as kept:
        for entry in whole.infolist():
            if not entry.filename.endswith(".debug_pkl"):
                kept.writestr(ZipInfo(entry.filename), whole.read(entry))
    return content.getvalue()


def images_for(finished: Finished, count: int) -> Tensor:
    """Return [B, C, *S] of noise, as a study's images are after they are normalised."""
    data = finished.study.data
    return torch.randn(count, data.channels, *data.size, generator=generator(count))


def _any_batch() -> tuple[dict[int, object]]:
    return ({0: torch.export.Dim("batch", min=1, max=MOST_IMAGES)},)


def _check(finished: Finished, name: str, answers: Callable[[Tensor], Tensor]) -> None:
    images = images_for(finished, _ASKED)
    with torch.no_grad():
        expected, told = finished.network(images), answers(images)
    if told.shape != expected.shape:
        raise ExportError(
            f"{name} answers {_ASKED} images with shape {tuple(told.shape)}, the network with "
            f"{tuple(expected.shape)}"
        )
    apart = float((told - expected).abs().max())
    if not apart <= TOLERANCE:
        raise ExportError(f"{name} is {apart:.1e} away from the network, more than {TOLERANCE:.0e}")


@contextmanager
def _failing(name: str, finished: Finished) -> Iterator[None]:
    """Make whatever the tracer of a graph raises an ExportError."""
    model: nn.Module | str = finished.study.model.name
    try:
        yield
    except ExportError as error:
        raise ExportError(f"{model} cannot be exported: {error}") from error
    except Exception as error:
        raise ExportError(
            f"{model} cannot be exported as {name}: {type(error).__name__}: "
            f"{(str(error) or 'no reason').strip().splitlines()[0][:200]}"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the exporters say of their own insides from the person who exports."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
