"""PROTOCOLS.md names what there is: fields, modules, models, and each death once."""

import re
from pathlib import Path

import pytest

from papaya_pool import scoreboard

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "papaya_pool" / "PROTOCOLS.md").read_text()
PARTS = dict(re.findall(r"\n#+ ([^\n]+)\n(.*?)(?=\n#+ |\Z)", PAGE, re.DOTALL))
TABLES = {"H": "The head (one page)", "P": "A process's slot", "S": "A session's slot"}
AS_ONE = {"check_n": "check", "preamble_size": "preamble", "triple": "n"}


def fields():
    for constant in vars(scoreboard):
        table, _, name = constant.partition("_")
        if table in TABLES and name.isupper():
            yield pytest.param(table, name.lower(), id=constant)


def words(part):
    return set(re.findall(r"`([^`\n]+)`", part))


@pytest.mark.parametrize(("table", "name"), list(fields()))
def test_every_field_has_its_writer(table, name):
    assert AS_ONE.get(name, name) in words(PARTS[TABLES[table]])


@pytest.mark.parametrize("table", TABLES)
def test_every_row_is_a_field(table):
    names = {constant.lower() for constant in vars(scoreboard)}
    first = re.findall(r"^\| ([^|]*`[^|]*)\|", PARTS[TABLES[table]], re.MULTILINE)
    named = {word for column in first for word in re.findall(r"`(\w+)`", column)}
    texts = {"name", "address", "token", "preamble"} if table == "S" else set()
    assert named - texts <= {name.partition("_")[2] for name in names}


def test_every_file_that_it_names_exists():
    named = [word for word in words(PAGE) if word.endswith(".py")]
    folders = [ROOT, ROOT / "papaya_pool", ROOT / "tests" / "model"]
    missing = [n for n in named if not any((at / n).exists() for at in folders)]
    assert named
    assert not missing


def test_every_death_has_a_name_of_its_own():
    rows = re.findall(
        r"^\| `([a-z-]+)` \|", PAGE.partition("## The crash table")[2], re.M
    )
    assert len(rows) > 50
    assert len(set(rows)) == len(rows)
