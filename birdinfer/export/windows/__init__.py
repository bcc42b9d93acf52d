"""Which clips a fold knew and which it did not, and windows of them: to calibrate on, to judge on."""
