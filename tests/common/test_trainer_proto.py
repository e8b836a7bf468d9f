import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MADE = ("trainer_pb2.py", "trainer_pb2.pyi", "trainer_pb2_grpc.py")


def test_the_committed_python_is_what_the_contract_generates(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools")
    out = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    words = [sys.executable, "-m", "grpc_tools.protoc", "-I.", *out, "common/trainer.proto"]
    subprocess.run(words, check=True, cwd=ROOT)
    for name in MADE:
        made, committed = tmp_path / "common" / name, ROOT / "common" / name
        assert made.read_text() == committed.read_text(), f"{name}: copy {made} over it"
