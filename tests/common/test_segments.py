import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.segments import Around, segments


def a_batch(seed: int, shape: tuple[int, ...], count: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(seed)
    masks = (torch.rand(count, 1, *shape, generator=draws) < 0.02).long()
    masks[0] = 0
    masks[:, :, 0, 0] = 2
    # The image tells where each voxel was, so that image and mask can be held together.
    images = torch.arange(masks[0].numel()).view(1, 1, *shape).repeat(count, 1, *[1] * len(shape))
    return images.float(), masks


@settings(max_examples=50)
@given(st.integers(0, 999), st.integers(1, 12), st.integers(1, 9), st.sampled_from([0.0, 0.5, 1.0]))
def test_a_segment_is_one_part_of_the_image_and_of_its_mask(
    seed: int, height: int, width: int, share: float
) -> None:
    images, masks = a_batch(seed, (12, 9))
    draws = torch.Generator().manual_seed(seed)
    parts, of_masks = segments(images, masks, [height, width], share, draws)
    assert parts.shape == of_masks.shape == (3, 1, height, width)
    for place in range(3):
        first = int(parts[place, 0, 0, 0])
        y, x = divmod(first, 9)
        assert torch.equal(parts[place], images[place, :, y : y + height, x : x + width])
        assert torch.equal(of_masks[place], masks[place, :, y : y + height, x : x + width])


def test_segments_around_classes_hold_each_class_as_often() -> None:
    mask = torch.zeros(1, 1, 40, 40, dtype=torch.int64)
    mask[..., 5, 5] = 1
    mask[..., 25:35, 25:35] = 2
    masks = mask.repeat(400, 1, 1, 1)
    draws = torch.Generator().manual_seed(0)
    _, found = segments(masks.float(), masks, [5, 5], 1.0, draws)
    rare = (found == 1).flatten(1).any(1).float().mean()
    assert abs(float(rare) - 0.5) < 0.1
    assert (found > 0).flatten(1).any(1).all()
    _, anywhere = segments(masks.float(), masks, [5, 5], 0.0, draws)
    assert (anywhere == 1).flatten(1).any(1).float().mean() < 0.1


def test_an_image_without_a_class_has_a_segment_anywhere() -> None:
    masks = torch.zeros(200, 1, 10, dtype=torch.int64)
    images = torch.arange(10.0).view(1, 1, 10).repeat(200, 1, 1)
    parts, _ = segments(images, masks, [4], 1.0, torch.Generator().manual_seed(0))
    assert set(parts[:, 0, 0].tolist()) == {float(n) for n in range(7)}


@settings(max_examples=50)
@given(st.integers(0, 999), st.integers(1, 4), st.integers(0, 5), st.sampled_from([0.0, 1.0]))
def test_a_segment_is_seen_with_its_margin_and_nothing_beyond_the_image(
    seed: int, grid: int, margin: int, share: float
) -> None:
    images, masks = a_batch(seed, (12, 9))
    images += 1
    draws = torch.Generator().manual_seed(seed)
    size = [12 - grid, 9 - 2 * grid]
    parts, of_masks = segments(images, masks, size, share, draws, Around(margin, grid))
    assert of_masks.shape[2:] == tuple(size)
    for place in range(3):
        seen = parts[place, 0]
        assert seen.shape == tuple(n + 2 * margin for n in size)
        inside = seen[margin : margin + size[0], margin : margin + size[1]]
        y, x = divmod(int(inside[0, 0]) - 1, 9)
        assert y % grid == x % grid == 0
        assert torch.equal(of_masks[place], masks[place, :, y : y + size[0], x : x + size[1]])
        outside = torch.zeros(12 + 2 * margin, 9 + 2 * margin)
        outside[margin : margin + 12, margin : margin + 9] = images[place, 0]
        end_y, end_x = y + size[0] + 2 * margin, x + size[1] + 2 * margin
        assert torch.equal(seen, outside[y:end_y, x:end_x])


def test_on_a_grid_too_a_segment_around_a_class_holds_it() -> None:
    for at in range(30):
        mask = torch.zeros(1, 1, 30, dtype=torch.int64)
        mask[..., at] = 1
        draws = torch.Generator().manual_seed(at)
        _, found = segments(mask.float(), mask, [6], 1.0, draws, Around(2, 3))
        assert found.any()
