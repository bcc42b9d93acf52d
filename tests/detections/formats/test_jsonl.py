import json
import os

from made_detections import SETTINGS, found, found_in

from birdinfer.detections.formats import write_table


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_detection_is_an_object(tmp_path):
    rows = read(write_table("jsonl", tmp_path, found, SETTINGS))
    assert [(row["file"], row["start"], row["end"], row["label"]) for row in rows] == [
        ("siteA/a.WAV", 0, 5, "eurbla"),
        ("siteA/a.WAV", 5, 20, "eurbla"),
        ("siteA/a.WAV", 5, 10, "0012"),
        ("siteB/c.ogg", 2.5, 7.25, "47158son16"),
    ]
    assert rows[1]["confidence"] == 0.987654
    assert rows[1]["clock_time"] == "2025-02-28T00:00:00+01:00"
    assert rows[3]["clock_time"] is rows[3]["site"] is rows[3]["latitude"] is None


def test_odd_names_are_text(tmp_path):
    names = ("a\n\t\u2028.wav", os.fsdecode(b"H\xf6hle.wav"), "=1.wav")
    rows = read(write_table("jsonl", tmp_path, lambda: iter(found_in(*names)), SETTINGS))
    assert [row["file"] for row in rows] == ["a\\x0a\\x09\\u2028.wav", "H\\xf6hle.wav", "=1.wav"]
