"""wardround-sim: the command of a researcher on one machine.

    wardround-sim experiment=virtual_mri            run an experiment; any setting can follow
    wardround-sim resume runs/ID                    go on with a run that was killed
    wardround-sim baselines experiment=virtual_mri  the same, and pooled, local and ensemble models
    wardround-sim epsilons experiment=virtual_mri   the same at epsilon 1, 3, 8 and without privacy
    wardround-sim leave-one-out experiment=virtual_mri
                                                    the same without each site in turn, tested there
    wardround-sim hospitals experiment=virtual_mri run.dir=hospitals
                                                    make its hospitals' folders, train nothing: for
                                                    a federation over a real network
    wardround-sim audit experiment=virtual_mri      attack the largest site's private training, and
                                                    hold what it gave away against the epsilon
                                                    claimed: exit code 1 if the claim is broken;
                                                    audit.canaries=200, audit.delta=1e-5
    wardround-sim experiment=virtual_mri --profile  where the time of a round goes at the largest
                                                    hospital
    wardround-sim new my_study                      a commented folder for a study of one's own data
    wardround-sim @my_study/settings.txt            settings from a file, one a line
    wardround-sim page runs/ --port 8090            the runs of a folder in a browser, live or
                                                    finished, on this machine alone
    wardround-sim models                            the networks that a study may name; --json
    wardround-sim compress runs/ID model.channels=[8,16]
                                                    its model in int8, and as a smaller student
    wardround-sim uncertainty runs/ID               how far a finished run's answers may be believed
    wardround-sim tasks                             the tasks that a study may name; --json
    wardround-sim experiment=shift_study data.root=../shared/data run.dir=runs/shift
                                                    many methods on many data sets, in one table
    wardround-sim experiment=beyond data.root=../shared/data run.dir=runs/beyond
                                                    what restoration, survival and others reach

Settings are Hydra's: --help, --cfg job, --multirun. A verb tells of itself: resume --help.
"""

import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from json import JSONDecodeError
from multiprocessing import active_children
from pathlib import Path
from typing import NoReturn

from simulation.environment import ENVIRONMENT

# NumPy reads how many threads it may start when it is first imported.
os.environ.update(ENVIRONMENT)

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from pydantic import ValidationError
from rich.console import Console

from common.command import expanded, run_command, tell_error
from common.schema import SettingsError
from configs import CONFIG_FOLDER
from simulation.verb_help import help_of

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130
LOG_WIDTH = 120
EXIT_CODES = {"completed": 0, "failed": FAILED, "partial": 3}
SEVERITY = [0, EXIT_CODES["partial"], FAILED, BAD_INPUT]
"""Of several runs the worst code is told."""


def main() -> None:
    """Run the command line; the exit code is 0 only if a run is complete."""
    # Of the libraries, about their own next versions and hooks; nothing a user could act on.
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message="Full backward hook is firing")
    told = help_of(sys.argv[1:])
    if told is not None:
        sys.stdout.write(f"{told}\n")
        sys.exit(EXIT_CODES["completed"])
    first = sys.argv[1] if len(sys.argv) > 1 else ""
    if first in WITHOUT_STUDY:
        sys.exit(_guarded(WITHOUT_STUDY[first], sys.argv[2:]))
    if first in (*WITH_OPTIONS, *OF_A_STUDY):
        del sys.argv[1]
    if first in WITH_OPTIONS:
        WITH_OPTIONS[first]()
    verb = first if first in OF_A_STUDY else "run"
    try:
        sys.argv[1:] = expanded(sys.argv[1:])
    except ValueError as error:
        tell_error(error)
        sys.exit(BAD_INPUT)
    if "--profile" in sys.argv:
        sys.argv.remove("--profile")
        sys.exit(_hydra_run(partial(_profile, verb)))
    if verb == "audit":
        sys.exit(_hydra_run(partial(_audit, _taken_from_argv("audit."))))
    sys.exit(_hydra_run(OF_A_STUDY[verb]))


def _taken_from_argv(prefix: str) -> list[str]:
    """Take a verb's own settings off the command line: they are none of the study's."""
    taken = [argument for argument in sys.argv[1:] if argument.startswith(prefix)]
    sys.argv[1:] = [argument for argument in sys.argv[1:] if argument not in taken]
    return taken


def _hydra_run(run: Callable[[Path, list[str]], int]) -> int:
    given = sys.argv[1:]
    if not any(argument.startswith("-") for argument in given):
        # Before Hydra does: what it says of a misspelt setting leads astray.
        code = _guarded(_composes, (given,))
        if code:
            return code
    codes = []

    def job(_: DictConfig) -> None:
        about = HydraConfig.get()
        folder = Path(about.runtime.output_dir)
        codes.append(_guarded(run, (folder, list(about.overrides.task))))

    try:
        hydra.main(config_path=str(CONFIG_FOLDER), config_name="config", version_base="1.3")(job)()
    except SystemExit as end:
        # Hydra ends so after --help, and after it has told what does not compose.
        return BAD_INPUT if end.code else 0
    return max(codes, key=SEVERITY.index, default=0)


def _composes(overrides: list[str]) -> int:
    from common.config import compose

    compose(overrides)
    return EXIT_CODES["completed"]


def _run(with_baselines: bool, folder: Path, overrides: list[str]) -> int:
    from simulation.run import composed
    from simulation.shift_study import run_shift_study
    from simulation.show import carry_out

    run = composed(folder, overrides)
    if run.settings.table is not None:
        _stop_at_once("; the same command with this run.dir goes on")
        return EXIT_CODES[run_shift_study(folder, run, _console())]
    if run.settings.beyond is not None:
        from simulation.beyond import run_beyond

        _stop_at_once("; the same command with this run.dir goes on")
        return EXIT_CODES[run_beyond(folder, run, _console())]
    _stop_at_once(f"; go on with  wardround-sim resume {folder}")
    return EXIT_CODES[carry_out(run, with_baselines, _console())]


def _page() -> NoReturn:
    from simulation.page import app

    run_command(app, "wardround-sim page")


def _new() -> NoReturn:
    from simulation.new_study import app

    run_command(app, "wardround-sim new")


def _models(*arguments: str) -> int:
    from simulation.catalogue import show_models

    show_models(arguments, _console())
    return EXIT_CODES["completed"]


def _tasks(*arguments: str) -> int:
    from simulation.catalogue import show_tasks

    show_tasks(arguments, _console())
    return EXIT_CODES["completed"]


def _uncertainty(*arguments: str) -> int:
    folder = _one_folder("uncertainty", arguments)
    _stop_at_once("")
    from simulation.uncertainty import show_uncertainty

    show_uncertainty(folder, _console())
    return EXIT_CODES["completed"]


def _compress(*arguments: str) -> int:
    folder, student = _one_folder("compress", arguments[:1]), list(arguments[1:])
    _stop_at_once("")
    from simulation.compress import compress

    compress(folder, student, _console())
    return EXIT_CODES["completed"]


def _one_folder(verb: str, arguments: tuple[str, ...]) -> Path:
    if len(arguments) != 1:
        raise SettingsError(f"{verb} takes one folder, not {len(arguments)}: {verb} runs/ID")
    return Path(arguments[0])


def _resume(*arguments: str) -> int:
    _one_folder("resume", arguments)
    _stop_at_once(f"; go on with  wardround-sim resume {Path(arguments[0])}")
    from simulation.run import reopened
    from simulation.show import carry_out

    return EXIT_CODES[carry_out(reopened(Path(arguments[0])), False, _console())]


def _epsilons(folder: Path, overrides: list[str]) -> int:
    _stop_at_once("; the same command with this run.dir goes on")
    from simulation.epsilons import compare_epsilons
    from simulation.run import composed

    return EXIT_CODES[compare_epsilons(composed(folder, overrides), _console())]


def _leave_one_out(folder: Path, overrides: list[str]) -> int:
    _stop_at_once("; the same command with this run.dir goes on")
    from simulation.leave_one_out import leave_one_out
    from simulation.run import composed

    return EXIT_CODES[leave_one_out(composed(folder, overrides), _console())]


def _hospitals(folder: Path, overrides: list[str]) -> int:
    _stop_at_once("; the same command with this run.dir goes on")
    from server.progress import Progress
    from simulation.run import composed, make_hospitals

    console = _console()
    for site in make_hospitals(composed(folder, overrides), Progress(console)):
        console.print(str(site), highlight=False, markup=False, soft_wrap=True)
    return EXIT_CODES["completed"]


def _profile(verb: str, folder: Path, overrides: list[str]) -> int:
    if verb != "run":
        raise SettingsError(f"--profile looks at a round of an experiment; leave {verb} out")
    _stop_at_once("")
    from simulation.profile import show_profile
    from simulation.run import composed

    show_profile(composed(folder, overrides), _console())
    return EXIT_CODES["completed"]


def _audit(settings: list[str], folder: Path, overrides: list[str]) -> int:
    _stop_at_once("")
    from simulation.audit import audit_settings
    from simulation.audit_show import carry_out_audit
    from simulation.run import composed

    stands = carry_out_audit(composed(folder, overrides), audit_settings(settings), _console())
    return EXIT_CODES["completed" if stands else "failed"]


def _stop_at_once(way_on: str) -> None:
    """Let Ctrl-C end this process without unwinding.

    Every file is whole at every moment, and Ray's processes end with the one that began them. To
    unwind would wait for the ServerApp's thread, and show the errors of all that is torn down.
    """

    def stop(signal_number: int, frame: object) -> None:
        errors = Console(stderr=True)
        errors.show_cursor(True)
        for child in active_children():
            child.kill()
        errors.print(f"\nstopped{way_on}", highlight=False)
        os._exit(INTERRUPTED)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)


def _console() -> Console:
    # A log file has no width of its own; rich would squeeze the table into 80 columns.
    return Console() if sys.stdout.isatty() else Console(width=LOG_WIDTH)


def _guarded(command: Callable[..., int], arguments: object) -> int:
    try:
        return command(*arguments)  # type: ignore[misc]
    except (ValidationError, JSONDecodeError):
        # A file of the run is broken: that is not the user's setting.
        traceback.print_exc()
        return FAILED
    except ValueError as error:
        tell_error(error)
        return BAD_INPUT
    except Exception:
        traceback.print_exc()
        return FAILED


WITHOUT_STUDY: Mapping[str, Callable[..., int]] = {
    "models": _models,
    "tasks": _tasks,
    "compress": _compress,
    "uncertainty": _uncertainty,
    "resume": _resume,
}
"""Verbs that take words of their own."""
WITH_OPTIONS: Mapping[str, Callable[[], NoReturn]] = {"page": _page, "new": _new}
"""Verbs that take options of their own, and end the process."""
OF_A_STUDY: Mapping[str, Callable[..., int]] = {
    "run": partial(_run, False),
    "baselines": partial(_run, True),
    "epsilons": _epsilons,
    "leave-one-out": _leave_one_out,
    "hospitals": _hospitals,
    "audit": _audit,
}
"""Verbs that take a study's settings; without a verb it is run."""


if __name__ == "__main__":
    main()
