"""Ops that move values: reshape, permute, expand, slice, pad, cat and their kin."""
