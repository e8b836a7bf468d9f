"""What goes wrong in a simulated federation: the settings of simulation/scenario.py."""

from dataclasses import dataclass, field

from common.checks import in_range, not_negative, one_of, positive

POISONS = ("flipped", "boosted", "noise")


@dataclass(frozen=True, kw_only=True)
class ScenarioConfig:
    """Chances and times of a federation that is not always whole; each draw has a seed."""

    drop_out: float = 0.0
    """Chance that a site takes no part in a round, anew in each."""
    answer_s: float | None = None
    """Median seconds until a site has answered, of a log-normal distribution; null: at once. They
    are drawn and not waited for."""
    answer_spread: float = 0.5
    """Standard deviation of the logarithm of these seconds."""
    slow: dict[str, float] = field(default_factory=dict)
    """Sites that take so many times as long."""
    deadline_s: float | None = None
    """Seconds after which a round goes on without those who have not answered; null: never."""
    arrivals_per_round: float | None = None
    """Sites that join in a round on average, in an order by chance, the first one in round 1 (a
    Poisson process); null: all are there from the start."""
    arrive: dict[str, int] = field(default_factory=dict)
    """Sites by the first round in which they take part."""
    leave: dict[str, int] = field(default_factory=dict)
    """Sites by the first round in which they take no part any more."""
    poisoned: dict[str, str] = field(default_factory=dict)
    """Sites whose updates are meant to harm. flipped: the other way; boosted: as meant, but too
    far; noise: a step of the same length in a direction by chance."""
    strength: float = 10.0
    """How many times as long the step of a poisoned update is."""

    def __post_init__(self) -> None:
        name = "simulation.scenario."
        in_range(0.0, 1.0, **{f"{name}drop_out": self.drop_out})
        not_negative(**{f"{name}answer_spread": self.answer_spread})
        positive(**{f"{name}strength": self.strength})
        in_range(0.0, 1e9, **{f"{name}strength": self.strength})
        given = ("answer_s", "deadline_s", "arrivals_per_round")
        positive(**{name + n: v for n in given if (v := getattr(self, n)) is not None})
        for of in ("slow", "arrive", "leave"):
            positive(**{f"{name}{of}.{site}": v for site, v in getattr(self, of).items()})
        for site, poison in self.poisoned.items():
            one_of(POISONS, **{f"{name}poisoned.{site}": poison})
        if self.arrivals_per_round is not None:
            in_range(1e-6, 1e6, **{f"{name}arrivals_per_round": self.arrivals_per_round})
        timed = self.answer_s is not None
        if (self.deadline_s is not None) != timed or (self.slow and not timed):
            raise ValueError(
                f"{name}answer_s={self.answer_s}, deadline_s={self.deadline_s}, slow={self.slow}: "
                "give answer_s and deadline_s together, and slow with them, or none of the three"
            )

    @property
    def sites(self) -> set[str]:
        """The sites that are named."""
        return {*self.slow, *self.arrive, *self.leave, *self.poisoned}
