"""What libsndfile leaves to do: streams that are chained or have holes, headers that lie, what is wrong with a file."""
