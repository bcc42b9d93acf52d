"""What an export reports while it runs."""

from typing import TYPE_CHECKING

from birdinfer.callbacks import Callback

if TYPE_CHECKING:
    from birdinfer.inference.manifest import Member


class ExportCallback(Callback):
    """Receive what :func:`~birdinfer.export.run.export_run` reports; methods do nothing until they are overridden."""

    def on_member(self, member: "Member") -> None:
        """A member's graphs are written; ``member.variants`` has the figures of all that were tried."""
