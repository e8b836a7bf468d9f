"""The commands that the pages show, and whether each is one that there is.

Nothing is run: a command line is parsed by its own parser, and a study's settings are composed.
"""

import re
import shlex
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import NamedTuple

import click
import typer
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser

import client.cli
import server.cli
import simulation.new_study
import simulation.page
from common.command import expanded
from common.config import compose, study_of
from simulation.audit import audit_settings
from simulation.cli import OF_A_STUDY, WITH_OPTIONS, WITHOUT_STUDY
from simulation.config import simulation_of

ROOT = Path(__file__).parents[1]
PAGES = [
    *ROOT.glob("*.md"),
    *(page for page in (ROOT / "docs").rglob("*.md") if "_build" not in page.parts),
]
DRAWN = "code-map.md"
"""The page whose blocks are drawings: there a command has other words beside it."""
PLACEHOLDERS = {
    r"=NAME$": "=virtual_mri",
    r"\bSHA256\b": "0" * 64,
    # Any settings, and any value of one.
    r"^([\w.]+=)?\.\.\.$": "",
}
APPS = {
    "wardround-site": client.cli.app,
    "wardround-server": server.cli.app,
    "page": simulation.page.app,
    "new": simulation.new_study.app,
}
_BLOCK = re.compile(r"^ *```(\S*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`]+)`")
_PROGRAM = re.compile(r"(?:^|(?<=[\s(/]))wardround-(?:sim|site|server)\s.*")
_SUBSHELL = re.compile(r'"?\$\(([^)]*)\)"?')
_DIGEST = re.compile(r"\$\(sha256sum [^)]*\)")
_BRACES = re.compile(r"([^\s'\"]*)\{(\w+(?:,\w+)+)\}([^\s'\"]*)")
_ENDS = ("&&", "||", ";", "|", ">", "<", "&")
_SITES = re.compile(r"sites=[\w,*-]+")
"""What `wardround-server run` takes beside a study's settings."""


class Shown(NamedTuple):
    """A command of a page, as the words that a shell makes of it."""

    words: tuple[str, ...]
    whole: bool
    """It stands in a block, to be copied; in a sentence a verb may be named without its words."""


def blocks_of(text: str, *languages: str) -> list[str]:
    """Return the code blocks of a page in one of the languages; "" is one without a name."""
    return [block for language, block in _BLOCK.findall(text) if language in languages]


def commands_of(text: str) -> list[Shown]:
    """Return the commands of our programs that a page shows, in blocks and in sentences."""
    blocks = [block.replace("\\\n", " ") for block in blocks_of(text, "", "sh", "bash")]
    lines = [(line, True) for block in blocks for line in block.splitlines()]
    inline = _INLINE.findall(_BLOCK.sub("", text))
    lines += [(" ".join(code.split()), False) for code in inline]
    found = [
        (_PROGRAM.search(_SUBSHELL.sub(r"\1", _DIGEST.sub(64 * "0", line))), whole)
        for line, whole in lines
    ]
    return [Shown(_words(match[0]), whole) for match, whole in found if match is not None]


def _words(line: str) -> tuple[str, ...]:
    line = _BRACES.sub(lambda m: " ".join(f"{m[1]}{one}{m[3]}" for one in m[2].split(",")), line)
    reader = shlex.shlex(line, posix=True, punctuation_chars=True)
    reader.whitespace_split = True
    words: list[str] = []
    for word in reader:
        if word in _ENDS:
            # A descriptor, as in 2>&1, is no word of the command.
            return tuple(words[:-1] if words[-1:] == ["2"] else words)
        words.append(word)
    return tuple(words)


def check_command(shown: Shown) -> None:
    """Refuse a command that its program would refuse for its words alone.

    Raises:
        ValueError, click.ClickException: a verb, an option, a setting or a value is not known.
    """
    words = list(shown.words)
    for placeholder, value in PLACEHOLDERS.items():
        words = [re.sub(placeholder, value, word) for word in words]
    program, *rest = filter(None, words)
    if program == "wardround-sim":
        _check_simulation(rest, shown.whole)
    else:
        settings = _settings_of(program, rest, shown.whole)
        check_settings(tuple(word for word in settings if not _SITES.fullmatch(word)))


def _check_simulation(words: Sequence[str], whole: bool) -> None:
    verb = words[0] if words else ""
    if verb in WITHOUT_STUDY:
        _check_own_words(verb, words[1:])
        return
    if verb in WITH_OPTIONS:
        _settings_of(verb, words[1:], whole)
        return
    given = expanded(words[1:] if verb in OF_A_STUDY else words)
    try:
        known = get_args_parser().parse_args([word for word in given if word != "--profile"])
    except SystemExit as end:
        raise ValueError(f"{given}: there is no such option") from end
    if known.shell_completion:
        return
    own = [word for word in known.overrides if verb == "audit" and word.startswith("audit.")]
    audit_settings(own)
    of_study = [word for word in known.overrides if word not in own]
    for settings in _swept(of_study) if known.multirun else [tuple(of_study)]:
        check_settings(settings)


def _check_own_words(verb: str, words: Sequence[str]) -> None:
    if verb in ("models", "tasks"):
        fits = list(words) in ([], ["--json"])
    else:
        # The folder is a run's, or left out in a sentence. A student is made of a run's settings.
        fits = verb == "compress" or len(words) < 2
        check_settings(("experiment=smoke", *words[1:]))
    if not fits:
        raise ValueError(f"wardround-sim {verb} does not take {' '.join(words)}")


def _swept(overrides: Sequence[str]) -> Iterator[tuple[str, ...]]:
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    choices = [
        [f"{one.get_key_element()}={value}" for value in one.sweep_string_iterator()]
        if one.is_sweep_override()
        else [str(one.input_line)]
        for one in parsed
    ]
    return product(*choices)


@cache
def check_settings(overrides: tuple[str, ...]) -> None:
    """Refuse settings of a study that do not compose; none are none to refuse.

    Raises:
        SettingsError: as the command itself would say.
    """
    if overrides:
        tree = compose(overrides)
        study_of(tree)
        simulation_of(tree)


def _settings_of(name: str, words: Sequence[str], whole: bool) -> list[str]:
    """Parse a command line down to its last verb; return what it has of a study's settings."""
    command, above, rest = typer.main.get_command(APPS[name]), None, list(words)
    while whole or rest:
        for option in command.params:
            # To be parsed shall neither ask for a value nor write into the shell's settings.
            if isinstance(option, click.Option) and option.prompt:
                option.required, option.prompt = False, None
            if str(option.name).endswith("_completion"):
                option.callback = None
        context = command.make_context(name, rest, parent=above)
        rest = [*context._protected_args, *context.args]
        if not isinstance(command, click.Group):
            lists = [context.params[str(of.name)] for of in command.params if of.nargs == -1]
            return [word for words in lists for word in words or ()]
        if rest:
            name, command, rest = command.resolve_command(context, rest)
            above = context
        elif whole:
            raise ValueError(f"{name} needs a verb")
    return []
