"""Layers, containers and losses."""

from graphc.ir.quiet import no_collection

with no_collection():
    from graphc.frontend.nn import *
from graphc.nn import functional as functional
from graphc.nn import init as init
from graphc.nn import modules as modules
from graphc.nn import utils as utils
