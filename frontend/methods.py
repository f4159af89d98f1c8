"""The table of methods and operators of Tensor: one line each.

Tensor cannot name the functions itself (they are written in terms of Tensor), so it derives from this class for type
checkers only and gets its entries at import.
"""

from __future__ import annotations

from typing import Any

from graphc.frontend import compaction, creation, dlpack, gradients, hot, indexing, ordering, printing, random_tensors
from graphc.frontend import functional_copies as fc
from graphc.frontend import functional_data as fd
from graphc.frontend import functional_index as fi
from graphc.frontend import functional_linalg as fl
from graphc.frontend import functional_math as fm
from graphc.frontend import functional_mixed as fx
from graphc.frontend import functional_reduce as fr
from graphc.frontend import functional_scan as fsc
from graphc.frontend import functional_shape as fs
from graphc.frontend import reinterpret as rv
from graphc.frontend.inplace import inplace
from graphc.frontend.methods_more import InplaceMethods, MoreMethods
from graphc.frontend.promote import Operand
from graphc.frontend.scalar import Scalar
from graphc.frontend.tensor import Tensor

_COMPARABLE = (Tensor, bool, int, float, complex, Scalar)


def _rdiv(self: Tensor, other: Operand) -> Tensor:
    return fm.div(hot.number_beside(self, other), self)


def _rsub(self: Tensor, other: Operand) -> Tensor:
    if type(other) is float or type(other) is int:
        other = hot.number_beside(self, other)
    return fm.sub(other, self)


def _rpow(self: Tensor, other: Operand) -> Tensor:
    return fm.pow(other, self)


def _rfloordiv(self: Tensor, other: Operand) -> Tensor:
    return fm.floor_divide(other, self)


def _rmod(self: Tensor, other: Operand) -> Tensor:
    return fm.remainder(other, self)


def _equal(self: Tensor, other: Any) -> Any:
    return fm.eq(self, other) if isinstance(other, _COMPARABLE) or hasattr(other, "dtype") else NotImplemented


def _unequal(self: Tensor, other: Any) -> Any:
    return fm.ne(self, other) if isinstance(other, _COMPARABLE) or hasattr(other, "dtype") else NotImplemented


def _reversed_axes(self: Tensor) -> Tensor:
    """The axes in reverse order."""
    return fs.permute(self, tuple(reversed(range(self._l.ndim))))


def _matrix_transpose(self: Tensor) -> Tensor:
    """The last two axes exchanged."""
    return fs.transpose(self, -2, -1)


def _where(self: Tensor, condition: Tensor, other: Operand) -> Tensor:
    """`self` where the condition holds, else other."""
    return fm.where(condition, self, other)


def _false(self: Tensor) -> bool:
    """False: tensors are dense and live on the CPU."""
    return False


class TensorMethods(MoreMethods, InplaceMethods):
    """What Tensor offers; see the functions of the same names."""

    # operators
    __add__ = __radd__ = fm.add
    __sub__ = fm.sub
    __rsub__ = _rsub
    __mul__ = __rmul__ = fm.mul
    __truediv__ = fm.div
    __rtruediv__ = _rdiv
    __floordiv__ = fm.floor_divide
    __rfloordiv__ = _rfloordiv
    __mod__ = fm.remainder
    __rmod__ = _rmod
    __pow__ = fm.pow
    __rpow__ = _rpow
    __matmul__ = fl.matmul
    __and__ = __rand__ = fm.bitwise_and
    __or__ = __ror__ = fm.bitwise_or
    __xor__ = __rxor__ = fm.bitwise_xor
    __invert__ = fm.bitwise_not
    __neg__ = fm.neg
    __pos__ = fm.positive
    __abs__ = fm.abs
    __eq__ = _equal
    __ne__ = _unequal
    __lt__ = fm.lt
    __le__ = fm.le
    __gt__ = fm.gt
    __ge__ = fm.ge
    __hash__ = object.__hash__
    __iadd__ = inplace(fm.add)
    __isub__ = inplace(fm.sub)
    __imul__ = inplace(fm.mul)
    __itruediv__ = inplace(fm.div)
    __ifloordiv__ = inplace(fm.floor_divide)
    __imod__ = inplace(fm.remainder)
    __ipow__ = inplace(fm.pow)
    __iand__ = inplace(fm.bitwise_and)
    __ior__ = inplace(fm.bitwise_or)
    __ixor__ = inplace(fm.bitwise_xor)
    __getitem__ = indexing.get
    __setitem__ = indexing.set
    __len__ = fd.length
    __iter__ = fd.iterate
    __contains__ = fd.contains
    __bool__ = fd.to_bool
    __float__ = fd.to_float
    __int__ = fd.to_int
    __complex__ = fd.to_complex
    __index__ = fd.to_index
    __array__ = fd.array_protocol
    __dlpack__ = dlpack.dlpack_protocol
    __dlpack_device__ = dlpack.device_protocol
    __array_priority__ = 1000
    __repr__ = printing.show
    __format__ = fd.format_protocol
    __copy__ = fd.copy_protocol
    __deepcopy__ = fd.deepcopy
    __reduce_ex__ = fd.reduce_protocol

    # properties
    shape = property(fd.shape)
    device = property(fd.get_device)
    T = property(_reversed_axes)
    mT = property(_matrix_transpose)
    data = property(fd.get_data, fd.set_data)
    grad = property(gradients.get_grad, gradients.set_grad)
    grad_fn = property(gradients.grad_fn)
    output_nr = property(gradients.output_nr)
    retains_grad = property(gradients.retains_grad)
    real = property(rv.real)
    imag = property(rv.imag)
    is_cuda = property(_false)
    is_sparse = property(_false)
    itemsize = property(fd.element_size)
    nbytes = property(fd.nbytes)

    # pointwise
    abs = absolute = fm.abs
    add = fm.add
    addcdiv = fx.addcdiv
    addcmul = fx.addcmul
    bitwise_and = fm.bitwise_and
    bitwise_not = fm.bitwise_not
    bitwise_or = fm.bitwise_or
    bitwise_xor = fm.bitwise_xor
    ceil = fm.ceil
    clamp = clip = fx.clamp
    clamp_max = fx.clamp_max
    clamp_min = fx.clamp_min
    cos = fm.cos
    deg2rad = fm.deg2rad
    div = divide = true_divide = fm.div
    eq = fm.eq
    erf = fm.erf
    exp = fm.exp
    expm1 = fm.expm1
    floor = fm.floor
    floor_divide = fm.floor_divide
    fmod = fm.fmod
    frac = fm.frac
    ge = greater_equal = fm.ge
    gt = greater = fm.gt
    isfinite = fm.isfinite
    isinf = fm.isinf
    isnan = fm.isnan
    le = less_equal = fm.le
    lerp = fx.lerp
    log = fm.log
    log10 = fm.log10
    log1p = fm.log1p
    log2 = fm.log2
    logaddexp = fx.logaddexp
    logical_and = fm.logical_and
    logical_not = fm.logical_not
    logical_or = fm.logical_or
    logical_xor = fm.logical_xor
    lt = less = fm.lt
    masked_fill = fx.masked_fill
    maximum = fm.maximum
    minimum = fm.minimum
    mul = multiply = fm.mul
    nan_to_num = fx.nan_to_num
    ne = not_equal = fm.ne
    neg = negative = fm.neg
    pow = fm.pow
    reciprocal = fm.reciprocal
    relu = fm.relu
    remainder = fm.remainder
    round = fm.round
    rsqrt = fm.rsqrt
    sigmoid = fm.sigmoid
    sign = fm.sign
    sin = fm.sin
    sqrt = fm.sqrt
    square = fm.square
    sub = subtract = fm.sub
    tan = fm.tan
    tanh = fm.tanh
    trunc = fm.trunc
    where = _where

    # reductions
    all = fr.all
    allclose = fr.allclose
    amax = fr.amax
    amin = fr.amin
    aminmax = fr.aminmax
    any = fr.any
    argmax = fr.argmax
    argmin = fr.argmin
    count_nonzero = fr.count_nonzero
    equal = fr.equal
    isclose = fr.isclose
    log_softmax = fr.log_softmax
    logsumexp = fr.logsumexp
    max = fr.max
    mean = fr.mean
    min = fr.min
    norm = fr.norm
    prod = fr.prod
    softmax = fr.softmax
    std = fr.std
    sum = fr.sum
    var = fr.var

    # shape
    broadcast_to = fs.broadcast_to
    chunk = fs.chunk
    clone = fs.clone
    contiguous = fs.contiguous
    dim = fd.dim
    element_size = fd.element_size
    expand = fs.expand
    expand_as = fs.expand_as
    flatten = fs.flatten
    flip = fc.flip
    fliplr = fc.fliplr
    flipud = fc.flipud
    is_contiguous = fd.is_contiguous
    movedim = moveaxis = fs.movedim
    narrow = fs.narrow
    ndimension = fd.dim
    nelement = fd.numel
    numel = fd.numel
    permute = fs.permute
    ravel = fs.ravel
    repeat = fc.repeat
    repeat_interleave = fc.repeat_interleave
    reshape = fs.reshape
    reshape_as = fs.reshape_as
    roll = fc.roll
    select = fs.select
    size = fd.size
    split = fs.split
    split_with_sizes = fs.split_with_sizes
    squeeze = fs.squeeze
    storage_offset = fd.storage_offset
    stride = fd.stride
    t = fs.t
    tile = fc.tile
    transpose = swapaxes = swapdims = fs.transpose
    tril = fc.tril
    triu = fc.triu
    unbind = fs.unbind
    unflatten = fs.unflatten
    unsqueeze = fs.unsqueeze
    view = fs.view
    view_as = fs.view_as

    # places given by integer tensors
    gather = fi.gather
    index_add = fi.index_add
    index_copy = fi.index_copy
    index_fill = fi.index_fill
    index_select = fi.index_select
    index_put = indexing.index_put
    masked_select = indexing.masked_select
    nonzero = indexing.nonzero
    scatter = fi.scatter
    scatter_add = fi.scatter_add
    take_along_dim = fi.take_along_dim

    # order
    argsort = ordering.argsort
    sort = ordering.sort
    topk = ordering.topk
    kthvalue = ordering.kthvalue
    median = ordering.median
    mode = ordering.mode
    msort = ordering.msort
    quantile = ordering.quantile
    unique = compaction.unique
    unique_consecutive = compaction.unique_consecutive
    cummax = fsc.cummax
    cummin = fsc.cummin
    cumprod = fsc.cumprod
    cumsum = fsc.cumsum
    logcumsumexp = fsc.logcumsumexp

    # random numbers
    bernoulli = random_tensors.bernoulli
    multinomial = random_tensors.multinomial

    # products
    addmm = fl.addmm
    baddbmm = fl.baddbmm
    bmm = fl.bmm
    diag = fl.diag
    dot = fl.dot
    inner = fl.inner
    matmul = fl.matmul
    mm = fl.mm
    mv = fl.mv
    outer = ger = fl.outer

    # conversions
    bfloat16 = fd.bfloat16
    bool = fd.bool
    byte = fd.byte
    cdouble = fd.cdouble
    cfloat = fd.cfloat
    char = fd.char
    cpu = fd.cpu
    cuda = fd.cuda
    data_ptr = fd.data_ptr
    double = fd.double
    float = fd.float
    is_complex = rv.is_complex
    is_floating_point = fd.is_floating_point
    is_signed = fd.is_signed
    half = fd.half
    int = fd.int_
    is_nonzero = fd.is_nonzero
    item = fd.item
    long = fd.long
    new_empty = new_zeros = creation.new_zeros
    new_full = creation.new_full
    new_ones = creation.new_ones
    new_tensor = creation.new_tensor
    numpy = fd.numpy
    pin_memory = fd.pin_memory
    resolve_conj = rv.resolve_conj
    short = fd.short
    to = fd.to
    tolist = fd.tolist
    type = fd.type_
    type_as = fd.type_as

    # gradients
    backward = gradients.tensor_backward
    detach = fd.detach
    detach_ = fd.detach_
    register_hook = gradients.register_hook
    register_post_accumulate_grad_hook = gradients.register_post_accumulate_grad_hook
    retain_grad = gradients.retain_grad


def _install() -> None:
    for table in (InplaceMethods, MoreMethods, TensorMethods):
        for name, value in vars(table).items():
            if name not in (
                "__module__",
                "__dict__",
                "__weakref__",
                "__doc__",
                "__qualname__",
                "__static_attributes__",
                "__firstlineno__",
            ):
                setattr(Tensor, name, value)


_install()
Tensor.__module__ = "graphc"
