"""Windows like an example, whether it is a sound, an array, an embedded row or one of a table; and where they are."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_embeddings import write_embeddings
from make_bundles import SAMPLE_RATE, tone, write_sound

import birdinfer
from birdinfer.callbacks import Callback
from birdinfer.detections import queries
from birdinfer.detections.page import PageSettings
from birdinfer.detections.similar import SimilarSettings, find_similar, write_similar
from birdinfer.errors import BirdinferError
from birdinfer.inference.embedding_index import EmbeddingIndex
from birdinfer.inference.embeddings import INFO_NAME, read_embeddings
from birdinfer.tables.reviews import ANSWER


@pytest.fixture
def settings(embedded):
    return SimilarSettings(embeddings=embedded, k=4)


@pytest.fixture
def song(soundscapes):
    """Two embedded windows of 5 s, the second from 3 s of silence on."""
    return soundscapes / "site_2.ogg"


def places(found):
    return [(each.recording.name, each.start_seconds) for each in found]


def test_similar_finds_the_window_itself_only_if_it_may(settings, soundscapes):
    at = replace(settings, sounds=[soundscapes / "site_0.ogg"], at_seconds=[20.0])
    with_own = find_similar(replace(at, finds_own=True))
    assert places(with_own)[0] == ("site_0", 20.0)
    assert with_own[0].similarity == pytest.approx(1, abs=1e-5)
    assert {("site_0", start) for start in (15.0, 20.0, 25.0)}.isdisjoint(places(find_similar(at)))


def test_similar_finds_the_same_for_every_kind_of_example(settings, soundscapes, embedding_bundle, tmp_path):
    sound = soundscapes / "site_1.ogg"
    table = tmp_path / "examples.csv"
    table.write_text("recording,start,end\nsite_1,0,15\n")
    values = birdinfer.load(embedding_bundle).embed(sound).values
    ways = [
        {"sounds": [sound]}, {"sounds": [sound], "at_seconds": [0, 5, 10]}, {"table": table}, {"values": values},
        {"row_ids": ["site_1_5", "site_1_10", "site_1_15"], "label": "one"},
    ]  # fmt: skip
    found = [find_similar(replace(settings, finds_own=True, k=9, **way)) for way in ways]
    for other in found[1:]:
        assert places(other) == places(found[0])
        assert [each.similarity for each in other] == pytest.approx([each.similarity for each in found[0]], abs=1e-3)
    assert [each.species.label for each in (found[0][0], found[2][0], found[4][0])] == ["site_1", "examples", "one"]


def test_similar_takes_the_nearest_of_several_examples(settings, embedded):
    rows = ["site_0_5", "site_1_5", "site_2_5"]
    found = find_similar(replace(settings, row_ids=rows, label="any", finds_own=True, k=99))
    assert sorted(places(found)) == sorted(zip(*(lambda e: (e.recordings, e.start_seconds))(read_embeddings(embedded)),
                                               strict=True))  # fmt: skip
    assert [each.rank for each in found] == list(range(1, 18))
    values = read_embeddings(embedded).values.astype(np.float64)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    expected = (values @ values[[read_embeddings(embedded).row_ids.index(row) for row in rows]].T).max(axis=1)
    assert [each.similarity for each in found] == pytest.approx(sorted(expected, reverse=True))
    assert all(each.example.startswith(each.recording.name) for each in found[:3])


def test_similar_takes_so_many_windows_of_a_recording(settings):
    found = find_similar(replace(settings, row_ids=["site_0_5", "site_0_10"], label="x", per_recording=1, k=9))
    assert sorted(each.recording.name for each in found) == ["site_0", "site_1", "site_2"]


def test_similar_has_a_list_for_each_query(settings, soundscapes):
    found = find_similar(replace(settings, sounds=[soundscapes / "site_1.ogg"], row_ids=["site_0_5"]))
    assert [(each.species.label, each.rank) for each in found] == [
        (label, rank) for label in ("site_1", "site_0_5") for rank in (1, 2, 3, 4)
    ]


def test_similar_takes_of_reviews_those_that_are_right(settings, tmp_path):
    reviews = tmp_path / "reviews.csv"
    reviews.write_text(
        f"recording,file,start,end,label,confidence,{ANSWER},scientific_name,common_name\n"
        "site_0,site_0.ogg,5.0,10.0,eurrob1,0.9,right,Erithacus rubecula,European Robin\n"
        "site_1,site_1.ogg,0.0,5.0,eurrob1,0.8,wrong,Erithacus rubecula,European Robin\n"
        "site_2,site_2.ogg,0.0,5.0,eurbla,0.8,unsure,,\n"
    )
    found = find_similar(replace(settings, table=reviews))
    assert {each.example for each in found} == {"site_0_10"}
    assert found[0].species.common_name == "European Robin"


def test_similar_reads_sounds_from_the_tables_folder(settings, song, tmp_path):
    shutil.copy(song, tmp_path / "elsewhere.ogg")
    (tmp_path / "examples.csv").write_text("file,start,label\nelsewhere.ogg,0,whistle\n")
    found = find_similar(replace(settings, table=tmp_path / "examples.csv"))
    assert (found[0].species.label, places(found)[0]) == ("whistle", ("site_2", 0.0))
    assert found[0].similarity == pytest.approx(1, abs=1e-5)


class Lines(Callback):
    def __init__(self):
        self.warnings = []

    def on_warning(self, line):
        self.warnings.append(line)


def page_data(folder: Path) -> dict:
    return json.loads((folder / "page" / "events.js").read_text().partition("=")[2].rstrip().rstrip(";"))


def test_write_makes_a_table_and_a_page(settings, tmp_path):
    out, lines = tmp_path / "results", Lines()
    found = write_similar(replace(settings, row_ids=["site_0_5"]), out, PageSettings(title="Like it"), lines)
    with (out / "similar.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [(row["recording"], float(row["start"]), row["row_id"]) for row in table] == [
        (each.recording.name, each.start_seconds, each.row_id) for each in found
    ]
    assert [row["rank"] for row in table] == ["1", "2", "3", "4"]
    data = page_data(out)
    assert (data["title"], data["bundle"], data["measure"]) == ("Like it", "bundle", "similarity")
    assert sorted(data["events"]["start"]) == sorted(each.start_seconds for each in found)
    assert len(list((out / "page" / "sound").iterdir())) == 4
    assert lines.warnings == []
    before = (out / "similar.csv").read_bytes()
    write_similar(replace(settings, row_ids=["site_0_5"]), out, None)
    assert (out / "similar.csv").read_bytes() == before


def test_write_names_recordings_that_are_gone_and_finds_them_elsewhere(
    embedding_bundle, soundscapes, birdinfer, tmp_path
):
    shutil.copytree(soundscapes, tmp_path / "sound")
    embed = ("predict", tmp_path / "sound", "--bundle", embedding_bundle.folder, "-o", tmp_path / "s.csv", "-q")
    assert birdinfer(*embed, "--embeddings", tmp_path / "e")[0] == 0
    (tmp_path / "sound").rename(tmp_path / "moved")
    (tmp_path / "moved" / "site_1.ogg").unlink()
    settings, lines = SimilarSettings(embeddings=tmp_path / "e", row_ids=["site_0_5"], k=3, per_recording=1), Lines()
    found = write_similar(settings, tmp_path / "r", PageSettings(), lines)
    assert len(found) == 3
    assert page_data(tmp_path / "r")["events"]["clip"] == ["unreadable"] * 3
    assert "3 of the recordings are not where they were (site_0.ogg, ...)" in lines.warnings[0]
    write_similar(replace(settings, recordings=[tmp_path / "moved"]), tmp_path / "r", PageSettings(), lines)
    data = page_data(tmp_path / "r")
    names = [data["recordings"][each]["name"] for each in data["events"]["recording"]]
    assert {name for name, clip in zip(names, data["events"]["clip"], strict=True) if clip == "unreadable"} == {
        "site_1"
    }
    assert "1 of the recordings are not where they were (site_1.ogg)" in lines.warnings[1]


def test_similar_finds_channels_that_are_recordings_of_their_own(embedding_bundle, birdinfer, tmp_path):
    both = np.stack([tone(10.0, hz=800.0), tone(10.0, hz=5_000.0)], axis=1)
    (tmp_path / "sound").mkdir()
    write_sound(tmp_path / "sound" / "siteA_20260501_053000.wav", both, SAMPLE_RATE)
    embed = ("predict", tmp_path / "sound", "--bundle", embedding_bundle.folder, "-o", tmp_path / "s.csv", "-q")
    assert birdinfer(*embed, "--channel", "each", "--embeddings", tmp_path / "e")[0] == 0
    (tmp_path / "sound").rename(tmp_path / "moved")
    settings = SimilarSettings(embeddings=tmp_path / "e", row_ids=["siteA_20260501_053000_ch2_5"], k=3, finds_own=True)
    found = find_similar(replace(settings, recordings=[tmp_path / "moved"]))
    assert [each.recording.channel for each in found] == [2, 2, 1]
    assert {each.recording.file for each in found} == {"siteA_20260501_053000.wav"}
    assert found[0].recording.path == tmp_path / "moved" / "siteA_20260501_053000.wav"
    assert found[0].recording.clock(5.0).isoformat() == "2026-05-01T05:30:05"


def test_similar_describes_recordings_of_older_embeddings_by_name(tmp_path):
    values = np.random.default_rng(0).normal(0, 1, (6, 4))
    folder = write_embeddings(tmp_path / "m", {"siteA/20260501_053000": values})
    found = find_similar(SimilarSettings(embeddings=folder, values=values[0].astype(np.float32), k=1))
    assert found[0].recording.clock(5.0).isoformat() == "2026-05-01T05:30:05"


def bad_table(text):
    def make(folder, settings):
        (folder / "t.csv").write_text(text)
        return {"table": folder / "t.csv"}

    return make


def other_bundle(folder, settings):
    write_sound(folder / "a.wav", tone(5.0), SAMPLE_RATE)
    return {"sounds": [folder / "a.wav"], "bundle": birdinfer.load("demo").bundle.folder}


def bundle_gone(folder, settings):
    shutil.copytree(settings.embeddings, folder / "e")
    info = folder / "e" / "fold0" / INFO_NAME
    info.write_text(info.read_text().replace('"bundle": "', '"bundle": "/gone'))
    write_sound(folder / "a.wav", tone(5.0), SAMPLE_RATE)
    return {"sounds": [folder / "a.wav"], "embeddings": folder / "e"}


def long_sound(folder, settings):
    write_sound(folder / "a.wav", tone(20.0), SAMPLE_RATE)
    return {"sounds": [folder / "a.wav"]}


def broken_sound(folder, settings):
    (folder / "a.wav").write_text("no sound")
    return {"sounds": [folder / "a.wav"]}


def past_the_end(folder, settings):
    write_sound(folder / "a.wav", tone(5.0), SAMPLE_RATE)
    return {"sounds": [folder / "a.wav"], "at_seconds": [7.0]}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder, settings: {}, "nothing to search for - name a sound, --row-id or --queries"),
        (lambda folder, settings: {"embeddings": folder, "row_ids": ["a_5"]}, "no embeddings .* - birdinfer predict"),
        (lambda folder, settings: {"row_ids": ["site_0_7"]}, "holds no row site_0_7 - row ids stand in its index.csv"),
        (lambda folder, settings: {"row_ids": ["other_5"]}, "holds no recording other"),
        (lambda folder, settings: {"row_ids": ["other"]}, "does not end in _<end second>"),
        (lambda folder, settings: {"sounds": [folder / "no.wav"]}, "no such file"),
        (lambda folder, settings: {"row_ids": ["site_0_5"], "label": "a,b"}, "--label: 'a,b' holds ','"),
        (lambda folder, settings: {"row_ids": ["site_0_5"], "k": 0}, "-k: is 0"),
        (lambda folder, settings: {"row_ids": ["site_0_5"], "at_seconds": [1.0]}, "--at: is of one sound"),
        (lambda folder, settings: {"values": np.ones(3)}, "the embeddings have 32 numbers"),
        (lambda folder, settings: {"row_ids": ["site_0_5"], "recordings": [folder]}, "holds no sound file"),
        (bad_table("a,b\n1,2\n"), "has no column row_id, recording, file or filename"),
        (bad_table(f"file,start,{ANSWER}\na.wav,1,wrong\n"), "names no example"),
        (bad_table("recording,start\nsite_0,99\n"), "row 2 is of a second that site_0 does not have"),
        (bad_table("recording,start\nsite_0,soon\n"), "row 2 has no start in seconds"),
        (bad_table("recording,start\n,1\n"), "row 2 names no recording and no file"),
        (bad_table("recording,start\nnowhere,1\n"), "nowhere: no such file"),
        (other_bundle, "has no member fold0 with the graph that made the embeddings - name the bundle"),
        (bundle_gone, "the bundle that made the embeddings is not there any more - name it with --bundle"),
        (long_sound, "has more than 3 windows - --at SECONDS names the one that is meant"),
        (broken_sound, "a.wav: "),
        (past_the_end, "holds no sound at 7.0 s"),
    ],
)  # fmt: skip
def test_similar_refuses_in_one_line(settings, tmp_path, monkeypatch, make, message):
    monkeypatch.setattr(queries, "MOST_WINDOWS", 3)
    with pytest.raises(BirdinferError, match=message) as refused:
        find_similar(replace(settings, **make(tmp_path, settings)))
    assert "\n" not in str(refused.value)


def test_write_says_that_nothing_is_left(settings, tmp_path):
    lines = Lines()
    rows = read_embeddings(settings.embeddings).row_ids
    assert write_similar(replace(settings, row_ids=rows, label="all"), tmp_path / "r", PageSettings(), lines) == []
    assert lines.warnings == ["no window is left beside the examples themselves; --own finds these, too"]


def test_similar_finds_recordings_by_the_end_of_their_names(tmp_path):
    values = np.eye(4)
    folder = write_embeddings(tmp_path / "m", {"one/a": values, "two/a": values, "two/b": values})
    settings = SimilarSettings(embeddings=folder, k=1, finds_own=True)
    assert find_similar(replace(settings, row_ids=["b_10"]))[0].example == "two/b_10"
    assert find_similar(replace(settings, row_ids=["sites/two/b_10"]))[0].example == "two/b_10"
    with pytest.raises(BirdinferError, match="holds no recording a, or several"):
        find_similar(replace(settings, row_ids=["a_10"]))


def test_write_refuses_a_folder_of_other_things(settings, tmp_path):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "thesis.txt").write_text("mine")
    with pytest.raises(BirdinferError, match="holds other things than results of a search"):
        write_similar(replace(settings, row_ids=["site_0_5"]), tmp_path / "r", None)


def test_embedded_fixture_is_as_it_was(embedded):
    """The index beside them belongs to them."""
    with EmbeddingIndex.open(embedded) as index:
        assert np.array_equal(index.values, read_embeddings(embedded).values)
