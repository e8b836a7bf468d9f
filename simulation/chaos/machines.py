"""What happens to a hospital's machine: its disk is full, its clock is wrong, its time is over."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np

from simulation.chaos.answers import OPEN
from simulation.chaos.federation import SitePlace
from simulation.chaos.hospitals import NAMES
from simulation.chaos.scenario import (
    VICTIM,
    Scenario,
    SkippedError,
    Stage,
    missed_in,
    must,
    undisturbed_in_all,
)
from simulation.chaos.waiting import until

DISK = "8m"
VALID_S = 45
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
HUGE = 3e38


def full_disk(stage: Stage) -> str:
    """Fill a site's disk before the charge of round 2 is written, and empty it after."""
    federation = stage.shared()
    site = federation.sites[VICTIM]
    federation.end_site(VICTIM)
    with small_disk(site.state):
        federation.start_sites(VICTIM)
        study = federation.run(stage.study(OPEN))
        study.wait_for("reply", site=VICTIM, round=1)
        filler = site.state / "filler"
        _fill(filler)
        study.wait_for("round", round=3)
        filler.unlink()
        held = missed_in(stage, federation, study, 2, "ledger")
        federation.end_site(VICTIM)
    federation.start_sites(VICTIM)
    return held


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """Put a folder on a disk of its own that is soon full.

    Raises:
        SkippedError: this user may not mount.
    """
    aside = folder.with_name("state.aside")
    folder.rename(aside)
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=0700", "tmpfs", str(folder)]
    try:
        if subprocess.run(mount, capture_output=True).returncode:
            raise SkippedError("a small disk cannot be mounted by this user")
        shutil.copytree(aside, folder, dirs_exist_ok=True)
        try:
            yield
            # What was charged there must not be forgotten.
            shutil.rmtree(aside)
            shutil.copytree(folder, aside, ignore=shutil.ignore_patterns("*.sock"))
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=True)
    finally:
        folder.rmdir()
        aside.rename(folder)


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for size in (65536, 512, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue


def wrong_clock(seconds: int, stage: Stage) -> str:
    """Start a site whose clock is an hour off, and set it right while the study waits for it."""
    if not FAKETIME.exists():
        raise SkippedError("libfaketime is not installed (Debian: faketime)")
    federation, overrides = stage.shared(), stage.study()
    expected = stage.expected(overrides)
    site, clock = federation.sites[VICTIM], stage.folder / "clock"
    federation.end_site(VICTIM)
    clock.write_text(f"{seconds:+d}\n")
    federation.begin_site(
        VICTIM,
        {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        },
    )
    study = federation.run(overrides)
    until("the status names the clock", lambda: "clock" in site.status().last_error, 90.0)
    must(not site.status().connected, "the site is not connected")
    must(not site.charges(study.digest), "nothing is charged")
    study.wait_for("waiting")
    clock.write_text("+0\n")
    held = undisturbed_in_all(federation, study, expected)
    federation.end_site(VICTIM)
    federation.start_sites(VICTIM)
    return f"{held}; before: not connected, and the status names the clock"


def ended_certificate(stage: Stage) -> str:
    """Let a site's certificate end while it is connected, and give it a new one."""
    federation, overrides = stage.shared(), stage.study()
    expected = stage.expected(overrides)
    site = federation.sites[VICTIM]
    federation.end_site(VICTIM)
    ends = datetime.now(UTC) + timedelta(seconds=VALID_S)
    federation.enrol(site, ends - timedelta(days=1, seconds=1), days=1)
    federation.start_sites(VICTIM)
    left_s = (ends - datetime.now(UTC)).total_seconds()
    until("the certificate has ended", lambda: datetime.now(UTC) > ends, left_s + 2.0)
    until("the site is refused", lambda: not site.status().connected, 30.0)
    study = federation.run(overrides)
    study.wait_for("waiting")
    told = site.status().last_error
    must("certificate" in told and "ended" in told, f"the status names the certificate: {told}")
    federation.enrol(site)
    return f"{undisturbed_in_all(federation, study, expected)}; before: refused, status says why"


def broken_images(stage: Stage) -> str:
    """Give a hospital images that are not finite once they are read."""
    stage.give_up_shared()
    with stage.fresh() as federation:
        _spoil(federation.sites[VICTIM])
        federation.start_server()
        federation.start_sites()
        study = federation.run(stage.study(OPEN), join_timeout_s=20.0)
        status = study.wait()
        must(status == "partial", f"status partial, not {status} ({study.reason})")
        must(VICTIM in study.reason, f"the reason names {VICTIM}: {study.reason}")
        others = sorted(set(NAMES) - {VICTIM})
        must(study.participants() == [others] * 3, f"participants {study.participants()}")
        return f"partial, without {VICTIM}: {study.reason}"


def _spoil(site: SitePlace) -> None:
    images = site.folder.parent.parent / "data" / site.name
    for path in images.rglob("*.nii*"):
        image = nib.load(path)
        values = np.asanyarray(image.dataobj)
        if values.max() > 1:
            loud = np.where(np.indices(values.shape).sum(0) % 2, HUGE, -HUGE).astype(np.float32)
            nib.save(nib.Nifti1Image(loud, image.affine), path)


SCENARIOS = [
    Scenario("full disk", "a site's disk is full as the charge is written", full_disk),
    Scenario("clock +1 h", "a site's clock is an hour ahead", partial(wrong_clock, 3600)),
    Scenario("clock -1 h", "a site's clock is an hour behind", partial(wrong_clock, -3600)),
    Scenario("certificate ended", "a site's certificate ends, then a new one", ended_certificate),
    Scenario("broken images", "a site's images overflow float32", broken_images),
]
