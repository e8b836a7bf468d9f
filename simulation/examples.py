"""A few held-out images for the report; a simulation has every hospital at hand."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from client.evaluation import predict
from client.examples import example_of, most_foreground
from client.site_data import cohort_of
from client.trainer import trainer_at
from common.config import travelling
from common.pictures import Example
from common.tasks.registry import build_task
from common.tensor_files import read_tensors
from server.run import MODEL, initial_network
from simulation.baselines import site_folders
from simulation.run import Simulation

SITES_SHOWN = 6


def examples_of(run: Simulation, sites: Sequence[str]) -> list[Example]:
    """Return one example of each of the first few of the sites, under the final model."""
    weights, _ = read_tensors(run.folder / MODEL)
    model = initial_network(run.study)
    model.load_state_dict({**model.state_dict(), **weights})
    overrides = tuple(travelling(run.overrides))
    task = build_task(run.study.task)
    examples = []
    settings = [trainer_at(folder / "site.yaml").site for folder in site_folders(run)]
    for site in [site for site in settings if site.name in sites][:SITES_SHOWN]:
        held_out = cohort_of(site.manifest_path, overrides).held_out
        place = most_foreground(held_out.targets)
        one = replace(held_out, images=held_out.images[place : place + 1])
        probabilities = predict(model, one, task, torch.device("cpu"))[0]
        examples.append(example_of(site.name, held_out, place, probabilities, run.study))
    return examples
