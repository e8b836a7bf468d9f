"""Prometheus metrics of the centre, read from its folder at each scrape."""

import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric

from common.certificates import days_until, read_certificate
from server.daemon.study_metrics import Stories, study_metrics
from server.federation.home import Home
from server.federation.registry import Registry
from server.presence import HERE_S, Presence
from server.studies import runs_in

Restarts = Callable[[], dict[str, int]]


class HomeCollector:
    """What a folder tells about itself."""

    def __init__(self, home: Home, restarts: Restarts) -> None:
        self._home = home
        self._registry = Registry(home)
        self._presence = Presence(home.path)
        self._restarts = restarts
        self._stories = Stories()

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics of this moment."""
        yield from self._sites()
        yield from self._studies()
        days = days_until(
            read_certificate(self._home.server.certificate).not_valid_after_utc, datetime.now(UTC)
        )
        yield GaugeMetricFamily(
            "wardround_server_certificate_days", "Days until the server's certificate ends", days
        )
        restarts = GaugeMetricFamily(
            "wardround_restarts", "How often a part was started again", labels=["part"]
        )
        for part, count in self._restarts().items():
            restarts.add_metric([part], count)
        yield restarts

    def _sites(self) -> Iterable[Metric]:
        days = GaugeMetricFamily(
            "wardround_site_certificate_days",
            "Days until a site's certificate ends",
            labels=["site"],
        )
        here = GaugeMetricFamily(
            "wardround_site_connected", "1 while a site's node tells of itself", labels=["site"]
        )
        for site in self._registry.admitted():
            days.add_metric([site.name], site.days_left(datetime.now(UTC)))
            heard = self._presence.of(site.name)
            connected = heard is not None and time.time() - heard.heard_at < HERE_S
            here.add_metric([site.name], float(connected))
        yield days
        yield here

    def _studies(self) -> Iterable[Metric]:
        counts: dict[str, int] = {}
        rounds = GaugeMetricFamily(
            "wardround_study_rounds", "Full rounds of a study that runs", labels=["run"]
        )
        running = []
        for run in runs_in(self._home.path):
            status, _ = run.status()
            counts[status] = counts.get(status, 0) + 1
            if status == "running":
                running.append(run.folder)
                rounds.add_metric([run.folder.name], run.rounds_done())
        studies = GaugeMetricFamily("wardround_studies", "Studies by status", labels=["status"])
        for status, count in sorted(counts.items()):
            studies.add_metric([status], count)
        yield studies
        yield rounds
        yield from study_metrics(self._stories.of(running))


def serve_metrics(home: Home, host: str, port: int, restarts: Restarts) -> Callable[[], None]:
    """Serve the metrics by HTTP; return what ends it.

    Raises:
        OSError: the address is taken.
    """
    registry = CollectorRegistry()
    registry.register(HomeCollector(home, restarts))
    server, _ = start_http_server(port, host, registry)
    return server.shutdown
