"""The package birdinfer.training.recipe."""
