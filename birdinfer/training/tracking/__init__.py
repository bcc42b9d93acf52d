"""Trackers: a run told to TensorBoard, W&B, MLflow or Neptune while it goes on, each through its own client.

In: what a run tells its reporter. Out: records below ``runs/NAME/tracking/`` (or ``tracking.folder``), or at a service.
``reporter`` stands between training and whoever shows it, ``fold_records`` keeps the records of one fold, ``guard``
lets no tracker fail, hang or print into a training, ``notes`` remembers what was told, so that a resumed fold goes on
in the same records. Not through accelerate: it knows no Neptune, and steps, artefacts and resumed runs are not ours to
steer there.
"""
