"""The intermediate representation: types, ops, graphs and their passes. Imports nothing above it."""

if __name__ != "graphc.ir":
    raise ImportError("import this package as graphc.ir; from a checkout, run: pip install -e .")
