"""What is done to one soundscape's probabilities [windows, species] after the ensemble: pure functions, a room a kind.

Each function sees one file only, so nothing can leak from one file into another. Each has a step
(:class:`birdinfer.postprocess.step.Step`): its parameters as data, which stand in a manifest or on a command line.
"""
