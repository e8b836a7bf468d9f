"""The verbs start, run, list, show, stop, resume, report and logs of wardround-server.

They write and read the federation's folder; the daemon does what stands there. So they work the
same whether it runs or not, and no port takes orders.
"""

import json
import time
from collections import deque
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from server.beginning import begin_study
from server.events import EVENTS, words_of
from server.federation.cli_verbs import HomeOption
from server.federation.home import home_folder, open_home
from server.studies import RESULT, StudyRun, ask_to_stop, go_on, run_named, runs_in

EXIT_CODES = {"completed": 0, "failed": 1, "partial": 3, "stopped": 4}
POLL_S = 0.3
ACTIVE = ("running", "stopping")
RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="A study's folder name, or how it begins.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON, for programs.")]


def mount(app: typer.Typer) -> None:
    """Give the verbs to the command of the centre."""
    app.command("start")(start)
    app.command("run", context_settings={"ignore_unknown_options": True})(run)
    app.command("list")(list_runs)
    app.command("show")(show)
    app.command("stop")(stop)
    app.command("resume")(resume)
    app.command("report")(report)
    app.command("logs")(logs)


def start(
    listen: Annotated[
        str, typer.Option(help="Address that the public door listens at.")
    ] = "0.0.0.0",
    health_port: Annotated[int, typer.Option(help="gRPC health, on loopback.")] = 8081,
    metrics_port: Annotated[int, typer.Option(help="Prometheus metrics, on loopback.")] = 9464,
    home: HomeOption = None,
) -> None:
    """Keep the centre running: the SuperLink behind its door, and every study that is not done."""
    from server.daemon.supervisor import run_daemon

    run_daemon(open_home(home_folder(home)), listen, health_port, metrics_port)


def run(
    settings: Annotated[
        list[str],
        typer.Argument(help="The study, as experiment=virtual_mri, and sites=a,b,c; sites=all."),
    ],
    join_timeout: Annotated[
        float, typer.Option(help="Seconds until the agreed sites must be there and have approved.")
    ] = 3600.0,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for the end.")] = False,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Run a study with the agreed sites. Exit code: 0 done, 1 failed, 3 partial, 4 stopped."""
    place = open_home(home_folder(home))
    begun = begin_study(place, settings, join_timeout)
    asked, weights = begun.run, begun.weights
    if not as_json:
        say(f"study {asked.asked.study}, digest {asked.asked.digest}")
        if weights is not None:
            say(f"starts from {weights}")
        say(f"sites approve it with  wardround-site approve {asked.asked.digest[:16]}")
    if detach:
        _tell_run(asked, as_json)
        return
    _follow(asked, as_json)


def list_runs(as_json: JsonOption = False, home: HomeOption = None) -> None:
    """List the studies, the oldest first."""
    runs = runs_in(open_home(home_folder(home)).path)
    if as_json:
        typer.echo(json.dumps([_about(each) for each in runs]))
        return
    table = Table("run", "status", "rounds", "sites", "why")
    for each in runs:
        about = _about(each)
        table.add_row(
            about["run"],
            about["status"],
            str(about["rounds_done"]),
            ", ".join(about["sites"]),
            escape(about["reason"]),
        )
    console_of().print(table)


def show(name: RunArgument, as_json: JsonOption = False, home: HomeOption = None) -> None:
    """Show a study: how it stands, its sites, its result."""
    _tell_run(run_of(home, name), as_json)


def stop(name: RunArgument, as_json: JsonOption = False, home: HomeOption = None) -> None:
    """Stop a study: its sites stop within a batch; `resume` goes on from the last full round."""
    found = run_of(home, name)
    ask_to_stop(found)
    _tell_run(found, as_json)


def resume(
    name: RunArgument,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for the end.")] = False,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Go on with a study that was stopped, or that failed, from its last full round."""
    found = run_of(home, name)
    go_on(found)
    if detach:
        _tell_run(found, as_json)
        return
    _follow(found, as_json)


def report(name: RunArgument, home: HomeOption = None) -> None:
    """Write a study's page, report.html, into its folder."""
    found = run_of(home, name)
    result = found.result()
    if result is None:
        raise ValueError(
            f"{found.folder.name} has no result yet; wait for its end (wardround-server logs -f), "
            "or stop it"
        )
    from server.showing import write_report

    say(str(write_report(found.folder, result)))


def logs(
    name: RunArgument,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until it ends.")] = False,
    last: Annotated[int, typer.Option("--last", help="How many lines of before.")] = 50,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Tell what happened in a study."""
    found = run_of(home, name)
    path, position = found.folder / EVENTS, 0
    while True:
        over = not follow or found.status()[0] not in ACTIVE
        if path.exists():
            with path.open() as file:
                file.seek(position)
                lines = file.readlines()
                position = file.tell()
            for line in deque(lines, maxlen=last) if not over or not follow else lines:
                typer.echo(line.rstrip() if as_json else _line(json.loads(line)))
        if over:
            return
        time.sleep(POLL_S)


def watch(run: StudyRun, quiet: bool) -> tuple[str, str]:
    """Show what happens until the study ends; return its status, and why."""
    from server.progress import Progress

    with nullcontext() if quiet else Progress(console_of()).watching(run.folder):
        while run.status()[0] in ACTIVE:
            time.sleep(POLL_S)
    return run.status()


def _follow(run: StudyRun, as_json: bool) -> None:
    """Show what happens until the study ends; exit as it ended."""
    from server.showing import REPORT, show_result, write_report

    status, why = watch(run, as_json)
    result = run.result()
    if result is not None:
        write_report(run.folder, result)
    if as_json:
        typer.echo(json.dumps(_about(run)))
    elif result is not None:
        show_result(console_of(), result)
        say(f"result  {run.folder / RESULT}")
        say(f"report  {run.folder / REPORT}")
    else:
        say(f"{status}: {why}")
    raise typer.Exit(EXIT_CODES[status])


def run_of(home: Path | None, name: str) -> StudyRun:
    """Return the study that a word of the command line names."""
    return run_named(open_home(home_folder(home)).path, name)


def _about(run: StudyRun) -> dict[str, Any]:
    status, why = run.status()
    asked = run.asked
    return {
        "run": run.folder.name,
        "study": asked.study,
        "digest": asked.digest,
        "status": status,
        "reason": why,
        "sites": asked.sites,
        "rounds_done": run.rounds_done(),
        "asked_at": datetime.fromtimestamp(asked.asked_at, UTC).isoformat(timespec="seconds"),
        "folder": str(run.folder),
    }


def _tell_run(run: StudyRun, as_json: bool) -> None:
    about, result = _about(run), run.result()
    if as_json:
        typer.echo(json.dumps({**about, "result": result}))
        return
    for key, value in about.items():
        told = ", ".join(value) if isinstance(value, list) else str(value)
        if told:
            say(f"{key:>12}  {told}")
    if result is not None:
        from server.showing import show_result

        show_result(console_of(), result)


def _line(event: dict[str, Any]) -> str:
    at = datetime.fromtimestamp(event["time"], UTC).strftime("%Y-%m-%d %H:%M:%S")
    return f"{at}  {event['event']:<16} {words_of(event)}"


def console_of() -> Console:
    """Return the terminal."""
    console = Console()
    # A log file has no width of its own; rich would squeeze the table into 80 columns.
    return console if console.is_terminal else Console(width=140)


def say(text: str) -> None:
    """Print a line as it is."""
    console_of().print(text, highlight=False, markup=False, soft_wrap=True)
