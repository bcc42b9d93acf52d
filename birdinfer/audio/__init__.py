"""Sound files -> waveforms -> windows, streaming, with a status of each file: damage is repaired or reported."""
