"""A network as a graph: exported, held against the network, joined with others or with its front end, halved."""
