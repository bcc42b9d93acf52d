"""External models: an ONNX graph from elsewhere that takes the waveform (Perch v2, BirdNET) becomes a bundle's member.

:mod:`~birdinfer.inference.external.known_models` recognises public models,
:mod:`~birdinfer.inference.external.onnx_probe` finds out what the graph takes and returns,
:mod:`~birdinfer.inference.external.measured_activation` what makes probabilities of it,
:mod:`~birdinfer.inference.external.label_lists` reads its list of labels,
:mod:`~birdinfer.inference.external.label_matching` matches them to the bundle's species, and
:mod:`~birdinfer.inference.external.add_model` writes it into the bundle once the whole bundle predicts with it.
"""
