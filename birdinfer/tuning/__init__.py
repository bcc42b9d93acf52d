"""The search for a recipe's best values: recipe, space and clips -> ``runs/STUDY/`` with trials and ``best.toml``.

    settings, space -> study -> claim   -> trial  -> score  -> tables, best.toml
    run      space     search   trials     worker    trials    worker

A study lies on disk; each worker, on whatever machine, works on it alone. Only ``sampling`` and ``trials`` use Optuna.
"""
