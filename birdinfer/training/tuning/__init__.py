"""The search for a recipe's best values: recipe, space and clips -> ``runs/STUDY/`` with trials and ``best.toml``.

    space     -> study -> claim  -> trial          -> told  -> tables, best.toml
    space        search   ledger    worker            ledger   publish, tables
    barred       identity alive     trial_reporter    records  importance
    values       storage  sampling  pruning                    folder
    buildable    lock     places

A study lies on disk, and each worker, on whatever machine, works on it alone: it claims a trial, trains it as ``train``
does, and tells how it went. What several workers must not do at once they do under one lock (``lock.py``).
Only ``sampling``, ``storage``, ``ledger`` and ``importance`` know Optuna.
"""
