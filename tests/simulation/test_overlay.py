"""Laws of a scanner laid over a real image."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulation.overlay import overlay
from simulation.scanner import ScannerConfig, tissue_signals
from simulation.tissues import Tissue

PLAIN = {"name": "plain", "field_t": 1.5, "sequence": "spin_echo", "te_ms": 100.0, "tr_ms": 4000.0}


def plain(**changes: object) -> ScannerConfig:
    return ScannerConfig(**{**PLAIN, **changes})  # type: ignore[arg-type]


def real_like() -> np.ndarray:
    """A T1-like picture, odd sizes: dark CSF, middling grey, bright white matter, black air."""
    image = np.zeros((21, 17, 9), np.float32)
    image[3:18, 3:14] = 100.0
    image[6:18, 3:14] = 300.0
    image[9:18, 3:14] = 500.0
    return image


def perfect(**changes: object) -> ScannerConfig:
    fine = {"bias_strength": 0.0, "noise_std": 0.0, "in_plane_mm": 1.0, "slice_mm": 1.0}
    return plain(**{**fine, "gain": 1.0, **changes})


def test_overlay_moves_dark_middle_and_bright_to_the_tissues_signals() -> None:
    scanner = perfect()
    seen = overlay(real_like(), (1.0, 1.0, 1.0), scanner, np.random.default_rng(0))
    signals = tissue_signals(scanner)
    for at, tissue in ((4, Tissue.CSF), (15, Tissue.WHITE)):
        np.testing.assert_allclose(seen[at, 5], signals[tissue], rtol=1e-4)
    np.testing.assert_allclose(seen[0], 0.0, atol=1e-6)
    # T2-weighted: the order of a T1-like image is turned round.
    assert seen[4, 5, 0] > seen[7, 5, 0] > seen[15, 5, 0]


def test_overlay_does_not_depend_on_the_real_images_units() -> None:
    scanner = dataclasses.replace(perfect(), bias_strength=0.3, noise_std=0.05)
    one, many = (
        overlay(k * real_like(), (1.0, 1.0, 1.0), scanner, np.random.default_rng(4))
        for k in (1.0, 8.0)
    )
    np.testing.assert_allclose(one, many, rtol=1e-4)


@settings(max_examples=20, deadline=None)
@given(in_plane_mm=st.floats(0.5, 8.0), slice_mm=st.floats(0.5, 12.0))
def test_overlay_keeps_the_grid(in_plane_mm: float, slice_mm: float) -> None:
    scanner = perfect(in_plane_mm=in_plane_mm, slice_mm=slice_mm)
    seen = overlay(real_like(), (1.0, 1.2, 2.0), scanner, np.random.default_rng(0))
    assert seen.shape == (21, 17, 9)
    assert np.isfinite(seen).all()


def test_overlay_with_a_coarse_scanner_loses_detail() -> None:
    checks = (np.indices((32, 32, 4)).sum(axis=0) % 2 * 100.0 + 50.0).astype(np.float32)
    sharp, blurred = (
        overlay(checks, (1.0, 1.0, 1.0), perfect(in_plane_mm=mm), np.random.default_rng(0))
        for mm in (1.0, 3.0)
    )
    assert blurred.std() < 0.01 * sharp.std()


def test_overlay_of_a_flat_image_is_finite() -> None:
    flat = np.full((8, 8, 4), 7.0, np.float32)
    seen = overlay(flat, (1.0, 1.0, 1.0), plain(), np.random.default_rng(0))
    assert np.isfinite(seen).all()


@pytest.mark.parametrize("bad", [np.ones((4, 4)), np.full((4, 4, 4), np.nan)])
def test_overlay_refuses_what_is_no_volume(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="3-D"):
        overlay(bad.astype(np.float32), (1.0, 1.0, 1.0), plain(), np.random.default_rng(0))
