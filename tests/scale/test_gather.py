"""What units give together is what one machine gives, byte by byte."""

import filecmp

import pytest

from birdinfer.detections.formats import FORMATS
from birdinfer.detections.page import PageSettings
from birdinfer.detections.species_filter import FilterSettings
from birdinfer.detections.summary import SummarySettings
from birdinfer.errors import BirdinferError, ConfigError, OutputError
from birdinfer.inference.bundle import Bundle
from birdinfer.prediction.detect import DetectionSettings, detect_recordings
from birdinfer.prediction.run import PredictionSettings, predict_to_csv
from birdinfer.scale.gather import TableSettings, gather_detections, gather_table
from birdinfer.scale.unit import Worker


def run(opened, units=None):
    with Worker(opened.place.uri) as worker:
        return dict(worker.run(opened.missing() if units is None else units))


def files_below(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def assert_same(folder, other):
    assert files_below(folder) == files_below(other)
    assert [name for name in files_below(folder) if not filecmp.cmp(folder / name, other / name, shallow=False)] == []


def test_detections_have_the_bytes_of_detect(archive, bundle, planned, tmp_path):
    opened = planned(archive)
    assert opened.plan.n_units == opened.plan.n_files == 7
    run(opened)
    settings = {"formats": tuple(FORMATS), "summary": SummarySettings()}
    detect_recordings(Bundle.load(bundle), [archive], DetectionSettings(output=tmp_path / "one", **settings))
    done = gather_detections(opened, DetectionSettings(output=tmp_path / "many", **settings))
    assert (done.n_files, done.n_left, done.n_problems) == (7, 0, 2)
    assert done.written.rows > 0
    assert_same(tmp_path / "one", tmp_path / "many")


@pytest.mark.slow
def test_the_page_has_the_bytes_of_detect(archive, bundle, planned, tmp_path):
    opened = planned(archive, unit_seconds=90.0)
    run(opened)
    settings = {"page": PageSettings(bundle=opened.plan.bundle, most_events=4)}
    detect_recordings(Bundle.load(bundle), [archive], DetectionSettings(output=tmp_path / "one", **settings))
    gather_detections(opened, DetectionSettings(output=tmp_path / "many", **settings))
    assert_same(tmp_path / "one", tmp_path / "many")


def test_other_thresholds_and_a_list_of_species_have_the_bytes_of_detect(archive, bundle, planned, tmp_path):
    opened = planned(archive, keep_from=0.05)
    run(opened)
    (tmp_path / "listed.txt").write_text("name\n0012\ncomcuc\n")
    settings = {
        "min_confidence": 0.3, "top_k": 1, "merge_gap": 5.0,
        "species": FilterSettings(species_list=tmp_path / "listed.txt"),
    }  # fmt: skip
    detect_recordings(Bundle.load(bundle), [archive], DetectionSettings(output=tmp_path / "one", **settings))
    gather_detections(opened, DetectionSettings(output=tmp_path / "many", **settings))
    assert_same(tmp_path / "one", tmp_path / "many")


def test_the_table_of_scores_has_the_bytes_of_predict(archive, bundle, planned, tmp_path):
    opened = planned(archive, scores="float32", unit_seconds=90.0)
    assert opened.plan.n_units == 1
    run(opened)
    predict_to_csv(Bundle.load(bundle), [archive], PredictionSettings(output=tmp_path / "one" / "s.csv"))
    gather_table(opened, TableSettings(output=tmp_path / "many" / "s.csv"))
    (tmp_path / "one" / "s.csv.progress" / "run.sqlite").unlink()  # predict keeps it, for files are damaged
    for name in ("s.csv", "s.files.csv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "many" / name).read_bytes()


def test_a_sample_in_another_order_takes_scores_of_any_unit(archive, bundle, planned, tmp_path):
    opened = planned(archive, scores="float32")
    run(opened)
    rows = ["siteB/20250227_070000_10", "siteA/20250227_060000_5", "siteB/20250227_070000_5", "elsewhere_5"]
    sample = tmp_path / "sample.csv"
    sample.write_text("row_id,comcuc,0012\n" + "".join(f"{row},0,0\n" for row in rows))
    settings = PredictionSettings(output=tmp_path / "one.csv", sample_submission=sample)
    predict_to_csv(Bundle.load(bundle), [archive], settings)
    gather_table(opened, TableSettings(output=tmp_path / "many.csv", sample_submission=sample))
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "many.csv").read_bytes()


def test_half_precision_is_near(archive, planned, tmp_path):
    opened = planned(archive, scores="float16", unit_seconds=90.0)
    run(opened)
    found = gather_table(opened, TableSettings(output=tmp_path / "s.csv"))
    assert found.written.rows == 4 * 3 + 2 + 1


def test_a_plan_in_the_same_folder_keeps_its_bytes_wherever_gather_is_called(
    archive, bundle, planned, tmp_path, monkeypatch
):
    monkeypatch.chdir(archive.parent)
    opened = planned(archive.name)
    monkeypatch.chdir(tmp_path)
    run(opened)
    gather_detections(opened, DetectionSettings(output=tmp_path / "many"))
    monkeypatch.chdir(archive.parent)
    detect_recordings(Bundle.load(bundle), [archive.name], DetectionSettings(output=tmp_path / "one"))
    assert_same(tmp_path / "one", tmp_path / "many")


def test_what_is_not_done_is_refused_or_named(archive, planned, tmp_path):
    opened = planned(archive)
    run(opened, [0, 3])
    settings = DetectionSettings(output=tmp_path / "out")
    with pytest.raises(BirdinferError, match="5 of 7 units are not done"):
        gather_detections(opened, settings)
    done = gather_detections(opened, settings, partial=True)
    assert (done.n_left, done.n_problems) == (5, 0)
    assert (tmp_path / "out" / "files.csv").read_text().count("not reached") == 5


def test_thresholds_below_what_is_kept_are_refused(archive, planned, tmp_path):
    opened = planned(archive)
    run(opened)
    with pytest.raises(ConfigError, match=r"keeps scores from 0\.1 on"):
        gather_detections(opened, DetectionSettings(output=tmp_path / "out", min_confidence=0.05))
    with pytest.raises(ConfigError, match="--scores float32"):
        gather_table(opened, TableSettings(output=tmp_path / "s.csv"))
    assert not (tmp_path / "out").exists()


def test_the_archive_is_never_an_output(archive, planned):
    opened = planned(archive)
    run(opened)
    before = files_below(archive)
    with pytest.raises(OutputError):
        gather_detections(opened, DetectionSettings(output=archive))
    assert files_below(archive) == before


def test_a_changed_part_is_found(archive, planned, tmp_path):
    opened = planned(archive)
    run(opened)
    part = tmp_path / "plan" / opened.part_name(2)
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    with pytest.raises(ConfigError, match=r"is not what its marker says \(unit 2\)"):
        gather_detections(opened, DetectionSettings(output=tmp_path / "out"))
    (tmp_path / "plan" / opened.marker_name(2)).unlink()
    assert opened.missing() == [2]
