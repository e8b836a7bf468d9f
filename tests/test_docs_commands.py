"""Commands, settings, outputs and snippets of the pages are those that there are."""

import contextlib
import dataclasses
import os
import re
import shlex
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from unittest.mock import patch

import click
import nibabel as nib
import numpy as np
import pytest
import typer
import yaml
from omegaconf import OmegaConf
from typer.testing import CliRunner

import client.cli
import server.cli
import simulation.cli
from client.mapping import load_names
from client.privacy.policy import Policy, load_policy
from client.site import load_site
from common.models.config import StartConfig
from common.schema import typed
from configs import CONFIG_FOLDER
from server.tracking.config import TrackingConfig
from server.tracking.webhook import signature
from simulation.new_study import Images, Kind, make_study
from simulation.verb_help import USES
from tests.documented import (
    APPS,
    DRAWN,
    PAGES,
    ROOT,
    Shown,
    blocks_of,
    check_command,
    commands_of,
)
from tests.finished import finished_run

DOCS = ROOT / "docs"
GROUPS = "model|task|data|training|strategy|privacy|evaluation|compression|simulation"
FILES = (".py", ".safetensors", ".onnx", ".pt2", ".ts")
RUN = [
    ("models.md", "wardround-sim models"),
    ("models.md", "wardround-sim experiment=smoke model=vit"),
    ("beyond.md", "wardround-sim tasks"),
    ("tutorial.md", "wardround-sim experiment=virtual_mri rouns=20"),
    ("tutorial.md", "wardround-sim new my_study"),
]
"""Commands that cost little, and whose whole output is the next block of their page."""
WRONG = [
    "wardround-sim experiment=virtual_mri rouns=20",
    "wardround-sim experiment=virtual_mry",
    "wardround-sim experiment=virtual_mri training.lr=-1",
    "wardround-sim baseline experiment=virtual_mri",
    "wardround-sim --multirn experiment=smoke seed=0,1",
    "wardround-sim --multirun experiment=smoke privacy=none,patient_eps9",
    "wardround-sim audit experiment=virtual_mri audit.canary=3",
    "wardround-sim compress runs/mine model.chanels=[8,16]",
    "wardround-sim resume runs/one runs/two",
    "wardround-sim models --yaml",
    "wardround-sim page runs/ --prot 8090",
    "wardround-sim new my_study --task regression",
    "wardround-site preflght --root DIR",
    "wardround-site ledger",
    "wardround-site predict --model runs/mine --input scans --ouput answers",
    "wardround-site predict --model runs/mine --input scans",
    "wardround-site preflight --site SITE.yaml experiment=retinal",
    "wardround-server run experiment=virtual_mri round=3 sites=all > run.log 2>&1 &",
]


@pytest.fixture
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def with_a_study(in_a_folder: Path) -> Path:
    """A folder to work in, with what `wardround-sim new my_study` makes."""
    make_study(Path("my_study"), Kind.SEGMENTATION, Images.PICTURES)
    return in_a_folder


def programs() -> str:
    """What the programs say of themselves, as a page: a command in a block, a line each."""
    help_text = OmegaConf.load(CONFIG_FOLDER / "config.yaml").hydra.help.template
    told = [help_text, *(str(each.cli.__doc__) for each in (simulation, client, server))]
    told += USES.values()
    told += [
        path.read_text().replace("\\\n#", " ") for path in CONFIG_FOLDER.glob("experiment/*.yaml")
    ]
    lines = re.findall(r"wardround-\w+(?: \S+)+", "\n".join(told).replace("${", "$"))
    assert len(lines) > 60
    return "\n".join(["```", *lines, "```"])


@pytest.mark.parametrize("page", [p for p in PAGES if p.name != DRAWN], ids=lambda p: p.stem)
def test_every_command_of_a_page_is_one_that_there_is(page: Path, with_a_study: Path) -> None:
    for shown in commands_of(page.read_text()):
        if (page.name, " ".join(shown.words)) in RUN:
            # It is run below, and may be there to be refused.
            continue
        try:
            check_command(shown)
        except (ValueError, click.ClickException) as error:
            pytest.fail(f"{page.name}: {shlex.join(shown.words)}: {error}")


def test_every_command_that_the_programs_name_is_one_that_there_is(with_a_study: Path) -> None:
    for shown in commands_of(programs()):
        check_command(shown._replace(whole=False))


def test_the_pages_show_commands_of_each_kind() -> None:
    found = [shown for page in PAGES for shown in commands_of(page.read_text())]
    assert len(found) > 200
    for program in ("wardround-sim", "wardround-site", "wardround-server"):
        assert len([shown for shown in found if shown.words[0] == program and shown.whole]) > 3


@pytest.mark.parametrize("wrong", WRONG)
def test_a_command_that_there_is_not_is_found(wrong: str) -> None:
    (shown,) = commands_of(f"So:\n\n```\n{wrong}\n```\n")
    with pytest.raises((ValueError, click.ClickException)):
        check_command(shown)


def test_words_are_those_of_a_shell() -> None:
    text = """Say `wardround-site studies`, or

    ```yaml
    wardround-site: no command
    ```
    ```
    nice wardround-sim --multirun 'seed=0, 1' a.{b,c}=null \\
        'd={e:1,f:2}'   # why
    bin/wardround-server start --listen HOST > log 2>&1 &
    eval "$(wardround-sim -sc install=bash)"
    ```
    """
    blocked = [
        ("wardround-sim", "--multirun", "seed=0, 1", "a.b=null", "a.c=null", "d={e:1,f:2}"),
        ("wardround-server", "start", "--listen", "HOST"),
        ("wardround-sim", "-sc", "install=bash"),
    ]
    inline = Shown(("wardround-site", "studies"), whole=False)
    assert commands_of(text) == [*(Shown(words, whole=True) for words in blocked), inline]


def settings_that_there_are() -> set[str]:
    """Return the dotted names of all settings of the groups, and of the parts of one."""
    found = {f"model.start.{field.name}" for field in dataclasses.fields(StartConfig)}

    def walk(before: str, node: object) -> None:
        for key, value in node.items() if isinstance(node, Mapping) else ():
            found.add(f"{before}{key}")
            walk(f"{before}{key}.", value)

    for path in CONFIG_FOLDER.glob("*/**/*.yaml"):
        group = path.relative_to(CONFIG_FOLDER).parts[0]
        values = yaml.safe_load(path.read_text())
        walk("" if group in ("experiment", "method") else f"{group}.", values)
    return found


def module_of(name: str) -> Path:
    path = ROOT / name.replace(".", "/")
    return path if path.is_dir() else path.with_suffix(".py")


def test_every_setting_that_a_page_names_is_one_that_there_is() -> None:
    there, named = settings_that_there_are(), set()
    for page in PAGES:
        names = re.findall(rf"`(?:[^`]*\s)?((?:{GROUPS})\.[a-z_0-9.]+)(?==|`)", page.read_text())
        named |= {name for name in names if not name.endswith(FILES)}
    modules = {name for name in named - there if module_of(name).exists()}
    assert len(named) > 40
    assert sorted(named - there - modules) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_file_of_ours_that_a_page_names_is_there(page: Path) -> None:
    folders = "client|server|common|simulation|tests|docker|docs|configs"
    for name in re.findall(rf"`((?:{folders})/[\w./-]+\.(?:py|yaml|md|jsonl))`", page.read_text()):
        # What an exported model's folder holds is of its own.
        places = (ROOT / name, ROOT / "tests" / name)
        assert any(path.exists() for path in places) or name == "docs/README.md", name


def told_by(command: str, capture: pytest.CaptureFixture[str]) -> str:
    """Run wardround-sim in this process; return what it prints."""
    with (
        patch.dict(os.environ),
        patch("sys.argv", shlex.split(command)),
        contextlib.suppress(SystemExit),
    ):
        simulation.cli.main()
    told = capture.readouterr()
    return told.out + told.err


@pytest.mark.parametrize(("page", "command"), RUN)
def test_a_command_prints_what_its_page_shows(
    page: str, command: str, in_a_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = blocks_of((DOCS / page).read_text(), "")
    shown = blocks[blocks.index(f"{command}\n") + 1]
    assert shown.split() == told_by(command, capsys).split(), command


def verbs(app: typer.Typer) -> list[list[str]]:
    """Return the words of every verb of a command line."""
    found = [[], *([each.name or each.callback.__name__] for each in app.registered_commands)]
    for group in app.registered_groups:
        found += [[group.name, *words] for words in verbs(group.typer_instance)]
    return found


@pytest.mark.parametrize("name", APPS)
def test_every_verb_tells_how_it_is_used(name: str) -> None:
    for words in verbs(APPS[name]) if name.startswith("wardround") else [[]]:
        told = CliRunner().invoke(APPS[name], [*words, "--help"])
        assert told.exit_code == 0, words
        assert "Usage:" in told.output


def _policy(path: Path) -> None:
    assert load_policy(path) == Policy()


def _site(path: Path) -> None:
    assert load_site(path).name == "st-marys"


def _tracking(path: Path) -> None:
    settings = yaml.safe_load(path.read_text())
    secret = path.with_name(Path(settings["webhook_secret"]).name)
    secret.touch(0o600)
    secret.write_text("0123456789abcdef")
    settings["webhook_secret"] = str(secret)
    assert typed(settings, TrackingConfig, "tracking").stall_s == 3600


def _names(path: Path) -> None:
    assert len(load_names(path).sequences) == 2


@pytest.mark.parametrize(
    ("page", "begins", "check"),
    [
        ("privacy.md", "privacy:", _policy),
        ("deploy.md", "name:", _site),
        ("tracking.md", "mlflow:", _tracking),
        ("clinical-data.md", "sequences:", _names),
    ],
)
def test_a_file_that_a_page_shows_is_read_as_the_page_says(
    page: str, begins: str, check: Callable[[Path], None], tmp_path: Path
) -> None:
    (block,) = [b for b in blocks_of((DOCS / page).read_text(), "yaml") if b.startswith(begins)]
    path = tmp_path / "shown.yaml"
    path.write_text(block)
    check(path)


def python_of(page: str) -> str:
    """Return the one block of Python in a page."""
    (block,) = blocks_of((DOCS / page).read_text(), "python")
    return block


def test_the_tutorials_python_draws_an_answer(in_a_folder: Path) -> None:
    Path("new").mkdir()
    Path("answers").mkdir()
    image = nib.Nifti1Image(np.arange(256, dtype=np.float32).reshape(16, 16), np.eye(4))
    nib.save(image, "new/rural-0000.nii")
    mask = nib.Nifti1Image(np.eye(16, dtype=np.uint8), np.eye(4))
    nib.save(mask, "answers/rural-0000_mask.nii.gz")
    with patch.dict(os.environ, MPLBACKEND="agg"):
        exec(compile(python_of("tutorial.md"), "tutorial.md", "exec"), {})
    assert Path("answer.png").stat().st_size > 0


def test_a_receiver_as_the_page_writes_it_knows_our_webhook() -> None:
    names: dict[str, Callable[..., bool]] = {}
    exec(compile(python_of("tracking.md"), "tracking.md", "exec"), names)
    secret, at, body = b"0123456789abcdef", str(int(time.time())), b'{"kind":"ended"}'
    headers = {
        "X-Wardround-Time": at,
        "X-Wardround-Signature": f"sha256={signature(secret, at, body)}",
    }
    assert names["is_genuine"](secret, headers, body)
    assert not names["is_genuine"](secret, headers, body + b" ")


def test_a_digest_is_of_the_settings_as_the_page_says(
    in_a_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finished_run(Path("runs/example"))
    (block,) = [b for b in blocks_of((DOCS / "result.md").read_text(), "") if "hashlib" in b]
    exec(compile(shlex.split(block)[2], "result.md", "exec"), {})
    assert capsys.readouterr().out == "True\n"
