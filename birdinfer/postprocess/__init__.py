"""Post-processing: one soundscape's probabilities [rows, species] after the ensemble -> the same shape, in [0, 1].

Each step is data (:class:`birdinfer.postprocess.base.Step`, in a manifest, a recipe or on a command line) and a pure
function of one file, so nothing can leak from one file into another. Steps are grouped by kind: smoothing over time,
file level, priors of site and hour, calibration, taxonomy.
"""
