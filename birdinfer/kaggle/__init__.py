"""The Kaggle wing (extra ``kaggle``): a bundle made into a data set and a notebook, tried out, and handed in."""
