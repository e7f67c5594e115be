#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# If this fails, objects cannot be made, found, looked at, changed or removed as management programs do it, or a secret is told.
# labels: quick
# timeout: 60
import ctypes
import os
import platform
import subprocess

from patience import patience
from qmp import Program, Qmp

DAEMON = os.path.join(os.environ["SPINDLE_BIN"], "spindle-storage-daemon")

with Program([DAEMON, "--chardev", "socket,id=m,path=qmp.sock,server=on,wait=off", "--monitor", "m",
              "--object", "secret,id=sec0,data=letmein"]):
    qmp = Qmp.connect("qmp.sock")
    qmp.command("object-add", {"qom-type": "authz-list", "id": "az", "policy": "deny",
                               "rules": [{"match": "fred", "policy": "allow"}, {"match": "b*", "policy": "allow", "format": "glob"}]})
    qmp.command("object-add", {"qom-type": "main-loop", "id": "loop", "thread-pool-max": 8})
    names = {entry["name"]: entry["type"] for entry in qmp.command("qom-list", {"path": "/objects"})}
    assert names == {"type": "string", "sec0": "child<secret>", "az": "child<authz-list>", "loop": "child<main-loop>"}, names
    assert "objects" in [entry["name"] for entry in qmp.command("qom-list", {"path": "/"})]
    properties = {entry["name"]: entry["type"] for entry in qmp.command("qom-list", {"path": "/objects/sec0"})}
    assert properties["file"] == "string" and properties["type"] == "string", properties

    # A secret is not told by anything.
    everything = repr(qmp.command("qom-list-get", {"paths": ["/objects/sec0", "/objects/az"]}))
    assert "letmein" not in everything and "fred" in everything, everything
    assert "kept secret" in str(qmp.error("qom-get", {"path": "/objects/sec0", "property": "data"}))
    assert qmp.command("qom-get", {"path": "/objects/sec0", "property": "format"}) == "raw"
    assert qmp.command("qom-get", {"path": "sec0", "property": "type"}) == "secret"
    assert qmp.command("qom-get", {"path": "/objects/loop", "property": "thread-pool-max"}) == 8

    # A key of the kernel's keyring, where this machine lets us have one (containers often do not).
    add_key, keyctl = {"x86_64": (248, 250), "aarch64": (217, 219)}.get(platform.machine(), (None, None))
    call = ctypes.CDLL(None).syscall
    serial = call(add_key, b"user", b"spindle-test", b"from the kernel", 15, -3) if add_key else -1
    if serial > 0 and call(keyctl, 5, serial, 0x3f3f0000) == 0:  # all that we may, our other processes may, too
        qmp.command("object-add", {"qom-type": "secret_keyring", "id": "key", "serial": serial})
        assert qmp.command("qom-get", {"path": "key", "property": "serial"}) == serial
        qmp.command("object-del", {"id": "key"})
    assert "keyring" in str(qmp.error("object-add", {"qom-type": "secret_keyring", "id": "key", "serial": 1}))

    # Changing: what can, with the checks of the beginning.
    qmp.command("qom-set", {"path": "/objects/loop", "property": "thread-pool-max", "value": 4})
    assert qmp.command("qom-get", {"path": "/objects/loop", "property": "thread-pool-max"}) == 4
    assert "is more than" in str(qmp.error("qom-set", {"path": "/objects/loop", "property": "thread-pool-min", "value": 5}))
    assert qmp.command("qom-get", {"path": "/objects/loop", "property": "thread-pool-min"}) == 0
    qmp.error("qom-set", {"path": "/objects/loop", "property": "nonsense", "value": 5})
    assert "cannot be changed" in str(qmp.error("qom-set", {"path": "/objects/sec0", "property": "format", "value": "base64"}))
    assert qmp.error("qom-get", {"path": "/objects/nobody", "property": "type"}).kind == "DeviceNotFound"

    # Types.
    types = {entry["name"]: entry for entry in qmp.command("qom-list-types", {"implements": "user-creatable"})}
    assert {"secret", "tls-creds-x509", "authz-list", "main-loop"} <= set(types) and "object" not in types, types.keys()
    creds = {entry["name"] for entry in qmp.command("qom-list-types", {"implements": "tls-creds"})}
    assert creds == {"tls-creds-anon", "tls-creds-psk", "tls-creds-x509"}, creds
    assert "object" in {entry["name"] for entry in qmp.command("qom-list-types", {"abstract": True}) if entry.get("abstract")}
    described = {entry["name"]: entry for entry in qmp.command("qom-list-properties", {"typename": "tls-creds-x509"})}
    assert described["verify-peer"]["default-value"] is True and described["endpoint"]["default-value"] == "client", described
    assert qmp.error("qom-list-properties", {"typename": "unicorn"}).kind == "DeviceNotFound"
    for name in types:  # every type that is told can be made, or says what it lacks
        error = str(qmp.error("object-add", {"qom-type": name, "id": "9"}))
        assert "has no use" not in error, error

    assert "one of this id already" in str(qmp.error("object-add", {"qom-type": "secret", "id": "az", "data": "x"}))
    assert "already a main-loop" in str(qmp.error("object-add", {"qom-type": "main-loop", "id": "loop2"}))
    for name in ("sec0", "az", "loop"):
        qmp.command("object-del", {"id": name})
    assert "there is no object 'az'" in str(qmp.error("object-del", {"id": "az"}))
    assert len(qmp.command("qom-list", {"path": "/objects"})) == 1

result = subprocess.run([DAEMON, "--object", "secret,id=s,file=missing"], capture_output=True, text=True, timeout=patience(20))
assert result.returncode == 1 and "cannot open 'missing'" in result.stderr, result.stderr
help_text = subprocess.run([DAEMON, "--object", "help"], capture_output=True, text=True, timeout=patience(20)).stdout
assert "tls-creds-psk" in help_text and "authz-listfile" in help_text, help_text
print("good")
