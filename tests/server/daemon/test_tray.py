"""Weights over the public door, as the door's app hands the requests on."""

import asyncio
import hashlib
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest

from common.files import write_json
from server.daemon.tray import (
    MORE_BYTES,
    MOST_AT_ONCE,
    MOST_KEPT,
    PIECE_BYTES,
    PREFIX,
    Tray,
)
from server.studies import RESULT, StudyRun, ask
from server.weights import LONGEST

MODEL = bytes(range(256)) * 10_000
Part = MutableMapping[str, Any]


def name_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Centre:
    def __init__(self, home: Path) -> None:
        (home / "runs").mkdir()
        self.tray = Tray(home)
        self.run: StudyRun = ask(home, "study", "d" * 64, [], ["st-a", "st-b"], 1.0)
        self.weights = self.run.folder / "weights"
        (self.weights / "down").mkdir(parents=True)
        (self.weights / "down" / name_of(MODEL)).write_bytes(MODEL)
        (self.weights / LONGEST).write_text(str(len(MODEL)))

    def path(self, content: bytes) -> str:
        return f"{PREFIX}{self.run.folder.name}/{name_of(content)}"

    def ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        site: str = "st-a",
        length: int | None = -1,
    ) -> tuple[int, bytes]:
        """Send a request; return the status and the body of the answer."""
        parts = [body[at : at + 65536] for at in range(0, len(body), 65536)] or [b""]
        told: list[Part] = []

        async def receive() -> Part:
            if not parts:
                return {"type": "http.disconnect"}
            piece = parts.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(parts)}

        async def send(event: Part) -> None:
            told.append(event)

        length = len(body) if length == -1 else length
        asyncio.run(self.tray.answer(site, method, path, length, receive, send))
        return told[0]["status"], b"".join(part.get("body", b"") for part in told[1:])

    def handed_in(self, site: str = "st-a") -> set[str]:
        folder = self.weights / "up" / site
        return {path.name for path in folder.iterdir()} if folder.exists() else set()


@pytest.fixture
def centre(tmp_path: Path) -> Centre:
    return Centre(tmp_path)


def test_a_site_is_given_the_weights_of_a_round_in_pieces(centre: Centre) -> None:
    assert len(MODEL) > 2 * PIECE_BYTES
    assert centre.ask("GET", centre.path(MODEL)) == (200, MODEL)


def test_what_a_site_hands_in_lies_in_its_own_folder(centre: Centre) -> None:
    update = MODEL[::-1]
    for _ in range(2):
        assert centre.ask("PUT", centre.path(update), update)[0] == 200
    assert centre.handed_in() == {name_of(update)}
    assert (centre.weights / "up" / "st-a" / name_of(update)).read_bytes() == update
    assert centre.ask("GET", centre.path(update), site="st-b")[0] == 404


def test_a_site_that_was_not_agreed_reaches_nothing(centre: Centre) -> None:
    assert centre.ask("GET", centre.path(MODEL), site="st-c")[0] == 404
    assert centre.ask("PUT", centre.path(b"x"), b"x", site="st-c")[0] == 404
    assert centre.handed_in("st-c") == set()


def test_a_study_that_has_ended_gives_and_takes_nothing(centre: Centre) -> None:
    write_json(centre.run.folder / RESULT, {"status": "completed", "reason": None})
    assert centre.ask("GET", centre.path(MODEL))[0] == 404
    assert centre.ask("PUT", centre.path(b"x"), b"x")[0] == 404


@pytest.mark.parametrize(
    "path",
    [
        PREFIX,
        f"{PREFIX}../{name_of(MODEL)}",
        f"{PREFIX}..%2f/{name_of(MODEL)}",
        f"{PREFIX}run/{name_of(MODEL).upper()}",
        f"{PREFIX}run/../../../{name_of(MODEL)}",
        f"{PREFIX}run/{name_of(MODEL)}/",
        f"{PREFIX}run/{name_of(MODEL)}\n",
    ],
)
def test_no_other_path_names_a_file(path: str, centre: Centre) -> None:
    path = path.replace("run/", f"{centre.run.folder.name}/")
    assert centre.ask("GET", path)[0] == 404
    assert centre.ask("PUT", path, b"x")[0] == 404


def test_other_methods_are_refused(centre: Centre) -> None:
    assert centre.ask("DELETE", centre.path(MODEL))[0] == 405


def test_bytes_that_are_not_what_they_are_called_are_not_kept(centre: Centre) -> None:
    assert centre.ask("PUT", centre.path(b"xyz"), b"abc")[0] == 400
    assert centre.ask("PUT", centre.path(b"xyz"), b"xyz", length=2)[0] == 400
    assert centre.ask("PUT", centre.path(b"xyz"), b"xyz", length=4)[0] == 400
    assert centre.handed_in() == set()


@pytest.mark.parametrize("length", [None, 0, len(MODEL) + MORE_BYTES + 1])
def test_an_update_of_no_possible_length_is_refused_unread(
    length: int | None, centre: Centre
) -> None:
    assert centre.ask("PUT", centre.path(b"xyz"), b"xyz", length=length)[0] == 413
    assert centre.handed_in() == set()


def test_a_site_fills_the_disk_with_so_many_files_at_most(centre: Centre) -> None:
    updates = [bytes([number]) * 100 for number in range(MOST_KEPT + 2)]
    for update in updates:
        assert centre.ask("PUT", centre.path(update), update)[0] == 200
    assert centre.handed_in() == {name_of(update) for update in updates[-MOST_KEPT:]}


def test_a_disk_without_room_is_told_and_nothing_half_is_left(
    centre: Centre, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", full)
    status, body = centre.ask("PUT", centre.path(b"xyz"), b"xyz")
    assert (status, b"No space left" in body) == (507, True)
    assert centre.handed_in() == set()


def test_a_connection_that_ends_within_an_update_leaves_nothing(centre: Centre) -> None:
    async def receive() -> Part:
        return {"type": "http.disconnect"}

    statuses: list[Part] = []

    async def send(event: Part) -> None:
        statuses.append(event)

    asyncio.run(centre.tray.answer("st-a", "PUT", centre.path(b"x"), 1, receive, send))
    assert statuses[0]["status"] == 400
    assert centre.handed_in() == set()


def test_a_site_may_not_hold_many_transfers(centre: Centre) -> None:
    statuses: list[int] = []

    async def scene() -> None:
        go_on = asyncio.Event()

        async def waiting() -> Part:
            await go_on.wait()
            return {"type": "http.request", "body": b"x", "more_body": False}

        async def send(event: Part) -> None:
            if "status" in event:
                statuses.append(event["status"])

        def handing_in(site: str) -> Any:
            path = centre.path(b"x")
            return centre.tray.answer(site, "PUT", path, 1, waiting, send)

        open_ones = [asyncio.create_task(handing_in("st-a")) for _ in range(MOST_AT_ONCE)]
        await asyncio.sleep(0.05)
        await handing_in("st-a")
        other = asyncio.create_task(handing_in("st-b"))
        await asyncio.sleep(0.05)
        go_on.set()
        await asyncio.gather(*open_ones, other)

    asyncio.run(scene())
    assert statuses == [429, *[200] * (MOST_AT_ONCE + 1)]


def test_where_only_a_step_is_sent_a_whole_update_is_still_taken(centre: Centre) -> None:
    (centre.weights / "down" / name_of(MODEL)).unlink()
    (centre.weights / "down" / name_of(b"step")).write_bytes(b"step")
    assert len(MODEL) > MORE_BYTES
    assert centre.ask("PUT", centre.path(MODEL), MODEL)[0] == 200
