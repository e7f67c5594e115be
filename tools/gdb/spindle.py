# SPDX-License-Identifier: Apache-2.0
"""Coroutines in gdb, live or in a core file.

    (gdb) source tools/gdb/spindle.py
    (gdb) spindle coroutines            list those of every thread's loop
    (gdb) spindle backtrace             ... with a backtrace of each that is suspended
    (gdb) spindle backtrace ADDRESS     of one (the address is in the list)

How: a suspended coroutine has left its callee-saved registers on its own stack (the layouts are in
base/co_switch_*.S) or in a ucontext. An unwinder tells gdb that the caller of the innermost frame is that saved place;
the ordinary backtrace then walks the coroutine's stack. No register of the program is touched, so core files work too.
"""

import gdb
import gdb.unwinder

STATES = ["new", "ready", "running", "suspended", "ended"]

# Offsets from the saved stack pointer, see base/co_switch_x86_64.S and base/co_switch_aarch64.S.
X86_64_FRAME = {"r15": 8, "r14": 16, "r13": 24, "r12": 32, "rbx": 40, "rbp": 48, "rip": 56}
X86_64_FRAME_SIZE = 64
AARCH64_FRAME = {**{f"x{19 + i}": 8 * i for i in range(12)}, "pc": 88}
AARCH64_FRAME_SIZE = 176

# Indexes into ucontext_t.uc_mcontext.gregs (sys/ucontext.h).
X86_64_GREGS = {"r12": 4, "r13": 5, "r14": 6, "r15": 7, "rbp": 10, "rbx": 11, "rsp": 15, "rip": 16}


def word(address):
    pointer = gdb.lookup_type("unsigned long").pointer()
    return int(gdb.Value(address).cast(pointer).dereference())


def architecture():
    return gdb.selected_inferior().architecture().name()


def saved_registers(co):
    """Register name to value, as they were when the coroutine left."""
    context = co["context"]
    if int(context["ucontext"]) != 0:
        gregs = context["ucontext"]["uc_mcontext"]["gregs"]
        return {name: int(gregs[index]) for name, index in X86_64_GREGS.items()}
    sp = int(context["sp"])
    if architecture().startswith("aarch64"):
        registers = {name: word(sp + offset) for name, offset in AARCH64_FRAME.items()}
        registers["sp"] = sp + AARCH64_FRAME_SIZE
        return registers
    registers = {name: word(sp + offset) for name, offset in X86_64_FRAME.items()}
    registers["rsp"] = sp + X86_64_FRAME_SIZE
    return registers


class FrameId:
    def __init__(self, sp, pc):
        self.sp = sp
        self.pc = pc


class CoroutineUnwinder(gdb.unwinder.Unwinder):
    """While `registers` is set, pretends that the innermost frame was called from where they point."""

    def __init__(self):
        super().__init__("spindle-coroutine")
        self.registers = None

    def __call__(self, pending):
        if self.registers is None or pending.level() != 0:
            return None
        sp_name, pc_name = ("sp", "pc") if architecture().startswith("aarch64") else ("rsp", "rip")
        info = pending.create_unwind_info(FrameId(pending.read_register(sp_name), pending.read_register(pc_name)))
        for name, value in self.registers.items():
            kind = pending.read_register(name).type
            info.add_saved_register(name, gdb.Value(value).cast(kind))
        return info


unwinder = CoroutineUnwinder()
gdb.unwinder.register_unwinder(None, unwinder, replace=True)


def loops():
    """The loop that each thread runs, with the thread's number."""
    before = gdb.selected_thread()
    found = []
    try:
        for thread in sorted(gdb.selected_inferior().threads(), key=lambda t: t.num):
            thread.switch()
            try:
                loop = gdb.parse_and_eval("loop_of_thread")
            except gdb.error:
                continue  # a thread without thread-local storage yet
            if int(loop) != 0:
                found.append((thread.num, loop.dereference()))
    finally:
        if before is not None:
            before.switch()
    return found


def coroutines(loop):
    """Every living coroutine: the list is linked through all_link."""
    co_type = gdb.lookup_type("struct co")
    offset = next(f.bitpos // 8 for f in co_type.fields() if f.name == "all_link")
    head = loop["coroutines"].address
    link = loop["coroutines"]["next"]
    while int(link) != int(head):
        yield gdb.Value(int(link) - offset).cast(co_type.pointer()).dereference()
        link = link["next"]


def describe(co):
    address = int(co.address)
    fn = str(co["fn"]).split(" ", 1)[-1]
    flags = [name for name in ("cancelled", "shielded", "woken") if bool(co[name])]
    extra = f" ({', '.join(flags)})" if flags else ""
    return f"{address:#x} {STATES[int(co['state'])]:9} {fn} arg {int(co['arg']):#x}{extra}"


def backtrace(co):
    state = STATES[int(co["state"])]
    if state == "running":
        return "    (running: use backtrace)\n"
    if state in ("new", "ended"):
        return "    (has no frames)\n"
    unwinder.registers = saved_registers(co)
    gdb.invalidate_cached_frames()
    try:
        text = gdb.execute("backtrace", to_string=True)
    finally:
        unwinder.registers = None
        gdb.invalidate_cached_frames()
    # The first frame is the real one, where the program stopped; the rest is the coroutine's.
    lines = text.splitlines()
    starts = [i for i, line in enumerate(lines) if line.startswith("#1 ")]
    return "".join(f"    {line}\n" for line in lines[starts[0]:]) if starts else "    (no frames)\n"


class Spindle(gdb.Command):
    """Commands for spindle programs: coroutines, backtrace."""

    def __init__(self):
        super().__init__("spindle", gdb.COMMAND_STACK, prefix=True)


class Coroutines(gdb.Command):
    """List the coroutines of every loop: address, state, function, argument."""

    def __init__(self):
        super().__init__("spindle coroutines", gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        show(lambda co: "", None)


class Backtrace(gdb.Command):
    """Backtrace of each suspended coroutine, or of the one at ADDRESS."""

    def __init__(self):
        super().__init__("spindle backtrace", gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        wanted = int(gdb.parse_and_eval(argument)) if argument else None
        show(backtrace, wanted)


def show(detail, wanted):
    count = 0
    for number, loop in loops():
        if wanted is None:
            print(f"thread {number}: loop {int(loop.address):#x} ({loop['ops']['name'].string()})")
        for co in coroutines(loop):
            if wanted in (None, int(co.address)):
                count += 1
                print("  " + describe(co))
                print(detail(co), end="")
    if not count:
        print("no such coroutine" if wanted else "no coroutines: no thread runs a loop, or it is empty")


Spindle()
Coroutines()
Backtrace()
