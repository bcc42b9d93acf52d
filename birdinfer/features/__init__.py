"""The front end: waveform -> log-mel or PCEN, normalised; in numpy and, compiled, in C."""
