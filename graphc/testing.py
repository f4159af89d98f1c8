"""Comparisons for tests, and random programs to find what nobody thought of."""

from graphc.frontend.same import *
from graphc.frontend.testing import *
from graphc.fuzz.bisect import *
from graphc.fuzz.bisect_values import *
from graphc.fuzz.campaign import *
from graphc.fuzz.checks import check_program as check_program
