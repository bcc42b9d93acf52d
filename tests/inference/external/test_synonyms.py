import csv
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdinfer.inference.external import synonyms as home
from birdinfer.inference.external.synonyms import newest_name, synonyms, wider_name

BINOMIAL = re.compile(r"[a-z]{3,} [a-z]{3,}(-[a-z]+)?")


def rows():
    with Path(home.__file__).with_name("synonyms.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_synonyms_are_binomials_and_lead_nowhere_else():
    """No cycle and no chain: a newer name is not replaced itself, and a wider species is not a part of another."""
    newer, wider = synonyms()
    for names in (newer, wider):
        assert all(BINOMIAL.fullmatch(name) for pair in names.items() for name in pair)
        assert not names.keys() & names.values()
    assert not newer.keys() & (wider.keys() | set(wider.values())), "the rows of parts have the newest names"


def test_synonyms_say_each_name_once_and_since_when():
    names = [
        (row["kind"], row["old_genus"], epithet.partition(">")[0])
        for row in rows()
        for epithet in row["epithets"].split()
    ]
    assert len(names) == len(set(names)) > 1300
    for row in rows():
        assert row["kind"] in ("same", "part")
        assert re.fullmatch(r"[A-Z][a-zA-Zá]+( [12]\d{3})?", row["since"])
        assert row["old_genus"].istitle()
        assert row["new_genus"].istitle()
    assert [(row["kind"] == "part", row["old_genus"], row["new_genus"]) for row in rows()] == sorted(
        (row["kind"] == "part", row["old_genus"], row["new_genus"]) for row in rows()
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Carduelis spinus", "spinus spinus"),
        ("Parus  CAERULEUS", "cyanistes caeruleus"),
        ("Accipiter gentilis", "astur gentilis"),
        ("Charadrius alexandrinus", "anarhynchus alexandrinus"),
        ("Hyla cinerea", "dryophytes cinereus"),
        ("Turdus merula", "turdus merula"),
        ("Charadrius hiaticula", "charadrius hiaticula"),
    ],
)
def test_newest_name(old, new):
    assert newest_name(old) == new


def test_wider_name_of_an_older_name():
    assert wider_name("Accipiter atricapillus") == "astur gentilis"
    assert wider_name("Turdus merula") == ""


@given(st.sampled_from(sorted(synonyms().newer)))
def test_newest_name_is_final(name):
    assert newest_name(newest_name(name)) == newest_name(name) != name
