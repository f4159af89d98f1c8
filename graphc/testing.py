"""Comparisons for tests."""

from graphc.frontend.same import *
from graphc.frontend.testing import *
