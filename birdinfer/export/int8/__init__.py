"""INT8 graphs: what activations look like, which ranges they get, which of them stay fp32; and INT8 by other means."""
