"""What comes of invented patients: an event whose hazard grows with their lesions."""

from dataclasses import dataclass

import numpy as np

from common.checks import not_negative, positive
from simulation.phantom import Anatomy
from simulation.tissues import Tissue

MM3_A_ML = 1000.0
USUAL_AGE = 50.0


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """How the event comes, and how long a hospital follows its patients."""

    hazard_a_year: float = 0.15
    """Of a patient with `usual_ml` of lesions."""
    log_hazard_a_ml: float = 0.5
    """How much the logarithm of the hazard grows with each ml of lesions; 0: not at all."""
    log_hazard_a_decade: float = 0.0
    """How much it grows with each ten years of age above 50; 0: not at all."""
    usual_ml: float = 4.0
    """Volume of lesions at which the hazard is hazard_a_year."""
    lost_a_year: float = 0.05
    """Rate at which patients are lost to follow-up."""
    follow_up_years: float = 6.0
    """Years after which nobody is followed any more."""

    def __post_init__(self) -> None:
        positive(hazard_a_year=self.hazard_a_year, follow_up_years=self.follow_up_years)
        not_negative(log_hazard_a_ml=self.log_hazard_a_ml, usual_ml=self.usual_ml)
        not_negative(lost_a_year=self.lost_a_year)


def lesions_ml(anatomy: Anatomy) -> float:
    """Return the volume of a patient's lesions in the slab, in ml."""
    voxels = int((anatomy.labels_XYZ == Tissue.LESION).sum())
    return voxels * float(np.prod(anatomy.spacing_mm)) / MM3_A_ML


def followed_up(
    anatomy: Anatomy, outlook: Outlook | None, rng: np.random.Generator
) -> dict[str, str]:
    """Return a patient's time in years, event 0 or 1 and log_hazard; nothing without an outlook.

    Times are exponential by the patient's hazard (Bender et al., Statistics in Medicine 2005, Table
    2). log_hazard is the true risk: no model can rank patients better than it does.
    """
    if outlook is None:
        return {}
    decades = (anatomy.age_years - USUAL_AGE) / 10
    log_hazard = outlook.log_hazard_a_ml * (lesions_ml(anatomy) - outlook.usual_ml)
    log_hazard += outlook.log_hazard_a_decade * decades
    event_at = rng.exponential() / (outlook.hazard_a_year * np.exp(log_hazard))
    lost_at = rng.exponential() / max(outlook.lost_a_year, 1e-9)
    last = min(lost_at, outlook.follow_up_years)
    return {
        "time": f"{min(event_at, last):.4f}",
        "event": str(int(event_at <= last)),
        "log_hazard": f"{log_hazard:.4f}",
    }
