"""A run that is killed again and again: SIGKILL at random moments, gone on with each time, against one left alone.

Each round begins anew and is killed until it comes to its end. At every start, all that was done before must still be
done, and at the end table and side table must be the same bytes as those of the run that nobody disturbed.
BIRDINFER_KILLS=N changes how many kills there are in all.
"""

import os
import random
import re
import statistics
import subprocess
import sys
import time

import pytest

from birdinfer.bundle import demo_bundle_path

KILLS = int(os.environ.get("BIRDINFER_KILLS", "200"))
SEED = 20_260_101
FILES = 160
MOST_SECONDS = 1.4
"""Of a run before it is killed: it starts, goes on where it was, and hears some dozens of files."""


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
    path = out.with_name(out.name + ".progress") / "done.jsonl"
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def kill_once(folder, out, rng):
    """One run that is killed after a moment.

    Returns:
        Whether it came to its end before, and what it said.
    """
    run = subprocess.Popen(command(folder, out), stderr=subprocess.PIPE, text=True)
    try:
        _, said = run.communicate(timeout=rng.uniform(0.05, MOST_SECONDS))
    except subprocess.TimeoutExpired:
        run.kill()
        _, said = run.communicate()
        return False, said
    assert run.returncode == 3, said
    return True, said


@pytest.mark.timeout(3600)
def test_random_kills_lose_no_row_and_change_no_byte(folder, table, tmp_path):
    undisturbed = tmp_path / "undisturbed.csv"
    began = time.perf_counter()
    subprocess.run(command(folder, undisturbed), capture_output=True, check=False)
    alone_seconds = time.perf_counter() - began
    wanted = undisturbed.read_bytes(), undisturbed.with_suffix(".files.csv").read_bytes()
    rng, kills, rounds, lost, gained = random.Random(SEED), 0, 0, 0, []
    while kills < KILLS:
        rounds += 1
        out = tmp_path / f"round_{rounds}.csv"
        is_finished = False
        while not is_finished:
            before = done(out)
            is_finished, said = kill_once(folder, out, rng)
            known = re.search(r"(\d+) of \d+ files are done already", said)
            lost += known is not None and int(known.group(1)) < before
            if is_finished:
                continue
            kills += 1
            # Killed on its way out: the folder has gone in one step, for the tables are on the disk.
            is_finished = out.exists() and not out.with_name(out.name + ".progress").exists()
            if not is_finished:
                lost += done(out) < before
                gained.append(done(out) - before)
        assert (out.read_bytes(), out.with_suffix(".files.csv").read_bytes()) == wanted, f"round {rounds}"
    table.append(
        {
            "what": f"{kills} SIGKILLs at random moments, gone on with --resume, {FILES + 2} real files a round",
            "measured": f"{lost} losses, {rounds} tables byte-identical",
            "bound": "no row lost",
            "detail": f"a run lived 0.05 to {MOST_SECONDS} s and finished {statistics.mean(gained):.0f} files "
            f"({min(gained)} to {max(gained)}); undisturbed {alone_seconds:.1f} s",
        }
    )
    assert not lost
