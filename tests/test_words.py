"""Words that a stranger would have to look up are not used: in code, help, messages and docs the field's words stand.

``python tests/test_words.py birdinfer/audio`` lists where they stand, with the word to use instead.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
INSTEAD = {
    "hear hears heard unheard": "process, predict, input, recorded",
    "hearing": "input; InputConfig",
    "listener listeners listens listening": "member group",
    "pace unhurried": "scheduler",
    "ladder rung": "fallback levels",
    "placement placements": "window grid",
    "finisher": "streaming postprocessor",
    "nudge nudges": "numeric",
    "spool": "score store",
    "ledger": "trials",
    "bury buried deaths": "reclaim, retries",
    "laid lays lay laying": "assign, prepared, place",
    "laws": "constraints",
    "cooked": "averaged",
    "complain complains complaint complaints": "warn, warning",
    "told tells tell": "report, show, text",
    "watcher lookout": "callback, monitor",
    "judge judges judged judging verdict": "accept, reject, evaluate, acceptance test",
    "movers": "pass-through operators",
    "foreign": "external",
    "chooser": "autotune",
    "untrusted": "safe_load",
    "room rooms wing wings station stations": "module, package, stage",
    "remedy": "hint",
    "nobody somebody": "the process, the client, no one (by its name)",
    "opinion opinions": "member scores",
    "keeper": "result sink",
    "desk lane lanes": "worker pool, workers",
    "laps prices foretell foretells": "step timer, costs, estimate",
    "anew": "again",
    "barred": "not searchable",
    "go on|goes on|going on|gone on|went on": "continue, resume",
    "as many as|for want of|of what is tried": "number of; because there is no; of the trials",
    "put back|taken over": "released, reclaimed",
}
"""Coined words, and the words to use instead."""
PHRASES = [word for words in INSTEAD for word in (words.split("|") if "|" in words else words.split())]
COINED = re.compile(rf"(?<![a-z])(?:{'|'.join(PHRASES)})(?![a-z])")
STORED = re.compile("""--judge-on|judge_on|['"]verdict['"]""")
"""Options and keys of files stay as they are."""
READ = ("birdinfer", "benchmarks", "tests", "train", "submission", "exports", "docs", "README.md", "CONTRIBUTING.md")
ENDINGS = {".py", ".md", ".toml", ".sh", ".sbatch"}
ALLOWED = {
    ("birdinfer/tuning/trials.py", "tell"),  # Optuna's Study.tell
    ("tests/tuning", "tell"),
    ("tests/runs", "tell"),
    ("birdinfer/audio/decoder.py", "tell"),  # of a file object
    ("tests/audio/test_byte_ranges.py", "tell"),
    ("birdinfer/features/kernels", "lane"),  # of a vector register
    ("birdinfer/features/kernels", "lanes"),
    ("tests/features/kernels", "lane"),
    ("tests/features/kernels", "lanes"),
    ("birdinfer/cli/bundle.py", "hears"),  # a key of show --json
    ("tests/real_slurm.py", "spool"),  # SLURM's
    ("tests/test_words.py", ""),
}


def words_of(line: str) -> str:
    """A line with the words of its identifiers apart: ``heardRun`` and ``heard_run`` -> ``heard run``."""
    line = STORED.sub("", line)
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", line).replace("_", " ").lower()


def coined(paths: list[Path]) -> Iterator[str]:
    """Where coined words stand, a line each."""
    files = [each for path in paths for each in ([path] if path.is_file() else sorted(path.rglob("*")))]
    files = [each for each in files if "/." not in str(each.relative_to(ROOT))]  # other programs' environments
    for file in files:
        name = file.relative_to(ROOT).as_posix()
        if file.suffix not in ENDINGS:
            continue
        for number, line in enumerate([file.stem, *file.read_text().splitlines()]):
            for found in COINED.findall(words_of(line)):
                if not any(name.startswith(where) and word in ("", found) for where, word in ALLOWED):
                    yield f"{name}:{number}: {found!r}"


def test_no_coined_word_is_used():
    assert list(coined([ROOT / each for each in READ if (ROOT / each).exists()])) == []


@pytest.mark.parametrize("text", ["heard_run", "HeardRun", "_heard", "what is heard", "a_pace", "goes_on", "goes on"])
def test_words_are_found_in_every_spelling(text):
    assert len(COINED.findall(words_of(text))) == 1


def test_words_are_not_found_in_others():
    assert not COINED.findall(words_of("intelligence planet spaces heardle bylaws --judge-on"))


if __name__ == "__main__":
    print(*coined([Path(each).resolve() for each in sys.argv[1:]] or [ROOT / each for each in READ]), sep="\n")
