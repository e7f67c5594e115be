#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, encrypted qcow2 images (LUKS and AES) are not what qemu-img takes for them, or its images are not for us.
# labels: full interop
# requires: qemu-img qemu-io
# timeout: 900
import json
import os
import random
import struct
import subprocess

from qmp import Program, Qmp, QmpError

BIN = os.environ["SPINDLE_BIN"]
IMG, IO = f"{BIN}/spindle-img", f"{BIN}/spindle-io"
SIZE = 3 << 20
SECRETS = [part for name in ("one", "two", "three") for part in ("--object", f"secret,id={name},file={name}")]
FAST = ",encrypt.iter-time=10"
FORMATS = ("luks", "aes")


def run(*command, good=True):
    for _ in range(20):
        result = subprocess.run(command, capture_output=True, text=True)
        if "accurate CPU usage" not in result.stderr:  # the peer cannot time its key derivation on a busy machine
            break
    assert (result.returncode == 0) == good, (command, result.returncode, result.stdout, result.stderr)
    return result.stdout if good else result.stderr


def image(name, secret="one", **more):
    extra = "".join(f",{key.replace('__', '.').replace('_', '-')}={value}" for key, value in more.items())
    return f"driver=qcow2,encrypt.key-secret={secret},file.filename={name}{extra}"


def create(tool, name, form, *more, size=SIZE, secret="one"):
    options = f"encrypt.format={form},encrypt.key-secret={secret}" + (FAST if form == "luks" else "")
    run(tool, "create", "-q", *SECRETS, "-f", "qcow2", "-o", ",".join((options, *more)), name, str(size))


def io(tool, name, *commands, good=True, **more):
    text = run(tool, *SECRETS, "--image-opts", image(name, **more), *(part for c in commands for part in ("-c", c)), good=good)
    assert "erification failed" not in text, text
    return text


def check(name):
    assert "No errors" in run("qemu-img", "check", *SECRETS, "--image-opts", image(name))
    assert "No errors" in run(IMG, "check", name)  # the key is not needed for it


def info(tool, name):
    return json.loads(run(tool, "info", "--output=json", name))


def content(name):
    with open(name, "rb") as file:
        return file.read()


def table(data, at):
    return struct.unpack(">Q", data[at:at + 8])[0]


def disk(tool, name, out="out.raw", **more):
    run(tool, "convert", *SECRETS, "--image-opts", image(name, **more), "-O", "raw", out)
    return content(out)


for word in ("one", "two", "three"):
    with open(word, "w", encoding="ascii") as stream:
        stream.write(f"passphrase {word}, longer than a key")
noise = random.Random(7)
with open("plain.raw", "wb") as stream:
    for part in range(SIZE >> 16):
        stream.write(noise.choice((bytes(65536), noise.randbytes(65536), b"the plain text! " * 4096)))
PLAIN = content("plain.raw")

print("== written by one, read by the other; every layout")
layouts = {"luks": ["", "cluster_size=2M", "extended_l2=on,cluster_size=16k", "compat=0.10", "refcount_bits=64,cluster_size=512", "data_file=data.bin",
                    "preallocation=metadata"],
           "aes": ["cluster_size=512", "extended_l2=on", "compat=0.10", "lazy_refcounts=on,refcount_bits=1", "data_file=data.bin"]}
for form in FORMATS:
    for layout in layouts[form]:
        for maker, reader in ((IMG, "qemu-img"), ("qemu-img", IMG)):
            if layout.startswith("prealloc") and maker != IMG:
                continue  # what the peer preallocates reads as noise
            create(maker, "a.qcow2", form, *filter(None, [layout]))
            run(maker, "convert", *SECRETS, "-n", "-f", "raw", "plain.raw", "--target-image-opts", image("a.qcow2"))
            assert disk(reader, "a.qcow2") == PLAIN, (form, layout, maker)
            raw = content("a.qcow2") + (content("data.bin") if "data_file" in layout else b"")
            assert b"plain text" not in raw, "something is stored in clear"
            # Both write on, in pieces that are no sectors.
            io(reader.replace("-img", "-io"), "a.qcow2", "write -P 1 1000 70000", "write -z 200k 100k", "discard 1M 512k")
            io(maker.replace("-img", "-io"), "a.qcow2", "read -P 1 1000 70000", "read -P 0 200k 100k", "write -P 2 2999999 1",
               "write -P 3 71000 129000")
            assert disk(reader, "a.qcow2") == disk(maker, "a.qcow2", "other.raw"), (form, layout, maker)
            check("a.qcow2")

print("== LUKS: every cipher that both have")
kinds = ["encrypt.cipher-alg=aes-128,encrypt.hash-alg=sha1", "encrypt.cipher-alg=serpent-256,encrypt.hash-alg=sha512",
         "encrypt.cipher-alg=aes-256,encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv,encrypt.ivgen-hash-alg=sha256",
         "encrypt.cipher-alg=twofish-256", "encrypt.cipher-alg=aes-128,encrypt.cipher-mode=cbc,encrypt.ivgen-alg=plain"]
for kind in kinds:
    for maker, reader in ((IMG, "qemu-io"), ("qemu-img", IO)):
        create(maker, "a.qcow2", "luks", kind)
        io(maker.replace("-img", "-io"), "a.qcow2", "write -P 9 100k 300k")
        io(reader, "a.qcow2", "read -P 9 100k 300k", "read -P 0 0 100k")
        ours, theirs = (info(tool, "a.qcow2")["format-specific"]["data"]["encrypt"] for tool in (IMG, "qemu-img"))
        ours.pop("detached-header")  # not known to the peer of Debian 12
        assert ours == theirs, (ours, theirs)

print("== what it says")
for form in FORMATS:
    for maker in (IMG, "qemu-img"):
        create(maker, "a.qcow2", form)
        ours = info(IMG, "a.qcow2")
        assert ours["encrypted"] and ours["format-specific"]["data"]["encrypt"]["format"] == form, ours
        text = run(IMG, "info", "a.qcow2")
        assert "encrypted: yes\n" in text and f"    encrypt:\n        format: {form}\n" in text, text
        # (The peer asks for the secret to tell what holds no data.)
        ours, theirs = (json.loads(run(tool, "map", "--output=json", *SECRETS, "--image-opts", image("a.qcow2"))) for tool in (IMG, "qemu-img"))
        assert [(e["start"], e["length"], e["data"], e["zero"]) for e in ours] == [(e["start"], e["length"], e["data"], e["zero"]) for e in theirs]
    io(IO, "a.qcow2", "write -P 1 0 128k")
    for tool in (IMG, "qemu-img"):
        extent = json.loads(run(tool, "map", "--output=json", *SECRETS, "--image-opts", image("a.qcow2")))[0]
        assert extent["length"] == 131072 and extent["data"] and "offset" not in extent and not extent.get("compressed"), (tool, extent)

create(IMG, "a.qcow2", "luks")
run(IMG, "convert", *SECRETS, "-n", "-f", "raw", "plain.raw", "--target-image-opts", image("a.qcow2"))
run(IMG, "dd", *SECRETS, "--image-opts", "-O", "raw", "bs=64k", "if=" + image("a.qcow2"), "of=out.raw")
assert content("out.raw") == PLAIN
assert run(IMG, "measure", *SECRETS, "-O", "qcow2", "--image-opts", image("a.qcow2")) == \
    run("qemu-img", "measure", *SECRETS, "-O", "qcow2", "--image-opts", image("a.qcow2"))

print("== measure, as the peer has it")
for options in ("encrypt.format=luks", "encrypt.format=aes", "encrypt.format=luks,cluster_size=4k", "encrypt.format=luks,extended_l2=on"):
    ours, theirs = (run(tool, "measure", *SECRETS, "-O", "qcow2", "-o", f"{options},encrypt.key-secret=one", "--size", "1G") for tool in (IMG, "qemu-img"))
    assert ours == theirs, (options, ours, theirs)

print("== the old way to ask for aes; convert makes encrypted images")
for maker in (IMG, "qemu-img"):
    run(maker, "create", "-q", *SECRETS, "-f", "qcow2", "-o", "encryption=on,encrypt.key-secret=one", "a.qcow2", "1M")
    assert info(IMG, "a.qcow2")["format-specific"]["data"]["encrypt"] == {"format": "aes"}
for form in FORMATS:
    options = f"encrypt.format={form},encrypt.key-secret=two" + (FAST if form == "luks" else "")
    for tool in (IMG, "qemu-img"):
        run(tool, "convert", *SECRETS, "-O", "qcow2", "-o", options, "plain.raw", "c.qcow2")
        assert disk(IMG, "c.qcow2", secret="two") == disk("qemu-img", "c.qcow2", secret="two") == PLAIN
    # From one encryption to another.
    run(IMG, "convert", *SECRETS, "--image-opts", image("c.qcow2", secret="two"), "-O", "qcow2", "-o",
        f"encrypt.format=luks,encrypt.key-secret=three{FAST},preallocation=full", "d.qcow2")
    assert disk("qemu-img", "d.qcow2", secret="three") == PLAIN
run(IMG, "convert", *SECRETS, "-O", "luks", "-o", "key-secret=two,iter-time=10", "plain.raw", "c.luks")
run("qemu-img", "convert", *SECRETS, "--image-opts", "driver=luks,key-secret=two,file.filename=c.luks", "-O", "raw", "out.raw")
assert content("out.raw") == PLAIN

print("== backing files: encrypted over plain, plain over encrypted, encrypted over encrypted; rebase, commit")
run("qemu-img", "convert", "-O", "qcow2", "plain.raw", "base.qcow2")
for form in FORMATS:
    for maker in (IMG, "qemu-img"):
        # The names lie inside of the image's text: the secrets of both layers are options.
        create(maker, "top.qcow2", form, "backing_file=base.qcow2", "backing_fmt=qcow2")
        io(maker.replace("-img", "-io"), "top.qcow2", "write -P 5 1000 100000", "write -z 1M 64k")
        assert disk(IMG, "top.qcow2") == disk("qemu-img", "top.qcow2", "other.raw")
        assert disk(IMG, "top.qcow2")[200000:1 << 20] == PLAIN[200000:1 << 20]
        check("top.qcow2")

        create(maker, "base-e.qcow2", form)
        run(maker, "convert", *SECRETS, "-n", "-f", "raw", "plain.raw", "--target-image-opts", image("base-e.qcow2"))
        run(IMG, "create", "-q", "-f", "qcow2", "-b", "base-e.qcow2", "-F", "qcow2", "over.qcow2")  # no secret is needed
        assert info("qemu-img", "over.qcow2")["virtual-size"] == SIZE
        below = {"backing__driver": "qcow2", "backing__file__filename": "base-e.qcow2", "backing__encrypt__key_secret": "one"}
        over = "driver=qcow2,file.filename=over.qcow2," + ",".join(f"{k.replace('__', '.').replace('_', '-')}={v}" for k, v in below.items())
        run(IO, *SECRETS, "--image-opts", over, "-c", "write -P 6 64k 1000")
        for tool in ("qemu-io", IO):
            text = run(tool, *SECRETS, "--image-opts", over, "-c", "read -P 6 64k 1000")
            assert "erification" not in text, text
        for tool in (IMG, "qemu-img"):
            run(tool, "convert", *SECRETS, "--image-opts", over, "-O", "raw", "out.raw")
            assert content("out.raw") == PLAIN[:65536] + bytes([6]) * 1000 + PLAIN[66536:], tool
        assert "key-secret' is required" in run(IO, "over.qcow2", "-c", "read 0 1", good=False)

        create(IMG, "both.qcow2", form, "backing_file=base-e.qcow2", "backing_fmt=qcow2", secret="two")
        io(IO, "both.qcow2", "write -P 7 500k 3000", secret="two", **below)
        io("qemu-io", "both.qcow2", "read -P 7 500k 3000", secret="two", **below)
        io("qemu-io", "both.qcow2", "write -P 8 600k 3000", secret="two", **below)
        assert disk(IMG, "both.qcow2", secret="two", **below) == disk("qemu-img", "both.qcow2", "other.raw", secret="two", **below)
        whole = content("out.raw")
        run(IMG, "commit", "-q", *SECRETS, "--image-opts", image("both.qcow2", secret="two", **below))
        assert disk("qemu-img", "base-e.qcow2") == whole

        io(IO, "top.qcow2", "write -P 9 2M 4k")
        whole = disk(IMG, "top.qcow2")
        run(IMG, "rebase", "-q", *SECRETS, "--image-opts", image("top.qcow2"), "-b", "")
        assert disk("qemu-img", "top.qcow2") == whole and "backing-filename" not in info(IMG, "top.qcow2")
        check("top.qcow2")

print("== internal snapshots, resize")
for form in FORMATS:
    for maker, other in ((IMG, "qemu-img"), ("qemu-img", IMG)):
        create(maker, "s.qcow2", form, size=1000 << 10)
        io(maker.replace("-img", "-io"), "s.qcow2", "write -P 1 0 900k")
        run(maker, "snapshot", *SECRETS, "--image-opts", "-c", "first", image("s.qcow2"))
        io(other.replace("-img", "-io"), "s.qcow2", "write -P 2 10000 300000", "write -z 400k 64k")
        run(other, "convert", *SECRETS, "-l", "first", "--image-opts", image("s.qcow2"), "-O", "raw", "out.raw")
        assert content("out.raw") == bytes([1]) * (900 << 10) + bytes(100 << 10)
        run(other, "snapshot", *SECRETS, "--image-opts", "-a", "first", image("s.qcow2"))
        io(maker.replace("-img", "-io"), "s.qcow2", "read -P 1 0 900k")
        check("s.qcow2")
        # Smaller and larger: what is gained reads as zeroes, in the middle of a cluster too, and the snapshot stays.
        run(IMG, "resize", "-q", "--shrink", *SECRETS, "--image-opts", image("s.qcow2"), str(500000 // 512 * 512))
        run(IMG, "resize", "-q", *SECRETS, "--image-opts", image("s.qcow2"), "2M")
        edge = 500000 // 512 * 512
        for tool in ("qemu-io", IO):
            io(tool, "s.qcow2", f"read -P 1 0 {edge}", f"read -P 0 {edge} {(2 << 20) - edge}")
        run("qemu-img", "convert", *SECRETS, "-l", "first", "--image-opts", image("s.qcow2"), "-O", "raw", "out.raw")
        assert content("out.raw")[:900 << 10] == bytes([1]) * (900 << 10)
        run(IMG, "snapshot", *SECRETS, "--image-opts", "-d", "first", image("s.qcow2"))
        check("s.qcow2")

print("== refcounts are made anew with the LUKS header in them")
create(IMG, "r.qcow2", "luks", "cluster_size=4k")
io(IO, "r.qcow2", "write -P 4 0 1M")
with open("r.qcow2", "r+b") as stream:
    header = stream.read(104)
    blocks = table(header, 48)
    stream.seek(blocks)
    stream.write(bytes(4096))
run(IMG, "check", "-q", "-r", "all", "r.qcow2")
check("r.qcow2")
io("qemu-io", "r.qcow2", "read -P 4 0 1M", "write -P 5 1M 1M")
io(IO, "r.qcow2", "read -P 4 0 1M", "read -P 5 1M 1M")
check("r.qcow2")

print("== amend: key slots and others")
create(IMG, "k.qcow2", "luks")
io(IO, "k.qcow2", "write -P 3 0 1M")


def amend(tool, options, *flags, good=True, secret="one"):
    return run(tool, "amend", *flags, *SECRETS, "--image-opts", image("k.qcow2", secret=secret), "-o", options, good=good)


def opens(secret):
    answers = [subprocess.run([tool, *SECRETS, "--image-opts", image("k.qcow2", secret=secret), "-c", "read -P 3 0 1M"],
                              capture_output=True, text=True) for tool in (IO, "qemu-io")]
    assert all("erification" not in a.stdout for a in answers), answers
    assert len({a.returncode for a in answers}) == 1, answers
    return answers[0].returncode == 0


def active(tool):
    return [i for i, slot in enumerate(info(tool, "k.qcow2")["format-specific"]["data"]["encrypt"]["slots"]) if slot["active"]]


for tool in (IMG, "qemu-img"):
    amend(tool, "encrypt.state=active,encrypt.new-secret=two,encrypt.iter-time=10")
    amend(tool, "encrypt.state=active,encrypt.new-secret=three,encrypt.keyslot=6,encrypt.iter-time=10", secret="two")
    assert opens("one") and opens("two") and opens("three") and active(IMG) == active("qemu-img") == [0, 1, 6]
    assert "keyslot 6" in amend(tool, "encrypt.state=active,encrypt.new-secret=two,encrypt.keyslot=6", good=False)
    amend(tool, "encrypt.state=inactive,encrypt.old-secret=two")
    amend(tool, "encrypt.state=inactive,encrypt.keyslot=6")
    assert opens("one") and not opens("two") and not opens("three") and active(IMG) == [0]
    assert "refusing operation" in amend(tool, "encrypt.state=inactive,encrypt.old-secret=one", good=False)
check("k.qcow2")
amend(IMG, "encrypt.state=active,encrypt.new-secret=two,encrypt.iter-time=10,lazy_refcounts=on,size=4M")
assert info("qemu-img", "k.qcow2")["virtual-size"] == 4 << 20 and active("qemu-img") == [0, 1]
amend(IMG, "refcount_bits=64")
amend(IMG, "compat=0.10,lazy_refcounts=off", good=False)
amend(IMG, "refcount_bits=16,lazy_refcounts=off")
io(IO, "k.qcow2", "write -z 2M 256k")
amend(IMG, "compat=0.10")
assert opens("two")
amend(IMG, "compat=1.1")
amend(IMG, "encrypt.state=inactive,encrypt.keyslot=1")
amend(IMG, "encrypt.state=inactive,encrypt.old-secret=one", "--force")
assert not opens("one") and active(IMG) == []
run(IMG, "create", "-q", "-f", "qcow2", "n.qcow2", "1M")
assert "not encrypted" in run(IMG, "amend", *SECRETS, "-o", "encrypt.state=inactive,encrypt.keyslot=1", "n.qcow2", good=False)
create(IMG, "k.qcow2", "aes")
assert "encrypted by aes" in amend(IMG, "encrypt.state=inactive,encrypt.keyslot=1", good=False)

print("== persistent bitmaps")
create(IMG, "b.qcow2", "luks")
run(IMG, "bitmap", *SECRETS, "--image-opts", "--add", image("b.qcow2"), "b0")
io(IO, "b.qcow2", "write -P 1 1M 64k")
io("qemu-io", "b.qcow2", "write -P 2 2M 64k")
assert [b["name"] for b in info("qemu-img", "b.qcow2")["format-specific"]["data"]["bitmaps"]] == ["b0"]
check("b.qcow2")

print("== made, used and checked by a daemon; slots change while it is in use")
with Program([f"{BIN}/spindle-storage-daemon", "--chardev", "socket,id=m,path=qmp.sock,server=on,wait=off", "--monitor", "m",
              "--object", "secret,id=one,file=one", "--object", "secret,id=two,file=two"]):
    qmp = Qmp.connect("qmp.sock")

    def job(command, arguments):
        qmp.command(command, {"job-id": "job", **arguments})
        while (state := qmp.command("query-jobs")[0])["status"] != "concluded":
            pass
        assert "error" not in state, state
        qmp.command("job-dismiss", {"id": "job"})

    for form in ("luks", "aes", "qcow"):
        opened = "luks" if form == "luks" else "aes"
        encrypt = {"format": form, "key-secret": "one", **({"iter-time": 10} if form == "luks" else {})}
        job("blockdev-create", {"options": {"driver": "file", "filename": f"d.{form}", "size": 0}})
        qmp.command("blockdev-add", {"driver": "file", "node-name": f"file-{form}", "filename": f"d.{form}"})
        job("blockdev-create", {"options": {"driver": "qcow2", "file": f"file-{form}", "size": SIZE, "encrypt": encrypt}})
        node = {"driver": "qcow2", "node-name": form, "file": f"file-{form}", "encrypt": {"format": opened, "key-secret": "one"}}
        qmp.command("blockdev-add", node)
        told = [n for n in qmp.command("query-named-block-nodes", {"flat": True}) if n["node-name"] == form][0]
        assert told["encrypted"] and told["image"]["encrypted"], told
        assert told["image"]["format-specific"]["data"]["encrypt"]["format"] == opened, told
        qmp.command("blockdev-reopen", {"options": [{**node, "read-only": True}]})
        qmp.command("blockdev-reopen", {"options": [node]})
    qmp.command("blockdev-add", {"driver": "file", "node-name": "plain", "filename": "plain.raw"})
    job("blockdev-backup", {"device": "plain", "target": "luks", "sync": "full", "auto-dismiss": False})
    job("blockdev-backup", {"device": "luks", "target": "aes", "sync": "full", "auto-dismiss": False})
    job("x-blockdev-amend", {"node-name": "luks", "options": {
        "driver": "qcow2", "encrypt": {"format": "luks", "state": "active", "new-secret": "two", "iter-time": 10}}})
    for error, arguments in (("Compression is not supported", {"device": "plain", "target": "luks", "sync": "full", "compress": True}),):
        try:
            qmp.command("blockdev-backup", {"job-id": "job", **arguments})
            assert False, "compressed and encrypted"
        except QmpError as problem:
            assert error in str(problem), problem
    qmp.command("quit")
assert disk("qemu-img", "d.luks", secret="two") == disk("qemu-img", "d.aes") == PLAIN
check("d.luks")

print("== compressed clusters are not encrypted: none are made, those of the peer are read")
create("qemu-img", "z.qcow2", "luks")
io("qemu-io", "z.qcow2", "write -c -P 5 0 64k", "write -P 6 64k 64k")
io(IO, "z.qcow2", "read -P 5 0 64k", "read -P 6 64k 64k", "write -P 7 1000 1000", "read -P 5 0 1000", "read -P 5 2000 63536")
io("qemu-io", "z.qcow2", "read -P 7 1000 1000", "read -P 5 2000 63536")
check("z.qcow2")
assert subprocess.run([IO, *SECRETS, "--image-opts", image("z.qcow2"), "-c", "write -c -P 5 128k 64k"], capture_output=True).returncode
io("qemu-io", "z.qcow2", "read -P 0 128k 64k")
both = ("-c", "-O", "qcow2", "-o", "encrypt.format=luks,encrypt.key-secret=one")
assert "Compression and encryption" in run(IMG, "convert", *SECRETS, *both, "plain.raw", "no.qcow2", good=False)
assert "Compression and encryption" in run(IMG, "convert", *SECRETS, "-c", "-n", "plain.raw", "--target-image-opts", image("z.qcow2"), good=False)
assert "Compression is not supported" in run(IO, *SECRETS, "--image-opts", "driver=compress," + ",".join(f"file.{p}" for p in image("z.qcow2").split(",")),
                                             "-c", "write 0 64k", good=False)

print("== refusals")
create(IMG, "a.qcow2", "luks")
assert "Invalid password" in io(IO, "a.qcow2", "read 0 1", secret="two", good=False)
assert "'encrypt.key-secret' is required" in run(IO, "a.qcow2", "-c", "read 0 1", good=False)
assert "no secret object 'four'" in io(IO, "a.qcow2", "read 0 1", secret="four", good=False)
assert "encrypt.format is aes" in io(IO, "a.qcow2", "read 0 1", encrypt__format="aes", good=False)
assert "encrypt.format is luks" in run(IO, "--image-opts", "driver=qcow2,encrypt.format=luks,file.filename=n.qcow2", "-c", "read 0 1", good=False)
for options, words in {
        "encrypt.format=luks": "'encrypt.key-secret' is required", "encryption=on": "'encrypt.key-secret' is required",
        "encrypt.key-secret=one": "'encrypt.format' is missing",
        "encryption=on,encrypt.format=aes,encrypt.key-secret=one": "at the same time",
        "encrypt.format=aes,encrypt.key-secret=one,encrypt.cipher-alg=aes-256": "'encrypt.cipher-alg' is unexpected",
        "encrypt.format=luks,encrypt.key-secret=four": "no secret object 'four'",
        "encrypt.format=luks,encrypt.key-secret=one,data_file=d.bin,data_file_raw=on": "data_file_raw",
        "encrypt.format=luks,encrypt.key-secret=one,preallocation=full,compat=0.10": "version 3",
        "encrypt.format=luks,encrypt.key-secret=one,encrypt.cipher-mode=cbc,encrypt.ivgen-alg=plain,encrypt.ivgen-hash-alg=md5": "essiv",
}.items():
    text = run(IMG, "create", "-q", *SECRETS, "-f", "qcow2", "-o", options, "no.qcow2", "1M", good=False)
    assert words in text, (options, text)
