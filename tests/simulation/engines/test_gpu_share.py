import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from client.placement import SHARE
from common.config import load_study
from common.schema import SettingsError
from simulation.engines.gpu_share import (
    CONTEXT_BYTES,
    measured_gpu_share,
    share_of,
    step_bytes,
)

GB = 10**9
STUDY = ("model=unet", "data=slices", "training.batch_size=4")


@given(step=st.integers(0, 60 * GB), whole=st.integers(8 * GB, 200 * GB))
def test_as_many_as_are_handed_a_share_fit_and_one_more_does_not(step: int, whole: int) -> None:
    taken = CONTEXT_BYTES + step + SHARE * whole
    if taken > whole:
        with pytest.raises(SettingsError, match=r"lower training\.batch_size"):
            share_of(step, whole)
        return
    actors = round(1 / share_of(step, whole))
    assert actors * taken <= whole < (actors + 1) * taken


def test_a_larger_batch_takes_more_and_the_weights_count_once() -> None:
    small, twice, thrice = (
        step_bytes(load_study([*STUDY, f"training.batch_size={batch}"]), 80 * GB)
        for batch in (4, 8, 12)
    )
    assert small < twice < thrice
    # An image more takes the same each time.
    assert thrice - twice == twice - small


def test_with_privacy_the_images_of_a_pass_count() -> None:
    private = [*STUDY, "privacy=patient_eps8"]
    few, more = (
        step_bytes(load_study([*private, f"privacy.physical_batch_size={images}"]), 80 * GB)
        for images in (2, 4)
    )
    assert few < more
    # Half of a small GPU holds no more images, whatever the study asks.
    some = load_study([*private, "privacy.physical_batch_size=1000"])
    assert step_bytes(some, GB // 10) < step_bytes(some, GB)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_the_way_out_is_named() -> None:
    with pytest.raises(SettingsError, match="give 0 to train on the CPU"):
        measured_gpu_share(load_study(STUDY))
