"""What users touch: tensors, modules, optimisers, data, and the recorder."""

if __name__ != "graphc.frontend":
    raise ImportError("import this package as graphc.frontend; from a checkout, run: pip install -e .")
