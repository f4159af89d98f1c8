"""The thread pool as LLVM text.

A job is one kernel over `units` units, cut into n chunks. `remaining` counts the chunks nobody has taken, `pending`
those not finished. Whoever lowers `remaining` from r > 0 to r - 1 owns chunk n - r, and only then reads the job and
its own scratch address: neither can change while one of the chunks is unfinished. The caller takes chunks too, so it
never waits for a thread that has not begun. Idle threads spin, then sleep on the futex `remaining`; a caller that
waits long sleeps on the futex `pending`. The `lock` word admits one job at a time; who does not get it runs its kernel
alone. All memory is one page from Python; nothing is called but kernels and libc's `syscall`, whose address stands in
the page.
"""

from __future__ import annotations

from dataclasses import dataclass
from string import Template

from graphc.errors import UnsupportedError

# Byte offsets in the page. Words that different threads write lie two cache lines apart.
REMAINING, PENDING, SLEEPERS, LOCK, WAITING, LIVE = 0, 128, 256, 384, 512, 640
LIMIT = 768  # number of threads besides the caller; a thread with a larger index leaves
JOB_FUNCTION, JOB_BLOCK, JOB_UNITS, JOB_CHUNK, JOB_CHUNKS = 896, 904, 912, 920, 928
SYSCALL, SPINS = 1024, 1032
RECORDS = 1152  # one record a thread: page, index, scratch and (for Python alone) its size
RECORD_BYTES = 64
CHUNKS_PER_THREAD = 4  # a slow thread is then at most a quarter of its share late


@dataclass(frozen=True, slots=True)
class Machine:
    """What differs between processors."""

    futex: int  # number of the futex system call
    declarations: str
    pause: str
    set_mode: str  # save the floating-point mode in %mode and set round to nearest, no flushing, no traps
    restore_mode: str


_X86 = Machine(
    futex=202,
    declarations="""declare void @llvm.x86.sse2.pause()
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)""",
    pause="call void @llvm.x86.sse2.pause()",
    set_mode="""%mode = alloca i32, align 4
  %plain = alloca i32, align 4
  store i32 8064, ptr %plain, align 4
  call void @llvm.x86.sse.stmxcsr(ptr %mode)
  call void @llvm.x86.sse.ldmxcsr(ptr %plain)""",  # 8064 = 0x1F80
    restore_mode="call void @llvm.x86.sse.ldmxcsr(ptr %mode)",
)
_AARCH64 = Machine(
    futex=98,
    declarations="""declare void @llvm.aarch64.hint(i32)
declare i64 @llvm.aarch64.get.fpcr()
declare void @llvm.aarch64.set.fpcr(i64)""",
    pause="call void @llvm.aarch64.hint(i32 1)",
    set_mode="""%mode = call i64 @llvm.aarch64.get.fpcr()
  call void @llvm.aarch64.set.fpcr(i64 0)""",
    restore_mode="call void @llvm.aarch64.set.fpcr(i64 %mode)",
)
_MACHINES = {"x86_64": _X86, "aarch64": _AARCH64, "arm64": _AARCH64}


def machine_of(triple: str) -> Machine:
    """The processor of a triple. Raises UnsupportedError."""
    found = _MACHINES.get(triple.partition("-")[0])
    if found is None:
        raise UnsupportedError(f"no thread pool for {triple}: x86-64 and aarch64 are supported")
    return found


_FUTEX = """define internal void @futex(ptr %pool, ptr %word, i64 %what, i32 %value) nounwind {
  %at = getelementptr i8, ptr %pool, i64 $SYSCALL
  %syscall = load ptr, ptr %at, align 8
  %wide = sext i32 %value to i64
  %r = call i64 (i64, ...) %syscall(i64 $futex, ptr %word, i64 %what, i64 %wide, ptr null, ptr null, i64 0)
  ret void
}
"""

_SHARE = """define internal void @share(ptr %pool, ptr %scratch.at) nounwind {
entry:
  %pending = getelementptr i8, ptr %pool, i64 $PENDING
  %waiting = getelementptr i8, ptr %pool, i64 $WAITING
  br label %look
look:
  %r = load atomic i32, ptr %pool acquire, align 4
  %any = icmp sgt i32 %r, 0
  br i1 %any, label %try, label %leave
try:
  %less = sub i32 %r, 1
  %swap = cmpxchg ptr %pool, i32 %r, i32 %less acq_rel acquire
  %won = extractvalue { i32, i1 } %swap, 1
  br i1 %won, label %work, label %look
work:
  %function.at = getelementptr i8, ptr %pool, i64 $JOB_FUNCTION
  %function = load ptr, ptr %function.at, align 8
  %block.at = getelementptr i8, ptr %pool, i64 $JOB_BLOCK
  %block = load ptr, ptr %block.at, align 8
  %units.at = getelementptr i8, ptr %pool, i64 $JOB_UNITS
  %units = load i64, ptr %units.at, align 8
  %chunk.at = getelementptr i8, ptr %pool, i64 $JOB_CHUNK
  %chunk = load i64, ptr %chunk.at, align 8
  %chunks.at = getelementptr i8, ptr %pool, i64 $JOB_CHUNKS
  %chunks = load i64, ptr %chunks.at, align 8
  %scratch = load ptr, ptr %scratch.at, align 8
  %r.wide = sext i32 %r to i64
  %number = sub i64 %chunks, %r.wide
  %lo = mul i64 %number, %chunk
  %end = add i64 %lo, %chunk
  %over = icmp sgt i64 %end, %units
  %hi = select i1 %over, i64 %units, i64 %end
  call void %function(ptr %block, i64 %lo, i64 %hi, ptr %scratch)
  %before = atomicrmw sub ptr %pending, i32 1 seq_cst
  %last = icmp eq i32 %before, 1
  br i1 %last, label %finish, label %look
finish:
  %asleep = load atomic i32, ptr %waiting seq_cst, align 4
  %wake = icmp ne i32 %asleep, 0
  br i1 %wake, label %rouse, label %look
rouse:
  call void @futex(ptr %pool, ptr %pending, i64 129, i32 1)
  br label %look
leave:
  ret void
}
"""

_WORKER = """define ptr @graphc_worker(ptr %record) nounwind {
entry:
  $set_mode
  %pool = load ptr, ptr %record, align 8
  %index.at = getelementptr i8, ptr %record, i64 8
  %index = load i64, ptr %index.at, align 8
  %scratch.at = getelementptr i8, ptr %record, i64 16
  %limit.at = getelementptr i8, ptr %pool, i64 $LIMIT
  %sleepers = getelementptr i8, ptr %pool, i64 $SLEEPERS
  %live = getelementptr i8, ptr %pool, i64 $LIVE
  %spins.at = getelementptr i8, ptr %pool, i64 $SPINS
  br label %idle
idle:
  %count = phi i64 [ 0, %entry ], [ %next, %relax ], [ 0, %sleep ], [ 0, %work ]
  %limit = load atomic i64, ptr %limit.at acquire, align 8
  %stay = icmp sle i64 %index, %limit
  br i1 %stay, label %look, label %leave
look:
  %r = load atomic i32, ptr %pool acquire, align 4
  %any = icmp sgt i32 %r, 0
  br i1 %any, label %work, label %spin
spin:
  %next = add i64 %count, 1
  %spins = load i64, ptr %spins.at, align 8
  %tired = icmp sgt i64 %next, %spins
  br i1 %tired, label %sleep, label %relax
relax:
  $pause
  br label %idle
sleep:
  %s0 = atomicrmw add ptr %sleepers, i32 1 seq_cst
  call void @futex(ptr %pool, ptr %pool, i64 128, i32 0)
  %s1 = atomicrmw sub ptr %sleepers, i32 1 seq_cst
  br label %idle
work:
  call void @share(ptr %pool, ptr %scratch.at)
  br label %idle
leave:
  %l = atomicrmw sub ptr %live, i32 1 seq_cst
  ret ptr null
}
"""

_PARALLEL = """define internal void @parallel(
  ptr %pool, ptr %function, ptr %block, i64 %units, i64 %grain, ptr %scratch.at
) nounwind {
entry:
  %limit.at = getelementptr i8, ptr %pool, i64 $LIMIT
  %limit = load atomic i64, ptr %limit.at acquire, align 8
  %team = add i64 %limit, 1
  %parts = mul i64 %team, $CHUNKS_PER_THREAD
  %u0 = add i64 %units, %parts
  %u1 = sub i64 %u0, 1
  %even = sdiv i64 %u1, %parts
  %fine = icmp slt i64 %even, %grain
  %chunk = select i1 %fine, i64 %grain, i64 %even
  %c0 = add i64 %units, %chunk
  %c1 = sub i64 %c0, 1
  %chunks = sdiv i64 %c1, %chunk
  %function.at = getelementptr i8, ptr %pool, i64 $JOB_FUNCTION
  store ptr %function, ptr %function.at, align 8
  %block.at = getelementptr i8, ptr %pool, i64 $JOB_BLOCK
  store ptr %block, ptr %block.at, align 8
  %units.at = getelementptr i8, ptr %pool, i64 $JOB_UNITS
  store i64 %units, ptr %units.at, align 8
  %chunk.at = getelementptr i8, ptr %pool, i64 $JOB_CHUNK
  store i64 %chunk, ptr %chunk.at, align 8
  %chunks.at = getelementptr i8, ptr %pool, i64 $JOB_CHUNKS
  store i64 %chunks, ptr %chunks.at, align 8
  %n = trunc i64 %chunks to i32
  %pending = getelementptr i8, ptr %pool, i64 $PENDING
  %waiting = getelementptr i8, ptr %pool, i64 $WAITING
  %sleepers = getelementptr i8, ptr %pool, i64 $SLEEPERS
  store atomic i32 0, ptr %waiting monotonic, align 4
  store atomic i32 %n, ptr %pending monotonic, align 4
  store atomic i32 %n, ptr %pool seq_cst, align 4
  %asleep = load atomic i32, ptr %sleepers seq_cst, align 4
  %some = icmp sgt i32 %asleep, 0
  br i1 %some, label %wake, label %work
wake:
  %others = sub i32 %n, 1
  call void @futex(ptr %pool, ptr %pool, i64 129, i32 %others)
  br label %work
work:
  call void @share(ptr %pool, ptr %scratch.at)
  %spins.at = getelementptr i8, ptr %pool, i64 $SPINS
  %spins = load i64, ptr %spins.at, align 8
  br label %wait
wait:
  %count = phi i64 [ 0, %work ], [ %next, %relax ], [ 0, %sleep ]
  %p = load atomic i32, ptr %pending acquire, align 4
  %done = icmp eq i32 %p, 0
  br i1 %done, label %leave, label %spin
spin:
  %next = add i64 %count, 1
  %tired = icmp sgt i64 %next, %spins
  br i1 %tired, label %doze, label %relax
relax:
  $pause
  br label %wait
doze:
  store atomic i32 1, ptr %waiting seq_cst, align 4
  %q = load atomic i32, ptr %pending seq_cst, align 4
  %late = icmp eq i32 %q, 0
  br i1 %late, label %leave, label %sleep
sleep:
  call void @futex(ptr %pool, ptr %pending, i64 128, i32 %q)
  br label %wait
leave:
  ret void
}
"""

# Taken by Python around changes to the team; never while a job runs, as a job holds it.
_LOCK = """define i64 @graphc_try_lock(ptr %pool) nounwind {
  %lock = getelementptr i8, ptr %pool, i64 $LOCK
  %swap = cmpxchg ptr %lock, i32 0, i32 1 acquire monotonic
  %won = extractvalue { i32, i1 } %swap, 1
  %r = zext i1 %won to i64
  ret i64 %r
}
define void @graphc_unlock(ptr %pool) nounwind {
  %lock = getelementptr i8, ptr %pool, i64 $LOCK
  store atomic i32 0, ptr %lock release, align 4
  ret void
}
define void @graphc_wake_all(ptr %pool) nounwind {
  call void @futex(ptr %pool, ptr %pool, i64 129, i32 2147483647)
  ret void
}
"""


def fill(text: str, machine: Machine) -> str:
    """Put the offsets and the parts of a processor into a text."""
    names = {name: value for name, value in globals().items() if name.isupper() and isinstance(value, int)}
    return Template(text).substitute(
        names,
        futex=machine.futex,
        pause=machine.pause,
        set_mode=machine.set_mode,
        restore_mode=machine.restore_mode,
    )


def pool_text(triple: str) -> str:
    """The LLVM text of the pool. Raises UnsupportedError for a processor it does not know."""
    machine = machine_of(triple)
    return machine.declarations + "\n" + fill(_FUTEX + _SHARE + _WORKER + _PARALLEL + _LOCK, machine)
