# ruff: noqa: B018, B023, B024, B039, E741, UP014 - odd Python is what these programs are for
"""Programs that read Python in every way there is, each with a change between calls: `make() -> (function, change)`.

`change(k)` is called before call number k; `function.cleanup`, where it is there, puts back what others see.
"""

import abc
import configparser
import contextlib
import contextvars
import copy
import ctypes
import dataclasses
import enum
import functools
import importlib
import inspect
import io
import json
import logging
import operator
import os
import pathlib
import queue
import string
import sys
import tempfile
import threading
import types
import typing
import weakref

import numpy as np

import graphc
from graphc import nn

PROGRAMS = {}
mod_a = types.ModuleType("mod_a_h")
mod_b = types.ModuleType("mod_b_h")
sys.modules["mod_a_h"] = mod_a
sys.modules["mod_b_h"] = mod_b


def program(make):
    """Put `make` on the list."""
    PROGRAMS[make.__name__] = make
    return make


@program
def dataclass_asdict():
    @dataclasses.dataclass
    class C:
        a: float = 1.0
        b: float = 2.0

    c = C()

    def f(x):
        return x * sum(dataclasses.asdict(c).values())

    def ch(k):
        c.b = float(k)

    return f, ch


@program
def dataclass_astuple_nested():
    @dataclasses.dataclass
    class D:
        v: float = 1.0

    @dataclasses.dataclass
    class C:
        a: D = dataclasses.field(default_factory=D)

    c = C()

    def f(x):
        return x * dataclasses.astuple(c)[0][0]

    def ch(k):
        c.a.v = float(k)

    return f, ch


@program
def cached_property_del():
    class C:
        base = 2.0

        @functools.cached_property
        def a(self):
            return self.base * 2

    c = C()
    c.a

    def f(x):
        return x * c.a

    def ch(k):
        c.base = float(k)
        del c.a

    return f, ch


@program
def descriptor_weak():
    store = weakref.WeakKeyDictionary()

    class D:
        def __get__(self, o, t=None):
            return store[o]

    class C:
        a = D()

    c = C()
    store[c] = 1.0

    def f(x):
        return x * c.a

    def ch(k):
        store[c] = float(k)

    return f, ch


@program
def descriptor_own():
    class D:
        def __init__(self):
            self.v = 1.0

        def __get__(self, o, t=None):
            return self.v

    d = D()

    class C:
        a = d

    c = C()

    def f(x):
        return x * c.a

    def ch(k):
        d.v = float(k)

    return f, ch


@program
def descriptor_named():
    class D:
        def __set_name__(self, o, n):
            self.n = "_" + n

        def __get__(self, o, t=None):
            return getattr(o, self.n)

    class C:
        a = D()

        def __init__(self):
            self._a = 1.0

    c = C()

    def f(x):
        return x * c.a

    def ch(k):
        c._a = float(k)

    return f, ch


@program
def descriptor_replaced():
    class D:
        def __init__(self, v):
            self.v = v

        def __get__(self, o, t=None):
            return self.v

    class C:
        a = D(1.0)

    c = C()

    def f(x):
        return x * c.a

    def ch(k):
        C.a = D(float(k))

    return f, ch


@program
def metaclass_call():
    class M(type):
        def __call__(cls, *a):
            o = super().__call__(*a)
            o.v = cls.scale
            return o

    class C(metaclass=M):
        scale = 1.0

    def f(x):
        return x * C().v

    def ch(k):
        C.scale = float(k)

    return f, ch


@program
def partial_setstate():
    g = functools.partial(lambda x, y: x * y, y=2.0)

    def f(x):
        return g(x)

    def ch(k):
        g.keywords["y"] = float(k)

    return f, ch


@program
def lru_cached():
    c = [1.0]

    @functools.lru_cache
    def h():
        return c[0]

    h()

    def f(x):
        return x * h()

    def ch(k):
        c[0] = float(k)
        h.cache_clear()

    return f, ch


@program
def lru_maxsize():
    c = [1.0]

    @functools.lru_cache(maxsize=1)
    def h(i):
        return c[0] * i

    h(2)

    def f(x):
        return x * h(2)

    def ch(k):
        c[0] = float(k)
        h(3)

    return f, ch


@program
def ctxvar_mutable():
    v = contextvars.ContextVar("v", default={"a": 1.0})

    def f(x):
        return x * v.get()["a"]

    def ch(k):
        v.get()["a"] = float(k)

    return f, ch


@program
def weak_ref():
    class C:
        a = 1.0

    objs = [C()]
    [weakref.ref(objs[0])]
    rr = weakref.ref(objs[0])

    def f(x):
        return x * rr().a

    def ch(k):
        objs[0].a = float(k)

    return f, ch


@program
def weak_ref_dies():
    class C:
        pass

    objs = [C()]
    rr = weakref.ref(objs[0])

    def f(x):
        return x * (2.0 if rr() is None else 3.0)

    def ch(k):
        objs.clear()

    return f, ch


@program
def weak_valuedict():
    class C:
        a = 1.0

    o = C()
    d = weakref.WeakValueDictionary(k=o)

    def f(x):
        return x * d["k"].a

    def ch(k):
        o.a = float(k)

    return f, ch


@program
def weak_set_len():
    class C:
        pass

    objs = [C(), C()]
    s = weakref.WeakSet(objs)

    def f(x):
        return x * len(s)

    def ch(k):
        if objs:
            objs.pop()

    return f, ch


@program
def enum_private_value():
    class E(enum.Enum):
        A = 1.0
        B = 2.0

    def f(x):
        return x * E.A.value

    def ch(k):
        E.A._value_ = float(k)

    return f, ch


@program
def defaultdict_missing_factory():
    v = [1.0]

    class D(dict):
        def __missing__(self, k):
            return v[0]

    d = D()

    def f(x):
        return x * d["a"]

    def ch(k):
        v[0] = float(k)

    return f, ch


@program
def memview():
    b = bytearray(b"\x01\x02")
    m = memoryview(b)

    def f(x):
        return x * m[0]

    def ch(k):
        b[0] = k

    return f, ch


@program
def np_scalar_type():
    s = types.SimpleNamespace(a=np.float64(1.5))

    def f(x):
        return x * s.a

    def ch(k):
        s.a = np.float32(1.5) if k == 3 else np.float64(2.5)

    return f, ch


@program
def np_array_big():
    a = np.zeros(100_000)

    def f(x):
        return x * float(a[7])

    def ch(k):
        a[7] = k

    return f, ch


@program
def np_objarray():
    a = np.array([[1.0], None], dtype=object)

    def f(x):
        return x * a[0][0]

    def ch(k):
        a[0][0] = float(k)

    return f, ch


@program
def module_importlib():
    mod_a.v = 1.0

    def f(x):
        return x * importlib.import_module("mod_a_h").v

    def ch(k):
        mod_a.v = float(k)

    return f, ch


@program
def module_sysmodules_computed():
    mod_a.v = 1.0
    n = ["mod", "a", "h"]

    def f(x):
        return x * sys.modules["_".join(n)].v

    def ch(k):
        mod_a.v = float(k)

    return f, ch


@program
def module_sysmodules_replaced():
    mod_a.v = 1.0
    sys.modules["mod_a_h"] = mod_a

    def f(x):
        return x * sys.modules["mod_a_h"].v

    def ch(k):
        m = types.ModuleType("mod_a_h")
        m.v = float(k)
        sys.modules["mod_a_h"] = m

    return f, ch


@program
def monkey_own_code():
    def f(x):
        return x * 1.0

    def ch(k):
        if k == 3:

            def h(x):
                return x * 3.0
        else:

            def h(x):
                return x * 6.0

        f.__code__ = h.__code__

    return f, ch


@program
def monkey_bases():
    class A:
        v = 1.0

    class A2:
        v = 2.0

    class B(A):
        pass

    b = B()

    def f(x):
        return x * b.v

    def ch(k):
        B.__bases__ = (A2,) if k == 3 else (A,)

    return f, ch


@program
def monkey_class_assign():
    class A:
        v = 1.0

    class A2:
        v = 2.0

    b = A()

    def f(x):
        return x * b.v

    def ch(k):
        b.__class__ = A2 if k == 3 else A

    return f, ch


@program
def monkey_graphc_fn():
    old = graphc.relu

    def f(x):
        return graphc.relu(x) * 2

    def ch(k):
        graphc.relu = (lambda x: x * 5) if k == 3 else old

    f.cleanup = lambda: setattr(graphc, "relu", old)
    return f, ch


@program
def monkey_tensor_method():
    old = graphc.Tensor.relu

    def f(x):
        return x.relu() * 2

    def ch(k):
        graphc.Tensor.relu = (lambda x: x * 5) if k == 3 else old

    f.cleanup = lambda: setattr(graphc.Tensor, "relu", old)
    return f, ch


@program
def default_replaced():
    def g(x, d=1.0):
        return x * d

    def f(x):
        return g(x)

    def ch(k):
        g.__defaults__ = (float(k),)

    return f, ch


@program
def closures_loop():
    fs = []
    for i in range(3):
        fs.append(lambda x: x * i)

    def f(x):
        return fs[0](x)

    def ch(k):
        nonlocal i
        i = k

    return f, ch


@program
def nonlocal_deep():
    n = 1.0

    def f(x):
        def g():
            def h():
                return n

            return h()

        return x * g()

    def ch(k):
        nonlocal n
        n = float(k)

    return f, ch


@program
def exec_made():
    ns = {"s": 1.0}
    exec("def g(x): return x * s", ns)
    g = ns["g"]

    def f(x):
        return g(x)

    def ch(k):
        ns["s"] = float(k)

    return f, ch


@program
def attrgetter():
    s = types.SimpleNamespace(v=1.0)
    g = operator.attrgetter("v")

    def f(x):
        return x * g(s)

    def ch(k):
        s.v = float(k)

    return f, ch


@program
def attrgetter_dotted():
    s = types.SimpleNamespace(w=types.SimpleNamespace(v=1.0))

    def f(x):
        return x * operator.attrgetter("w.v")(s)

    def ch(k):
        s.w.v = float(k)

    return f, ch


@program
def attrgetter_outside_dotted():
    s = types.SimpleNamespace(w=types.SimpleNamespace(v=1.0))
    g = operator.attrgetter("w.v")

    def f(x):
        return x * g(s)

    def ch(k):
        s.w.v = float(k)

    return f, ch


@program
def getattr_computed():
    class C:
        pass

    s = C()
    s.val1 = 1.0
    n = [1]

    def f(x):
        return x * getattr(s, f"val{n[0]}")

    def ch(k):
        s.val1 = float(k)

    return f, ch


@program
def getattr_computed_concat():
    class C:
        pass

    s = C()
    s.val_one = 1.0
    parts = ("val", "one")

    def f(x):
        return x * getattr(s, "_".join(parts))

    def ch(k):
        s.val_one = float(k)

    return f, ch


@program
def getattr_computed_module():
    mod_a.val1 = 1.0
    n = [1]

    def f(x):
        return x * getattr(mod_a, f"val{n[0]}")

    def ch(k):
        mod_a.val1 = float(k)

    return f, ch


@program
def getattr_computed_class():
    class C:
        val1 = 1.0

    n = [1]

    def f(x):
        return x * getattr(C, f"val{n[0]}")

    def ch(k):
        C.val1 = float(k)

    return f, ch


@program
def getattr_name_in_closure():
    class C:
        pass

    s = C()
    s.val1 = 1.0
    name = "val1"

    def f(x):
        return x * getattr(s, name)

    def ch(k):
        s.val1 = float(k)

    return f, ch


@program
def getattr_name_list():
    class C:
        pass

    s = C()
    s.q1 = 1.0
    names = ["q1"]

    def f(x):
        for n in names:
            x = x * getattr(s, n)
        return x

    def ch(k):
        s.q1 = float(k)

    return f, ch


@program
def object_getattribute():
    class C:
        pass

    s = C()
    s.q1 = 1.0
    names = ["q1"]

    def f(x):
        return x * object.__getattribute__(s, names[0])

    def ch(k):
        s.q1 = float(k)

    return f, ch


@program
def env_get():
    os.environ["HH"] = "1"

    def f(x):
        return x * float(os.environ["HH"])

    def ch(k):
        os.environ["HH"] = str(k)

    return f, ch


@program
def env_getenv():
    os.environ["HH"] = "1"

    def f(x):
        return x * float(os.getenv("HH", "0"))

    def ch(k):
        os.environ["HH"] = str(k)

    return f, ch


@program
def env_from_import():
    os.environ["HH"] = "1"
    from os import environ, getenv

    def f(x):
        return x * float(getenv("HH", "0"))

    def ch(k):
        environ["HH"] = str(k)

    return f, ch


@program
def threading_local():
    t = threading.local()
    t.v = 1.0

    def f(x):
        return x * t.v

    def ch(k):
        t.v = float(k)

    return f, ch


@program
def file_content():
    p = pathlib.Path(tempfile.mkdtemp(), "v")
    p.write_text("1")

    def f(x):
        return x * float(p.read_text())

    def ch(k):
        p.write_text(str(k))

    return f, ch


@program
def file_open():
    p = tempfile.mkdtemp() + "/v"
    pathlib.Path(p).write_text("1")

    def f(x):
        with open(p) as h:
            return x * float(h.read())

    def ch(k):
        with open(p, "w") as h:
            h.write(str(k))

    return f, ch


@program
def file_exists():
    p = tempfile.mkdtemp() + "/v"

    def f(x):
        return x * (2.0 if os.path.exists(p) else 1.0)

    def ch(k):
        pathlib.Path(p).touch()

    return f, ch


@program
def file_json():
    p = tempfile.mkdtemp() + "/v"
    pathlib.Path(p).write_text("[1]")

    def f(x):
        with open(p) as h:
            return x * json.load(h)[0]

    def ch(k):
        with open(p, "w") as h:
            h.write(f"[{k}]")

    return f, ch


@program
def np_load():
    p = tempfile.mkdtemp() + "/v.npy"
    np.save(p, np.ones(1))

    def f(x):
        return x * float(np.load(p)[0])

    def ch(k):
        np.save(p, np.full(1, float(k)))

    return f, ch


@program
def try_attr_slots():
    class C:
        __slots__ = ("a",)

    c = C()

    def f(x):
        try:
            return x * c.a
        except AttributeError:
            return x * 7

    def ch(k):
        c.a = float(k)

    return f, ch


@program
def try_attr_slots_none():
    class C:
        __slots__ = ("a", "b")

    c = C()
    c.a = 1.0

    def f(x):
        try:
            return x * c.a
        except AttributeError:
            return x * 7

    def ch(k):
        if hasattr(c, "a"):
            del c.a
        else:
            c.a = 2.0

    return f, ch


@program
def try_cell_empty():
    def f(x):
        try:
            return x * v
        except NameError:
            return x * 7

    def ch(k):
        nonlocal v
        v = float(k)

    if 0:
        v = 1
    return f, ch


@program
def ctx_manager_gen():
    s = [1.0]

    @contextlib.contextmanager
    def m():
        yield s[0]

    def f(x):
        with m() as v:
            return x * v

    def ch(k):
        s[0] = float(k)

    return f, ch


@program
def bool_later():
    class C:
        pass

    c = C()

    def f(x):
        return x * 2 if c else x * 3

    def ch(k):
        C.__bool__ = lambda self: k != 3

    return f, ch


@program
def eq_later():
    class C:
        pass

    c, d = C(), C()

    def f(x):
        return x * 2 if c == d else x * 3

    def ch(k):
        C.__eq__ = lambda self, o: k == 3

    return f, ch


@program
def len_changed():
    class C:
        def __len__(self):
            return 1

    c = C()

    def f(x):
        return x * len(c)

    def ch(k):
        C.__len__ = lambda self: k

    return f, ch


@program
def len_later_truth():
    class C:
        pass

    c = C()

    def f(x):
        return x * 2 if not c else x * 3

    def ch(k):
        C.__len__ = lambda self: 0 if k == 3 else 1

    return f, ch


@program
def getitem_later():
    class C:
        def __getitem__(self, i):
            return 1.0

    c = C()

    def f(x):
        return x * c[0]

    def ch(k):
        C.__getitem__ = lambda self, i: float(k)

    return f, ch


@program
def str_format_attr():
    s = types.SimpleNamespace(v=1.0)

    def f(x):
        return x * float(f"{s.v}")

    def ch(k):
        s.v = float(k)

    return f, ch


@program
def globals_read():
    globals()["gg_h"] = 1.0
    n = ["gg", "h"]

    def f(x):
        return x * globals()["_".join(n)]

    def ch(k):
        globals()["gg_h"] = float(k)

    return f, ch


@program
def globals_literal():
    globals()["gg_h"] = 1.0

    def f(x):
        return x * globals()["gg_h"]

    def ch(k):
        globals()["gg_h"] = float(k)

    return f, ch


@program
def vars_module():
    mod_a.__dict__.clear()
    mod_a.__name__ = "mod_a_h"
    mod_a.zz = 1.0

    def f(x):
        return x * sum(v for v in vars(mod_a).values() if isinstance(v, float))

    def ch(k):
        mod_a.zz = float(k)

    return f, ch


@program
def vars_class():
    class C:
        zz = 1.0

    def f(x):
        return x * sum(v for k, v in vars(C).items() if isinstance(v, float))

    def ch(k):
        C.zz = float(k)

    return f, ch


@program
def dir_read():
    class C:
        zz = 1.0

    def f(x):
        return x * len(dir(C))

    def ch(k):
        setattr(C, f"n{k}", 1)

    return f, ch


@program
def inspect_getmembers():
    class C:
        pass

    c = C()
    c.zz = 1.0

    def f(x):
        return x * sum(v for k, v in inspect.getmembers(c) if isinstance(v, float))

    def ch(k):
        c.zz = float(k)

    return f, ch


@program
def copy_helper():
    class C:
        pass

    c = C()
    c.zz = [1.0]

    def g(o):
        return next(iter(copy.deepcopy(o).__reduce_ex__(2)[2].values()))[0]

    def f(x):
        return x * g(c)

    def ch(k):
        c.zz[0] = float(k)

    return f, ch


@program
def sort_key():
    class C:
        def __init__(self, v):
            self.v = v

    cs = [C(1.0), C(2.5)]

    def f(x):
        return x * sorted(cs, key=lambda c: c.v)[0].v + sorted(cs, key=lambda c: -c.v)[0].v

    def ch(k):
        cs[0].v = float(k)

    return f, ch


@program
def set_objects():
    class C:
        def __init__(self, v):
            self.v = v

    s = {C(1.0), C(2.0)}

    def f(x):
        return x * sum(c.v for c in s)

    def ch(k):
        next(iter(s)).v = float(k)
        [setattr(c, "v", float(k)) for c in s]

    return f, ch


@program
def set_tuples():
    s = {(1.0, 2)}

    def f(x):
        return x * sum(c[0] for c in s)

    def ch(k):
        s.add((float(k), 2))

    return f, ch


@program
def set_frozen_objects_member():
    s = {"a", (1, 2)}

    def f(x):
        return x * 2 if "q" in s else x * 3

    def ch(k):
        s.add("q") if k == 3 else s.discard("q")

    return f, ch


@program
def dict_obj_keys_with_attr():
    class K:
        def __init__(self, v):
            self.v = v

    d = {K(1.0): "a"}

    def f(x):
        return x * next(iter(d)).v

    def ch(k):
        next(iter(d)).v = float(k)

    return f, ch


@program
def wrapper_decorator():
    conf = {"s": 1.0}

    def deco(h):
        @functools.wraps(h)
        def w(*a):
            return h(*a) * conf["s"]

        return w

    @deco
    def g(x):
        return x + 1

    def f(x):
        return g(x)

    def ch(k):
        conf["s"] = float(k)

    return f, ch


@program
def abc_register():
    class A(abc.ABC):
        pass

    class K:
        pass

    kk = K()

    def f(x):
        return x * 2 if isinstance(kk, A) else x * 3

    def ch(k):
        A.register(K)

    return f, ch


@program
def instancecheck():
    class M(type):
        flag = True

        def __instancecheck__(cls, o):
            return M.flag

    class A(metaclass=M):
        pass

    def f(x):
        return x * 2 if isinstance(5, A) else x * 3

    def ch(k):
        M.flag = not M.flag

    return f, ch


@program
def deep_chain():
    class N:
        pass

    root = n = N()
    for _ in range(14):
        n.nxt = N()
        n = n.nxt
    n.val = 1.0
    last = n

    def f(x):
        p = root
        while hasattr(p, "nxt"):
            p = p.nxt
        return x * p.val

    def ch(k):
        last.val = float(k)

    return f, ch


@program
def deep_list():
    l = inner = []
    for _ in range(14):
        inner.append([])
        inner = inner[0]
    inner.append(1.0)

    def f(x):
        p = l
        while isinstance(p, list):
            p = p[0]
        return x * p

    def ch(k):
        inner[0] = float(k)

    return f, ch


@program
def many_leaves():
    l = [[float(i)] for i in range(1500)]

    def f(x):
        return x * l[1400][0]

    def ch(k):
        l[1400][0] = float(k)

    return f, ch


@program
def many_leaves_flat():
    l = [float(i) for i in range(5000)]

    def f(x):
        return x * l[4400]

    def ch(k):
        l[4400] = float(k)

    return f, ch


@program
def logging_level():
    lg = logging.getLogger("hhh")
    lg.setLevel(logging.INFO)

    def f(x):
        return x * 2 if lg.isEnabledFor(logging.DEBUG) else x * 3

    def ch(k):
        lg.setLevel(logging.DEBUG if k == 3 else logging.INFO)

    return f, ch


@program
def numpy_rng_state_peek():
    r = np.random.default_rng(1)

    def f(x):
        return x * (r.bit_generator.state["state"]["state"] % 7)

    def ch(k):
        r.random(k)

    return f, ch


@program
def ctx_run():
    v = contextvars.ContextVar("q", default=1.0)
    ctx = contextvars.copy_context()

    def f(x):
        return x * ctx.run(v.get)

    def ch(k):
        ctx.run(v.set, float(k))

    return f, ch


@program
def bound_list_method():
    l = [1.0]
    g = l.__getitem__

    def f(x):
        return x * g(0)

    def ch(k):
        l[0] = float(k)

    return f, ch


@program
def bound_dict_get():
    d = {"a": 1.0}
    g = d.get

    def f(x):
        return x * g("a")

    def ch(k):
        d["a"] = float(k)

    return f, ch


@program
def bound_set_contains():
    s = {1}
    g = s.__contains__

    def f(x):
        return x * 2 if g(5) else x * 3

    def ch(k):
        s.add(5)

    return f, ch


@program
def dict_views():
    d = {"a": 1.0}
    v = d.values()

    def f(x):
        return x * sum(v)

    def ch(k):
        d["a"] = float(k)

    return f, ch


@program
def dict_views_items():
    d = {"a": [1.0]}
    v = d.items()

    def f(x):
        for _k, i in v:
            x = x * i[0]
        return x

    def ch(k):
        d["a"][0] = float(k)

    return f, ch


@program
def negzero():
    class S:
        pass

    s = S()
    s.zc = 0.0

    def f(x):
        return x * s.zc

    def ch(k):
        s.zc = -0.0 if k == 3 else 0.0

    return f, ch


@program
def onetrue():
    class S:
        pass

    s = S()
    s.zc = 1

    def f(x):
        return x * s.zc if s.zc is not True else x - 5

    def ch(k):
        s.zc = True if k == 3 else 1.0

    return f, ch


@program
def nanval():
    class S:
        pass

    s = S()
    s.zc = float("nan")

    def f(x):
        return x * s.zc

    def ch(k):
        s.zc = 2.0 if k == 3 else float("nan")

    return f, ch


@program
def str_subclass():
    class T(str):
        pass

    t = T("a")
    t.v = 1.0

    def f(x):
        return x * t.v

    def ch(k):
        t.v = float(k)

    return f, ch


@program
def float_subclass():
    class T(float):
        pass

    t = T(2.0)
    t.v = 1.0

    def f(x):
        return x * t.v

    def ch(k):
        t.v = float(k)

    return f, ch


@program
def float_subclass_method():
    class T(float):
        w = 1.0

        def get(self):
            return float(self) * self.w

    t = T(2.0)

    def f(x):
        return x * t.get()

    def ch(k):
        T.w = float(k)

    return f, ch


@program
def int_enum_attr():
    class T(enum.IntEnum):
        A = 1
        B = 2

    T.A.w = 1.0

    def f(x):
        return x * T.A.w

    def ch(k):
        T.A.w = float(k)

    return f, ch


@program
def tuple_subclass():
    class T(tuple):
        pass

    t = T((1.0,))
    t.v = 1.0

    def f(x):
        return x * t.v

    def ch(k):
        t.v = float(k)

    return f, ch


@program
def list_subclass_attr():
    class T(list):
        pass

    t = T((1.0,))
    t.v = 1.0

    def f(x):
        return x * t.v

    def ch(k):
        t.v = float(k)

    return f, ch


@program
def import_star_hook():
    def f(x):
        return x * (2.0 if "colorsys" in sys.modules else 3.0)

    sys.modules.pop("colorsys", None)

    def ch(k):
        importlib.import_module("colorsys") if k == 3 else sys.modules.pop("colorsys", None)

    return f, ch


@program
def bytes_io():
    b = io.BytesIO(b"1")

    def f(x):
        return x * float(b.getvalue())

    def ch(k):
        b.seek(0)
        b.write(str(k).encode())

    return f, ch


@program
def ctypes_value():
    c = ctypes.c_double(1.0)

    def f(x):
        return x * c.value

    def ch(k):
        c.value = float(k)

    return f, ch


@program
def ctypes_struct():
    class S(ctypes.Structure):
        _fields_ = [("zz", ctypes.c_double)]

    c = S(1.0)

    def f(x):
        return x * c.zz

    def ch(k):
        c.zz = float(k)

    return f, ch


@program
def queue_peek():
    q = queue.Queue()
    q.put(1.0)

    def f(x):
        return x * q.qsize()

    def ch(k):
        q.put(1.0)

    return f, ch


@program
def event_flag():
    e = threading.Event()

    def f(x):
        return x * 2 if e.is_set() else x * 3

    def ch(k):
        e.set() if k == 3 else e.clear()

    return f, ch


@program
def module_attr_computed():
    m = nn.Linear(3, 3)
    m.temp1 = 1.0
    with graphc.no_grad():
        m.weight.fill_(0.5)
        m.bias.fill_(0.1)
    ns = [1]

    def f(x):
        return m(x) * getattr(m, f"temp{ns[0]}")

    def ch(k):
        m.temp1 = float(k)

    return f, ch


@program
def tensor_computed_name():
    class C:
        pass

    c = C()
    c.t1 = graphc.ones(3)
    n = [1]

    def f(x):
        return x * getattr(c, f"t{n[0]}")

    def ch(k):
        c.t1 = graphc.full((3,), float(k))

    return f, ch


@program
def os_stat():
    p = tempfile.mkdtemp() + "/v"
    pathlib.Path(p).write_text("1")

    def f(x):
        return x * os.stat(p).st_size

    def ch(k):
        with open(p, "w") as h:
            h.write("1" * k)

    return f, ch


@program
def listdir():
    p = tempfile.mkdtemp()

    def f(x):
        return x * len(os.listdir(p))

    def ch(k):
        pathlib.Path(p + f"/{k}").touch()

    return f, ch


@program
def generic_alias():
    T = typing.NamedTuple("T", [("a", float)])
    s = [T(1.0)]

    def f(x):
        return x * s[0].a

    def ch(k):
        s[0] = T(float(k))

    return f, ch


@program
def match_args_hidden():
    class C:
        def __init__(self):
            self.qq = "a"

        __match_args__ = ("qq",)

    c = C()

    def f(x):
        match c:
            case C("zed"):
                return x * 2
            case _:
                return x * 3

    def ch(k):
        c.qq = "zed" if k == 3 else "a"

    return f, ch


@program
def string_template_obj():
    t = string.Template("1")

    def f(x):
        return x * float(t.safe_substitute())

    def ch(k):
        t.template = str(k)

    return f, ch


@program
def configparser_():
    c = configparser.ConfigParser()
    c.read_string("[a]\nv=1\n")

    def f(x):
        return x * c.getfloat("a", "v")

    def ch(k):
        c.set("a", "v", str(k))

    return f, ch


@program
def exitstack():
    s = [1.0]

    @contextlib.contextmanager
    def m():
        yield s[0]

    def f(x):
        with contextlib.ExitStack() as st:
            v = st.enter_context(m())
            return x * v

    def ch(k):
        s[0] = float(k)

    return f, ch


@program
def colorsys_monkey():
    import colorsys

    old = colorsys.ONE_THIRD

    def f(x):
        return x * colorsys.hls_to_rgb(0.3, 0.4, 0.5)[0]

    def ch(k):
        colorsys.ONE_THIRD = float(k)

    f.cleanup = lambda: setattr(colorsys, "ONE_THIRD", old)
    return f, ch
