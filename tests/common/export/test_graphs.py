"""An exported network answers as the network does, for any number of images."""

import io
import json
from pathlib import Path
from zipfile import ZipFile

import onnx as onnx_files
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import common
from common.export.graphs import MARK, ExportError, Graph, images_for, onnx, program, torchscript
from common.finished import Finished, load_finished
from tests.builders import PICTURES, SLICES
from tests.finished import finished_run

MADE = {"wardround.study": "tiny", "wardround.rounds": "2"}
SCATTERING = ("model=scattering", "task=classification", "data=pictures", "data.size=[16,16]")


def study(folder: Path, *overrides: str) -> Finished:
    return load_finished(finished_run(folder, *overrides))


def asked(finished: Finished, count: int) -> tuple[Tensor, Tensor]:
    images = images_for(finished, count)
    with torch.no_grad():
        return images, finished.network(images)


@pytest.mark.parametrize("overrides", [SLICES, SCATTERING])
def test_onnx_runtime_gives_the_same_logits(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    finished = study(tmp_path, *overrides)
    content = onnx(finished, MADE)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    for count in (1, 5):
        images, expected = asked(finished, count)
        (told,) = session.run(["logits"], {"image": images.numpy()})
        torch.testing.assert_close(torch.from_numpy(told), expected, rtol=0, atol=1e-4)
    model = onnx_files.load_from_string(content)
    assert {entry.key: entry.value for entry in model.metadata_props} == MADE


def test_torchscript_gives_the_same_logits_and_carries_the_mark(tmp_path: Path) -> None:
    finished = study(tmp_path, *SLICES)
    extra = {MARK: ""}
    read = torch.jit.load(io.BytesIO(torchscript(finished, MADE)), _extra_files=extra)
    images, expected = asked(finished, 4)
    torch.testing.assert_close(read(images), expected)
    assert json.loads(extra[MARK]) == MADE


def test_a_program_gives_the_same_logits_and_carries_the_mark(tmp_path: Path) -> None:
    finished = study(tmp_path, *PICTURES)
    extra = {MARK: ""}
    read = torch.export.load(io.BytesIO(program(finished, MADE)), extra_files=extra)
    images, expected = asked(finished, 4)
    torch.testing.assert_close(read.module()(images), expected)
    assert json.loads(extra[MARK]) == MADE


@pytest.mark.parametrize("graph", [torchscript, program, onnx])
def test_a_file_names_no_folder_of_the_machine_that_made_it(tmp_path: Path, graph: Graph) -> None:
    content = graph(study(tmp_path, *SLICES), MADE)
    parts = [content]
    if graph is not onnx:
        with ZipFile(io.BytesIO(content)) as file:
            parts += [file.read(entry) for entry in file.infolist()]
    for folder in (Path(torch.__file__).parents[1], Path(common.__file__).parents[1]):
        assert not any(str(folder).encode() in part for part in parts)


class CountsImages(nn.Module):
    """A network whose answer hangs on how many images it is asked about, in Python."""

    def forward(self, images: Tensor) -> Tensor:
        return images * len(images.tolist())


@pytest.mark.parametrize("graph", [torchscript, program])
def test_what_a_graph_cannot_hold_is_refused_in_words(tmp_path: Path, graph: Graph) -> None:
    finished = study(tmp_path, *PICTURES)
    odd = Finished(**{**vars(finished), "network": CountsImages().eval()})
    with pytest.raises(ExportError, match="cnn cannot be exported"):
        graph(odd, MADE)
