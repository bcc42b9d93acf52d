"""A run disturbed at random moments, against an undisturbed one: killed, without its disk, without its screen.

Each round starts from nothing and is killed, or loses its folder, until it reaches its end. At every start, all that
was done before must still be done, and at the end table and side table must be the same bytes as those of the
undisturbed run. A run whose standard error is closed has to reach its end by itself.
"""

import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import time

import pytest

from birdinfer.heads.embed import let_embed
from birdinfer.inference.bundle import demo_bundle_path
from birdinfer.prediction.store import count_done

KILLS = int(os.environ.get("BIRDINFER_KILLS", "300"))
EMBEDDING_KILLS, EMBEDDED_FILES = 20, 40
REMOVALS = CLOSINGS = max(1, KILLS // 6)
SEED = 20_260_101
FILES = 160
LEAST_SECONDS = 1.4
"""A run lives at most so long, or as long as the undisturbed one on a busy machine, before it is disturbed: it starts,
continues where it was, and predicts some dozens of files."""

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(soundscapes, tmp_path):
    """Real minutes under many names, and a few files that are not well."""
    folder = tmp_path / "soundscapes"
    folder.mkdir()
    for index in range(FILES):
        (folder / f"soundscape_{index:04d}.ogg").symlink_to(soundscapes[index % len(soundscapes)])
    (folder / "text.ogg").write_text("not sound")
    (folder / "cut.ogg").write_bytes(soundscapes[0].read_bytes()[:100_000])
    return folder


def command(folder, out):
    program = [sys.executable, "-m", "birdinfer", "predict", str(folder)]
    return [*program, "--bundle", str(demo_bundle_path()), "-o", str(out), "--resume"]


def done(out):
    """Files that are done for certain."""
    return count_done(out.with_name(out.name + ".progress"))


def kill_once(folder, out, rng, most_seconds, *options):
    """One run that is killed after a moment.

    Returns:
        Whether it came to its end before, and what it said.
    """
    run = subprocess.Popen([*command(folder, out), *options], stderr=subprocess.PIPE, text=True)
    try:
        _, said = run.communicate(timeout=rng.uniform(0.05, most_seconds))
    except subprocess.TimeoutExpired:
        run.kill()
        _, said = run.communicate()
        return False, said
    assert run.returncode == 3, said
    return True, said


def both(out):
    """The bytes of a table and its side table."""
    return out.read_bytes(), out.with_suffix(".files.csv").read_bytes()


@pytest.fixture
def undisturbed(folder, tmp_path):
    out = tmp_path / "undisturbed.csv"
    began = time.perf_counter()
    subprocess.run(command(folder, out), capture_output=True, check=False)
    seconds = time.perf_counter() - began
    return both(out), seconds, max(LEAST_SECONDS, seconds)


@pytest.mark.timeout(3600)
def test_random_kills_lose_no_row_and_change_no_byte(folder, undisturbed, table, tmp_path):
    wanted, alone_seconds, most_seconds = undisturbed
    rng, kills, rounds, lost, gained = random.Random(SEED), 0, 0, 0, []
    while kills < KILLS:
        rounds += 1
        out = tmp_path / f"round_{rounds}.csv"
        is_finished = False
        while not is_finished:
            before = done(out)
            is_finished, said = kill_once(folder, out, rng, most_seconds)
            known = re.search(r"(\d+) of \d+ files are done already", said)
            lost += known is not None and int(known.group(1)) < before
            if is_finished:
                continue
            kills += 1
            lost += done(out) < before  # the folder stays after the end, too, because of two files
            gained.append(done(out) - before)
        assert both(out) == wanted, f"round {rounds}"
    table.append(
        {
            "what": f"{kills} SIGKILLs at random moments, continued with --resume, {FILES + 2} real files a round",
            "measured": f"{lost} losses, {rounds} tables byte-identical",
            "bound": "no row lost",
            "detail": f"a run lived 0.05 to {most_seconds:.1f} s and finished {statistics.mean(gained):.0f} files "
            f"({min(gained)} to {max(gained)}); undisturbed {alone_seconds:.1f} s",
        }
    )
    assert not lost


@pytest.mark.timeout(3600)
def test_random_kills_change_no_byte_of_embeddings(folder, table, tmp_path):
    bundle = tmp_path / "bundle"
    shutil.copytree(demo_bundle_path(), bundle)
    let_embed(bundle)
    rng, kills, rounds = random.Random(SEED), 0, 0
    for path in sorted(folder.glob("soundscape_*"))[EMBEDDED_FILES:]:
        path.unlink()

    def options(name):
        return ("--bundle", str(bundle), "--embeddings", str(tmp_path / name))

    def files_of(name):
        return {str(each.relative_to(tmp_path / name)): each.read_bytes() for each in (tmp_path / name).rglob("*.*")}

    began = time.perf_counter()
    subprocess.run([*command(folder, tmp_path / "whole.csv"), *options("whole")], capture_output=True, check=False)
    seconds = time.perf_counter() - began
    wanted = files_of("whole")
    while kills < EMBEDDING_KILLS:
        rounds += 1
        name = f"embeddings_{rounds}"
        while not kill_once(folder, tmp_path / f"{name}.csv", rng, max(LEAST_SECONDS, seconds), *options(name))[0]:
            kills += 1
        assert files_of(name) == wanted
    table.append(
        {
            "what": f"{kills} SIGKILLs of predict --embeddings at random moments, continued with --resume",
            "measured": f"{rounds} folders byte-identical: {len(wanted)} files each",
            "bound": "no byte changes",
            "detail": f"{EMBEDDED_FILES + 2} real files, two members; undisturbed {seconds:.1f} s",
        }
    )


@pytest.mark.timeout(3600)
def test_a_folder_that_is_gone_and_back_loses_no_row_and_changes_no_byte(folder, undisturbed, table, tmp_path):
    wanted, _, most_seconds = undisturbed
    rng, removals, rounds, lost, noticed = random.Random(SEED), 0, 0, 0, 0
    gone = folder.with_name("gone")
    while removals < REMOVALS:
        rounds += 1
        out = tmp_path / f"round_{rounds}.csv"
        is_finished = False
        while not is_finished:
            before = done(out)
            run = subprocess.Popen(command(folder, out), stderr=subprocess.PIPE, text=True)
            time.sleep(rng.uniform(0.05, most_seconds))
            was_running = run.poll() is None
            folder.rename(gone)
            _, said = run.communicate()
            gone.rename(folder)
            removals += was_running
            noticed += "disk or folder is gone" in said
            assert run.returncode in (2, 3), said
            assert "Traceback" not in said
            lost += before > 0 and done(out) < before
            is_finished = run.returncode == 3 and out.exists() and both(out) == wanted
    table.append(
        {
            "what": f"the folder removed {removals} times at random moments and there again, continued with --resume",
            "measured": f"{lost} losses, {rounds} tables byte-identical",
            "bound": "no row lost",
            "detail": f"{noticed} runs said that it is gone, the others had not begun or were nearly done",
        }
    )
    assert not lost


@pytest.mark.timeout(3600)
def test_a_screen_that_is_gone_changes_no_byte(folder, undisturbed, table, tmp_path):
    wanted, _, most_seconds = undisturbed
    rng, closed = random.Random(SEED), 0
    while closed < CLOSINGS:
        out = tmp_path / f"closed_{closed}.csv"
        run = subprocess.Popen(command(folder, out), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        time.sleep(rng.uniform(0, most_seconds))
        run.stdout.close()
        run.stderr.close()
        closed += 1
        assert run.wait() == 3
        assert both(out) == wanted
    table.append(
        {
            "what": f"standard output and error closed {closed} times at random moments",
            "measured": f"{closed} tables byte-identical, exit code as without it",
            "bound": "no byte changes",
            "detail": "",
        }
    )
