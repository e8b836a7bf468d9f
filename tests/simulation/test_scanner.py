"""Laws of the scanner: signals, resolution, noise, bias, orientation."""

import itertools
import math
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from simulation.phantom import Anatomy, CaseMix, make_anatomy
from simulation.scanner import (
    Acquisition,
    ScannerConfig,
    acquire,
    add_rician_noise,
    average_slices,
    bias_field,
    flair_signal,
    spin_echo_signal,
    spoiled_gradient_echo_signal,
    tissue_signals,
    truncate_kspace,
)
from simulation.tissues import Relaxation, Tissue

CONFIGS = Path(__file__).parents[2] / "configs" / "simulation" / "scanner"
WHITE = Relaxation(500.0, 70.0, 61.0, 0.77)
PLAIN = {"name": "plain", "field_t": 1.5, "sequence": "spin_echo", "te_ms": 100.0, "tr_ms": 4000.0}
ORIENTATIONS = [
    "".join(letters)
    for axes in itertools.permutations(("RL", "AP", "SI"))
    for letters in itertools.product(*axes)
]


def plain(**changes: object) -> ScannerConfig:
    return ScannerConfig(**{**PLAIN, **changes})  # type: ignore[arg-type]


def patient(seed: int = 0) -> Anatomy:
    case = CaseMix(lesions_mean=12)
    return make_anatomy(case, np.random.default_rng(seed), (72, 72, 15), (3.0, 3.0, 2.0))


def canonical(array: np.ndarray, affine: np.ndarray) -> nib.Nifti1Image:
    return nib.as_closest_canonical(nib.Nifti1Image(array, affine))


def centre_mm(scan: Acquisition) -> np.ndarray:
    """World position of the mask's centre of mass."""
    return nib.affines.apply_affine(scan.affine, np.argwhere(scan.mask_XYZ)).mean(axis=0)


def test_spin_echo_by_hand() -> None:
    expected = 0.77 * (1 - math.exp(-1.0)) * math.exp(-0.2)
    assert spin_echo_signal(WHITE, te_ms=14, tr_ms=500) == pytest.approx(expected)
    assert expected == pytest.approx(0.3985, abs=1e-4)


def test_spin_echo_without_decay_and_fully_recovered_is_proton_density() -> None:
    assert spin_echo_signal(WHITE, te_ms=0, tr_ms=1e9) == pytest.approx(0.77)


def test_flair_by_hand() -> None:
    expected = 0.77 * (1 - 2 * math.exp(-5.0) + math.exp(-18.0)) * math.exp(-1.5)
    assert flair_signal(WHITE, te_ms=105, tr_ms=9000, ti_ms=2500) == pytest.approx(expected)


@given(t1=st.floats(200, 5000), tr=st.floats(2000, 20000))
def test_flair_is_zero_at_the_inversion_time_that_nulls_the_tissue(t1: float, tr: float) -> None:
    null_ms = t1 * math.log(2 / (1 + math.exp(-tr / t1)))
    tissue = Relaxation(t1, 80.0, 50.0, 1.0)
    assert flair_signal(tissue, te_ms=0, tr_ms=tr, ti_ms=null_ms) == pytest.approx(0, abs=1e-9)


def test_flair_at_once_after_inversion_without_wait_is_full_magnitude() -> None:
    assert flair_signal(WHITE, te_ms=0, tr_ms=1e9, ti_ms=0) == pytest.approx(0.77)


def test_spoiled_gradient_echo_by_hand() -> None:
    e1 = math.exp(-25 / 500)
    steady = math.sin(math.pi / 6) * (1 - e1) / (1 - math.cos(math.pi / 6) * e1)
    expected = 0.77 * steady * math.exp(-5 / 61)
    got = spoiled_gradient_echo_signal(WHITE, te_ms=5, tr_ms=25, flip_deg=30)
    assert got == pytest.approx(expected)
    assert expected == pytest.approx(0.0982, abs=1e-4)


@given(tr=st.floats(5, 500))
def test_spoiled_gradient_echo_is_greatest_at_the_ernst_angle(tr: float) -> None:
    ernst = math.degrees(math.acos(math.exp(-tr / WHITE.t1_ms)))
    at_ernst, below, above = (
        spoiled_gradient_echo_signal(WHITE, 0, tr, ernst * k) for k in (1.0, 0.9, 1.1)
    )
    assert at_ernst >= max(below, above)


def test_spoiled_gradient_echo_at_90_degrees_is_saturation_recovery() -> None:
    short_t2 = WHITE._replace(t2_ms=WHITE.t2_star_ms)
    assert spoiled_gradient_echo_signal(WHITE, 10, 300, 90) == pytest.approx(
        spin_echo_signal(short_t2, 10, 300)
    )


@given(depth=st.integers(1, 20), thickness=st.integers(1, 20), seed=st.integers(0, 99))
def test_slice_averaging_is_the_naive_mean(depth: int, thickness: int, seed: int) -> None:
    image = np.random.default_rng(seed).random((2, 3, depth), dtype=np.float32)
    if thickness > depth:
        with pytest.raises(ValueError, match="slice_mm"):
            average_slices(image, thickness)
        return
    count = depth // thickness
    start = (depth - count * thickness) // 2
    naive = [
        image[:, :, start + k * thickness : start + (k + 1) * thickness].mean(axis=2)
        for k in range(count)
    ]
    np.testing.assert_allclose(average_slices(image, thickness), np.stack(naive, -1), rtol=1e-6)


@given(size=st.integers(4, 40), data=st.data())
def test_truncation_preserves_the_mean(size: int, data: st.DataObject) -> None:
    kept = data.draw(st.integers(1, size))
    target = data.draw(st.sampled_from([kept, size]))
    image = np.random.default_rng(size).random((3, size, 2), dtype=np.float32)
    short = truncate_kspace(image, kept, target, axis=1)
    assert short.shape == (3, target, 2)
    np.testing.assert_allclose(short.mean(axis=1), image.mean(axis=1), rtol=1e-4)


def test_truncation_keeps_low_frequencies_and_kills_high_ones() -> None:
    at = np.arange(64)[:, None, None] / 64
    slow, fast = (np.cos(2 * np.pi * k * at).astype(np.float32) for k in (5, 20))
    at_short = np.arange(32)[:, None, None] / 32
    expected = np.cos(2 * np.pi * 5 * at_short)
    np.testing.assert_allclose(truncate_kspace(slow + fast, 32, 32, 0), expected, atol=1e-5)
    np.testing.assert_allclose(truncate_kspace(slow + fast, 32, 64, 0), slow, atol=1e-5)


@given(size=st.integers(5, 30), data=st.data())
def test_truncation_is_the_naive_crop_of_the_centred_spectrum(
    size: int, data: st.DataObject
) -> None:
    kept = 2 * data.draw(st.integers(0, (size - 1) // 2)) + 1
    image = np.random.default_rng(kept).random((size, 1, 1), dtype=np.float32)
    spectrum = np.fft.fftshift(np.fft.fft(image[:, 0, 0]))
    low = size // 2 - kept // 2
    cropped = np.fft.ifftshift(spectrum[low : low + kept])
    naive = np.fft.ifft(cropped).real * kept / size
    np.testing.assert_allclose(truncate_kspace(image, kept, kept, 0)[:, 0, 0], naive, atol=1e-5)


def test_a_scanner_finer_than_the_anatomy_is_refused() -> None:
    with pytest.raises(ValueError, match="in_plane_mm"):
        acquire(patient(), plain(in_plane_mm=1.0, slice_mm=2.0), np.random.default_rng(0))
    with pytest.raises(ValueError, match="slice_mm"):
        acquire(patient(), plain(in_plane_mm=3.0, slice_mm=0.5), np.random.default_rng(0))


def test_pure_noise_has_the_rayleigh_mean() -> None:
    air = np.zeros((60, 60, 60), np.float32)
    noisy = add_rician_noise(air, 2.5, np.random.default_rng(0))
    assert noisy.mean() == pytest.approx(2.5 * math.sqrt(math.pi / 2), rel=5e-3)
    assert noisy.min() >= 0


def test_noise_far_below_the_signal_is_gaussian() -> None:
    flat = np.full((60, 60, 60), 100.0, np.float32)
    noisy = add_rician_noise(flat, 1.0, np.random.default_rng(0))
    assert noisy.std() == pytest.approx(1.0, rel=1e-2)
    # Second order in std / signal: E = s + std^2 / (2 s).
    assert noisy.mean() == pytest.approx(100.005, abs=0.01)


def test_no_noise_leaves_the_magnitude() -> None:
    image = np.array([[[1.0, -2.0, 0.0]]], np.float32)
    np.testing.assert_array_equal(
        add_rician_noise(image, 0.0, np.random.default_rng(0)), np.abs(image)
    )


@given(strength=st.floats(0, 0.9), seed=st.integers(0, 99))
def test_bias_departs_from_one_by_its_strength_at_most_and_there(
    strength: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    field = bias_field((24, 24, 5), (9.0, 9.0, 6.0), strength, rng)
    assert np.abs(field - 1).max() == pytest.approx(strength, abs=1e-5)
    assert np.abs(np.diff(field, axis=0)).max() <= 0.6 * strength + 1e-5


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_landmark_has_one_world_position_in_every_orientation(orientation: str) -> None:
    labels = np.full((24, 20, 12), Tissue.WHITE, np.uint8)
    labels[14:18, 4:8, 6:9] = Tissue.LESION
    anatomy = Anatomy(labels_XYZ=labels, spacing_mm=(3.0, 3.0, 2.0), age_years=40.0)
    # Centre of voxels 14..17, 4..7, 6..8 of a grid whose centre is the origin.
    expected = [(15.5 - 11.5) * 3.0, (5.5 - 9.5) * 3.0, (7.0 - 5.5) * 2.0]
    scan = acquire(
        anatomy,
        plain(in_plane_mm=3.0, slice_mm=2.0, orientation=orientation),
        np.random.default_rng(0),
    )
    np.testing.assert_allclose(centre_mm(scan), expected, atol=1e-6)
    assert "".join(nib.aff2axcodes(scan.affine)) == orientation
    np.testing.assert_allclose(nib.affines.voxel_sizes(scan.affine), scan.spacing_mm)
    hottest = scan.image_XYZ > 0.6 * scan.image_XYZ.max()
    np.testing.assert_array_equal(hottest, scan.mask_XYZ.astype(bool))


def test_orientation_changes_the_array_and_nothing_in_the_world() -> None:
    reference, other = (
        acquire(patient(), plain(in_plane_mm=4.5, orientation=code), np.random.default_rng(1))
        for code in ("RAS", "LPS")
    )
    assert (reference.image_XYZ != other.image_XYZ).any()
    turned = canonical(other.image_XYZ, other.affine)
    np.testing.assert_array_equal(turned.get_fdata(dtype=np.float32), reference.image_XYZ)
    np.testing.assert_allclose(turned.affine, reference.affine)


@pytest.mark.parametrize(("in_plane_mm", "slice_mm"), [(3.0, 2.0), (4.5, 4.0), (5.4, 6.0)])
def test_lesions_stay_where_they_are_at_every_resolution(
    in_plane_mm: float, slice_mm: float
) -> None:
    labels = np.full((72, 72, 18), Tissue.WHITE, np.uint8)
    labels[20:32, 40:52, 3:15] = Tissue.LESION
    anatomy = Anatomy(labels_XYZ=labels, spacing_mm=(3.0, 3.0, 2.0), age_years=40.0)
    scanner = plain(in_plane_mm=in_plane_mm, slice_mm=slice_mm)
    scan = acquire(anatomy, scanner, np.random.default_rng(0))
    expected = [(25.5 - 35.5) * 3.0, (45.5 - 35.5) * 3.0, (8.5 - 8.5) * 2.0]
    assert np.abs(centre_mm(scan) - expected).max() < in_plane_mm / 2
    volume_mm3 = scan.mask_XYZ.sum() * np.prod(scan.spacing_mm)
    assert volume_mm3 == pytest.approx(36 * 36 * 24, rel=0.25)


def test_two_scanners_give_other_images_of_one_anatomy_and_one_mask_in_the_world() -> None:
    flair = {"sequence": "flair", "field_t": 3.0, "ti_ms": 2480.0, "tr_ms": 9000.0}
    first, second = (
        acquire(patient(), plain(in_plane_mm=3.0, slice_mm=6.0, **changes), rng)
        for changes, rng in (
            ({}, np.random.default_rng(0)),
            ({**flair, "orientation": "LPS"}, np.random.default_rng(1)),
        )
    )
    masks = [canonical(s.mask_XYZ, s.affine) for s in (first, second)]
    np.testing.assert_array_equal(masks[0].get_fdata(), masks[1].get_fdata())
    np.testing.assert_allclose(masks[0].affine, masks[1].affine)
    assert first.mask_XYZ.any()
    seen = canonical(second.image_XYZ, second.affine).get_fdata()
    assert abs(np.corrcoef(first.image_XYZ.ravel(), seen.ravel())[0, 1]) < 0.9


def test_mask_and_image_share_their_grid() -> None:
    scan = acquire(patient(), plain(in_plane_mm=5.0), np.random.default_rng(0))
    assert scan.mask_XYZ.shape == scan.image_XYZ.shape == (43, 43, 7)
    assert scan.spacing_mm == pytest.approx((216 / 43, 216 / 43, 4.0))
    assert scan.image_XYZ.dtype == np.float32
    assert set(np.unique(scan.mask_XYZ)) == {0, 1}


def test_gain_scales_the_stored_values() -> None:
    one, ten = (
        acquire(patient(), plain(in_plane_mm=3.0, gain=g), np.random.default_rng(0)).image_XYZ
        for g in (1.0, 10.0)
    )
    np.testing.assert_allclose(ten, 10 * one, rtol=1e-5)


def test_a_perfect_scanner_shows_each_tissue_at_its_signal() -> None:
    scanner = plain(bias_strength=0.0, noise_std=0.0, in_plane_mm=3.0, slice_mm=2.0, gain=1.0)
    anatomy = patient()
    image = acquire(anatomy, scanner, np.random.default_rng(0)).image_XYZ
    for tissue, signal in tissue_signals(scanner).items():
        np.testing.assert_allclose(image[anatomy.labels_XYZ == tissue], signal, rtol=1e-5)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_named_scanner_shows_lesions_three_sigma_from_white_matter(path: Path) -> None:
    assert path.read_text().startswith("# ")
    scanner = ScannerConfig(**yaml.safe_load(path.read_text()))
    assert scanner.name == path.stem
    signals = tissue_signals(scanner)
    lesion, white = signals[Tissue.LESION], signals[Tissue.WHITE]
    assert abs(lesion - white) > 3 * scanner.noise_std * white
    t1_weighted = scanner.sequence == "spoiled_gradient_echo" or scanner.tr_ms < 1000
    assert (lesion < white) == t1_weighted
    if scanner.sequence == "flair":
        assert signals[Tissue.CSF] < 0.1 * white


def test_there_are_six_named_scanners() -> None:
    assert len(list(CONFIGS.glob("*.yaml"))) == 6


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"field_t": 7.0}, "field_t=7.0"),
        ({"sequence": "epi"}, "sequence='epi'"),
        ({"te_ms": 5000.0}, "te_ms=5000.0"),
        ({"ti_ms": 100.0}, "ti_ms=100.0 has no effect"),
        ({"flip_deg": 30.0}, "flip_deg=30.0 has no effect"),
        ({"sequence": "flair"}, "ti_ms=None"),
        ({"sequence": "flair", "ti_ms": 5000.0}, "ti_ms=5000.0"),
        ({"sequence": "spoiled_gradient_echo", "flip_deg": 120.0}, "flip_deg=120.0"),
        ({"bias_strength": 1.0}, "bias_strength=1.0"),
        ({"noise_std": -0.1}, "noise_std=-0.1"),
        ({"gain": 0.0}, "gain=0.0"),
        ({"orientation": "RLS"}, "orientation='RLS'"),
        ({"orientation": "ras"}, "orientation='ras'"),
        ({"orientation": "RA"}, "orientation='RA'"),
    ],
)
def test_a_setting_that_cannot_be_is_named(changes: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        plain(**changes)
