import subprocess
import sys
from contextlib import closing
from pathlib import Path

import grpc
import pytest

from common import trainer_pb2
from common.trainer_rpc import SERVICE, TrainerStub

ROOT = Path(__file__).parents[2]
MADE = ("trainer_pb2.py", "trainer_pb2.pyi")


def test_the_committed_python_is_what_the_contract_generates(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools")
    out = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi")]
    words = [sys.executable, "-m", "grpc_tools.protoc", "-I.", *out, "common/trainer.proto"]
    subprocess.run(words, check=True, cwd=ROOT)
    for name in MADE:
        made, committed = tmp_path / "common" / name, ROOT / "common" / name
        assert made.read_text() == committed.read_text(), f"{name}: copy {made} over it"


def test_the_calls_are_those_of_the_contract() -> None:
    service = trainer_pb2.DESCRIPTOR.services_by_name["Trainer"]
    assert service.full_name == SERVICE
    with closing(grpc.insecure_channel("unix:nowhere")) as channel:
        stub = TrainerStub(channel)
    assert {method.name for method in service.methods} == set(vars(stub))
