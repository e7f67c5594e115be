#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, character devices cannot be made, listed, changed or removed by commands, or a monitor behind TLS lets in whom
# it should not, or a monitor that connects does not connect again.
# labels: full
# requires: certtool
# timeout: 60
import json
import os
import socket
import ssl
import subprocess

from patience import patience
from qmp import Program, Qmp

BIN = os.environ["SPINDLE_BIN"]


def certificate(name, *lines, signer=None):
    with open("template", "w", encoding="ascii") as file:
        file.write("\n".join(lines) + "\n")
    subprocess.run(["certtool", "--generate-privkey", "--key-type=ecdsa", "--outfile", f"{name}-key.pem"], check=True, capture_output=True)
    how = ["--generate-certificate", "--load-ca-certificate", "ca-cert.pem", "--load-ca-privkey", "ca-key.pem"] if signer else \
        ["--generate-self-signed"]
    subprocess.run(["certtool", *how, "--load-privkey", f"{name}-key.pem", "--template", "template", "--outfile", f"{name}-cert.pem"],
                   check=True, capture_output=True)


certificate("ca", "cn = authority", "ca", "cert_signing_key", "expiration_days = 5")
certificate("server", "cn = localhost", "dns_name = localhost", "tls_www_server", signer="ca")
certificate("alice", "cn = alice", "tls_www_client", signer="ca")
certificate("mallory", "cn = mallory", "tls_www_client", signer="ca")


def secure(port, who):
    context = ssl.create_default_context(cafile="ca-cert.pem")
    if who:
        context.load_cert_chain(f"{who}-cert.pem", f"{who}-key.pem")
    return context.wrap_socket(socket.create_connection(("localhost", port), timeout=patience(10)), server_hostname="localhost")


def is_let_in(port, who):
    try:
        with secure(port, who) as sock:
            return "QMP" in json.loads(sock.makefile().readline() or "{}")
    except (OSError, ssl.SSLError):
        return False


with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    PORT = probe.getsockname()[1]
waiting = socket.socket(socket.AF_UNIX)
waiting.settimeout(20)
waiting.bind("back.sock")
waiting.listen(1)

with Program([f"{BIN}/spindle-storage-daemon", "--object", "tls-creds-x509,id=tls,endpoint=server,dir=.",
              "--object", "authz-simple,id=who,identity=CN=alice",
              "--chardev", "socket,id=m,path=qmp.sock,server=on,wait=off", "--monitor", "m",
              "--chardev", f"socket,id=secure,host=localhost,port={PORT},server=on,wait=off,tls-creds=tls,tls-authz=who", "--monitor", "secure",
              "--chardev", "socket,id=back,path=back.sock,reconnect-ms=100", "--monitor", "back"]):
    qmp = Qmp.connect("qmp.sock")

    # A monitor behind TLS, for alice alone; who is not let in does not keep her out.
    assert is_let_in(PORT, "alice")
    assert not is_let_in(PORT, "mallory") and not is_let_in(PORT, None)
    with socket.create_connection(("localhost", PORT)) as plain:
        plain.sendall(b'{"execute":"qmp_capabilities"}' * 10)
        plain.settimeout(10)
        try:
            assert b"QMP" not in plain.recv(100)
        except ConnectionError:
            pass
    assert is_let_in(PORT, "alice")
    assert "in use" in str(qmp.error("object-del", {"id": "tls"}))

    # One that connects, and connects again.
    for _ in range(3):
        sock, _ = waiting.accept()
        sock.settimeout(10)
        assert "QMP" in json.loads(sock.makefile().readline())
        sock.close()

    # Commands.
    unix = {"type": "socket", "data": {"addr": {"type": "unix", "data": {"path": "c.sock"}}}}
    assert qmp.command("chardev-add", {"id": "c", "backend": unix}) == {}
    assert "one of this name" in str(qmp.error("chardev-add", {"id": "c", "backend": unix}))
    assert os.path.exists("c.sock")
    chardevs = {c["label"]: c for c in qmp.command("query-chardev")}
    assert set(chardevs) == {"m", "secure", "back", "c"}, chardevs
    assert chardevs["c"] == {"label": "c", "filename": "unix:c.sock,server=on", "frontend-open": False}, chardevs["c"]
    assert chardevs["m"]["frontend-open"] and chardevs["secure"]["filename"].startswith("tcp:")
    qmp.command("chardev-change", {"id": "c", "backend": {"type": "null", "data": {}}})
    assert not os.path.exists("c.sock")
    for command in ("chardev-remove", "chardev-change"):
        extra = {"backend": unix} if command == "chardev-change" else {}
        assert "busy" in str(qmp.error(command, {"id": "m", **extra}))
        assert "not found" in str(qmp.error(command, {"id": "nobody", **extra}))
    qmp.command("chardev-remove", {"id": "c"})
    assert {b["name"] for b in qmp.command("query-chardev-backends")} == {"null", "socket", "stdio"}
    bad = {"addr": {"type": "unix", "data": {"path": "d.sock"}}}
    assert "tls-creds is missing" in str(qmp.error("chardev-add", {"id": "d", "backend": {"type": "socket", "data": {**bad, "tls-authz": "who"}}}))
    assert "no object" in str(qmp.error("chardev-add", {"id": "d", "backend": {"type": "socket", "data": {**bad, "tls-creds": "gone"}}}))
    assert "server=off" in str(qmp.error("chardev-add", {"id": "d", "backend": {"type": "socket", "data": {**bad, "reconnect-ms": 5}}}))
print("good")
