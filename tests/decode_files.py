"""``python decode_files.py FOLDER LOG``: decodes every file of a folder, in a process of its own that may crash.

Before each file its name goes into the log, behind it what became of it and how many seconds that took: ``read``,
``refused``, or ``fault`` and the exception. A file whose line ends with its name has ended this process.
"""

import resource
import sys
import time
from pathlib import Path

import numpy as np

from birdinfer.audio.stream import AudioStream
from birdinfer.errors import AudioError

MOST_BYTES = 3 * 2**30
"""Address space, most of it libraries; a block for a header that claims everything would not fit."""


def decode(path: Path) -> str:
    """What becomes of one file."""
    try:
        with AudioStream(path, 32_000) as stream:
            for block in stream.blocks_at([32_000, 48_000]):
                if not all(np.isfinite(samples).all() for samples in block.values()):
                    return "fault: not finite"
        line = stream.damage
    except AudioError as error:
        return "refused" if str(error).isprintable() else f"fault: {error!r}"
    except BaseException as error:
        return f"fault: {error!r}"
    return "read" if line.isprintable() else f"fault: {line!r}"


def main(folder: Path, log: Path) -> None:
    """Decode all files that the log does not name yet."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    done = {line.split("\t")[0] for line in log.read_text().splitlines()} if log.exists() else set()
    with log.open("a", buffering=1) as lines:
        for path in sorted(folder.iterdir()):
            if path.name in done:
                continue
            lines.write(path.name)
            lines.flush()
            began = time.perf_counter()
            outcome = decode(path)
            lines.write(f"\t{time.perf_counter() - began:.3f}\t{outcome}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
