"""The clips of a data set: what train.csv says of them, which are one, and where their sound comes from."""
