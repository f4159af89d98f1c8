"""Operations with a gradient of their own."""

from graphc.frontend.autograd_function import *
