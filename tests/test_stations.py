"""The small pure stations: scores, labels, spool, cores."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from birdinfer.cores import available_cores, one_thread_per_lane
from birdinfer.errors import LabelError
from birdinfer.labels import check_labels
from birdinfer.scores import activate, sigmoid, softmax
from birdinfer.spool import ScoreSpool


def test_sigmoid_by_hand():
    np.testing.assert_allclose(sigmoid(np.float32([0, np.log(3), -np.log(3)])), [0.5, 0.75, 0.25], rtol=1e-6)


@given(hnp.arrays(np.float32, 10, elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_sigmoid_is_bounded_and_monotone(logits):
    found = sigmoid(np.sort(logits))
    assert ((found >= 0) & (found <= 1)).all()
    assert (np.diff(found) >= 0).all()


def test_rare_species_do_not_tie():
    """Steps of 2^-25 made 0 of all logits below -17, and equals of those below -12."""
    logits = np.arange(-80, 12, 0.25, np.float32)
    found = sigmoid(logits)
    assert (np.diff(found) > 0).all()
    np.testing.assert_allclose(found, [1 / (1 + math.exp(-float(logit))) for logit in logits], rtol=1e-7)


def test_softmax_by_hand_and_far_out():
    np.testing.assert_allclose(softmax(np.log(np.float32([1, 2, 5]))), [0.125, 0.25, 0.625], rtol=1e-6)
    np.testing.assert_allclose(softmax(np.float32([1e4, -1e4])), [1, 0])


def test_activations_take_the_columns_wanted():
    logits = np.log(np.float32([[1, 2, 5]]))
    columns = np.array([2, 0])
    np.testing.assert_allclose(activate(logits, "softmax", columns), [[0.625, 0.125]], rtol=1e-6)
    np.testing.assert_allclose(activate(logits, "sigmoid", columns), [[5 / 6, 1 / 2]], rtol=1e-6)
    np.testing.assert_allclose(activate(logits, "none", columns), np.log([[5, 1]]), rtol=1e-6)
    np.testing.assert_allclose(activate(logits, "sigmoid"), [[1 / 2, 2 / 3, 5 / 6]], rtol=1e-6)


@pytest.mark.parametrize(
    ("labels", "complaint"), [([], "no label"), (["a", " "], "label 2 is empty"), (["a", "b", "a"], "'a' stands twice")]
)
def test_labels_without_sense_are_refused(labels, complaint):
    with pytest.raises(LabelError, match=complaint):
        check_labels(labels, "here")


def test_the_spool_gives_back_what_it_took(tmp_path):
    rng = np.random.default_rng(0)
    kept = {f"file{index}": rng.random((index, 5), np.float32) for index in range(1, 6)}
    with ScoreSpool(tmp_path, 5) as spool:
        for stem, scores in kept.items():
            spool.add(stem, scores)
        for stem in ("file3", "file1", "file1", "file5", "file3"):
            assert np.array_equal(spool.scores(stem), kept[stem])
        assert spool.n_windows("file4") == 4
        assert spool.n_windows("unknown") is None
        assert spool.scores("unknown") is None
    assert not list(tmp_path.iterdir())


def test_cores_respect_a_containers_quota(tmp_path, monkeypatch):
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr("birdinfer.cores._CGROUP_CPU_MAX", quota)
    without = available_cores()
    assert without >= 1
    for text, cores in (("max 100000", without), ("100000 100000", 1), ("10000 100000", without), ("oh no", without)):
        quota.write_text(text)
        assert available_cores() == cores


def test_blas_is_pinned_to_one_thread():
    import threadpoolctl

    with one_thread_per_lane():
        pools = threadpoolctl.threadpool_info()
        assert all(pool["num_threads"] == 1 for pool in pools if pool["user_api"] == "blas")
