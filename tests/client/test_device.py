import pytest
import torch

from client.device import usable_device
from common.schema import SettingsError


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cpu:0", "", "CUDA"])
def test_a_name_of_no_device_is_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(SettingsError, match="give cpu, cuda or cuda:N"):
        usable_device(name)


def test_a_gpu_that_is_not_here_is_refused_and_the_processor_is_here() -> None:
    absent = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(SettingsError, match=f"{absent}' is not here: PyTorch sees"):
        usable_device(absent)
    assert usable_device("cpu") == torch.device("cpu")
