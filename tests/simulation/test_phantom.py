"""Laws of the digital head."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from simulation.phantom import CaseMix, make_anatomy, smooth_field
from simulation.tissues import RELAXATION, Tissue

COARSE = {"shape": (72, 72, 12), "spacing_mm": (3.0, 3.0, 2.5)}


def share(labels: np.ndarray, tissue: Tissue) -> float:
    return float((labels == tissue).sum() / (labels != Tissue.AIR).sum())


def test_equal_generators_give_equal_patients() -> None:
    first, second = (make_anatomy(CaseMix(), np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first.labels_XYZ, second.labels_XYZ)
    assert first.age_years == second.age_years


def test_different_patients_differ() -> None:
    rng = np.random.default_rng(0)
    first, second = (make_anatomy(CaseMix(), rng, **COARSE) for _ in range(2))
    assert (first.labels_XYZ != second.labels_XYZ).mean() > 0.05


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32), age=st.floats(20, 90))
def test_every_head_has_every_tissue_in_plausible_shares(seed: int, age: float) -> None:
    case = CaseMix(age_mean=age, lesions_mean=20)
    labels = make_anatomy(case, np.random.default_rng(seed), **COARSE).labels_XYZ
    assert 0.02 < share(labels, Tissue.CSF) < 0.35
    assert 0.15 < share(labels, Tissue.GREY) < 0.45
    assert 0.15 < share(labels, Tissue.WHITE) < 0.60
    assert 0 < share(labels, Tissue.LESION) < 0.15


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_the_head_fits_the_field_of_view_and_the_skull_has_no_hole(seed: int) -> None:
    labels = make_anatomy(CaseMix(), np.random.default_rng(seed)).labels_XYZ
    border = labels.copy()
    border[1:-1, 1:-1] = Tissue.AIR
    assert not border.any()
    inside = np.isin(labels, [Tissue.CSF, Tissue.GREY, Tissue.WHITE, Tissue.LESION])
    next_to_inside = ndimage.binary_dilation(inside, np.ones((3, 3, 1))) & ~inside
    assert (labels[next_to_inside] == Tissue.SKULL).all()


def test_no_lesions_on_average_means_no_lesions() -> None:
    labels = make_anatomy(CaseMix(lesions_mean=0), np.random.default_rng(1), **COARSE).labels_XYZ
    assert not (labels == Tissue.LESION).any()


def test_lesions_replace_white_matter_only() -> None:
    ill, healthy = (
        make_anatomy(CaseMix(lesions_mean=mean), np.random.default_rng(5)).labels_XYZ
        for mean in (15.0, 0.0)
    )
    lesion = ill == Tissue.LESION
    assert lesion.any()
    assert (healthy[lesion] == Tissue.WHITE).all()
    np.testing.assert_array_equal(ill[~lesion], healthy[~lesion])


def test_lesions_are_of_the_size_that_the_case_mix_says() -> None:
    case = CaseMix(lesions_mean=2, lesion_size_mm=8, lesion_size_spread=0)
    diameters = []
    for seed in range(25):
        lesion = make_anatomy(case, np.random.default_rng(seed)).labels_XYZ == Tissue.LESION
        parts, count = ndimage.label(lesion)
        volumes_mm3 = ndimage.sum_labels(lesion, parts, range(1, count + 1)) * 1.5 * 1.5
        diameters.extend(np.cbrt(6 * volumes_mm3 / np.pi))
    assert 6.0 < np.median(diameters) < 9.0


def test_lesions_are_nearer_to_the_ventricles_than_white_matter_is() -> None:
    distances, elsewhere = [], []
    for seed in range(6):
        labels = make_anatomy(CaseMix(lesions_mean=15), np.random.default_rng(seed)).labels_XYZ
        middle = np.zeros(labels.shape, bool)
        middle[50:94, 45:100] = True
        to_fluid = ndimage.distance_transform_edt((labels != Tissue.CSF) | ~middle)
        distances.append(to_fluid[labels == Tissue.LESION].mean())
        elsewhere.append(to_fluid[labels == Tissue.WHITE].mean())
    assert np.mean(distances) < 0.75 * np.mean(elsewhere)


def test_fluid_grows_with_age() -> None:
    def fluid(age: float) -> float:
        case = CaseMix(age_mean=age, age_spread=0)
        return float(
            np.mean(
                [
                    share(make_anatomy(case, np.random.default_rng(s)).labels_XYZ, Tissue.CSF)
                    for s in range(4)
                ]
            )
        )

    assert fluid(25) < fluid(50) < fluid(80)


def test_age_follows_the_case_mix_and_stays_adult() -> None:
    ages = [
        make_anatomy(
            CaseMix(age_mean=30, age_spread=40), np.random.default_rng(s), **COARSE
        ).age_years
        for s in range(20)
    ]
    assert min(ages) >= 18
    assert max(ages) <= 95
    assert len(set(ages)) > 10


def test_smooth_field_has_unit_variance_at_every_voxel_and_varies_slowly() -> None:
    rng = np.random.default_rng(0)
    fields = np.stack([smooth_field(rng, (12, 9, 4), (2.0, 2.0, 2.0), 10.0) for _ in range(3000)])
    np.testing.assert_allclose(fields.var(axis=0), 1.0, atol=0.12)
    np.testing.assert_allclose(fields.mean(axis=0), 0.0, atol=0.1)
    steps = np.diff(fields, axis=1)
    assert steps.std() < 0.5
    assert np.corrcoef(fields[:, 0, 0, 0], fields[:, 11, 8, 0])[0, 1] < 0.1


def test_relaxation_is_slower_along_and_faster_across_the_stronger_field() -> None:
    for tissue in (Tissue.GREY, Tissue.WHITE, Tissue.LESION, Tissue.SCALP):
        low, high = RELAXATION[1.5][tissue], RELAXATION[3.0][tissue]
        assert high.t1_ms > low.t1_ms
        assert high.t2_star_ms < low.t2_star_ms
    for table in RELAXATION.values():
        assert set(table) == set(Tissue)
        assert all(tissue.t2_star_ms <= tissue.t2_ms for tissue in table.values())


@pytest.mark.parametrize(
    "wrong",
    [{"lesions_mean": -1}, {"lesion_size_mm": 2}, {"age_mean": 12}, {"age_spread": -1}],
)
def test_a_case_mix_that_cannot_be_names_its_field(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        CaseMix(**wrong)


def test_an_empty_grid_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"shape\[1\]=0"):
        make_anatomy(CaseMix(), np.random.default_rng(0), shape=(8, 0, 8))
