import pytest

from birdinfer.errors import BundleError
from birdinfer.postprocess.base import with_table_in
from birdinfer.postprocess.calibration import HistogramMatch, Temperature


def test_a_table_is_found_in_the_bundle_from_wherever_one_stands(tmp_path, monkeypatch):
    (tmp_path / "bundle").mkdir()
    monkeypatch.chdir(tmp_path)
    step = with_table_in(HistogramMatch(table="tables/q.csv", share=0.5), (tmp_path / "bundle").relative_to(tmp_path))
    assert step == HistogramMatch(table=str(tmp_path / "bundle" / "tables" / "q.csv"), share=0.5)


def test_a_step_without_a_table_stays_as_it_is(tmp_path):
    step = Temperature(2.0)
    assert with_table_in(step, tmp_path) is step


@pytest.mark.parametrize("name", ["../q.csv", "/etc/passwd", "a/../../q.csv", "..\\q.csv", "q\0.csv", "link/q.csv"])
def test_a_name_that_leaves_the_bundle_is_refused(tmp_path, name):
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    with pytest.raises(BundleError, match="of a step lies outside the bundle") as caught:
        with_table_in(HistogramMatch(table=name), folder)
    assert "\n" not in str(caught.value)
