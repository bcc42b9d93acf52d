import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdinfer.audio.levels import ChannelLevel, Finding
from birdinfer.audio.status import Status
from birdinfer.config import WindowConfig
from birdinfer.errors import AudioError, ConfigError, InputNotFoundError, MetadataError
from birdinfer.inference.results import SoundscapeResult
from birdinfer.prediction.score_store import ScoreStore
from birdinfer.prediction.writer import SubmissionWriter, Written, write_file_report
from birdinfer.species import Species
from birdinfer.submission.formats import read_sample

LABELS = ("comcuc", "0012", "1161364")
FALLBACK = (0.1, 0.2, 0.3)


def write(tmp_path, stems, sample=None, **options):
    """Write a submission of stems -> number of windows (None: failed); its rows as lists of text."""
    rng = np.random.default_rng(0)
    results = []
    score_store = ScoreStore(len(LABELS))
    for stem, n_windows in stems.items():
        path = Path(f"{stem}.ogg")
        if n_windows:
            score_store.add(path, rng.random((n_windows, len(LABELS)), np.float32))
        results.append(SoundscapeResult(path, Status.ok if n_windows else Status.unreadable))
    writer = SubmissionWriter(LABELS, FALLBACK, WindowConfig(), sample=sample, **options)
    written = writer.write(tmp_path / "submission.csv", score_store, results)
    scores = {stem: score_store.scores(Path(f"{stem}.ogg")) for stem in stems}
    with (tmp_path / "submission.csv").open(newline="") as file:
        return list(csv.reader(file)), scores, written


def sample_of(tmp_path, header, row_ids):
    path = tmp_path / "sample_submission.csv"
    path.write_text(
        "\n".join([",".join(header), *(f"{row_id}," + ",".join("0" * (len(header) - 1)) for row_id in row_ids)])
    )
    return read_sample(path)


def test_pitfall_6_the_stem_is_used_as_it_stands(tmp_path):
    rows, _, _ = write(tmp_path, {"soundscape_42": 2, "BC2026_Test_0001_S05_20250227_010002": 1})
    assert [row[0] for row in rows] == [
        "row_id", "soundscape_42_5", "soundscape_42_10", "BC2026_Test_0001_S05_20250227_010002_5",
    ]  # fmt: skip


def test_pitfall_6_numeric_labels_keep_their_zeros(tmp_path):
    rows, _, _ = write(tmp_path, {"a": 1})
    assert rows[0] == ["row_id", "comcuc", "0012", "1161364"]


def test_scores_survive_the_table_in_order(tmp_path):
    rows, scores, _ = write(tmp_path, {"a": 12})
    found = np.array([row[1:] for row in rows[1:]], np.float32)
    np.testing.assert_allclose(found, scores["a"], rtol=1e-6)
    assert np.array_equal(found.argsort(axis=0), scores["a"].argsort(axis=0))


def test_a_sample_decides_rows_columns_and_order(tmp_path):
    sample = sample_of(tmp_path, ["row_id", "1161364", "comcuc"], ["b_10", "a_5", "gone_5", "a_15"])
    rows, scores, written = write(tmp_path, {"a": 2, "b": 2}, sample)
    assert rows[0] == ["row_id", "1161364", "comcuc"]
    assert [row[0] for row in rows[1:]] == ["b_10", "a_5", "gone_5", "a_15"]
    np.testing.assert_allclose(np.array(rows[1][1:], float), scores["b"][1, [2, 0]], rtol=1e-6)
    assert rows[3][1:] == rows[4][1:] == ["0.3", "0.1"]  # no such file; a window past the file's end
    assert written == Written(rows=4, fallback_rows=2, unused_labels=1, rows_without_file=1, rows_past_end=1)


def test_sound_that_was_not_scored_has_no_row(tmp_path):
    """Nothing in a row would show that it is the prior; the side table shows the files."""
    rows, _, written = write(tmp_path, {"a": 3, "broken": None, "b": 2})
    assert [row[0] for row in rows[1:]] == ["a_5", "a_10", "a_15", "b_5", "b_10"]
    assert written == Written(rows=5, fallback_rows=0, unused_labels=0)


@given(order=st.permutations([f"{stem}_{end}" for stem in ("a_1", "b") for end in (5, 10, 15)]))
def test_any_order_of_a_sample_gets_the_same_values(tmp_path_factory, order):
    tmp_path = tmp_path_factory.mktemp("order")
    rows, scores, _ = write(tmp_path, {"a_1": 3, "b": 3}, sample_of(tmp_path, ["row_id", *LABELS], order))
    for row in rows[1:]:
        stem, _, end = row[0].rpartition("_")
        np.testing.assert_allclose(np.array(row[1:], float), scores[stem][int(end) // 5 - 1], rtol=1e-6)


def test_2021_lists_the_species_that_are_present(tmp_path):
    rows, scores, _ = write(tmp_path, {"3575_COL_20191231": 4}, year=2021, threshold=0.6)
    assert rows[0] == ["row_id", "birds"]
    for index, row in enumerate(rows[1:]):
        present = [
            label for label, score in zip(LABELS, scores["3575_COL_20191231"][index], strict=True) if score >= 0.6
        ]
        assert row == [f"3575_COL_{5 * index + 5}", " ".join(present) or "nocall"]
    assert write(tmp_path, {"1_COR_2": 1}, year=2021, threshold=1.0)[0][1] == ["1_COR_5", "nocall"]


def test_2022_asks_about_each_species(tmp_path):
    rows, scores, _ = write(tmp_path, {"soundscape_7": 1}, year=2022)
    assert rows == [
        ["row_id", "target"],
        *([f"soundscape_7_{label}_5", str(bool(scores["soundscape_7"][0, column] >= 0.5))]
          for column, label in enumerate(LABELS)),
    ]  # fmt: skip
    sample = sample_of(tmp_path, ["row_id", "target"], ["soundscape_7_0012_5"])
    assert len(write(tmp_path, {"soundscape_7": 1}, sample, year=2022)[0]) == 2


def test_an_unknown_year_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="2019 is not known - choose one of 2021 to 2026"):
        write(tmp_path, {"a": 1}, year=2019)


def test_windows_that_do_not_end_at_whole_seconds_are_refused():
    """Their rows would be looked up under a rounded end, and hold the fallback without a word."""
    with pytest.raises(ConfigError, match=r"window_seconds: is 2\.5, row ids count whole seconds"):
        SubmissionWriter(LABELS, FALLBACK, WindowConfig(2.5))


@pytest.mark.parametrize(
    ("header", "row_ids", "problem"),
    [
        (["id", "comcuc"], ["a_5"], "first column is 'id', needed is 'row_id'"),
        (["row_id", "comcuc", "comcuc"], ["a_5"], "column 'comcuc' stands 2 times"),
        (["row_id", "comcuc"], ["a_5", "b_5", "a_5"], "row_id 'a_5' stands 2 times"),
        (["row_id", "comcuc"], [], "has no rows"),
        (
            ["row_id", "comcuc", "houspa"],
            ["a_5"],
            "1 species that the bundle does not score: houspa - .* --missing-species prior fills their columns",
        ),
        (["row_id", "houspa"], ["a_5"], "does not score: houspa; it scores none that is asked for - name another"),
        (["row_id", "comcuc"], ["a_five"], "row_id 'a_five' does not end in _<end second>"),
        (["row_id", "comcuc"], ["5"], "row_id '5' does not end in"),
        (["row_id", "birds"], ["a_5"], "are those of 2021 or 2022: give --year"),
    ],
)
def test_a_sample_that_cannot_be_met_is_refused_in_one_line(tmp_path, header, row_ids, problem):
    with pytest.raises(MetadataError, match=problem) as caught:
        write(tmp_path, {"a": 1}, sample_of(tmp_path, header, row_ids))
    assert str(caught.value).startswith(str(tmp_path / "sample_submission.csv"))


@pytest.mark.parametrize("year", [2021, 2022])
def test_a_sample_of_another_year_is_refused(tmp_path, year):
    with pytest.raises(MetadataError, match=f"not those of {year}"):
        write(tmp_path, {"a": 1}, sample_of(tmp_path, ["row_id", *LABELS], ["a_5"]), year=year)


def test_an_unknown_species_of_2022_is_refused(tmp_path):
    with pytest.raises(MetadataError, match="does not score: houspa"):
        write(tmp_path, {"a": 1}, sample_of(tmp_path, ["row_id", "target"], ["a_houspa_5"]), year=2022)


def sample_in(tmp_path, header, row_ids):
    return SubmissionWriter(LABELS, FALLBACK, WindowConfig(), sample=sample_of(tmp_path, header, row_ids))


STEMS = st.sets(st.sampled_from(["a", "b", "soundscape_1", "soundscape_soundscape_1", "BC_1_S05"]), min_size=1)


@given(asked=STEMS, there=st.one_of(STEMS, st.just(set())))
def test_rows_of_recordings_that_are_not_there_are_counted_and_reported(tmp_path_factory, asked, there):
    tmp_path = tmp_path_factory.mktemp("asked")
    sample = sample_of(tmp_path, ["row_id", *LABELS], [f"{stem}_{end}" for stem in asked for end in (5, 10)])
    writer = SubmissionWriter(LABELS, FALLBACK, WindowConfig(), sample=sample)
    line = writer.sample_problem([Path(f"{stem}.ogg") for stem in there])
    _, _, written = write(tmp_path, dict.fromkeys(there, 2), sample)
    gone = asked - there
    assert written.rows_without_file == written.fallback_rows == 2 * len(gone)
    assert bool(line) == bool(gone)
    if gone:
        assert line.startswith(str(sample.path))
        assert "\n" not in line
        assert f" {2 * len(gone)} rows hold the fallback" in line
        assert ("none of" in line) == (gone == asked and bool(there))
        assert ("your files like" in line) == bool(there)


def test_a_sample_that_matches_no_file_is_reported_with_both_names(tmp_path):
    line = sample_in(tmp_path, ["row_id", *LABELS], ["BC_5", "BC_10"]).sample_problem(
        [Path("x/s0.wav"), Path("s1.wav")]
    )
    assert line == (
        f"{tmp_path / 'sample_submission.csv'}: none of 2 files is in the sample, all 2 rows hold the fallback (its "
        "rows look like BC_5, your files like s0.wav) - predict its recordings, or name the sample of yours"
    )


def test_2021_matches_files_by_the_names_of_its_rows(tmp_path):
    sample = sample_of(tmp_path, ["row_id", "birds"], ["3575_COL_5"])
    writer = SubmissionWriter(LABELS, FALLBACK, WindowConfig(), sample=sample, year=2021)
    assert writer.sample_problem([Path("3575_COL_20170105.ogg")]) == ""


@pytest.mark.parametrize(("end", "is_lost"), [(0, True), (5, False), (7, True), (10, False), (15, True)])
def test_rows_where_a_whole_file_has_no_window_are_counted(tmp_path, end, is_lost):
    """Ends counted from the start of windows, between them, or behind the sound."""
    sample = sample_of(tmp_path, ["row_id", *LABELS], [f"a_{end}"])
    assert write(tmp_path, {"a": 2}, sample)[2].rows_past_end == is_lost


MISSING = ("houspa", "grekis")


@given(columns=st.permutations([*LABELS, *MISSING]), filler=st.sampled_from(["prior", 0.0, 0.125, 1.0]))
def test_species_that_the_bundle_lacks_are_filled_and_the_others_as_without_them(tmp_path_factory, columns, filler):
    tmp_path = tmp_path_factory.mktemp("missing")
    sample = sample_of(tmp_path, ["row_id", *columns], ["a_5", "gone_5", "a_10"])
    rows, scores, written = write(tmp_path, {"a": 2}, sample, missing_species=filler)
    assert rows[0] == ["row_id", *columns]
    found = np.array([row[1:] for row in rows[1:]], float)
    here = [columns.index(label) for label in LABELS]
    np.testing.assert_allclose(found[np.ix_([0, 2], here)], scores["a"], rtol=1e-6)
    np.testing.assert_allclose(found[1, here], FALLBACK, rtol=1e-6)
    value = float(np.float32(np.mean(np.float32(FALLBACK)))) if filler == "prior" else filler
    assert found[:, [columns.index(label) for label in MISSING]] == pytest.approx(value)
    assert written.unused_labels == 0


def test_what_is_filled_is_reported_in_a_line(tmp_path):
    sample = sample_of(tmp_path, ["row_id", "comcuc", *MISSING], ["a_5"])
    writer = SubmissionWriter(LABELS, FALLBACK, WindowConfig(), sample=sample, missing_species=0.01)
    assert writer.missing_problem() == (
        f"{sample.path}: 2 of its species are not in the bundle and hold 0.01 in all rows: houspa, grekis"
    )
    assert sample_in(tmp_path, ["row_id", *LABELS], ["a_5"]).missing_problem() == ""


BUNDLE_SPECIES = [
    Species("comcuc", "Cuculus canorus"),
    Species("0012", "Turdus merula"),
    Species("1161364", "Turdus pilaris"),
]
TAXONOMY = """primary_label,scientific_name,common_name,class_name
redwin,Turdus iliacus,Redwing,Aves
houspa,Passer domesticus,House Sparrow,Aves
"""


@pytest.mark.parametrize(("with_taxonomy", "label"), [(True, "redwin"), (False, "Turdus iliacus")])
def test_missing_species_of_genus_have_the_highest_score_of_theirs(tmp_path, with_taxonomy, label):
    if with_taxonomy:
        (tmp_path / "taxonomy.csv").write_text(TAXONOMY)
    sample = sample_of(tmp_path, ["row_id", "houspa", label, *LABELS], ["a_5", "a_10", "gone_5"])
    options = {"missing_species": "genus", "species": BUNDLE_SPECIES}
    rows, scores, _ = write(tmp_path, {"a": 2}, sample, **options)
    found = np.array([row[1:] for row in rows[1:]], float)
    expected = [*scores["a"][:, 1:].max(axis=1), max(FALLBACK[1:])]
    np.testing.assert_allclose(found[:, 1], expected, rtol=1e-6)
    assert not found[:, 0].any()
    line = SubmissionWriter(LABELS, FALLBACK, WindowConfig(), sample=sample, **options).missing_problem()
    assert "2 of its species are not in the bundle and hold the highest of their genus (1) or 0 in all rows" in line


def test_missing_species_of_genus_need_their_names(tmp_path):
    sample = sample_of(tmp_path, ["row_id", "houspa", *LABELS], ["a_5"])
    with pytest.raises(ConfigError, match=r"put taxonomy.csv beside .*sample_submission.csv"):
        write(tmp_path, {"a": 1}, sample, missing_species="genus", species=BUNDLE_SPECIES)


def test_a_missing_species_that_is_the_bundles_in_another_spelling_is_named_first(tmp_path):
    sample = sample_of(tmp_path, ["row_id", "comcuc", *MISSING, *"abcd", "1161364.0"], ["a_5"])
    line = SubmissionWriter(LABELS, FALLBACK, WindowConfig(), sample=sample, missing_species=0.0).missing_problem()
    assert "in all rows: '1161364.0', in the bundle '1161364' but for the .0 that pandas writes, houspa, grekis" in line
    with pytest.raises(MetadataError, match=r"does not score: '1161364.0', in the bundle '1161364' but for the .0"):
        SubmissionWriter(LABELS, FALLBACK, WindowConfig(), sample=sample)


def test_a_missing_species_of_2022_is_absent_below_the_threshold(tmp_path):
    sample = sample_of(tmp_path, ["row_id", "target"], ["a_houspa_5", "a_comcuc_5"])
    for filler, cell in ((0.1, "False"), (0.9, "True")):
        assert write(tmp_path, {"a": 1}, sample, year=2022, missing_species=filler)[0][1] == ["a_houspa_5", cell]


def test_an_empty_or_missing_sample_is_refused(tmp_path):
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(MetadataError, match="first column is 'missing'"):
        read_sample(tmp_path / "empty.csv")
    with pytest.raises(InputNotFoundError):
        read_sample(tmp_path / "gone.csv")


def test_names_with_commas_and_quotes_are_quoted(tmp_path):
    rows, _, _ = write(tmp_path, {'a,"b"': 1})
    assert rows[1][0] == 'a,"b"_5'


def test_the_file_report_names_every_file(tmp_path):
    results = [
        SoundscapeResult(Path("a.ogg"), Status.ok, n_rows=12, seconds=60, speech=((1.25, 3.0), (5.0, 6.5))),
        SoundscapeResult(Path("b.ogg"), Status.unreadable, problem="x, y"),
        SoundscapeResult(
            Path("c.wav"),
            Status.truncated,
            n_rows=5,
            seconds=23.4,
            expected_seconds=60.0,
            level="without overlap",
            problem="truncated: 23.4",
        ),
    ]
    write_file_report(tmp_path / "r.csv", results)
    with (tmp_path / "r.csv").open(newline="") as file:
        assert [[*row[:7], row[-1]] for row in csv.reader(file)] == [
            ["file", "status", "seconds", "expected_seconds", "rows", "level", "problem", "speech_seconds"],
            ["a.ogg", "ok", "60.000", "", "12", "", "", "3.2"],
            ["b.ogg", "unreadable", "0.000", "", "0", "", "x, y", ""],
            ["c.wav", "truncated", "23.400", "60.000", "5", "without overlap", "truncated: 23.4", ""],
        ]


def test_the_file_report_has_a_level_for_each_channel(tmp_path):
    dead = ChannelLevel(
        peak=0.0, rms_dbfs=None, zeros=1.0, clipped=0.0, dc=-0.00001, bandwidth_hz=0, usual_dbfs=None,
        findings=((Finding.dead, " (all samples are 0)"),),
    )  # fmt: skip
    fine = ChannelLevel(
        peak=0.5, rms_dbfs=-30.04, zeros=0.00123, clipped=0.0, dc=0.01, bandwidth_hz=16_000, usual_dbfs=-35.0
    )
    results = [
        SoundscapeResult(Path("a.ogg"), Status.ok, channel="2", levels=(dead, fine)),
        SoundscapeResult(Path("b.ogg"), Status.ok, channel="mean", levels=(dead,)),
        SoundscapeResult(Path("c.ogg"), Status.unreadable),
    ]
    write_file_report(tmp_path / "r.csv", results)
    with (tmp_path / "r.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    names = ["channel", "peak_dbfs", "rms_dbfs", "zeros", "clipped", "dc", "bandwidth_hz", "microphone"]
    assert [[row[header.index(name)] for name in names] for row in rows] == [
        ["2", "-inf;-6.0", "-inf;-30.0", "1.0000;0.0012", "0.000000;0.000000", "0.0000;0.0100", "0;16000",
         "channel 1: dead (all samples are 0)"],
        ["mean", "-inf", "-inf", "1.0000", "0.000000", "0.0000", "0", "dead (all samples are 0)"],
        [""] * 8,
    ]  # fmt: skip


@pytest.mark.parametrize("status", [Status.truncated, Status.damaged, Status.unreadable, Status.failed])
@pytest.mark.parametrize("claim", [None, 0.0, 5.0, 60.0, float("nan"), float("inf"), 1e18])
def test_no_claim_of_a_header_makes_or_loses_a_row(tmp_path, claim, status):
    score_store = ScoreStore(len(LABELS))
    score_store.add(Path("a.wav"), np.full((2, len(LABELS)), 0.7, np.float32))
    results = [
        SoundscapeResult(Path("a.wav"), Status.truncated, n_rows=2, expected_seconds=claim),
        SoundscapeResult(Path("b.wav"), status, expected_seconds=claim),
    ]
    SubmissionWriter(LABELS, FALLBACK, WindowConfig()).write(tmp_path / "s.csv", score_store, results)
    assert [line.split(",")[0] for line in (tmp_path / "s.csv").read_text().splitlines()[1:]] == ["a_5", "a_10"]


@pytest.mark.parametrize(
    ("claim", "n_rows"), [(None, 2), (5.0, 2), (59.999, 12), (60.001, 12), (30.4, 6), (float("nan"), 2), (1e18, 2)]
)
@pytest.mark.parametrize("status", [Status.skipped_by_budget, Status.stopped])
def test_what_a_time_budget_leaves_out_has_rows_by_the_header(tmp_path, claim, n_rows, status):
    score_store = ScoreStore(len(LABELS))
    score_store.add(Path("a.wav"), np.full((2, len(LABELS)), 0.7, np.float32))
    results = [SoundscapeResult(Path("a.wav"), status, n_rows=2, expected_seconds=claim)]
    written = SubmissionWriter(LABELS, FALLBACK, WindowConfig()).write(tmp_path / "s.csv", score_store, results)
    assert (written.rows, written.fallback_rows) == (n_rows, n_rows - 2)


SITES = {Path("siteA/1.wav"): "siteA/1", Path("siteB/1.wav"): "siteB/1", Path("siteB/2.wav"): "siteB/2"}


def rows_of_sites(tmp_path, sample=None):
    score_store = ScoreStore(len(LABELS), names=SITES)
    for number, path in enumerate(SITES, start=1):
        score_store.add(path, np.full((1, len(LABELS)), number / 10, np.float32))
    writer = SubmissionWriter(LABELS, FALLBACK, WindowConfig(), sample=sample, names=SITES)
    writer.check_names(list(SITES))
    writer.write(tmp_path / "s.csv", score_store, [SoundscapeResult(path, Status.ok, n_rows=1) for path in SITES])
    return [line.split(",")[:2] for line in (tmp_path / "s.csv").read_text().splitlines()[1:]]


def test_rows_have_the_names_of_recordings_with_their_folders(tmp_path):
    assert rows_of_sites(tmp_path) == [["siteA/1_5", "0.1"], ["siteB/1_5", "0.2"], ["siteB/2_5", "0.3"]]


def test_a_sample_may_name_files_without_their_folders_or_with_them(tmp_path):
    header = ["row_id", *LABELS]
    assert rows_of_sites(tmp_path, sample_of(tmp_path, header, ["2_5"])) == [["2_5", "0.3"]]
    assert rows_of_sites(tmp_path, sample_of(tmp_path, header, ["siteB/1_5"])) == [["siteB/1_5", "0.2"]]
    with pytest.raises(AudioError, match=r"siteB/1.wav: would have the same rows as siteA/1.wav \(1_...\)"):
        rows_of_sites(tmp_path, sample_of(tmp_path, header, ["1_5", "2_5"]))


def test_a_sample_finds_names_whose_accents_macos_has_taken_apart(tmp_path):
    composed, apart = "S\u00e3o_1", "Sa\u0303o_1"
    rows, _, written = write(tmp_path, {apart: 1}, sample_of(tmp_path, ["row_id", *LABELS], [f"{composed}_5"]))
    assert (rows[1][0], written.fallback_rows) == (f"{composed}_5", 0)
    both = sample_of(tmp_path, ["row_id", *LABELS], [f"{composed}_5", f"{apart}_5"])
    _, _, written = write(tmp_path, {apart: 1, composed: 1}, both)
    assert written.fallback_rows == 0


def test_2021_refuses_files_that_differ_only_in_what_its_rows_leave_out():
    """One row would stand twice in the table, and both files' with the scores of one."""
    paths = [Path("3575_COL_20170105.ogg"), Path("3575_COL_20170106.ogg")]
    with pytest.raises(AudioError, match=r"3575_COL_20170106.ogg: would have the same rows as 3575_COL_20170105.ogg"):
        SubmissionWriter(LABELS, FALLBACK, WindowConfig(), year=2021).check_names(paths)
    SubmissionWriter(LABELS, FALLBACK, WindowConfig(), year=2021).check_names(paths[:1] * 2)
    SubmissionWriter(LABELS, FALLBACK, WindowConfig()).check_names(paths)


class TestSpeech:
    """Rows 0 and 2 of four hold speech."""

    RESULT = SoundscapeResult(Path("a.wav"), Status.ok, n_rows=4, seconds=20.0, speech=((0.5, 1.0), (10.0, 14.9)))

    @pytest.fixture
    def score_store(self):
        score_store = ScoreStore(len(LABELS))
        score_store.add(Path("a.wav"), np.full((4, len(LABELS)), 0.75, np.float32))
        return score_store

    def test_windows_with_speech_have_no_row(self, score_store, tmp_path):
        writer = SubmissionWriter(LABELS, FALLBACK, WindowConfig(), skips_speech=True)
        written = writer.write(tmp_path / "s.csv", score_store, [self.RESULT])
        assert [line.split(",")[0] for line in (tmp_path / "s.csv").read_text().splitlines()[1:]] == ["a_10", "a_20"]
        assert (written.rows, written.fallback_rows) == (2, 0)

    def test_in_a_sample_they_hold_the_fallback(self, score_store, tmp_path):
        sample = tmp_path / "sample.csv"
        sample.write_text(f"row_id,{LABELS[0]}\n" + "".join(f"a_{end},0\n" for end in (5, 10, 15, 20)))
        writer = SubmissionWriter(LABELS, FALLBACK, WindowConfig(), sample=read_sample(sample), skips_speech=True)
        written = writer.write(tmp_path / "s.csv", score_store, [self.RESULT])
        cells = [float(line.split(",")[1]) for line in (tmp_path / "s.csv").read_text().splitlines()[1:]]
        assert cells == pytest.approx([FALLBACK[0], 0.75, FALLBACK[0], 0.75])
        assert (written.rows, written.fallback_rows, written.rows_past_end) == (4, 2, 0)

    def test_they_are_written_unless_they_are_to_be_skipped(self, score_store, tmp_path):
        written = SubmissionWriter(LABELS, FALLBACK, WindowConfig()).write(
            tmp_path / "s.csv", score_store, [self.RESULT]
        )
        assert written.rows == 4
