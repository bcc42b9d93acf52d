"""The command line: the only rooms that print. A command is a plain function with a thin wrapper of options.

Modules here import typer and the standard library at the top and everything heavy inside their functions, so that
``birdinfer --help`` answers at once.
"""

from time import perf_counter

STARTED = perf_counter()
"""When this process began its work: a time budget counts from here, imports included."""
