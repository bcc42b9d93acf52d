"""The command line: options and printing, a module for each command; no other package prints.

``app`` imports a command's module when the command runs, so that ``birdinfer --help`` answers at once.
"""

from time import perf_counter

STARTED = perf_counter()
"""When this process started: a time budget counts from here, imports included."""
