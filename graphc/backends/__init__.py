"""What programs ask of libraries and devices that PyTorch may use: none of them is used here.

Their switches can be set; they change nothing.
"""

from graphc.backends import cuda as cuda
from graphc.backends import cudnn as cudnn
from graphc.backends import mkl as mkl
from graphc.backends import mkldnn as mkldnn
from graphc.backends import mps as mps
from graphc.backends import openmp as openmp
