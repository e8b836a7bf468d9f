"""What each verb of wardround-sim that Hydra or typer does not describe says to --help."""

from collections.abc import Sequence

HELP = ("--help", "-h")
_FOLDER = "runs/ID is the folder of a run."
_STUDY = "All choices and settings that can follow: wardround-sim --help"
USES = {
    "run": f"""\
wardround-sim run experiment=virtual_mri rounds=20

Run an experiment; the same without the word run.
{_STUDY}""",
    "baselines": f"""\
wardround-sim baselines experiment=virtual_mri

Run an experiment, and train beside it what does without federation: one model on all data
together, one of each site alone, and the ensemble of those.
{_STUDY}""",
    "epsilons": f"""\
wardround-sim epsilons experiment=virtual_mri

Run an experiment at epsilon 1, 3 and 8 and without privacy, and show what privacy costs.
{_STUDY}""",
    "leave-one-out": f"""\
wardround-sim leave-one-out experiment=virtual_mri

Run an experiment without each site in turn, and test it there: what a hospital that did not join
would get. It stands in leave_one_out.json, and in the report and result of the folder all.
{_STUDY}""",
    "hospitals": f"""\
wardround-sim hospitals experiment=virtual_mri run.dir=hospitals

Make an experiment's hospitals as folders, and train nothing.
{_STUDY}""",
    "audit": f"""\
wardround-sim audit experiment=virtual_mri audit.canaries=200 audit.delta=1e-5

Attack the private training of the largest site, and hold what it gave away against the epsilon
claimed; the exit code is 1 if the claim is broken.
{_STUDY}""",
    "resume": f"""\
wardround-sim resume runs/ID

Go on with a run that was killed or stopped, after its last whole round. {_FOLDER}""",
    "compress": f"""\
wardround-sim compress runs/ID model.channels=[8,16]

Make a finished run's model small: in int8, and as a student of the settings that follow.
{_FOLDER}""",
    "uncertainty": f"""\
wardround-sim uncertainty runs/ID

Show how far a finished run's answers may be believed. {_FOLDER}""",
    "models": """\
wardround-sim models --json

List the networks that a study may name, as a table or, with --json, for programs.""",
    "tasks": """\
wardround-sim tasks --json

List the tasks that a study may name, as a table or, with --json, for programs.""",
}
"""By verb: a command that there is, and what it does. page and new tell of themselves."""


def help_of(arguments: Sequence[str]) -> str | None:
    """Return what the words after wardround-sim ask to be told, or None.

    None too where no verb comes first: Hydra then tells of all.
    """
    if not arguments or arguments[0] not in USES or not set(HELP) & set(arguments[1:]):
        return None
    return f"Usage: {USES[arguments[0]]}"
