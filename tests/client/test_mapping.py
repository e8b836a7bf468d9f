from pathlib import Path

import pytest

from client.mapping import load_names
from common.schema import SettingsError


def test_the_first_pattern_that_fits_counts_and_capitals_do_not(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(
        "sequences: {'T1*post*': t1c, 't1*': t1}\nlabels: {GTV: 1, 255: 2}\n"
    )
    names = load_names(tmp_path / "m.yaml")
    assert [names.sequence(own) for own in ("t1 POST gd", "T1_mprage", "t2")] == ["t1c", "t1", None]
    assert [names.label(own) for own in (" gtv ", "255", "1")] == [1, 2, None]
    assert names.mask == "*"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("a: 1", "no mapping file"),
        ("- 1", "no mapping file"),
        ("sequences: [a]", "must be pairs"),
        ("sequences: {a: 1}", "to names"),
        ("labels: {a: -1}", "0 or more"),
        ("labels: {a: true}", "0 or more"),
        ("labels: {", "cannot be read"),
        ("labels: {GTV: 1, gtv: 2}", "'gtv' twice, with several values"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, text: str, word: str) -> None:
    (tmp_path / "m.yaml").write_text(text)
    with pytest.raises(SettingsError, match=word):
        load_names(tmp_path / "m.yaml")
