"""TensorFlow Lite models -> ONNX graphs (extra ``tflite``): BirdNET 2.4 is published in no other form by its authors.

:mod:`~birdinfer.export.tflite.model` reads the file, :mod:`~birdinfer.export.tflite.convert` writes the graph, with
every spectrogram as one convolution (:mod:`birdinfer.export.fold`).
"""
