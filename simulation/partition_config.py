"""The settings of simulation/partition.py."""

import re
from dataclasses import dataclass, field

from common.checks import in_range, one_of, positive


@dataclass(frozen=True, kw_only=True)
class PartitionConfig:
    """Which rows of a manifest become which hospital."""

    manifest: str = "manifest.csv"
    """The table of images, relative to the data's root; tab-separated where it ends in .tsv."""
    where: dict[str, str] = field(default_factory=dict)
    """Column and value that a row must have to be kept; all of them. Several values that each do
    stand with | between: A|B."""
    image_column: str = "path"
    """Column of the image file, relative to the root."""
    mask_column: str | None = "mask"
    """Column of the mask file, relative to the root; null: the images have no masks."""
    label_column: str | None = "label"
    """Column of the image's class; null: the images have none."""
    patient_pattern: str = ""
    """Regular expression searched in the image path; its groups that matched, joined by "-", are
    the patient. Empty, or no match: the file's stem is the patient."""
    split_column: str | None = None
    """Column that says which side a patient is on; null: see held_out."""
    train_values: list[str] = field(default_factory=lambda: ["train", "training"])
    """Values of the split column that mean training."""
    test_values: list[str] = field(default_factory=lambda: ["test"])
    """Values of the split column that mean testing."""
    by: str = "column"
    """column: the hospitals that the data came from; dirichlet: label skew; quantity: size skew;
    equal: equal shares."""
    columns: list[str] = field(default_factory=lambda: ["site"])
    """With by=column: columns whose values, joined by "-", name the hospital; an empty one is left
    out."""
    sites: int = 4
    """Hospitals to make, unless by=column."""
    alpha: float = 0.5
    """Concentration of by=dirichlet and by=quantity; near 0 each class (or nearly all patients)
    goes to one hospital, large alpha is equal shares."""
    held_out: str = "own"
    """own: each hospital draws its test patients itself (data.held_out); shared: they are set aside
    before the skew and dealt evenly, so that hospitals are tested on the same case mix."""
    shared_fraction: float = 0.2
    """With held_out=shared: share of all patients that is set aside, of each label."""
    min_patients_per_site: int = 2
    """A hospital with fewer patients, those set aside not counted, is an error."""
    seed: int | None = None
    """Of the dealing; null: the study's. With one of its own other seeds train on the same
    hospitals."""
    leave_out: str | None = None
    """Hospital that trains nothing: all its patients are tested, all others' are trained on."""

    def __post_init__(self) -> None:
        one_of(("column", "dirichlet", "quantity", "equal"), **{"partition.by": self.by})
        one_of(("own", "shared"), **{"partition.held_out": self.held_out})
        positive(**{"partition.sites": self.sites, "partition.alpha": self.alpha})
        positive(**{"partition.min_patients_per_site": self.min_patients_per_site})
        positive(**{"partition.shared_fraction": self.shared_fraction})
        in_range(0.0, 0.9, **{"partition.shared_fraction": self.shared_fraction})
        self._check_pattern()
        self._check_sides()
        if self.by == "column" and not self.columns:
            raise ValueError("partition.columns=[] names no hospital; give at least one column")
        if self.by == "dirichlet" and self.label_column is None:
            raise ValueError(
                "partition.by=dirichlet deals each label by itself, but partition.label_column is "
                "null; give the column of the label, or choose by=quantity"
            )

    def _check_pattern(self) -> None:
        try:
            groups = re.compile(self.patient_pattern).groups
        except re.error as error:
            raise ValueError(
                f"partition.patient_pattern={self.patient_pattern!r} is no regular expression "
                f"({error}); correct it, or leave it empty to take the file's stem"
            ) from error
        if self.patient_pattern and not groups:
            raise ValueError(
                f"partition.patient_pattern={self.patient_pattern!r} has no group; put the part "
                "that names the patient in parentheses"
            )

    def _check_sides(self) -> None:
        chosen = {
            "split_column": self.split_column is not None,
            "held_out=shared": self.held_out == "shared",
            "leave_out": self.leave_out is not None,
        }
        given = [name for name, is_given in chosen.items() if is_given]
        if len(given) > 1:
            raise ValueError(
                f"partition.{given[0]} and partition.{given[1]} each decide who is tested; "
                "give one of them"
            )
        if self.held_out == "shared" and self.by == "column":
            raise ValueError(
                "partition.held_out=shared would give one real hospital's patients to another "
                "(partition.by=column); use held_out=own or a split_column"
            )
        if both := set(self.train_values) & set(self.test_values):
            raise ValueError(
                f"{sorted(both)} are in partition.train_values and in partition.test_values; "
                "leave each value on one side"
            )
