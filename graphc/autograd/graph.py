"""The tape: its nodes, and who keeps what they save."""

from graphc.frontend.autograd import Node as Node
from graphc.frontend.autograd_saved import *
from graphc.frontend.multi_hooks import *
