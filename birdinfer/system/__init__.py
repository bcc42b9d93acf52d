"""The operating system: atomic files, locks, signals, processor cores, timing, TOML."""
