# SPDX-License-Identifier: Apache-2.0
"""Who takes part: our programs, the peers found on this machine, and peers named on the command line; and what each can do.

A peer may be a directory of programs, an installation prefix, or the root of another system (a Debian 13 made by mmdebstrap, say). The
programs of a root are run by that root's own dynamic loader and libraries, so that nothing has to be installed and no privileges are needed.

Ours is asked what it can do (`--help` texts, the lists of drivers and exports, QMP's command list): a benchmark that needs what does not exist
yet is listed as such, and joins by itself once it is there. Peers are not asked; what they refuse is reported.
"""
import glob
import os
import re
import shutil
import subprocess
import tempfile

QEMU_TOOLS = {"img": "qemu-img", "io": "qemu-io", "nbd": "qemu-nbd", "daemon": "qemu-storage-daemon", "system": "qemu-system-riscv64",
              "user": "qemu-riscv64"}
SPINDLE_TOOLS = {"img": "spindle-img", "io": "spindle-io", "nbd": "spindle-nbd", "daemon": "spindle-storage-daemon",
                 "system": "spindle-system-riscv64", "user": "spindle-riscv64"}


def output_of(argv):
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace")


class Contender:
    """One set of programs. `command(tool)` is how to run one: a list to put arguments behind, or None."""

    def __init__(self, name, family, tools):
        self.name, self.family, self.tools = name, family, tools
        self.label = name

    def command(self, tool):
        argv = self.tools.get(tool)
        return list(argv) if argv else None

    def learn_label(self):
        for argv in self.tools.values():
            version = re.search(r"\b(\d+\.\d+(\.\d+)?)", output_of(argv + ["--version"]))
            if version:
                self.label = f"{'QEMU' if self.family == 'qemu' else self.family} {version[1]}"
                return self
        return self


class Ours(Contender):
    """Our programs, and a set of words for what they can do: "program:img", "driver:luks", "export:fuse", "img:measure", "qmp:blockdev-mirror",
    "object:tls-creds-psk", "create:preallocation"."""

    def __init__(self, directory):
        tools = {tool: [os.path.join(directory, name)] for tool, name in SPINDLE_TOOLS.items() if os.path.exists(os.path.join(directory, name))}
        super().__init__("spindle", "spindle", tools)
        self.features = {f"program:{tool}" for tool in tools}
        if "daemon" in tools:
            self.ask_daemon(tools["daemon"])
        if "img" in tools:
            self.ask_img(tools["img"])

    def ask_daemon(self, daemon):
        for option, kind in (("--blockdev", "driver"), ("--export", "export"), ("--object", "object")):
            self.features |= {f"{kind}:{word}" for word in re.findall(r"[a-z][a-z0-9-]+", output_of(daemon + [option, "help"]))}
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "qmp")
            process = subprocess.Popen(daemon + ["--chardev", f"socket,id=c,path={path},server=on,wait=off", "--monitor", "c"],
                                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                from qmp import Qmp  # tests/lib
                self.features |= {f"qmp:{command['name']}" for command in Qmp.connect(path, timeout=5).command("query-commands")}
            except OSError:
                pass
            finally:
                process.terminate()
                process.wait()

    def ask_img(self, img):
        listed = re.search(r"Commands:\n(.*?)\n\n", output_of(img + ["--help"]), re.S)
        self.features |= {f"img:{word}" for word in re.findall(r"^  ([a-z]+)", listed[1] if listed else "", re.M)}
        options = output_of(img + ["create", "-f", "qcow2", "-o", "help", "x.qcow2"])
        self.features |= {f"create:{word}" for word in re.findall(r"^\s*([a-z_]+)=", options, re.M)}

    def lacks(self, needs):
        return [need for need in needs if need not in self.features]


def of_directory(name, directory):
    """Programs of a bin directory or an installation prefix."""
    for place in (directory, os.path.join(directory, "bin"), os.path.join(directory, "usr/bin")):
        tools = {tool: [os.path.join(place, program)] for tool, program in QEMU_TOOLS.items() if os.access(os.path.join(place, program), os.X_OK)}
        if tools:
            return Contender(name, "qemu", tools)
    return None


def of_root(name, root):
    """Programs of another system's root directory, by its own loader; None when the directory is no such root."""
    loaders = [path for pattern in ("lib64", "usr/lib64", "lib", "usr/lib") for path in glob.glob(os.path.join(root, pattern, "ld-linux*.so.*"))]
    libraries = [path for pattern in ("usr/lib/*-linux-gnu", "lib/*-linux-gnu", "usr/lib64", "usr/lib") for path in glob.glob(os.path.join(root, pattern))]
    plain = of_directory(name, root)
    if not plain or not loaders:
        return None
    loader = [loaders[0], "--library-path", ":".join(libraries)]
    return Contender(name, "qemu", {tool: loader + argv for tool, argv in plain.tools.items()})


def find_peers(named):
    """`named`: NAME=PATH strings. Programs on the PATH take part in any case."""
    peers = []
    on_path = {tool: [path] for tool, program in QEMU_TOOLS.items() if (path := shutil.which(program))}
    if on_path:
        peers.append(Contender("qemu", "qemu", on_path))
    for item in named:
        name, equals, path = item.partition("=")
        peer = (of_root(name, path) or of_directory(name, path)) if equals else None
        if not peer:
            raise SystemExit(f"--peer {item}: expected NAME=PATH, with QEMU's programs in PATH, PATH/bin or PATH/usr/bin")
        peers.append(peer)
    nbdkit = shutil.which("nbdkit")
    if nbdkit:
        peers.append(Contender("nbdkit", "nbdkit", {"nbdkit": [nbdkit]}))
    return [peer.learn_label() for peer in peers]
