"""Functions that the interpreter calls itself, without ctypes between, as LLVM text.

Both have the C signature of METH_FASTCALL, `PyObject *f(PyObject *self, PyObject *const *args, Py_ssize_t n)`.
`self` is an array of 8-byte words, the record of one plan. Nothing is called by name: what they need of Python and
NumPy stands in a table of addresses, whose own address is word 0 of every record. The interpreter lock is held from
beginning to end, so one caller at a time uses a record and the frame behind it.

`graphc_entry` makes the outputs of a small program, runs it and gives them (several as a tuple). Only the tuple can set
off the garbage collector, and with it other code, so it is made before the frame is touched.
Record: table, frame, number of inputs, number of outputs, then for each output the number of the input it is written
in place of (or -1), rank, address of its sizes, dtype.
`graphc_view` gives a view of its operand.
Record: table, rank, address of the sizes, address of the strides in bytes, byte offset, dtype.
"""

from __future__ import annotations

from string import Template

# words of the table
NAMES = (
    "incref", "decref", "bad_call", "ndarray", "is_subtype", "empty", "new_tuple", "set_item", "new_array", "set_base",
)  # fmt: skip
ENTRY_WORDS = 4
RESULT_WORDS = 4  # of each output

_PARTS = """define internal i1 @is_array(ptr %table, ptr %object) nounwind {
  %type.at = getelementptr i8, ptr %object, i64 $TYPE
  %type = load ptr, ptr %type.at, align 8
  %ndarray.at = getelementptr i64, ptr %table, i64 $ndarray
  %ndarray = load ptr, ptr %ndarray.at, align 8
  %same = icmp eq ptr %type, %ndarray
  br i1 %same, label %yes, label %ask
ask:
  %f.at = getelementptr i64, ptr %table, i64 $is_subtype
  %f = load ptr, ptr %f.at, align 8
  %answer = call i32 %f(ptr %type, ptr %ndarray)
  %derived = icmp ne i32 %answer, 0
  ret i1 %derived
yes:
  ret i1 true
}
define internal void @with_object(ptr %table, i64 %k, ptr %object) nounwind {
  %f.at = getelementptr i64, ptr %table, i64 %k
  %f = load ptr, ptr %f.at, align 8
  call void %f(ptr %object)
  ret void
}
define internal ptr @refuse(ptr %table) nounwind {
  %f.at = getelementptr i64, ptr %table, i64 $bad_call
  %f = load ptr, ptr %f.at, align 8
  call void %f()
  ret ptr null
}
"""

_ENTRY = """define ptr @graphc_entry(ptr %self, ptr %args, i64 %given) nounwind {
entry:
  %record.at = getelementptr i8, ptr %self, i64 $DATA
  %record = load ptr, ptr %record.at, align 8
  %table = load ptr, ptr %record, align 8
  %r1 = getelementptr i64, ptr %record, i64 1
  %frame = load ptr, ptr %r1, align 8
  %r2 = getelementptr i64, ptr %record, i64 2
  %n = load i64, ptr %r2, align 8
  %r3 = getelementptr i64, ptr %record, i64 3
  %m = load i64, ptr %r3, align 8
  %io = getelementptr i8, ptr %frame, i64 $IO_AT
  %made = getelementptr i64, ptr %io, i64 %n
  %fits = icmp eq i64 %given, %n
  br i1 %fits, label %check, label %refuse
check:
  %c = phi i64 [ 0, %entry ], [ %c1, %good ]
  %unchecked = icmp slt i64 %c, %n
  br i1 %unchecked, label %look, label %begin
look:
  %object.at = getelementptr i64, ptr %args, i64 %c
  %object = load ptr, ptr %object.at, align 8
  %array = call i1 @is_array(ptr %table, ptr %object)
  br i1 %array, label %good, label %refuse
good:
  %c1 = add i64 %c, 1
  br label %check
refuse:
  %none = call ptr @refuse(ptr %table)
  ret ptr null
begin:
  %one = icmp eq i64 %m, 1
  br i1 %one, label %put, label %tuple
tuple:
  %tuple_of.at = getelementptr i64, ptr %table, i64 $new_tuple
  %tuple_of = load ptr, ptr %tuple_of.at, align 8
  %new_tuple = call ptr %tuple_of(i64 %m)
  %no_tuple = icmp eq ptr %new_tuple, null
  br i1 %no_tuple, label %lost, label %put
lost:
  ret ptr null
put:
  %several = phi ptr [ null, %begin ], [ %new_tuple, %tuple ]
  br label %take
take:
  %k = phi i64 [ 0, %put ], [ %k1, %store ]
  %more = icmp slt i64 %k, %n
  br i1 %more, label %store, label %make
store:
  %arg.at = getelementptr i64, ptr %args, i64 %k
  %arg = load ptr, ptr %arg.at, align 8
  %in.at = getelementptr i64, ptr %io, i64 %k
  store ptr %arg, ptr %in.at, align 8
  %k1 = add i64 %k, 1
  br label %take
make:
  %j = phi i64 [ 0, %take ], [ %j1, %next ]
  %left = icmp slt i64 %j, %m
  br i1 %left, label %output, label %run
output:
  %j3 = mul i64 %j, $RESULT_WORDS
  %j4 = add i64 %j3, $ENTRY_WORDS
  %s0 = getelementptr i64, ptr %record, i64 %j4
  %donor = load i64, ptr %s0, align 8
  %fresh = icmp slt i64 %donor, 0
  br i1 %fresh, label %new, label %given.back
given.back:
  %donor.at = getelementptr i64, ptr %args, i64 %donor
  %donated = load ptr, ptr %donor.at, align 8
  call void @with_object(ptr %table, i64 $incref, ptr %donated)
  br label %keep
new:
  %s1 = getelementptr i64, ptr %s0, i64 1
  %rank = load i64, ptr %s1, align 8
  %rank32 = trunc i64 %rank to i32
  %s2 = getelementptr i64, ptr %s0, i64 2
  %sizes = load ptr, ptr %s2, align 8
  %s3 = getelementptr i64, ptr %s0, i64 3
  %dtype = load ptr, ptr %s3, align 8
  call void @with_object(ptr %table, i64 $incref, ptr %dtype)
  %empty.at = getelementptr i64, ptr %table, i64 $empty
  %empty = load ptr, ptr %empty.at, align 8
  %made.now = call ptr %empty(i32 %rank32, ptr %sizes, ptr %dtype, i32 0)
  %failed = icmp eq ptr %made.now, null
  br i1 %failed, label %undo, label %keep
undo:
  br i1 %one, label %lost, label %drop
drop:
  call void @with_object(ptr %table, i64 $decref, ptr %several)
  ret ptr null
keep:
  %out = phi ptr [ %made.now, %new ], [ %donated, %given.back ]
  %out.at = getelementptr i64, ptr %made, i64 %j
  store ptr %out, ptr %out.at, align 8
  br i1 %one, label %next, label %set
set:
  %set_item.at = getelementptr i64, ptr %table, i64 $set_item
  %set_item = load ptr, ptr %set_item.at, align 8
  %was_set = call i32 %set_item(ptr %several, i64 %j, ptr %out)
  br label %next
next:
  %j1 = add i64 %j, 1
  br label %make
run:
  call void @graphc_run(ptr %frame)
  br i1 %one, label %bare, label %all
bare:
  %only = load ptr, ptr %made, align 8
  ret ptr %only
all:
  ret ptr %several
}
"""

_VIEW = """define ptr @graphc_view(ptr %self, ptr %args, i64 %given) nounwind {
entry:
  %record.at = getelementptr i8, ptr %self, i64 $DATA
  %record = load ptr, ptr %record.at, align 8
  %table = load ptr, ptr %record, align 8
  %fits = icmp eq i64 %given, 1
  br i1 %fits, label %look, label %refuse
look:
  %base = load ptr, ptr %args, align 8
  %array = call i1 @is_array(ptr %table, ptr %base)
  br i1 %array, label %make, label %refuse
refuse:
  %none = call ptr @refuse(ptr %table)
  ret ptr null
make:
  %r1 = getelementptr i64, ptr %record, i64 1
  %rank = load i64, ptr %r1, align 8
  %rank32 = trunc i64 %rank to i32
  %r2 = getelementptr i64, ptr %record, i64 2
  %sizes = load ptr, ptr %r2, align 8
  %r3 = getelementptr i64, ptr %record, i64 3
  %strides = load ptr, ptr %r3, align 8
  %r4 = getelementptr i64, ptr %record, i64 4
  %offset = load i64, ptr %r4, align 8
  %r5 = getelementptr i64, ptr %record, i64 5
  %dtype = load ptr, ptr %r5, align 8
  %data.at = getelementptr i8, ptr %base, i64 $DATA
  %data = load ptr, ptr %data.at, align 8
  %start = getelementptr i8, ptr %data, i64 %offset
  %flags.at = getelementptr i8, ptr %base, i64 $FLAGS
  %flags = load i32, ptr %flags.at, align 4
  %writeable = and i32 %flags, $WRITEABLE
  call void @with_object(ptr %table, i64 $incref, ptr %dtype)
  %ndarray.at = getelementptr i64, ptr %table, i64 $ndarray
  %ndarray = load ptr, ptr %ndarray.at, align 8
  %new.at = getelementptr i64, ptr %table, i64 $new_array
  %new = load ptr, ptr %new.at, align 8
  %view = call ptr %new(ptr %ndarray, ptr %dtype, i32 %rank32, ptr %sizes, ptr %strides, ptr %start, i32 %writeable,
    ptr null)
  %failed = icmp eq ptr %view, null
  br i1 %failed, label %lost, label %hold
lost:
  ret ptr null
hold:
  call void @with_object(ptr %table, i64 $incref, ptr %base)
  %set_base.at = getelementptr i64, ptr %table, i64 $set_base
  %set_base = load ptr, ptr %set_base.at, align 8
  %status = call i32 %set_base(ptr %view, ptr %base)
  %bad = icmp slt i32 %status, 0
  br i1 %bad, label %drop, label %done
drop:
  call void @with_object(ptr %table, i64 $decref, ptr %view)
  ret ptr null
done:
  ret ptr %view
}
"""

TYPE_AT = 8  # byte offset of an object's type: checked at run time (runtime/entry.py)
DATA_AT = 16  # of an array's data address
FLAGS_AT = 64  # of an array's flags
WRITEABLE = 0x400


def entry_text(io_at: int) -> str:
    """The LLVM text; it belongs to the module that defines `graphc_run`. io begins `io_at` bytes into a frame."""
    numbers = {name: k for k, name in enumerate(NAMES)}
    numbers |= {"TYPE": TYPE_AT, "DATA": DATA_AT, "FLAGS": FLAGS_AT, "WRITEABLE": WRITEABLE, "IO_AT": io_at}
    numbers |= {"ENTRY_WORDS": ENTRY_WORDS, "RESULT_WORDS": RESULT_WORDS}
    return Template(_PARTS + _ENTRY + _VIEW).substitute(numbers)
