"""What a job's script does when its work is stopped, killed or refused; small scripts play SLURM's programs."""

import os
import signal
import subprocess
import time

import pytest

from birdinfer.training.launch.slurm import ARRAY, SEARCH, SEVERAL_PROCESSES, script, shipped

PROGRAMS = {
    "srun": 'while [[ $1 == --* ]]; do shift; done; exec "$@"',
    "scontrol": """case "$1 $2" in
        "show hostnames") echo node7; echo node8 ;;
        "show job") echo "PreemptTime=$(cat preempted 2> seen || echo None) SuspendTime=None" ;;
        *) echo "$@" >> requeued ;;
    esac""",
    # As SLURM does: the step gets the signal, the script does not.
    "scancel": 'echo "$@" >> signalled; kill -TERM "$(cat work.pid)"',
}
WORK = 'echo $$ > work.pid; echo "$@" > words; '
STOPPED = 'trap "sleep 0.2; exit 143" TERM; touch ready; while true; do sleep 0.05; done'
SPELLED = "12_3"


@pytest.fixture
def job(tmp_path):
    """``job("exit 3")`` starts a task whose work is a line of shell; ``SLURM_*`` can be added."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in PROGRAMS.items():
        (programs / name).write_text(f"#!/bin/bash\n{text}\n")
        (programs / name).chmod(0o755)
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "12",
        "SLURM_ARRAY_JOB_ID": "12",
        "SLURM_ARRAY_TASK_ID": "3",
        "SLURM_JOB_NODELIST": "node[7-8]",
    }

    def start(work, template=ARRAY, setup=(), **variables):
        path = tmp_path / "job.sbatch"
        path.write_text(script(shipped(template), setup))
        words = ["bash", str(path), "bash", "-c", WORK + work, "work", "a b", "it's", '"$HOME"']
        return subprocess.Popen(
            words,
            cwd=tmp_path,
            env=environment | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


def ended(process):
    printed, _ = process.communicate()
    return process.returncode, printed


def wait_for(path):
    while not path.exists():
        time.sleep(0.01)


@pytest.mark.parametrize("code", [0, 1, 2, 3, 143])
def test_work_that_ends_by_itself_is_over(job, tmp_path, code):
    assert ended(job(f"exit {code}"))[0] == code
    assert not (tmp_path / "requeued").exists()


@pytest.mark.parametrize(("code", "restarts"), [(137, None), (137, "1"), (253, "0")])
def test_killed_work_is_requeued(job, tmp_path, code, restarts):
    given = {} if restarts is None else {"SLURM_RESTART_COUNT": restarts}
    status, printed = ended(job(f"exit {code}", **given))
    assert status == code
    # Not SLURM_JOB_ID: the last task has the array's number, and all of them would be requeued.
    assert (tmp_path / "requeued").read_text() == f"requeue {SPELLED}\n"
    assert f"killed (exit code {code}), task {SPELLED} continues" in printed


def test_preempted_work_is_requeued_when_it_has_saved(job, tmp_path):
    # With a GraceTime SLURM signals the step alone, and does not requeue a job that ends by itself.
    (tmp_path / "preempted").write_text("2026-01-02T03:04:05")
    status, printed = ended(job("exit 143", SLURM_RESTART_COUNT="9"))
    assert status == 143
    assert (tmp_path / "requeued").read_text() == f"requeue {SPELLED}\n"
    assert "preempted" in printed


@pytest.mark.parametrize("code", [0, 2, 3])
def test_work_that_ends_by_itself_while_it_is_preempted_is_over(job, tmp_path, code):
    (tmp_path / "preempted").write_text("2026-01-02T03:04:05")
    assert ended(job(f"exit {code}"))[0] == code
    assert not (tmp_path / "requeued").exists()


def test_a_setup_that_makes_the_shell_strict_changes_nothing(job, tmp_path):
    status, printed = ended(job("exit 137", setup=("set -euo pipefail",)))
    assert (status, (tmp_path / "requeued").read_text()) == (137, f"requeue {SPELLED}\n"), printed


def test_work_that_is_killed_for_the_third_time_is_given_up(job, tmp_path):
    assert ended(job("exit 137", SLURM_RESTART_COUNT="2"))[0] == 137
    assert not (tmp_path / "requeued").exists()


def test_the_time_limit_stops_the_work_and_requeues_it_when_it_has_saved(job, tmp_path):
    process = job(STOPPED, SLURM_RESTART_COUNT="9")
    wait_for(tmp_path / "ready")
    process.send_signal(signal.SIGUSR1)
    status, printed = ended(process)
    assert status == 143
    assert (tmp_path / "signalled").read_text() == f"--signal=TERM {SPELLED}\n"
    assert (tmp_path / "requeued").read_text() == f"requeue {SPELLED}\n"
    assert "time limit" in printed


def test_work_that_ends_in_its_last_minute_is_not_done_again(job, tmp_path):
    process = job(STOPPED.replace("143", "0"))
    wait_for(tmp_path / "ready")
    process.send_signal(signal.SIGUSR1)
    assert ended(process)[0] == 0
    assert not (tmp_path / "requeued").exists()


@pytest.mark.parametrize("code", [143, 137])
def test_cancelled_work_is_waited_for_and_not_requeued(job, tmp_path, code):
    process = job(STOPPED.replace("143", str(code)))
    wait_for(tmp_path / "ready")
    process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    assert process.poll() is None
    os.kill(int((tmp_path / "work.pid").read_text()), signal.SIGTERM)
    assert ended(process)[0] == code
    assert not (tmp_path / "requeued").exists()


def test_a_requeue_that_the_site_does_not_allow_is_reported(job, tmp_path):
    (tmp_path / "programs" / "scontrol").write_text("#!/bin/bash\nexit 1\n")
    status, printed = ended(job("exit 137"))
    assert status == 137
    assert "cannot be requeued here: submit it again, with --resume" in printed


def test_words_arrive_as_they_are_with_the_fold_behind(job, tmp_path):
    ended(job("true"))
    assert (tmp_path / "words").read_text() == 'a b it\'s "$HOME" --fold 3 --resume\n'


def test_a_worker_gets_the_command_alone(job, tmp_path):
    ended(job("true", SEARCH))
    assert (tmp_path / "words").read_text() == 'a b it\'s "$HOME"\n'


def test_the_setup_is_run_before_the_work_and_for_it(job, tmp_path):
    ended(job('echo "$BIRD" > bird', setup=("BIRD='blue tit'", "export BIRD")))
    assert (tmp_path / "bird").read_text() == "blue tit\n"


def test_a_step_gets_the_cores_that_the_job_was_given(job, tmp_path):
    ended(job("echo $SRUN_CPUS_PER_TASK > cores", SLURM_CPUS_PER_TASK="4"))
    assert (tmp_path / "cores").read_text() == "4\n"


def test_several_processes_meet_on_the_first_node_by_slurms_numbers(job, tmp_path):
    variables = "echo $MASTER_ADDR $MASTER_PORT $RANK $WORLD_SIZE $LOCAL_RANK > variables"
    ended(job(variables, SEVERAL_PROCESSES, SLURM_PROCID="5", SLURM_NTASKS="8", SLURM_LOCALID="1"))
    assert (tmp_path / "variables").read_text() == "node7 20012 5 8 1\n"
    assert (tmp_path / "words").read_text() == 'a b it\'s "$HOME" --fold 3 --resume\n'
