"""A bundle as a Kaggle submission (extra ``kaggle``): packed, tried out as Kaggle runs it, pushed and submitted."""
