"""Compositions used by neural networks: normalisation, pooling, losses."""
