"""The verb turns of wardround-server: studies of one site each, asked for in a row."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from common.files import write_json
from server.cli_studies import JsonOption, RunArgument, console_of, run_of, say, watch
from server.federation.cli_verbs import HomeOption
from server.federation.home import home_folder, open_home
from server.studies import RESULT, StudyRun, ask, go_on, runs_in

if TYPE_CHECKING:
    from torch import Tensor

    from server.turns import Turn

JOIN_S = 86400.0
ENDED = ("completed", "partial")


def turns(
    name: RunArgument,
    kind: Annotated[
        str,
        typer.Option(
            help="own-models: each site trains alone and its model is tried at all; ensemble: the "
            "mean of these models is tried at all, after them; personal: each site trains the "
            "final model further, and that is tried at all; left-out: all but one site train, and "
            "it is tested."
        ),
    ] = "left-out",
    join_timeout: Annotated[
        float, typer.Option(help="Seconds until the sites must be there and have approved a turn.")
    ] = JOIN_S,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Let the sites take turns, a study each, and put what they tell into a finished study.

    The same command goes on where it was stopped. Exit code: 0 done, 3 a turn has no model.
    """
    # These import torch, which the other verbs do without.
    from common.tensor_files import read_tensors
    from server.evaluation.left_out import table_of
    from server.evaluation.shift import FEDERATED
    from server.report.apart import left_out_sentence
    from server.run import MODEL
    from server.showing import write_report
    from server.turns import Kind, turns_of, with_turns

    try:
        asked_kind = Kind(kind)
    except ValueError:
        raise ValueError(f"--kind {kind} is not known; give one of: {', '.join(Kind)}") from None
    found = run_of(home, name)
    result = found.result()
    if result is None:
        raise ValueError(f"{found.folder.name} has not ended; wait for it, or stop it")
    models = {}
    if asked_kind is Kind.ENSEMBLE:
        models = _own_models(found, result, home)
    elif asked_kind is Kind.PERSONAL and (found.folder / MODEL).is_file():
        models = {FEDERATED: read_tensors(found.folder / MODEL)[0]}
    planned = turns_of(asked_kind, found.asked.overrides, found.asked.sites, result, models)
    for site, turn in planned.items():
        if not as_json:
            say(f"{kind} {site}: sites approve it with  wardround-site approve {turn.digest}")
    ended = {}
    for site, turn in planned.items():
        run = _run_of_turn(found, turn, join_timeout, home)
        status, why = watch(run, as_json)
        told = run.result()
        if told is not None and status in ENDED:
            ended[site] = told
        elif not as_json:
            say(f"{site} has no turn: {status}: {why}")
    whole = with_turns(asked_kind, found.result() or result, ended)
    write_json(found.folder / RESULT, whole)
    page = write_report(found.folder, whole)
    if as_json:
        typer.echo(json.dumps({"run": found.folder.name, "shift": whole["shift"]}))
    else:
        if asked_kind is Kind.LEFT_OUT:
            better = whole["metrics"][whole["headline"]]["higher_is_better"]
            title = f"{whole['headline']} of a model without the site"
            console_of().print(table_of(whole["shift"]["left_out"]["rows"], better, title))
            if sentence := left_out_sentence(whole):
                say(sentence)
        say(f"report  {page}")
    raise typer.Exit(0 if len(ended) == len(planned) else 3)


def mount(app: typer.Typer) -> None:
    """Give the verb to the command of the centre."""
    app.command("turns")(turns)


def _own_models(
    whole: StudyRun, result: Mapping[str, Any], home: Path | None
) -> dict[str, dict[str, "Tensor"]]:
    """Return the models that the turns of own-models left, by site.

    Raises:
        ValueError: a site's is not there.
    """
    from common.tensor_files import read_tensors
    from server.run import MODEL
    from server.turns import Kind, turns_of

    turns = turns_of(Kind.OWN_MODELS, whole.asked.overrides, whole.asked.sites, result)
    runs = {site: _asked_earlier(whole, turn, home) for site, turn in turns.items()}
    found = {
        site: run.folder / MODEL
        for site, run in runs.items()
        if run is not None and run.status()[0] in ENDED
    }
    missing = sorted(set(turns) - set(found))
    if missing:
        raise ValueError(
            f"an ensemble is of every site's own model, and there is none of: "
            f"{', '.join(missing)}; ask for them first: wardround-server turns "
            f"{whole.folder.name} --kind own-models"
        )
    return {site: read_tensors(path)[0] for site, path in found.items()}


def _run_of_turn(whole: StudyRun, turn: "Turn", join_timeout: float, home: Path | None) -> StudyRun:
    """Return the study of a turn: the one that was asked for earlier, or a new one."""
    from server.checkpoint import save_checkpoint

    run = _asked_earlier(whole, turn, home)
    if run is not None:
        if run.status()[0] in ("failed", "stopped"):
            go_on(run)
        return run

    def prepare(folder: Path) -> None:
        if (begun := turn.checkpoint()) is not None:
            save_checkpoint(folder, begun)

    place, sites = open_home(home_folder(home)).path, whole.asked.sites
    return ask(place, turn.name, turn.digest, turn.overrides, sites, join_timeout, prepare)


def _asked_earlier(whole: StudyRun, turn: "Turn", home: Path | None) -> StudyRun | None:
    for run in reversed(runs_in(open_home(home_folder(home)).path)):
        if run.asked.digest == turn.digest and run.asked.sites == whole.asked.sites:
            return run
    return None
