#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# labels: quick user
# requires: riscv64-linux-gnu-gcc
# timeout: 120
"""Would be broken: spindle-riscv64's command line and environment, what it prints with -strace, and its errors: files that are no programs,
programs of other machines, headers that lie."""
import os
import re
import struct
import subprocess
import sys

emulator = os.environ["SPINDLE_BIN"] + "/spindle-riscv64"
SOURCE = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>
int main(int argc, char **argv)
{
    struct utsname name;
    char exe[4096] = "";
    uname(&name);
    if (readlink("/proc/self/exe", exe, sizeof exe - 1) < 0)
        return 1;
    for (int i = 0; i < argc; i++)
        printf("argument %s\n", argv[i]);
    for (int i = 1; i < argc; i++)
        printf("%s=%s\n", argv[i], getenv(argv[i]) ? getenv(argv[i]) : "(none)");
    printf("exe %s\nexecfn %s\nmachine %s\nhwcap %lx\n", strrchr(exe, '/') + 1, (char *)getauxval(AT_EXECFN), name.machine, getauxval(AT_HWCAP));
    if (argc > 1 && !strcmp(argv[1], "release"))
        printf("release %s\n", name.release);
    if (argc > 1 && !strcmp(argv[1], "stack")) {
        volatile char *deep = alloca(20 << 20);
        for (long i = 0; i < 20 << 20; i += 4096)
            deep[i] = 1;
        printf("deep\n");
    }
    if (argc > 1 && !strcmp(argv[1], "exec"))
        execl(exe, "renamed", "A", (char *)0);
    return 5;
}
"""
problems = []


def run(*words, environment=None):
    env = {k: v for k, v in os.environ.items() if not k.startswith("QEMU_")}
    env.update(environment or {})
    done = subprocess.run([emulator, *words], capture_output=True, text=True, timeout=60, env=env)
    return done.returncode, done.stdout, done.stderr


def expect(words, status, *patterns, environment=None, where=1):
    got = run(*words, environment=environment)
    for pattern in patterns:
        if not re.search(pattern, got[where], re.M):
            problems.append(f"{words}: no '{pattern}' in {got}")
    if got[0] != status:
        problems.append(f"{words}: status {got[0]}, wanted {status}: {got}")


def program():
    with open("it.c", "w", encoding="ascii") as file:
        file.write(SOURCE)
    subprocess.run(["riscv64-linux-gnu-gcc", "-O1", "-static", "-include", "alloca.h", "it.c", "-o", "it"], check=True)
    subprocess.run(["riscv64-linux-gnu-gcc", "-O1", "-include", "alloca.h", "it.c", "-o", "it-dynamic"], check=True)


def options():
    expect(["./it", "a b"], 5, r"^argument \./it$", r"^argument a b$", r"^exe it$", r"^execfn \./it$", "^machine riscv64$", "^hwcap 20112d$")
    expect(["-0", "other", "./it"], 5, "^argument other$", "^exe it$")
    expect(["./it"], 5, "^argument third$", environment={"QEMU_ARGV0": "third"})
    expect(["-E", "A=1,B=two", "-U", "HOME", "./it", "A", "B", "HOME"], 5, "^A=1$", "^B=two$", r"^HOME=\(none\)$")
    expect(["-E", "A=1", "-U", "A", "./it", "A"], 5, r"^A=\(none\)$")
    expect(["-r", "9.8.7", "./it", "release"], 5, r"^release 9\.8\.7$")
    expect(["-s", "32M", "./it", "stack"], 5, "^deep$")
    expect(["-s", "1M", "./it", "stack"], -11)
    expect(["-cpu", "rv64", "./it"], 5)
    expect(["-cpu", "max", "./it"], 5)
    expect(["-L", "/usr/riscv64-linux-gnu", "./it-dynamic"], 5, "^exe it-dynamic$")
    expect(["./it-dynamic"], 5, "^exe it-dynamic$", environment={"QEMU_LD_PREFIX": "/usr/riscv64-linux-gnu"})
    expect(["--version"], 0, "spindle-riscv64")
    expect(["--help"], 0, "-strace", "--install-binfmt", "QEMU_LD_PREFIX")
    expect(["-cpu", "help"], 0, "rv64")
    expect(["-d", "help"], 0, "strace")
    expect(["--print-binfmt"], 0, r"^:spindle-riscv64:M::\\x7f\\x45\\x4c\\x46.*:/.*/spindle-riscv64:PF$")


def trace():
    line = r"^\d+ {}\(.*\) = {}$"
    expect(["-strace", "./it"], 5, line.format("readlinkat", r"\d+"), r"^\d+ write\(1,\"argument", r"^\d+ exit_group\(5\)$", where=2)
    expect(["-d", "strace", "-D", "log", "./it"], 5, "^argument")
    with open("log", encoding="utf-8") as file:
        if "exit_group(5)" not in file.read():
            problems.append("-D: the log does not tell the calls")
    expect(["-strace", "./it", "exec"], 5, r"execve\(\"/", r"^\d+ exit_group\(5\)$", where=2) # the next program is traced, too


def errors():
    expect([], 1, "no program was named", where=2)
    expect(["-nonsense", "./it"], 1, "unknown option '-nonsense'", where=2)
    expect(["-L"], 1, "-L needs an argument", where=2)
    expect(["-s", "12Q", "./it"], 1, "-s 12Q", where=2)
    expect(["-s", "-5", "./it"], 1, "-s -5", where=2)
    expect(["-E", "A", "./it"], 1, "NAME=VALUE", where=2)
    expect(["-U", "A=1", "./it"], 1, "without '='", where=2)
    expect(["-cpu", "z80", "./it"], 1, "rv64 and max", where=2)
    expect(["-d", "nothing", "./it"], 1, "-d nothing", where=2)
    expect(["-d", "strace", "-D", "/nonexistent/log", "./it"], 127, "cannot open the log", where=2)
    expect(["./none"], 127, "cannot find './none'", where=2)
    expect(["."], 126, "not a regular file", where=2)
    expect(["./it-dynamic"], 127, "interpreter '/lib/ld-linux-riscv64", "-L names a directory", where=2)
    expect(["/bin/sh"], 126, "machine 62", where=2)


def lying_headers():
    with open("it", "rb") as file:
        good = file.read()

    def bad(name, at, form, value, message):
        content = bytearray(good)
        struct.pack_into(form, content, at, value)
        with open("bad", "wb") as file:
            file.write(content)
        status, out, text = run("./bad")
        if status != 126 or message not in text:
            problems.append(f"{name}: {status} {out} {text}")

    phoff = struct.unpack_from("<Q", good, 32)[0]
    load = next(phoff + 56 * i for i in range(good[56]) if struct.unpack_from("<I", good, phoff + 56 * i)[0] == 1)
    bad("magic", 0, "<I", 0x464c457e, "not an ELF executable")
    bad("class", 4, "<B", 1, "class 1")
    bad("byte order", 5, "<B", 2, "data 2")
    bad("machine", 18, "<H", 183, "machine 183")
    bad("type", 16, "<H", 1, "of type 1")
    bad("RVE", 48, "<I", 8, "RV64E")
    bad("header size", 54, "<H", 57, "program headers of 57 bytes")
    bad("no headers", 56, "<H", 0, "0 program headers")
    bad("many headers", 56, "<H", 60000, "60000 program headers")
    bad("headers beyond the end", 32, "<Q", len(good), "beyond its end")
    bad("file size", load + 32, "<Q", 1 << 40, "is not possible")
    bad("file offset", load + 8, "<Q", 1 << 62, "is not possible")
    bad("memory size", load + 40, "<Q", 1 << 60, "is not possible")
    bad("memory below file", load + 40, "<Q", 1, "is not possible")
    bad("address", load + 16, "<Q", 0xfffffffffffff000, "is not possible")
    bad("page offset", load + 16, "<Q", 0x10010, "another offset in its page")
    with open("short", "wb") as file:
        file.write(good[:20])
    os.chmod("short", 0o755)
    expect(["./short"], 126, "not an ELF", where=2)


program()
options()
trace()
errors()
lying_headers()
print("\n".join(problems) or "all as expected")
sys.exit(bool(problems))
