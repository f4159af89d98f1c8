"""`python -m graphc`: the command line (graphc/cli)."""

from graphc.cli import main

if __name__ == "__main__":
    main()
