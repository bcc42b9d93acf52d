"""What a job needs, in sbatch's words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdinfer.errors import ConfigError
from birdinfer.training.launch.slurm import ClusterSettings, sbatch_options, seconds_of


def test_nothing_that_was_not_asked_for_is_asked_of_the_cluster():
    assert sbatch_options(ClusterSettings()) == ()


def test_all_of_it_in_sbatchs_spelling_the_users_own_last():
    asked = ClusterSettings(
        partition="gpu", gres="gpu:V100:2", time_limit="1-12", memory="32G", cpus=4, nodes=2, processes=8,
        sbatch=("account=birds", "--exclusive"),
    )  # fmt: skip
    assert sbatch_options(asked) == (
        "--partition=gpu", "--gres=gpu:V100:2", "--time=1-12", "--mem=32G", "--cpus-per-task=4", "--nodes=2",
        "--ntasks-per-node=8", "--account=birds", "--exclusive",
    )  # fmt: skip
    assert asked.n_processes == 16


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 5_400),
        ("90:30", 5_430),
        ("12:00:00", 43_200),
        ("2-3", 183_600),
        ("2-3:30", 185_400),
        ("2-3:30:15", 185_415),
        ("0", 0),
        ("UNLIMITED", None),
        ("1:2:3:4", None),
        ("", None),
    ],
)
def test_times_as_sbatch_reads_them(text, seconds):
    assert seconds_of(text) == seconds


@given(st.integers(0, 30), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_a_time_spelled_in_full_is_the_sum_of_its_parts(days, hours, minutes, seconds):
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    assert seconds_of(f"{days}-{hours:02}:{minutes:02}:{seconds:02}") == total
    assert seconds_of(f"{days * 24 + hours}:{minutes}:{seconds}") == total


@pytest.mark.parametrize("time", ["1", "4:59", "00:04:59"])
def test_a_time_that_saving_takes_up_is_refused(time):
    with pytest.raises(ConfigError, match=f"--time: is {time}, .* two minutes of it go to saving - ask for 5 minutes"):
        sbatch_options(ClusterSettings(time_limit=time))
    with pytest.raises(ConfigError, match=f"--time: is {time}, "):
        sbatch_options(ClusterSettings(sbatch=(f"time={time}",)))


@pytest.mark.parametrize("time", ["5", "0", "INFINITE"])
def test_other_times_are_the_clusters_business(time):
    assert sbatch_options(ClusterSettings(time_limit=time)) == (f"--time={time}",)


@pytest.mark.parametrize(
    "name", ["array=0-9", "output=x", "--dependency=afterok:1", "signal=B:USR1@9", "wrap=rm", "arr=0-9"]
)
def test_what_holds_a_job_together_cannot_be_changed(name):
    with pytest.raises(ConfigError, match="birdinfer itself sets"):
        sbatch_options(ClusterSettings(sbatch=(name,)))


@pytest.mark.parametrize("name", ["", "--", "-A birds", "=x", "account birds", "Account=x", "a"])
def test_what_is_no_long_option_is_refused(name):
    with pytest.raises(ConfigError, match=r"--sbatch: is .* write an option of sbatch in full"):
        sbatch_options(ClusterSettings(sbatch=(name,)))


def test_a_value_may_hold_anything():
    assert sbatch_options(ClusterSettings(sbatch=("constraint=v100|a100 & x",))) == ("--constraint=v100|a100 & x",)
