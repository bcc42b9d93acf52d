"""Fixtures that are shared with other folders."""

from fixtures_of_training import background_dir, clips_dir, one_thread, plain_recipe, tiny_recipe

__all__ = ["background_dir", "clips_dir", "one_thread", "plain_recipe", "tiny_recipe"]
