"""The model card of a finished study: what the model is for, what it was made of, how well it does.

After Mitchell et al., Model Cards for Model Reporting, FAT* 2019. Everything in it but what a
person says stands in the run's result.json; what a run does not tell is said not to be known.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from common.export.provenance import participants_of, sha256_of
from common.finished import Finished
from common.study import Study

SCHEMA_VERSION = 1
_TEMPLATE = "card.html.jinja"


@dataclass(frozen=True, kw_only=True)
class Said:
    """What only a person can say."""

    intended_use: str = ""
    """In place of the sentence that the settings give."""
    known_failures: Sequence[str] = ()
    """Beside those that the result shows."""


def card_of(finished: Finished, said: Said) -> dict[str, Any]:
    """Return the card's content: card.json."""
    study, result = finished.study, finished.result or {}
    final = finished.measured.get("final") or {}
    return {
        "schema_version": SCHEMA_VERSION,
        "name": study.name,
        "intended_use": said.intended_use or intended_use_of(study),
        "not_for": "diagnosis or treatment: it is no medical device, and nobody has approved it",
        "task": asdict(study.task),
        "network": asdict(study.model),
        "images": asdict(study.data),
        "rounds": finished.rounds,
        "status": result.get("status"),
        "participants": participants_of(finished),
        "sites": _sites(result),
        "headline": study.task.headline,
        "metrics": result.get("metrics", {}),
        "results": {"mean": final.get("mean"), "worst": final.get("worst"), "sites": final["sites"]}
        if final.get("sites")
        else None,
        "subgroups": (finished.measured.get("shift") or {}).get("subgroups"),
        "privacy": {
            "mechanism": study.privacy.mechanism if study.privacy.private else None,
            "spent": result.get("privacy", {}),
        },
        "known_failures": [*said.known_failures, *failures_of(finished)],
        "study_digest": finished.digest,
        "weights_sha256": sha256_of(finished.weights),
        "software": {**result.get("software", {}), "exported_with": version("wardround")},
    }


def intended_use_of(study: Study) -> str:
    """Return in a sentence what the study's settings say that the model is for."""
    data = study.data
    what = "pictures or slices" if data.spatial_dims == 2 else "volumes"
    spacing = ""
    if data.spacing_mm is not None:
        spacing = f" at {' x '.join(f'{mm:g}' for mm in data.spacing_mm)} mm"
    size = " x ".join(str(n) for n in data.size)
    colour = "grey" if data.channels == 1 else "colour"
    return (
        f"Research on {study.task.name} of {', '.join(study.task.classes)} in {colour} {what} of "
        f"{size} voxels{spacing}, on images like those of the sites below."
    )


def failures_of(finished: Finished) -> list[str]:
    """Return in words what the result itself shows to be weak or unknown."""
    result = finished.result
    if result is None:
        return ["the run's result is not here, so how well it does is not known"]
    told = []
    if result.get("reason"):
        told.append(f"the study ended as {result.get('status')}: {result['reason']}")
    if not finished.measured:
        told.append("the run measured its last model, so how well this one does is not known")
    told += _worst(finished.measured, finished.study.task.headline)
    if not finished.study.privacy.private:
        told.append("trained without differential privacy: it may hold what single patients show")
    if finished.study.task.mirrored:
        told.append(
            "measured by two looks at each image, as it is and mirrored (task.mirrored): an "
            "exported form looks once, and is less good"
        )
    shift = finished.measured.get("shift") or {}
    if not shift.get("subgroups"):
        told.append("no subgroup was looked at (evaluation.subgroups)")
    for site, benefit in sorted((shift.get("benefit") or {}).items()):
        high = benefit.get("high")
        if high is not None and high < 0:
            told.append(f"at {site} it does worse than a model of that site's own")
    return told


def _worst(result: Mapping[str, Any], headline: str) -> list[str]:
    final = result.get("final") or {}
    worst, site = final.get("worst", {}).get(headline), final.get("worst_site", {}).get(headline)
    mean = final.get("mean", {}).get(headline)
    if worst is None or mean is None or len(final.get("sites", {})) < 2:
        return []
    return [f"{headline} is {worst:.3f} at {site}, and {mean:.3f} in the mean over the sites"]


def _sites(result: Mapping[str, Any]) -> dict[str, Any]:
    told = ("patients_train", "patients_held_out", "images_train")
    return {
        site: {name: about.get(name) for name in told}
        for site, about in sorted(result.get("sites", {}).items())
    }


def page_of(card: Mapping[str, Any]) -> str:
    """Return the card as one HTML page without scripts, which loads nothing."""
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        loader=FileSystemLoader(Path(__file__).parent),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    settings = [
        (name, json.dumps(value))
        for part in ("task", "network", "images")
        for name, value in card[part].items()
        if value is not None
    ]
    return environment.get_template(_TEMPLATE).render(card=card, settings=settings)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
