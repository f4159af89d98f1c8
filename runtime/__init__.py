"""Running compiled programs: memory, threads, executables, files, the cache and the reference interpreter."""

if __name__ != "graphc.runtime":
    raise ImportError("import this package as graphc.runtime; from a checkout, run: pip install -e .")
