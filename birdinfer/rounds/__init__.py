"""The noisy student: pseudo-labels, training, export and evaluation, round after round."""
