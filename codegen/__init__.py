"""Kernels to LLVM text: schedules, vector maths, the emitter and one template a file."""

if __name__ != "graphc.codegen":
    raise ImportError("import this package as graphc.codegen; from a checkout, run: pip install -e .")
