"""A run that ends in time: what hearing costs, when it will end, and what is given up first where that is too late."""
