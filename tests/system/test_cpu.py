"""Cores that may be used."""

from birdinfer.system.cpu import available_cores, one_thread_per_worker


def test_cores_respect_a_containers_quota(tmp_path, monkeypatch):
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr("birdinfer.system.cpu._CGROUP_CPU_MAX", quota)
    without = available_cores()
    assert without >= 1
    for text, cores in (("max 100000", without), ("100000 100000", 1), ("10000 100000", without), ("oh no", without)):
        quota.write_text(text)
        assert available_cores() == cores


def test_blas_is_pinned_to_one_thread():
    import threadpoolctl

    with one_thread_per_worker():
        pools = threadpoolctl.threadpool_info()
        assert all(pool["num_threads"] == 1 for pool in pools if pool["user_api"] == "blas")
