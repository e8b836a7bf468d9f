"""How long a study trains, roughly, before any of it has begun: it may start actors at once."""

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import torch

from client.manifest import Row
from client.site import load_site
from client.site_data import rows_at
from client.training import steps_of
from common.models.registry import build_model
from common.seeding import generator
from common.segments import seen_size
from common.study import Study

SITES = 8
"""Whose lists of images are read; the largest come first, so the mean is not too small."""
FEW_IMAGES = 2000
"""So few are trained before there is anything to estimate by."""
IMAGES = 4
"""Of a made-up step."""


def training_s(study: Study, sites: Sequence[Path]) -> float:
    """Return the seconds of all rounds' training at all sites, one after another.

    sites: the site.yaml of each; none of a study without data. 0 where that is next to nothing. Of
    a volume each slice is an image and its list has one row, so it may be less than the truth; with
    privacy it is. A site whose list cannot be read will say so itself, and trains nothing.
    """
    lists = [rows for path in sites[:SITES] if (rows := _listed(path))]
    if not lists:
        return 0.0
    asked = max(1, round(study.strategy.fraction * len(sites)))
    images = mean(sum(row.split != "test" for row in rows) for rows in lists)
    steps = study.rounds * asked * steps_of(study.training, max(1, round(images)))
    images_in_all = steps * study.training.batch_size
    return 0.0 if images_in_all < FEW_IMAGES else images_in_all * _image_s(study)


def _listed(site: Path) -> list[Row]:
    try:
        return rows_at(load_site(site).manifest_path)
    except (OSError, ValueError):
        return []


def _image_s(study: Study) -> float:
    """Return the seconds that a made-up image takes forward and back, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        network = build_model(study.model, study.seed).train()
        shape = (IMAGES, study.data.planes, *seen_size(study))
        images = torch.randn(shape, generator=generator(study.seed))
        # The first makes room, and is slower.
        for _ in range(2):
            began = time.process_time()
            torch.autograd.backward(network(images).square().mean())
            took_s = time.process_time() - began
    finally:
        torch.set_num_threads(threads)
    return took_s / IMAGES
