"""Trackers: a training recorded in TensorBoard, W&B, MLflow or Neptune while it runs, each through its own client.

``reporter`` is the callback between a training and its trackers; ``base`` says what a tracker is. Records lie below
``runs/NAME/tracking/`` (or ``tracking.folder``), or at a service. Not through accelerate: it knows no
Neptune and gives no control of steps, artefacts and resumed runs.
"""
