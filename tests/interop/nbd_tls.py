#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, the ecosystem's clients (libnbd, qemu-img, gnutls-cli, openssl) cannot use the NBD server's TLS, or clients get in
# that should not: without TLS, with a wrong or expired certificate, not authorized.
# labels: full interop
# requires: certtool psktool gnutls-cli openssl nbdinfo nbdcopy qemu-img
# timeout: 240
import json
import os
import random
import socket
import struct
import subprocess
import time

from patience import patience
from qmp import Program, Qmp, QmpError
from tls import CA, CLIENT, SERVER as ANY_SERVER, certificate

BIN = os.environ["SPINDLE_BIN"]
HERE = os.getcwd()
SIZE = 8 << 20


def run(*command, good=True, **more):
    result = subprocess.run(command, capture_output=True, text=True, timeout=patience(60), **more)
    assert (result.returncode == 0) == good, (command, result.returncode, result.stdout, result.stderr)
    return result.stdout if good else result.stdout + result.stderr


SERVER = {"dns_name": "localhost", "ip_address": "127.0.0.1", **ANY_SERVER}
certificate("ca", "ca", None, cn='"our authority"', **CA)
certificate("other-ca", "ca", None, cn='"another authority"', **CA)
certificate("server", "server", "ca", cn="localhost", **SERVER)
certificate("alice", "client", "ca", cn="alice", **CLIENT)
certificate("mallory", "client", "ca", cn="mallory", **CLIENT)
certificate("stranger", "client", "other-ca", cn="alice", **CLIENT)
with open("ca/ca-cert.pem", "rb") as ca_file:
    CA_TEXT = ca_file.read()
with open("stranger/ca-cert.pem", "wb") as file:
    file.write(CA_TEXT)  # it trusts the server, the server does not trust it
certificate("elsewhere", "server", "ca", cn="elsewhere.example", dns_name="elsewhere.example", tls_www_server="")
certificate("expired", "server", "ca", cn="localhost", dns_name="localhost", activation_date='"2020-01-01 00:00:00"',
            expiration_date='"2020-02-01 00:00:00"', tls_www_server="")
os.makedirs("psk", exist_ok=True)
run("psktool", "-u", "alice", "-p", "psk/keys.psk")
os.makedirs("wrong-psk", exist_ok=True)
run("psktool", "-u", "alice", "-p", "wrong-psk/keys.psk")

with open("disk.raw", "wb") as file:
    file.write(random.Random(8).randbytes(SIZE))
with open("target.raw", "wb") as file:
    file.truncate(SIZE)

daemon = Program([f"{BIN}/spindle-storage-daemon", "--chardev", "socket,id=m,path=qmp.sock,server=on,wait=off", "--monitor", "m",
                  "--object", "tls-creds-x509,id=x509,endpoint=server,dir=server",
                  "--object", "tls-creds-x509,id=open,endpoint=server,dir=server,verify-peer=off",
                  "--object", "tls-creds-psk,id=psk,endpoint=server,dir=psk",
                  "--object", "tls-creds-anon,id=anon,endpoint=server",
                  "--object", "authz-list,id=who,policy=deny,rules.0.match=CN=alice,rules.0.policy=allow",
                  "--blockdev", "file,node-name=disk,filename=disk.raw", "--blockdev", "file,node-name=target,filename=target.raw"])


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


with daemon:
    qmp = Qmp.connect("qmp.sock")
    ports = {}
    for name, tls in (("x509", {"tls-creds": "x509"}), ("authz", {"tls-creds": "x509", "tls-authz": "who"}), ("psk", {"tls-creds": "psk"}),
                      ("open", {"tls-creds": "open"}), ("anon", {"tls-creds": "anon"}), ("plain", {})):
        ports[name] = free_port()
        address = {"type": "inet", "data": {"host": "localhost", "port": str(ports[name])}}
        qmp.command("nbd-server-start", {"id": name, "addr": address, **tls})
        qmp.command("block-export-add", {"type": "nbd", "id": f"{name}-disk", "node-name": "disk", "name": "disk", "server": name})
    qmp.command("block-export-add", {"type": "nbd", "id": "target", "node-name": "target", "name": "target", "server": "x509", "writable": True})

    def uri(server, export="disk", who="alice", **more):
        auth = {"psk": f"?tls-psk-file={HERE}/{more.get('keys', 'psk/keys.psk')}"}.get(server, f"?tls-certificates={HERE}/{who}")
        user = "alice@" if server == "psk" else ""
        return f"nbds://{user}localhost:{ports[server]}/{export}{auth}"

    print("== libnbd: certificates, keys, data both ways")
    for server in ("x509", "authz", "open", "psk"):
        assert int(run("nbdinfo", "--size", uri(server))) == SIZE, server
    run("nbdcopy", uri("x509"), "copy.raw")
    run("cmp", "copy.raw", "disk.raw")
    run("nbdcopy", "--connections=4", "disk.raw", uri("x509", "target"))
    run("cmp", "target.raw", "disk.raw")
    run("nbdcopy", uri("psk"), "copy2.raw")
    run("cmp", "copy2.raw", "disk.raw")

    print("== qemu-img: certificates, keys, nothing but encryption")
    creds = {"x509": "tls-creds-x509,id=c,endpoint=client,dir=alice", "psk": "tls-creds-psk,id=c,endpoint=client,dir=psk,username=alice",
             "anon": "tls-creds-anon,id=c,endpoint=client"}
    for server, text in creds.items():
        image = f"driver=nbd,host=localhost,port={ports[server]},export=disk,tls-creds=c"
        run("qemu-img", "convert", "--object", text, "--image-opts", image, "-O", "raw", "copy3.raw")
        run("cmp", "copy3.raw", "disk.raw")

    print("== clients that must stay outside")
    outside = run("nbdinfo", "--size", f"nbd://localhost:{ports['x509']}/disk", good=False)
    assert "TLS" in outside, outside
    run("nbdinfo", "--size", uri("x509", who="stranger"), good=False)
    run("nbdinfo", "--size", uri("authz", who="mallory"), good=False)
    assert int(run("nbdinfo", "--size", uri("x509", who="mallory"))) == SIZE
    run("nbdinfo", "--size", uri("psk", keys="wrong-psk/keys.psk"), good=False)
    refused = run("nbdinfo", "--size", uri("plain"), good=False)  # TLS where there is none

    print("== a TLS client of other people, after the option by hand")

    def start_tls(server, early=b""):
        sock = socket.create_connection(("localhost", ports[server]))
        sock.settimeout(20)
        assert sock.recv(18, socket.MSG_WAITALL)[:8] == b"NBDMAGIC"
        sock.sendall(struct.pack(">I8sII", 3, b"IHAVEOPT", 5, 0) + early)
        assert struct.unpack(">QIII", sock.recv(20, socket.MSG_WAITALL))[2] == 1
        return sock

    for version in ("-tls1_2", "-tls1_3"):
        # openssl needs a socket of its own: a relay that does the greeting.
        listener = socket.create_server(("127.0.0.1", 0))
        client = subprocess.Popen(["openssl", "s_client", "-connect", f"127.0.0.1:{listener.getsockname()[1]}", version, "-brief", "-verify_return_error",
                                   "-CAfile", "ca/ca-cert.pem", "-cert", "alice/client-cert.pem", "-key", "alice/client-key.pem",
                                   "-verify_hostname", "localhost"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        near, _ = listener.accept()
        far = start_tls("x509")
        import threading

        def pump(source, target):
            try:
                while data := source.recv(65536):
                    target.sendall(data)
                target.shutdown(socket.SHUT_WR)
            except OSError:
                pass
        threads = [threading.Thread(target=pump, args=pair, daemon=True) for pair in ((near, far), (far, near))]
        for thread in threads:
            thread.start()
        client.stdin.write(struct.pack(">8sII", b"IHAVEOPT", 3, 0))  # LIST, inside of TLS
        client.stdin.flush()
        time.sleep(1)
        client.stdin.close()
        output = client.stdout.read()
        client.wait(patience(20))
        near.close()
        far.close()
        listener.close()
        assert b"Verification: OK" in output and b"disk" in output, output

    print("== hostile ones: plaintext behind STARTTLS, garbage, silence, half a handshake; the server goes on")
    for early in (struct.pack(">8sII", b"IHAVEOPT", 8, 0), b"\x16\x03\x01\xff\xff" + b"A" * 70000, b"\0" * 100):
        sock = start_tls("x509", early)
        try:
            while sock.recv(4096):
                pass
        except (ConnectionError, TimeoutError):
            pass
        sock.close()
    for part in range(1, 12, 3):
        sock = start_tls("x509")
        sock.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[:part])
        sock.close()
    silent = [start_tls("x509") for _ in range(20)]
    assert int(run("nbdinfo", "--size", uri("x509"))) == SIZE
    time.sleep(11)
    for sock in silent:
        sock.settimeout(5)
        try:
            assert sock.recv(1) == b"", "a silent client is still there"
        except ConnectionError:
            pass
        sock.close()

    print("== credentials that make no sense are refused when they are made; those in use stay")

    def refuse(expected, **options):
        try:
            qmp.command("object-add", {"id": "bad", **options})
        except QmpError as error:
            assert expected in str(error), error
            return
        raise AssertionError(options)

    refuse("ca-cert.pem", **{"qom-type": "tls-creds-x509", "endpoint": "server", "dir": "psk"})
    refuse("has expired", **{"qom-type": "tls-creds-x509", "endpoint": "server", "dir": "expired"})
    refuse("dir is missing", **{"qom-type": "tls-creds-x509", "endpoint": "server"})
    refuse("has no key of user 'bob'", **{"qom-type": "tls-creds-psk", "dir": "psk", "username": "bob"})
    refuse("priority", **{"qom-type": "tls-creds-anon", "priority": "NONSENSE"})
    for command, arguments, expected in (
            ("object-del", {"id": "x509"}, "in use"),
            ("nbd-server-start", {"id": "n", "addr": {"type": "unix", "data": {"path": "n.sock"}}, "tls-creds": "who"}, "expected TLS credentials"),
            ("nbd-server-start", {"id": "n", "addr": {"type": "unix", "data": {"path": "n.sock"}}, "tls-authz": "who"}, "'tls-creds' is missing"),
            ("nbd-server-start", {"id": "psk", "addr": {"type": "unix", "data": {"path": "n.sock"}}}, "already running"),
            ("nbd-server-stop", {"id": "nobody"}, "not running")):
        try:
            qmp.command(command, arguments)
        except QmpError as error:
            assert expected in str(error), (command, error)
        else:
            raise AssertionError(command)

    print("== a key behind a password; a certificate that was revoked")
    os.makedirs("locked", exist_ok=True)
    for name in ("ca-cert.pem", "server-cert.pem"):
        with open(f"server/{name}", "rb") as source, open(f"locked/{name}", "wb") as copy:
            copy.write(source.read())
    run("certtool", "--to-p8", "--load-privkey", "server/server-key.pem", "--password", "open sesame", "--outfile", "locked/server-key.pem")
    with open("template", "w", encoding="ascii") as crl_template:
        crl_template.write("crl_next_update = 10\ncrl_number = 1\n")
    run("certtool", "--generate-crl", "--load-ca-certificate", "ca/ca-cert.pem", "--load-ca-privkey", "ca/ca-key.pem",
        "--load-certificate", "mallory/client-cert.pem", "--template", "template", "--outfile", "locked/ca-crl.pem")
    locked = {"qom-type": "tls-creds-x509", "endpoint": "server", "dir": "locked"}
    refuse("locked/server-key.pem", **locked)
    qmp.command("object-add", {"qom-type": "secret", "id": "password", "data": "open sesame"})
    qmp.command("object-add", {"id": "locked", "passwordid": "password", **locked})
    ports["locked"] = free_port()
    qmp.command("nbd-server-start", {"id": "locked", "tls-creds": "locked",
                                     "addr": {"type": "inet", "data": {"host": "localhost", "port": str(ports["locked"])}}})
    qmp.command("block-export-add", {"type": "nbd", "id": "locked-disk", "node-name": "disk", "name": "disk", "server": "locked"})
    assert int(run("nbdinfo", "--size", uri("locked"))) == SIZE
    run("nbdinfo", "--size", uri("locked", who="mallory"), good=False)

    print("== a client refuses a server that is not who it should be")
    qmp.command("object-add", {"qom-type": "tls-creds-x509", "id": "elsewhere", "endpoint": "server", "dir": "elsewhere"})
    ports["elsewhere"] = free_port()
    qmp.command("nbd-server-start", {"id": "elsewhere", "tls-creds": "elsewhere",
                                     "addr": {"type": "inet", "data": {"host": "localhost", "port": str(ports["elsewhere"])}}})
    run("nbdinfo", "--list", uri("elsewhere", ""), good=False)
    for name in list(ports):
        qmp.command("nbd-server-stop", {"id": name})
    assert qmp.command("query-block-exports") == []
    qmp.command("object-del", {"id": "x509"})
print("good")
