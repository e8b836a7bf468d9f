import pytest
import torch
from torch import Tensor, nn

from client.cohort import Samples
from simulation.benchmark.pointing import cases_of, rows_of
from tests.builders import SLICES, study_from


class Bright(nn.Module):
    """Finds class 1 where it is bright, and nothing elsewhere."""

    def __init__(self, sign: float = 1.0) -> None:
        super().__init__()
        self.sign = sign
        self.look = nn.Conv2d(1, 1, 3, padding=1, bias=False)
        nn.init.constant_(self.look.weight, 1.0)

    def forward(self, images: Tensor) -> Tensor:
        seen = self.sign * (self.look(images) - 4.0)
        return torch.cat([-seen, seen], 1)


def samples() -> Samples:
    """Three patients of two slices: a small and a larger lesion, one, and none."""
    targets = torch.zeros(6, 1, 16, 16, dtype=torch.int64)
    targets[0, :, 2:4, 2:4] = 1
    targets[1, :, 8:11, 5:8] = 1
    targets[3, :, 3:6, 9:12] = 1
    return Samples(
        images=targets.float(),
        targets=targets,
        patients=("a", "a", "b", "b", "c", "c"),
        volumes=(0, 0, 1, 1, 2, 2),
        spacing_mm=((1.0, 1.0, 1.0),) * 6,
    )


def test_each_patient_with_a_lesion_is_shown_where_it_is_largest() -> None:
    found = cases_of(samples())
    assert len(found) == 2
    for (image_1CS, lesion_S), place in zip(found, (1, 3), strict=True):
        assert torch.equal(image_1CS[0], samples().images[place])
        assert torch.equal(lesion_S, samples().targets[place, 0] == 1)


@pytest.mark.parametrize(("sign", "hits"), [(1.0, 1.0), (-1.0, 0.0)])
def test_a_network_that_finds_the_lesions_hits_and_one_that_finds_the_rest_does_not(
    sign: float, hits: float
) -> None:
    study = study_from(*SLICES)
    rows = {
        str(row["name"]): row for row in rows_of("it", Bright(sign), study, cases_of(samples()))
    }
    for method in ("occlusion", "integrated_gradients"):
        row = rows[f"it, {method}"]
        assert row["cases"] == 2
        assert row["hits"] == hits
        assert row["chance"] == pytest.approx(9 / 256)
