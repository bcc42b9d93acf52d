"""The version, which wheels, bundles and checkpoints record."""

__version__ = "0.2.0"
