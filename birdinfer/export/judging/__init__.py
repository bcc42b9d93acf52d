"""A graph beside fp32 on labelled windows: how far they agree, how fast it is, whether it may be taken."""
