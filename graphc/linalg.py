"""Linear algebra of small dense matrices."""

from graphc.frontend.linalg import *
