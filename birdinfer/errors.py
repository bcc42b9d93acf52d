"""Every error that birdinfer raises on purpose, in one tree.

::

    BirdinferError
    ├── InputNotFoundError   (FileNotFoundError)  a file or folder that was named is not there
    ├── OutputError          (OSError)            a result cannot be written where it was asked for
    ├── AudioError           (ValueError)         a sound file cannot be decoded or holds no sound
    ├── ConfigError          (ValueError)         a recipe or an option holds a value that cannot be used
    ├── LabelError           (ValueError)         labels are unknown, repeated or contradict each other
    ├── MetadataError        (ValueError)         train.csv, taxonomy.csv or a score table is not as needed
    ├── BundleError          (ValueError)         a bundle is damaged, inconsistent or made for something else
    ├── CheckpointError      (ValueError)         a checkpoint is damaged or belongs to another recipe
    ├── ParityError          (ValueError)         an exported graph does not answer as its torch model does
    └── MissingExtraError    (ImportError)        an optional package is needed; the message installs it

A message has three short parts: where it happened, what is wrong there, and what to do. The command line prints it as
one line and exits with 2. It may quote a file's content, so everything that a terminal would interpret is removed.
"""

from pathlib import Path


class BirdinferError(Exception):
    """The root: ``except BirdinferError`` catches all that birdinfer raises on purpose."""

    def __init__(self, where: str | Path, what: str, hint: str = "") -> None:
        """Join place, fault and advice into one line, with a space for each character that cannot be printed."""
        # A path keeps repeated spaces: users search for it as it stands here.
        self.where = printable(str(where))
        self.what, self.hint = (" ".join(printable(part).split()) for part in (what, hint))
        super().__init__(f"{self.where}: {self.what}" + (f" - {self.hint}" if self.hint else ""))


def printable(text: str) -> str:
    r"""Replace line breaks, escape sequences and halves of characters by spaces.

    >>> printable("a\tb")
    'a b'
    """
    return "".join(sign if sign.isprintable() else " " for sign in text)


class InputNotFoundError(BirdinferError, FileNotFoundError):
    """A file or folder that was named is not there."""


class OutputError(BirdinferError, OSError):
    """A result cannot be written where it was asked for."""


class AudioError(BirdinferError, ValueError):
    """A sound file cannot be decoded or holds no sound."""


class ConfigError(BirdinferError, ValueError):
    """A recipe or an option holds a value that cannot be used."""


class LabelError(BirdinferError, ValueError):
    """Labels are unknown, repeated or contradict each other."""


class MetadataError(BirdinferError, ValueError):
    """train.csv, taxonomy.csv or a score table is not as needed."""


class BundleError(BirdinferError, ValueError):
    """A bundle is damaged, inconsistent or made for something else."""


class CheckpointError(BirdinferError, ValueError):
    """A checkpoint is damaged or belongs to another recipe."""


class ParityError(BirdinferError, ValueError):
    """An exported graph does not answer as its torch model does."""


class MissingExtraError(BirdinferError, ImportError):
    """An optional package is needed; the message says how to install it."""

    def __init__(self, module: str, extra: str) -> None:
        super().__init__(module, "is not installed", f'pip install "birdinfer[{extra}]"')
