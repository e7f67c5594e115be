#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# labels: full user
# requires: qemu-riscv64 dpkg-deb
# timeout: 300
"""Would be broken: Debian's own RISC-V programs (busybox, coreutils, dash) under spindle-riscv64: what they print and how they end is not
what they print under Debian's qemu-riscv64.

The packages are those of the guest (tools/guest/build); both emulators get the same commands, in fresh directories with the same files.
"""
import glob
import os
import re
import shutil
import subprocess
import sys

emulator = os.environ["SPINDLE_BIN"] + "/spindle-riscv64"
guest = os.environ.get("SPINDLE_GUEST") or os.path.join(os.environ["SPINDLE_SRC"], "build/guest")
PATIENCE = 60 * int(os.environ.get("SPINDLE_TIMEOUT_FACTOR", "1"))

# $R: the system's root. Programs start further programs through it, so that both emulators find them.
COMMANDS = [
    "$R/bin/ls -l --time-style=+%s tree", "$R/bin/ls -laR --time-style=+x tree", "$R/bin/cat tree/text tree/none", "$R/bin/sort -n tree/numbers",
    "$R/bin/sort -S 1M -T . -r tree/numbers", "$R/bin/sha256sum tree/text tree/binary", "$R/bin/b2sum tree/binary", "$R/bin/md5sum tree/binary",
    "$R/bin/wc tree/text tree/binary", "$R/bin/od -A x -t x1z tree/binary", "$R/bin/base64 -w 60 tree/binary", "$R/bin/tac tree/text",
    "$R/bin/cp -a tree copy && $R/bin/ls -R copy && $R/bin/rm -r copy", "$R/bin/mv tree/text tree/moved && $R/bin/cat tree/moved",
    "$R/bin/ln -s text tree/link && $R/bin/readlink -f tree/link", "$R/bin/stat -c '%n %s %a %F %h' tree/*",
    "$R/bin/du -a -b tree", "$R/bin/touch -d @1000000000 tree/text && $R/bin/stat -c %Y tree/text", "$R/bin/chmod 421 tree/text && $R/bin/stat -c %a tree/text",
    "$R/bin/mkdir -p a/b/c && $R/bin/rmdir -p a/b/c", "$R/bin/truncate -s 12345 sparse && $R/bin/stat -c '%s %b' sparse", "$R/bin/dd if=tree/binary bs=100 skip=3 count=5 status=none | $R/bin/od",
    "$R/bin/split -n 3 tree/binary part && $R/bin/cat part* | cmp - tree/binary; $R/bin/cksum part*", "$R/bin/factor 1 2 97 1234567890 18446744073709551557", "$R/bin/expr 3 + 4 '*' 5",
    "$R/bin/printf '%5.2f %e %x %s\\n' 3.14159 12345.678 255 text", "$R/bin/seq -f %.3f 0 0.125 1", "$R/bin/numfmt --to=iec 123456789", "$R/bin/tr a-z A-Z < tree/text",
    "$R/bin/cut -d' ' -f2 tree/text", "$R/bin/paste tree/numbers tree/numbers", "$R/bin/join tree/numbers tree/numbers", "$R/bin/comm tree/numbers tree/numbers", "$R/bin/shuf --random-source=tree/binary tree/numbers",
    "$R/bin/head -c 30 tree/text; $R/bin/tail -n 2 tree/text", "$R/bin/uniq -c tree/numbers", "$R/bin/fold -w 20 tree/text", "$R/bin/pr -l 20 tree/text | $R/bin/tail -n 3", "$R/bin/ptx tree/text", "$R/bin/tsort tree/pairs",
    "$R/bin/date -u -d @1700000000 +%F.%T", "$R/bin/env -i A=1 $R/bin/env", "$R/bin/nice -n 3 $R/bin/nice", "$R/bin/timeout 0.2 $R/bin/sleep 5; echo $?", "$R/bin/nohup $R/bin/true < tree/text",
    "$R/bin/test -d tree -a -f tree/text", "$R/bin/false", "$R/bin/ls /nonexistent", "$R/bin/cat < tree", "$R/bin/dash -c 'kill -l'", "$R/bin/tee one two < tree/text | cmp - one", "$R/bin/mktemp -u XXXXXX | $R/bin/wc -c",
    "$R/bin/dash -c 'f() { echo $1; [ $1 -gt 0 ] && f $(($1-1)); }; f 20'", "$R/bin/dash -c 'trap \"echo got\" USR1; kill -USR1 $$; echo end'", "$R/bin/dash -c 'sleep 0.3 & wait $!; echo $?; (exit 3); echo $?; kill -9 $$'",
    "$R/bin/dash -c 'for i in 1 2 3; do echo $i; done | while read x; do echo line $x; done; echo a b | { read p q; echo $q; }; cat <<E\nhere $((6*7))\nE'", "$R/bin/dash -c 'exec 3>out; echo x >&3; exec 3>&-; cat out; cat nothing'",
    "$R/bin/dash tree/script one two", "tree/script three", "$R/bin/dash -c 'ulimit -n; umask 027; umask; cd /; pwd'",
    "$R/bin/busybox sh -c 'i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done; echo $i'", "$R/bin/busybox awk 'BEGIN { for (i = 0; i < 20000; i++) s += sin(i) * i; printf \"%.6f\\n\", s }'",
    "$R/bin/busybox tar cf - tree | $R/bin/busybox tar tf -", "$R/bin/busybox gzip -c tree/binary | $R/bin/busybox gunzip | $R/bin/busybox cmp - tree/binary", "$R/bin/busybox bzip2 -c tree/text | $R/bin/busybox bunzip2",
    "$R/bin/busybox xz -d < /dev/null", "$R/bin/busybox vi --help", "$R/bin/busybox find tree -type f", "$R/bin/busybox grep -n e tree/text", "$R/bin/busybox sed -n 's/e/E/gp' tree/text", "$R/bin/busybox bc -e '2^200'",
    "$R/bin/busybox dc -e '2 200 ^ p'", "$R/bin/busybox uname -sm", "$R/bin/busybox sh -c 'echo $0; exit 42'", "$R/bin/busybox sh -c 'cat /proc/self/cmdline' | $R/bin/busybox tr '\\000' ' '", "$R/bin/busybox diff tree/text tree/numbers",
    "$R/bin/busybox sort -u tree/numbers", "$R/bin/busybox hexdump -C tree/binary", "$R/bin/busybox nonexistent", "$R/bin/busybox xargs -n 2 echo < tree/numbers", "$R/bin/busybox timeout 1 $R/bin/busybox yes | $R/bin/busybox head -n 100000 | $R/bin/busybox md5sum",
    "$R/bin/busybox sh -c 'mkfifo f; cat f & echo through > f; wait'", "$R/bin/busybox cpio -h", "$R/bin/busybox nproc | $R/bin/wc -l", "$R/bin/busybox id -u",
]


def unpack():
    """One directory with the packages' files. Programs name it in their own paths, so it is short."""
    root = os.path.join(os.getcwd(), "root")
    packages = [p for p in glob.glob(os.path.join(guest, "debs/*.deb")) if "linux-image" not in p and "opensbi" not in p]
    if not packages:
        print(f"missing requirement: the guest's packages in {guest}/debs, made by tools/guest/build")
        sys.exit(1 if os.environ.get("CI") else 77)
    os.mkdir(root)
    for package in packages:
        subprocess.run(["dpkg-deb", "-x", package, root], check=True)
    for name in ("lib", "bin", "sbin"):
        if not os.path.lexists(os.path.join(root, name)):
            os.symlink("usr/" + name, os.path.join(root, name))
    return root


def files(root):
    os.mkdir("tree")
    with open("tree/text", "w", encoding="ascii") as file:
        file.write("".join(f"line {i} of the text, where some letters are {'e' * (i % 7)}\n" for i in range(200)))
    with open("tree/numbers", "w", encoding="ascii") as file:
        file.write("".join(f"{(i * 7919) % 1000}\n" for i in range(500)))
    with open("tree/binary", "wb") as file:
        file.write(bytes((i * i + (i >> 3)) & 255 for i in range(10000)))
    with open("tree/pairs", "w", encoding="ascii") as file:
        file.write("a b\nb c\na c\nd a\n")
    with open("tree/script", "w", encoding="ascii") as file:
        file.write(f"#!{root}/bin/dash\necho script $# \"$@\"; exit 7\n")
    os.chmod("tree/script", 0o755)
    for name in os.listdir("tree"):
        os.utime("tree/" + name, (1600000000, 1600000000))


def run(command, root, prefix):
    """The host's shell starts the programs, each through the emulator."""
    if os.path.isdir("work"):
        shutil.rmtree("work")
    os.mkdir("work")
    os.chdir("work")
    try:
        files(root)
        # Only the command's own programs get the emulator in front; what those start, they find themselves.
        words = command.replace("tree/script three", "$E tree/script three") if command.startswith("tree/") else command
        text = words.replace("$E tree/script", "$R/bin/dash tree/script")
        shell = f'E="{prefix}"; R={root}; ' + text.replace("$R/bin/", f"{prefix} {root}/bin/")
        environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC", "HOME": "/"}
        done = subprocess.run(["/bin/sh", "-c", shell], capture_output=True, timeout=PATIENCE, env=environment, check=False)
    finally:
        os.chdir("..")
    # AddressSanitizer remarks that the child of vfork() runs on a stack of its own.
    errors = re.sub(rb"==\d+==WARNING: ASan is ignoring requested __asan_handle_no_return.*\n.*\n.*\n", b"", done.stderr)
    return done.returncode, done.stdout, errors


def main():
    root = unpack()
    bad = []
    for command in COMMANDS:
        ours, theirs = run(command, root, f"{emulator} -L {root}"), run(command, root, f"qemu-riscv64 -L {root}")
        if ours != theirs:
            bad.append(f"{command}\n  ours   {ours}\n  theirs {theirs}")
    print("\n".join(bad) or f"{len(COMMANDS)} commands: the same")
    sys.exit(bool(bad))


main()
