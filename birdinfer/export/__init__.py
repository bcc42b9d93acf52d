"""The export wing (extra ``export``): checkpoints of a run -> a bundle that predicts.

``onnx`` turns a model into a graph, ``parity`` holds the graph against the model on real windows, ``held_out``
says on which, ``bundler`` puts graphs and manifest together. May import torch; the inference
core never imports this wing.
"""
