"""``python -m birdinfer`` is ``birdinfer``."""

from birdinfer.cli.app import main

main()
