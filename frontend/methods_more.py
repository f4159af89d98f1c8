"""The rest of the table of methods of Tensor: functions made of others, and all in-place forms."""

from __future__ import annotations

from typing import Any

from graphc.frontend import functional_copies as fc
from graphc.frontend import functional_counting as fk
from graphc.frontend import functional_index as fi
from graphc.frontend import functional_linalg as fl
from graphc.frontend import functional_math as fm
from graphc.frontend import functional_mixed as fx
from graphc.frontend import functional_places as fp
from graphc.frontend import functional_signal as fg
from graphc.frontend import functional_special as fz
from graphc.frontend import indexing, legacy
from graphc.frontend import inplace as ip
from graphc.frontend import metadata as md
from graphc.frontend.inplace import inplace
from graphc.frontend.promote import Operand
from graphc.frontend.tensor import Tensor


def _polygamma(self: Tensor, n: int) -> Tensor:
    """The n-th derivative of digamma, n up to 10. Integers become the default dtype. Raises ArgumentError."""
    return fz.polygamma(n, self)


def _matrix_method(name: str) -> Any:
    """A function of frontend/matrices.py, which is imported at the first use."""

    def method(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        from graphc.frontend import matrices

        return getattr(matrices, name)(self, *args, **kwargs)

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"graphc.{name}() of this tensor."
    return method


def _rlshift(self: Tensor, other: Operand) -> Tensor:
    return fz.bitwise_left_shift(other, self)


def _rrshift(self: Tensor, other: Operand) -> Tensor:
    return fz.bitwise_right_shift(other, self)


class MoreMethods:
    """Functions made of others."""

    __lshift__ = fz.bitwise_left_shift
    __rlshift__ = _rlshift
    __rshift__ = fz.bitwise_right_shift
    __rrshift__ = _rrshift
    __ilshift__ = inplace(fz.bitwise_left_shift)
    __irshift__ = inplace(fz.bitwise_right_shift)
    acos = arccos = fz.acos
    acosh = arccosh = fz.acosh
    argwhere = fp.argwhere
    asin = arcsin = fz.asin
    asinh = arcsinh = fz.asinh
    atan = arctan = fz.atan
    atan2 = arctan2 = fz.atan2
    atanh = arctanh = fz.atanh
    bincount = fk.bincount
    bitwise_left_shift = fz.bitwise_left_shift
    bitwise_right_shift = fz.bitwise_right_shift
    copysign = fz.copysign
    cosh = fz.cosh
    diag_embed = fp.diag_embed
    diagonal = fp.diagonal
    diagonal_scatter = fp.diagonal_scatter
    diff = fg.diff
    dist = fg.dist
    digamma = fz.digamma
    erfc = fz.erfc
    erfinv = fz.erfinv
    lgamma = fz.lgamma
    cholesky = _matrix_method("cholesky")
    det = _matrix_method("det")
    inverse = _matrix_method("inverse")
    logdet = _matrix_method("logdet")
    slogdet = _matrix_method("slogdet")
    polygamma = _polygamma
    exp2 = fz.exp2
    fix = fm.trunc
    float_power = fz.float_power
    fmax = fz.fmax
    fmin = fz.fmin
    heaviside = fz.heaviside
    histc = fk.histc
    hypot = fz.hypot
    isneginf = fz.isneginf
    isposinf = fz.isposinf
    isreal = fz.isreal
    ldexp = fz.ldexp
    logaddexp2 = fz.logaddexp2
    logit = fz.logit
    masked_scatter = fp.masked_scatter
    new = legacy.new
    put = fp.put
    rad2deg = fz.rad2deg
    sgn = fm.sign
    signbit = fz.signbit
    sinc = fz.sinc
    sinh = fz.sinh
    take = fp.take
    trace = fp.trace
    unfold = fp.unfold
    xlogy = fz.xlogy


class InplaceMethods:
    """The in-place forms."""

    abs_ = inplace(fm.abs)
    acos_ = inplace(fz.acos)
    add_ = inplace(fm.add)
    addcdiv_ = inplace(fx.addcdiv)
    addcmul_ = inplace(fx.addcmul)
    addmm_ = inplace(fl.addmm)
    asin_ = inplace(fz.asin)
    atan2_ = inplace(fz.atan2)
    atan_ = inplace(fz.atan)
    bernoulli_ = ip.bernoulli_
    bitwise_and_ = inplace(fm.bitwise_and)
    bitwise_left_shift_ = inplace(fz.bitwise_left_shift)
    bitwise_not_ = inplace(fm.bitwise_not)
    bitwise_or_ = inplace(fm.bitwise_or)
    bitwise_right_shift_ = inplace(fz.bitwise_right_shift)
    bitwise_xor_ = inplace(fm.bitwise_xor)
    ceil_ = inplace(fm.ceil)
    clamp_ = clip_ = inplace(fx.clamp)
    clamp_max_ = inplace(fx.clamp_max)
    clamp_min_ = inplace(fx.clamp_min)
    copy_ = ip.copy_
    copysign_ = inplace(fz.copysign)
    cos_ = inplace(fm.cos)
    cosh_ = inplace(fz.cosh)
    deg2rad_ = inplace(fm.deg2rad)
    div_ = divide_ = inplace(fm.div)
    eq_ = inplace(fm.eq)
    erf_ = inplace(fm.erf)
    digamma_ = inplace(fz.digamma)
    erfc_ = inplace(fz.erfc)
    erfinv_ = inplace(fz.erfinv)
    lgamma_ = inplace(fz.lgamma)
    exp_ = inplace(fm.exp)
    expm1_ = inplace(fm.expm1)
    exponential_ = ip.exponential_
    fill_ = ip.fill_
    floor_ = inplace(fm.floor)
    floor_divide_ = inplace(fm.floor_divide)
    fmod_ = inplace(fm.fmod)
    frac_ = inplace(fm.frac)
    ge_ = inplace(fm.ge)
    gt_ = inplace(fm.gt)
    hypot_ = inplace(fz.hypot)
    index_add_ = inplace(fi.index_add)
    index_copy_ = inplace(fi.index_copy)
    index_fill_ = inplace(fi.index_fill)
    index_put_ = inplace(indexing.index_put)
    le_ = inplace(fm.le)
    lerp_ = inplace(fx.lerp)
    log10_ = inplace(fm.log10)
    log1p_ = inplace(fm.log1p)
    log2_ = inplace(fm.log2)
    log_ = inplace(fm.log)
    logical_and_ = inplace(fm.logical_and)
    logical_not_ = inplace(fm.logical_not)
    logical_or_ = inplace(fm.logical_or)
    logical_xor_ = inplace(fm.logical_xor)
    logit_ = inplace(fz.logit)
    lt_ = inplace(fm.lt)
    masked_fill_ = inplace(fx.masked_fill)
    masked_scatter_ = inplace(fp.masked_scatter)
    mul_ = multiply_ = inplace(fm.mul)
    nan_to_num_ = inplace(fx.nan_to_num)
    ne_ = inplace(fm.ne)
    neg_ = negative_ = inplace(fm.neg)
    normal_ = ip.normal_
    pow_ = inplace(fm.pow)
    put_ = inplace(fp.put)
    random_ = ip.random_
    reciprocal_ = inplace(fm.reciprocal)
    relu_ = inplace(fm.relu)
    remainder_ = inplace(fm.remainder)
    resize_ = md.resize_
    resize_as_ = md.resize_as_
    round_ = inplace(fm.round)
    rsqrt_ = inplace(fm.rsqrt)
    scatter_ = inplace(fi.scatter)
    scatter_add_ = inplace(fi.scatter_add)
    sigmoid_ = inplace(fm.sigmoid)
    sign_ = inplace(fm.sign)
    sin_ = inplace(fm.sin)
    sinh_ = inplace(fz.sinh)
    sqrt_ = inplace(fm.sqrt)
    square_ = inplace(fm.square)
    squeeze_ = md.squeeze_
    sub_ = subtract_ = inplace(fm.sub)
    t_ = md.t_
    tan_ = inplace(fm.tan)
    tanh_ = inplace(fm.tanh)
    transpose_ = swapaxes_ = swapdims_ = md.transpose_
    tril_ = inplace(fc.tril)
    triu_ = inplace(fc.triu)
    trunc_ = inplace(fm.trunc)
    uniform_ = ip.uniform_
    unsqueeze_ = md.unsqueeze_
    xlogy_ = inplace(fz.xlogy)
    zero_ = ip.zero_
