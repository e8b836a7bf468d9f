"""A study is asked for: composed, checked against the federation's sites, and written down.

The command line and the page both begin a study here, so that both refuse the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

from common.checks import in_range, positive
from server.federation.home import Home
from server.federation.registry import Registry
from server.studies import StudyRun, ask

LONGEST_JOIN_S = 1e7
"""Some months."""
_COMPOSING = Lock()
"""Hydra composes one study at a time in a process."""


@dataclass(frozen=True)
class Begun:
    """A study that was written down."""

    run: StudyRun
    weights: str | None
    """What the file that it starts from gives its network, in words."""


def begin_study(home: Home, settings: Sequence[str], join_timeout_s: float) -> Begun:
    """Write down that a study is to be run; the daemon begins it when it sees it.

    settings: Hydra overrides, and sites=NAME,NAME or sites=all.

    Raises:
        ValueError: the study does not compose, a site is not admitted, or no site could join.
    """
    positive(join_timeout_s=join_timeout_s)
    in_range(0.0, LONGEST_JOIN_S, join_timeout_s=join_timeout_s)
    overrides, sites = parted(home, settings)
    # Composed here, so that what does not fit together is told before any site is asked.
    from common.config import load_study, sent, study_digest
    from common.models.registry import told_start
    from server.checkpoint import check_beginning
    from server.run import check_sites, initial_network, shared_state

    with _COMPOSING:
        travels = sent(overrides)
        study = load_study(travels)
        check_sites(study, sites)
        check_beginning(study, None)
        shared_state(study, initial_network(study))
        weights = told_start(study.model)
        digest = study_digest(study)
    return Begun(ask(home.path, study.name, digest, travels, sites, join_timeout_s), weights)


def parted(home: Home, settings: Sequence[str]) -> tuple[list[str], list[str]]:
    """Tell the study's overrides from its sites.

    Raises:
        ValueError: no sites are named, or one that is not admitted.
    """
    named = [s.removeprefix("sites=") for s in settings if s.startswith("sites=")]
    overrides = [s for s in settings if not s.startswith("sites=")]
    known = [site.name for site in Registry(home).sites() if site.revoked is None]
    if not named:
        raise ValueError(f"no sites are named; give sites=NAME,NAME of: {', '.join(known) or '-'}")
    sites = sorted({s.strip() for s in named[-1].strip("[]").split(",") if s.strip()})
    sites = known if sites == ["all"] else sites
    strangers = sorted(set(sites) - set(known))
    if strangers or not sites:
        raise ValueError(
            f"sites={','.join(strangers) or named[-1]} is not admitted; admitted are: "
            f"{', '.join(known) or 'none (wardround-server admit)'}"
        )
    return overrides, sites
