"""One resumable run with a deadline: soundscapes -> a table of probabilities."""
