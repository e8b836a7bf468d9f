import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from common.data_config import DataConfig
from common.frequencies import count_of
from common.harmonise import without_bias
from common.seeding import generator
from common.transforms import (
    MAX_BRIGHTNESS,
    MAX_CONTRAST,
    augment,
    back_to_own,
    prepare,
    prepare_whole,
)

SIDES = st.integers(1, 24)


def config(size: list[int], **settings: object) -> DataConfig:
    return DataConfig(size=size, spatial_dims=settings.pop("dims", len(size)), **settings)


def picture(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def ramp(n: int) -> np.ndarray:
    """[1, n, 4], along x the position in mm of a voxel of 1 mm, from the centre."""
    return np.broadcast_to((np.arange(n) - (n - 1) / 2)[:, None], (n, 4))[None].copy()


def batch(size: tuple[int, ...] = (32, 24), seed: int = 0) -> tuple[Tensor, Tensor]:
    images = torch.from_numpy(picture(6, 2, *size, seed=seed))
    return images, (images[:, :1] > 0.5).long()


@settings(deadline=None, max_examples=50)
@given(x=SIDES, y=SIDES, new_x=SIDES, new_y=SIDES, fit=st.sampled_from(["pad_or_crop", "resize"]))
def test_every_picture_comes_to_the_size(x: int, y: int, new_x: int, new_y: int, fit: str) -> None:
    run = prepare(config([new_x, new_y], fit=fit, spacing_mm=[0.7, 1.9]))
    image, mask, _ = run(picture(3, x, y), np.ones((1, x, y), np.int64), (1.3, 0.8))
    assert mask is not None
    assert image.shape == (3, new_x, new_y)
    assert mask.shape == (1, new_x, new_y)
    assert (image.dtype, mask.dtype) == (torch.float32, torch.int64)
    assert type(image) is Tensor
    assert type(mask) is Tensor
    assert torch.isfinite(image).all()


def test_what_needs_no_change_is_only_normalised() -> None:
    values, labels = picture(1, 8, 6), np.arange(48).reshape(1, 8, 6)
    for fit in ("pad_or_crop", "resize"):
        run = prepare(config([8, 6], fit=fit, spacing_mm=[2.0, 3.0]))
        image, mask, spacing_mm = run(values, labels, (2.0, 3.0))
        expected = (values - values.mean()) / values.std()
        np.testing.assert_allclose(image.numpy(), expected, rtol=1e-5, atol=1e-6)
        assert mask is not None
        np.testing.assert_array_equal(mask.numpy(), labels)
        assert spacing_mm == (2.0, 3.0)


@pytest.mark.parametrize("new_mm", [0.5, 0.8, 1.0])
def test_resampling_keeps_every_place_where_it_was(new_mm: float) -> None:
    run = prepare(config([40, 4], spacing_mm=[new_mm, 1.0], normalise="minmax"))
    image, _, spacing_mm = run(ramp(20), None, (1.0, 1.0))
    n = round(20 / new_mm)
    pads = (40 - n) // 2
    place_mm = (np.arange(n) - (n - 1) / 2) * new_mm
    got = image[0, pads : pads + n, 0].numpy()
    expected = np.clip(place_mm, -9.5, 9.5)
    expected = (expected - expected.min()) / (expected.max() - expected.min())
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert spacing_mm == (new_mm, 1.0)


@pytest.mark.parametrize("factor", [2, 3, 8])
def test_shrinking_skips_no_voxel(factor: int) -> None:
    """A fine chequered line has its mean after shrinking, wherever the new voxels fall."""
    fine = np.tile([0.0, 1.0], 48)[None, :, None].repeat(4, axis=2).astype(np.float32)
    fine[:, -12:] = 1.0
    fine[:, :12] = 0.0
    run = prepare(config([96 // factor, 4], fit="resize", normalise="minmax"))
    image, _, _ = run(fine, None, (1.0, 1.0))
    middle = image[0, 24 // factor : -(24 // factor), 0]
    torch.testing.assert_close(middle, torch.full_like(middle, 0.5), atol=0.13, rtol=0)


def test_masks_take_the_nearest_voxel_and_no_new_label() -> None:
    labels = np.random.default_rng(0).choice([0, 3, 7], size=(1, 11, 13))
    run = prepare(config([30, 30], spacing_mm=[0.4, 0.6]))
    _, mask, _ = run(picture(1, 11, 13), labels, (1.0, 1.0))
    assert mask is not None
    assert set(mask.unique().tolist()) <= {0, 3, 7}


def test_image_and_mask_stay_on_one_another() -> None:
    disc = np.hypot(*np.mgrid[-30:30, -20:20]) < 12
    for fit, size in (("pad_or_crop", [48, 48]), ("resize", [90, 50])):
        run = prepare(config(size, spacing_mm=[0.9, 1.2], fit=fit))
        image, mask, _ = run(disc[None].astype(np.float32), disc[None].astype(int), (1.0, 1.0))
        assert mask is not None
        inside = image > (image.min() + image.max()) / 2
        assert (inside != mask.bool()).float().mean() < 0.01


def test_resize_tells_the_new_spacing_so_that_the_width_in_mm_stays() -> None:
    run = prepare(config([16, 10], fit="resize"))
    _, _, spacing_mm = run(picture(1, 64, 30), None, (0.5, 2.0))
    assert spacing_mm == pytest.approx((64 * 0.5 / 16, 30 * 2.0 / 10))


def test_padding_is_zero_and_cropping_keeps_the_centre() -> None:
    values = picture(1, 4, 4)
    padded, _, _ = prepare(config([8, 8]))(values, None, (1.0, 1.0))
    assert (padded[:, :2] == 0).all()
    assert (padded[:, 6:] == 0).all()
    cropped, _, _ = prepare(config([2, 2]))(values, None, (1.0, 1.0))
    torch.testing.assert_close(cropped, padded[:, 3:5, 3:5])


def test_a_volume_of_a_2d_study_keeps_its_slices_and_is_normalised_as_one() -> None:
    values = picture(2, 12, 10, 7) * np.arange(1, 8)
    run = prepare(config([12, 20], spacing_mm=[1.0, 0.5], dims=2))
    image, mask, spacing_mm = run(values, np.zeros((1, 12, 10, 7), int), (1.0, 1.0, 4.0))
    assert mask is not None
    assert image.shape == (2, 12, 20, 7)
    assert mask.shape == (1, 12, 20, 7)
    assert spacing_mm == (1.0, 0.5, 4.0)
    torch.testing.assert_close(image.mean(dim=(1, 2, 3)), torch.zeros(2), atol=1e-5, rtol=0)
    assert image[..., 6].std() > 3 * image[..., 0].std()


@pytest.mark.parametrize("how", ["zscore", "minmax", "rank"])
def test_normalising_undoes_gain_and_offset_of_a_scanner(how: str) -> None:
    run = prepare(config([9, 9], normalise=how))
    plain, _, _ = run(picture(2, 9, 9), None, (1.0, 1.0))
    gained, _, _ = run(picture(2, 9, 9) * 5e5 + 7e5, None, (1.0, 1.0))
    torch.testing.assert_close(plain, gained, atol=1e-4, rtol=0)


@pytest.mark.parametrize("how", ["zscore", "minmax", "rank"])
@pytest.mark.parametrize("value", [0.0, 0.1, 1.7e6, -3.0])
def test_a_channel_without_contrast_becomes_zero(how: str, value: float) -> None:
    flat = np.full((2, 9, 7), value, np.float32)
    flat[1] = np.nextafter(flat[1], np.float32(1e9), where=np.eye(9, 7, dtype=bool), out=flat[1])
    image, _, _ = prepare(config([12, 5], normalise=how, fit="resize"))(flat, None, (1.0, 1.0))
    if value:
        assert not image.any()
    assert not image[0].any()
    assert torch.isfinite(image).all()


@given(st.integers(0, 1000), st.floats(0.2, 5.0), st.booleans())
def test_ranked_images_do_not_tell_how_a_scanner_stretches_intensities(
    seed: int, power: float, saturates: bool
) -> None:
    run = prepare(config([9, 9], normalise="rank"))
    plain = picture(1, 9, 9, seed=seed).astype(np.float64)
    stretched = np.sign(plain) * np.abs(plain) ** power
    if saturates:
        stretched = np.arctan(stretched)
    first, second = (run(image, None, (1.0, 1.0))[0] for image in (plain, stretched))
    torch.testing.assert_close(first, second)


def test_ranked_values_are_those_of_a_normal_distribution_and_equal_ones_stay_equal() -> None:
    image = picture(1, 40, 40)
    image[0, :5] = image.min() - 1
    made, _, _ = prepare(config([40, 40], normalise="rank"))(image, None, (1.0, 1.0))
    low = made[0, 0, 0]
    assert bool((made[0, :5] == low).all())
    rest = made[0, 5:].flatten().sort().values
    shares = (torch.arange(201, 1601) / 1601).double()
    torch.testing.assert_close(rest.double(), torch.special.ndtri(shares), atol=1e-4, rtol=0)
    assert float(low) == pytest.approx(
        float(torch.special.ndtri(torch.tensor(100.5 / 1601))), abs=1e-4
    )


def test_minmax_is_from_0_to_1() -> None:
    image, _, _ = prepare(config([9, 9], normalise="minmax"))(picture(3, 9, 9), None, (1.0, 1.0))
    assert image.amin(dim=(1, 2)).tolist() == [0, 0, 0]
    assert image.amax(dim=(1, 2)).tolist() == [1, 1, 1]


@pytest.mark.parametrize("how", ["none", "flip", "full"])
@pytest.mark.parametrize("size", [(32, 24), (12, 10, 8)])
def test_same_seed_same_bytes_call_after_call(how: str, size: tuple[int, ...]) -> None:
    data = config(list(size), augment=how)
    one, two = augment(data, generator(5)), augment(data, generator(5))
    for number in range(3):
        images, masks = batch(size, seed=number)
        for a, b in zip(one(images, masks), two(images, masks), strict=True):
            assert torch.equal(a, b)
            assert a.shape[2:] == size


def test_another_seed_and_the_next_call_draw_anew() -> None:
    data = config([32, 24], augment="full")
    images, masks = batch()
    run = augment(data, generator(5))
    first = run(images, masks)[0]
    assert not torch.equal(first, run(images, masks)[0])
    assert not torch.equal(first, augment(data, generator(6))(images, masks)[0])


def test_no_generator_but_its_own_is_touched_and_inputs_stay() -> None:
    state = torch.random.get_rng_state()
    images, masks = batch()
    augment(config([32, 24], augment="full"), generator(5))(images, masks)
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(images, batch()[0])
    assert torch.equal(masks, batch()[1])


def test_none_is_the_identity() -> None:
    images, masks = batch()
    out = augment(config([32, 24]), generator(0))(images, masks)
    assert out[0] is images
    assert out[1] is masks


@pytest.mark.parametrize("size", [(32, 24), (12, 10, 8)])
def test_a_flip_mirrors_left_and_right_of_half_the_samples(size: tuple[int, ...]) -> None:
    run = augment(config(list(size), augment="flip"), generator(0))
    flipped = 0
    for seed in range(40):
        images, masks = batch(size, seed=seed)
        new, new_masks = run(images, masks)
        for old, now, mask, new_mask in zip(images, new, masks, new_masks, strict=True):
            same = torch.equal(now, old)
            assert same or torch.equal(now, old.flip(1))
            assert torch.equal(new_mask, mask if same else mask.flip(1))
            flipped += not same
    assert abs(flipped / 240 - 0.5) < 0.15


@pytest.mark.parametrize("size", [(40, 64), (28, 20, 24)])
def test_full_moves_the_mask_with_its_image(size: tuple[int, ...]) -> None:
    grid = torch.stack(torch.meshgrid(*[torch.arange(n) / n - 0.4 for n in size], indexing="ij"))
    blob = (grid.square().sum(dim=0) < 0.06)[None, None].repeat(8, 1, *[1] * len(size))
    run = augment(config(list(size), augment="full"), generator(1))
    images, masks = run(blob.float(), blob.long())
    moved = 0.0
    for image, mask, old in zip(images, masks, blob, strict=True):
        inside = image > (image.max() + image.min()) / 2
        assert (inside != mask.bool()).float().mean() < 0.02
        moved = max(moved, float((mask.bool() != old).float().mean()))
    assert moved > 0.03
    assert set(masks.unique().tolist()) == {0, 1}


def test_full_turns_and_scales_by_no_more_than_it_says_and_does_not_stretch() -> None:
    x, y = torch.meshgrid(torch.arange(80) - 39.5, torch.arange(40) - 19.5, indexing="ij")
    # Every pixel holds its own place; two flat channels tell the contrast that was drawn.
    images = torch.stack([x, y, torch.zeros(80, 40), torch.ones(80, 40)])[None].repeat(64, 1, 1, 1)
    moved, _ = augment(config([80, 40], augment="full"), generator(3))(
        images, torch.zeros(64).long()
    )
    contrast = moved[:, 3:, 40, 20] - moved[:, 2:3, 40, 20]
    places = moved[:, :2] / contrast[..., None, None]
    steps_x = (places[:, :, 45, 20] - places[:, :, 35, 20]) / 10
    steps_y = (places[:, :, 40, 25] - places[:, :, 40, 15]) / 10
    torch.testing.assert_close((steps_x * steps_y).sum(dim=1), torch.zeros(64), atol=1e-3, rtol=0)
    scale = 1 / steps_x.norm(dim=1)
    torch.testing.assert_close(scale, 1 / steps_y.norm(dim=1), atol=1e-3, rtol=0)
    assert 0.899 < scale.min() < 0.92
    assert 1.08 < scale.max() < 1.101
    angles = torch.atan2(steps_x[:, 1], steps_x[:, 0].abs()) * 180 / math.pi
    assert 8 < angles.abs().max() < 10.01


def test_full_changes_intensity_within_its_bounds() -> None:
    images = torch.ones(64, 1, 16, 16)
    new, _ = augment(config([16, 16], augment="full"), generator(0))(images, torch.zeros(64).long())
    centre = new[:, 0, 8, 8]
    assert centre.min() >= 1 - MAX_CONTRAST - MAX_BRIGHTNESS
    assert centre.max() <= 1 + MAX_CONTRAST + MAX_BRIGHTNESS
    assert len(centre.unique()) == 64


@pytest.mark.parametrize("how", ["flip", "full"])
def test_labels_pass_through_and_an_empty_batch_stays_empty(how: str) -> None:
    run = augment(config([32, 24], augment=how), generator(0))
    labels = torch.arange(6)
    assert torch.equal(run(batch()[0], labels)[1], labels)
    images, masks = run(torch.zeros(0, 2, 32, 24), torch.zeros(0, 1, 32, 24).long())
    assert images.shape == (0, 2, 32, 24)
    assert masks.shape == (0, 1, 32, 24)


REFERENCE = [-1.0, -0.5, 0.0, 0.2, 3.0]


def test_matched_images_have_the_references_histogram_whatever_a_scanner_stretches() -> None:
    run = prepare(config([40, 40], normalise="matched", reference=REFERENCE))
    values = picture(1, 40, 40)
    image, _, _ = run(values, None, (1.0, 1.0))
    again, _, _ = run(np.exp(values), None, (1.0, 1.0))
    assert torch.equal(image, again)
    quantiles = torch.quantile(image.flatten(), torch.linspace(0, 1, len(REFERENCE)))
    torch.testing.assert_close(quantiles, torch.tensor(REFERENCE), rtol=0, atol=0.02)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"normalise": "matched"}, "give both"),
        ({"reference": REFERENCE}, "does not go with data.normalise=zscore"),
        ({"normalise": "matched", "reference": [1.0, 0.0]}, "the darkest first"),
        ({"normalise": "matched", "reference": [1.0]}, "two or more"),
        ({"size": [8, 8, 8, 8], "amplitudes": [[1.0]]}, "give one number per dimension"),
    ],
)
def test_a_reference_that_cannot_be_matched_is_refused(
    settings: dict[str, object], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        config(**{"size": [8, 8], "dims": 2, **settings})


def test_the_bias_is_taken_out_before_the_values_are_normalised() -> None:
    draws = np.random.default_rng(0)
    tissue = np.where(np.indices((32, 24)).sum(0) // 3 % 2, 100.0, 160.0)
    tissue[:, :8] = 1.0
    bias = np.exp(np.linspace(-0.3, 0.3, 32))[:, None]
    image = (tissue * bias * (1 + 0.02 * draws.normal(size=(32, 24))))[None].astype(np.float32)
    removed = prepare(config([32, 24], remove_bias=True))(image, None, (1.0, 1.0))[0]
    plain = prepare(config([32, 24]))
    by_hand = plain(without_bias(torch.from_numpy(image)).numpy(), None, (1.0, 1.0))[0]
    assert torch.equal(removed, by_hand)
    assert not torch.allclose(removed, plain(image, None, (1.0, 1.0))[0], atol=0.1)


@pytest.mark.parametrize("how", ["none", "full"])
def test_with_amplitudes_images_are_seen_in_other_styles_and_masks_are_not(how: str) -> None:
    images, masks = batch()
    settings = config([32, 24], augment=how)
    styled = replace(settings, amplitudes=[[0.1] * 25, [0.5] * 25])
    seen, seen_masks = augment(styled, generator(3))(images, masks)
    again, _ = augment(styled, generator(3))(images, masks)
    assert torch.equal(seen, again)
    assert not torch.allclose(seen, augment(settings, generator(3))(images, masks)[0], atol=0.05)
    if how == "none":
        assert torch.equal(seen_masks, masks)


@given(
    x=SIDES,
    y=SIDES,
    new_x=SIDES,
    new_y=SIDES,
    fit=st.sampled_from(["pad_or_crop", "resize"]),
    spacing_mm=st.sampled_from([None, [0.7, 1.9], [2.6, 1.6]]),
)
def test_an_image_prepared_whole_leads_back_to_its_own_grid(
    x: int, y: int, new_x: int, new_y: int, fit: str, spacing_mm: list[float] | None
) -> None:
    data = config([new_x, new_y], fit=fit, spacing_mm=spacing_mm)
    values = picture(2, x, y)
    whole, where = prepare_whole(data, values, (1.3, 0.8))
    prepared, _, _ = prepare(data)(values, None, (1.3, 0.8))
    if whole.shape == prepared.shape:
        assert torch.equal(whole, prepared)
    assert all(n >= least for n, least in zip(whole.shape[1:], data.size, strict=True))
    back = back_to_own(whole, where)
    assert back.shape == values.shape
    if spacing_mm is None and fit == "pad_or_crop":
        normalised = (values - values.mean((1, 2), keepdims=True)).astype(np.float64)
        deviation = values.std((1, 2), keepdims=True)
        expected = np.where(deviation > 0, normalised / np.where(deviation > 0, deviation, 1), 0)
        np.testing.assert_allclose(back.numpy(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("fit", ["pad_or_crop", "resize"])
def test_a_place_on_the_prepared_grid_leads_back_to_the_same_millimetre(fit: str) -> None:
    data = config([40, 4], fit=fit, spacing_mm=[0.5, 1.0])
    whole, where = prepare_whole(data, ramp(9), (1.0, 1.0))
    # A straight line survives linear interpolation but at the ends, where it is held.
    back = back_to_own(whole, where)[0, 1:-1, 0].numpy()
    steps = np.diff(back)
    np.testing.assert_allclose(steps, steps.mean(), rtol=0.02)
    assert back[3] == pytest.approx(0.0, abs=1e-5)


def test_the_slices_of_a_volume_keep_their_places_on_the_way_back() -> None:
    data = config([12, 12], dims=2, spacing_mm=[2.0, 2.0])
    values = picture(1, 10, 8, 5)
    whole, where = prepare_whole(data, values, (1.0, 1.0, 7.0))
    back = back_to_own(whole, where)
    assert back.shape == values.shape
    one = back_to_own(whole[..., 3:4], where)
    torch.testing.assert_close(one[..., 0], back[..., 3])


def test_sequences_are_dropped_by_their_chance_and_never_all_of_them() -> None:
    data = DataConfig(channels=2, sequences=["t1", "t2"], sequence_dropout=0.5, size=[4, 4])
    images = torch.ones(4000, 2, 4, 4)
    seen, _ = augment(data, generator(0))(images, torch.zeros(4000))
    there = seen.flatten(2).amax(2)
    assert torch.equal(seen, there[:, :, None, None].expand_as(seen))
    assert bool(there.any(dim=1).all())
    # One of two alone: half of the images; both dropped counts as both kept.
    assert float((there.sum(1) == 1).float().mean()) == pytest.approx(0.5, abs=0.04)
    again, _ = augment(data, generator(0))(images, torch.zeros(4000))
    assert torch.equal(seen, again)


@pytest.mark.parametrize("missing", [1, 2])
def test_a_step_always_sees_a_sequence_that_is_there_and_a_missing_one_stays_missing(
    missing: int,
) -> None:
    names = ["t1", "t2", "flair"]
    images = torch.rand(3000, 3, 4, 4, generator=generator(0)) + 0.1
    images[:, 3 - missing :] = 0
    data = DataConfig(channels=3, sequences=names, sequence_dropout=0.4, size=[4, 4])
    seen, _ = augment(data, generator(0))(images, torch.zeros(3000))
    assert bool(seen.flatten(1).any(dim=1).all())
    styles = [[0.3] * count_of(2)]
    changed = DataConfig(
        channels=3, sequences=names, augment="full", amplitudes=styles, size=[32, 32]
    )
    large = torch.rand(5, 3, 32, 32, generator=generator(0)) + 0.1
    large[:, 3 - missing :] = 0
    seen, _ = augment(changed, generator(0))(large, torch.zeros(5))
    assert not seen[:, 3 - missing :].any()
    assert bool(seen[:, : 3 - missing].flatten(2).any(dim=2).all())


def test_sequences_are_not_normalised_so_that_a_missing_one_looks_black() -> None:
    with pytest.raises(ValueError, match="normalise=zscore"):
        DataConfig(channels=2, sequences=["t1", "t2"], normalise="minmax")
    DataConfig(channels=1, sequences=["t1"], normalise="minmax")


def test_covariates_are_no_picture_and_stay_as_they_are() -> None:
    data = DataConfig(size=[8, 8], augment="full", covariates={"age": [0, 1]})
    images = torch.rand(5, 2, 8, 8, generator=generator(0))
    seen, _ = augment(data, generator(1))(images, torch.zeros(5))
    assert torch.equal(seen[:, 1], images[:, 1])
    plain, _ = augment(replace(data, covariates=None), generator(1))(images[:, :1], torch.zeros(5))
    assert torch.equal(seen[:, :1], plain)
