"""The updates of one round, one at a time: which of them count, and what was told with them."""

from collections.abc import Iterator, Mapping, Sequence

from common.bodies import MessageError
from common.compression import moved_by
from common.contract import Description, PrivacySpent, TrainReply
from common.framed_files import bytes_of
from common.state import Arrays, State, arrays_of
from common.study import Study
from common.tasks.registry import build_task
from server.aggregation import refusal_of
from server.asking import Run
from server.calls import Missing
from server.checkpoint import Checkpoint
from server.evaluation.checked import impossible
from server.records import SiteRound


def training_sites(study: Study, roster: Mapping[str, Description]) -> list[str]:
    """Return the sites that train: those with patients to train on that are not tested alone."""
    tested = study.strategy.tested or []
    return [s for s, about in roster.items() if about.patients_train > 0 and s not in tested]


def accepted(
    run: Run,
    number: int,
    kept: Checkpoint,
    evaluate: bool,
    cohort: Sequence[str],
    parts: dict[str, SiteRound],
    missing: dict[str, str],
    spent: dict[str, PrivacySpent],
) -> Iterator[tuple[Arrays, float]]:
    """Yield each update that may count, with its weight; note who took part, who not, what it took.

    parts, missing, spent: by site, filled in while the updates are taken.
    """
    model, arrays = kept.model, arrays_of(kept.model)
    # Who handed in an update in the last round has its model.
    holders = set(kept.progress.rounds[-1].participants) if kept.step is not None else set()
    whole = sum(tensor.nbytes for tensor in model.values())
    name = run.study.task.headline
    metrics = build_task(run.study.task).metrics
    roster = kept.progress.roster
    shares = run.strategy.shares(
        # Of all that train: what a site counts for does not hang on who else was drawn.
        {site: roster[site].patients_train for site in training_sites(run.study, roster)},
        kept.progress.rounds,
        run.study.rounds,
        (name, metrics[name]),
    )
    for site, reply, weights in run.federation.train(
        cohort, number, model, evaluate, run.study.strategy, kept.step, holders
    ):
        if isinstance(reply, TrainReply) and reply.privacy is not None:
            spent[site] = reply.privacy
        sent = bytes_of(weights)
        if not isinstance(reply, Missing):
            weights, why = _uncoded(run.study, model, weights)
            why = why or impossible(reply, run.study, metrics) or refusal_of(weights, arrays)
            if why is not None:
                reply = Missing(why)
        if isinstance(reply, Missing):
            missing[site] = reply.reason
            run.tell("missing", site=site, round=number, why=reply.reason)
            continue
        received = kept.step.coded.nbytes if kept.step and site in holders else whole
        told = reply.estimates.get(name)
        weight = run.strategy.weight(reply.patients, told, metrics[name], shares.get(site))
        parts[site] = _part(reply, sent, received, weight)
        yield weights, weight


def _uncoded(study: Study, model: State, arrived: Arrays) -> tuple[Arrays, str | None]:
    """Return a site's model, and why what arrived is none."""
    if study.codec_up is None:
        return arrived, None
    try:
        return moved_by(arrays_of(model), arrived, study.codec_up), None
    except MessageError as error:
        return {}, str(error)


def _part(reply: TrainReply, sent_bytes: int, received_bytes: int, weight: float) -> SiteRound:
    return SiteRound(
        seconds=reply.seconds,
        bytes_sent=sent_bytes,
        bytes_received=received_bytes,
        steps=reply.steps,
        train_loss=reply.train_loss,
        before=reply.estimates,
        privacy=reply.privacy,
        after=reply.trained,
        weight=weight,
    )
