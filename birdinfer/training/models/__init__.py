"""The package birdinfer.training.models."""
