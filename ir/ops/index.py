"""Ops that read and write at positions given by an operand: gather, index_select, scatter_add."""
