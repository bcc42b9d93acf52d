"""The acceptance test of a graph: labelled windows, its agreement with fp32 and its speed, the decision."""
