"""Which step of post-processing helps, and whether that can be told from so few files."""
