"""Synthetic sound whose truth is known: soundscapes and clips of eight invented species, for the demo and for tests.

In: a random generator or a seed. Out: waveforms with their events, or files in the layout of BirdCLEF.
"""
