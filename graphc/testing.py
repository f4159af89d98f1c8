"""Comparisons for tests."""

from graphc.frontend.testing import *
