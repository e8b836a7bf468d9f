"""Prometheus metrics of the studies that run, from the events of each."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily, Metric

from server.page.follow import Follower
from server.page.story import Story


class Stories:
    """The stories of the studies that run; each log is read on at each scrape."""

    def __init__(self) -> None:
        self._followers: dict[Path, Follower] = {}

    def of(self, running: Sequence[Path]) -> dict[str, Story]:
        """Return them by the names of their folders."""
        known = self._followers
        self._followers = {folder: known.get(folder) or Follower(folder) for folder in running}
        for follower in self._followers.values():
            follower.look()
        return {folder.name: of.story for folder, of in self._followers.items()}


def study_metrics(stories: Mapping[str, Story]) -> Iterable[Metric]:
    """Yield what is told of each study."""
    last = _gauge(
        "wardround_study_last_event_seconds", "Unix time of a study's newest event", "run"
    )
    planned = _gauge("wardround_study_rounds_planned", "Rounds that a study is to have", "run")
    moved = _gauge("wardround_study_bytes", "Bytes of weights that a study has moved", "run")
    metric = _gauge(
        "wardround_study_metric", "Newest mean of a study's headline metric", "run", "metric"
    )
    epsilon = _gauge(
        "wardround_study_site_epsilon", "Epsilon that a site has spent in a study", "run", "site"
    )
    missed = _gauge(
        "wardround_study_site_missed", "Rounds that lack an update of a site", "run", "site"
    )
    for run, story in stories.items():
        sites = sorted(story.sites.items())
        last.add_metric([run], story.last or 0.0)
        planned.add_metric([run], story.planned)
        moved.add_metric([run], sum(of.bytes_sent + of.bytes_received for _, of in sites))
        if story.mean.last is not None:
            metric.add_metric([run, story.metric], story.mean.last)
        for site, of in sites:
            missed.add_metric([run, site], of.missed)
            if of.epsilon is not None:
                epsilon.add_metric([run, site], of.epsilon)
    yield from (last, planned, moved, metric, epsilon, missed)


def _gauge(name: str, about: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, about, labels=labels)
