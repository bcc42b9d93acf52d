import pytest

from birdinfer.audio.sound_file import Damage, truncated
from birdinfer.audio.status import Status


def test_nothing_found_is_ok():
    damage = Damage()
    assert (damage.status, damage.text) == (Status.ok, "")


@pytest.mark.parametrize("order", [1, -1])
def test_the_worst_finding_is_the_status_and_all_are_in_the_text(order):
    damage = Damage()
    for status, what in [(Status.silent, "silent"), (Status.truncated, "cut"), (Status.non_finite, "NaN")][::order]:
        damage.note(status, what)
    assert damage.status is Status.truncated
    assert sorted(damage.text.split("; ")) == ["NaN", "cut", "silent"]


def test_a_finding_is_noted_once():
    damage = Damage()
    for _ in range(3):
        damage.note(Status.damaged, "stream 2 in part cannot be decoded")
    assert damage.text == "stream 2 in part cannot be decoded"


def test_gaps_are_one_finding_however_many():
    damage = Damage()
    damage.gap(12.34, 0.5)
    assert (damage.status, damage.text) == (Status.damaged, "0.5 s missing at 12.3 s, taken as silence")
    for place in range(1, 1_000):
        damage.gap(12.34 + place, 0.5)
    assert damage.text == "500.0 s missing in 1000 gaps, the first at 12.3 s, taken as silence"


@pytest.mark.parametrize(
    ("decoded", "expected", "text"),
    [
        (23.4, 60.0, "truncated: 23.4 of 60.0 s"),
        (59.98, 60.0, "truncated: 59.98 of 60.00 s"),
        (59.999, 60.0, "truncated: 59.999 of 60.000 s"),
        (0.0, 0.0004, "truncated: 0.0000 of 0.0004 s"),
        (23.4, None, "truncated after 23.4 s"),
    ],
)
def test_truncated_distinguishes_the_two_lengths(decoded, expected, text):
    assert truncated(decoded, expected) == text
