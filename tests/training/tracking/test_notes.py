import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdinfer.errors import MetadataError
from birdinfer.training.tracking.reporter import TrackerState, read_states, write_states

NOTE = st.builds(
    TrackerState,
    run_id=st.from_regex(r"\A[A-Za-z0-9_-]{1,64}\Z"),
    epochs_logged=st.integers(0, 100_000),
    is_finished=st.booleans(),
)


@given(notes=st.dictionaries(st.sampled_from(["tensorboard", "wandb", "mlflow", "neptune"]), NOTE))
def test_notes_are_read_as_they_were_written(tmp_path_factory, notes):
    path = tmp_path_factory.mktemp("notes") / "tracking.json"
    write_states(path, notes)
    assert read_states(path) == notes


def test_no_notes_are_none(tmp_path):
    assert read_states(tmp_path / "tracking.json") == {}


@pytest.mark.parametrize(
    "note",
    [
        {"run_id": "../../elsewhere"},
        {"run_id": "ab\n"},
        {"run_id": ""},
        {"run_id": "x" * 65},
        {"run_id": "ab", "epochs_logged": -1},
        {"run_id": "ab", "epochs_logged": "3"},
        {"run_id": "ab", "api_key": "secret"},
        {},
    ],
)
def test_what_no_tracker_has_written_is_refused(tmp_path, note):
    path = tmp_path / "tracking.json"
    path.write_text(json.dumps({"wandb": note}))
    with pytest.raises(MetadataError, match=r"tracking\.json: cannot be used \(.*\), trackers begin new records - "):
        read_states(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_file_is_refused(tmp_path, content):
    (tmp_path / "tracking.json").write_bytes(content)
    with pytest.raises(MetadataError):
        read_states(tmp_path / "tracking.json")
