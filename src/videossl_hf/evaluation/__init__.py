"""How good features are: one file a protocol."""
