"""Tables of all kinds, a room a kind, read strictly: what a scorer would trip over is refused with its place."""
