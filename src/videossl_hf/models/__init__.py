"""One folder a method; no folder imports another."""
