# SPDX-License-Identifier: Apache-2.0
"""Certificates and keys for tests, in directories as TLS credentials expect them."""
import os
import subprocess

CA = {"ca": "", "cert_signing_key": "", "expiration_days": "10"}
SERVER = {"tls_www_server": "", "signing_key": "", "encryption_key": ""}
CLIENT = {"tls_www_client": "", "signing_key": "", "encryption_key": ""}


def run(*command):
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, (command, result.stdout, result.stderr)


def certificate(directory, role, signer, /, **lines):
    """A key and a certificate signed by `signer` in `directory`, named as the ecosystem names them."""
    os.makedirs(directory, exist_ok=True)
    text = "\n".join(f"{key} = {value}" if value else key for key, value in
                     ((k.replace("__", ""), v) for k, v in lines.items()) for value in (value if isinstance(value, list) else [value]))
    with open("template", "w", encoding="ascii") as file:
        file.write(text + "\n")
    run("certtool", "--generate-privkey", "--key-type=ecdsa", "--outfile", f"{directory}/{role}-key.pem")
    command = ["--generate-self-signed"] if signer is None else ["--generate-certificate", "--load-ca-certificate", f"{signer}/ca-cert.pem",
                                                             "--load-ca-privkey", f"{signer}/ca-key.pem"]
    run("certtool", *command, "--load-privkey", f"{directory}/{role}-key.pem", "--template", "template",
        "--outfile", f"{directory}/{role}-cert.pem")
    if signer and signer != directory:
        with open(f"{signer}/ca-cert.pem", "rb") as source, open(f"{directory}/ca-cert.pem", "wb") as target:
            target.write(source.read())
