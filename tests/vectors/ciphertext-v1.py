#!/usr/bin/env python3
"""Makes ciphertext-v1.json: ciphertexts of format 1, by an AES-GCM that is not the daemon's.

Needs the package `cryptography`. The checked-in file is never made anew for a release: every
later release must decrypt it as it is (docs/ciphertext-format.md). Run it to see that it gives
the same bytes:

    python3 tests/vectors/ciphertext-v1.py | diff - tests/vectors/ciphertext-v1.json
"""

import hashlib
import json
import struct

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

FOREIGN = bytes(8)


def stream(label, length):
    """Bytes that look random and are the same on every run."""
    blocks = (hashlib.sha256(f"{label}/{i}".encode()).digest() for i in range(length // 32 + 1))
    return b"".join(blocks)[:length]


def vector(name, version, object_id, plaintext, aad, iv_length=12):
    key = stream(f"key of {object_id.hex()} {version}", 32)
    iv = stream(f"iv of {name}", iv_length)
    metadata = b"\x01" + struct.pack(">I", version) + object_id
    raw_aad = aad or b""
    frame = struct.pack(">H", len(raw_aad)) + raw_aad + bytes([len(metadata)]) + metadata
    sealed = AESGCM(key).encrypt(iv, plaintext, frame)
    ciphertext, tag = sealed[:-16], sealed[-16:]
    cdiv = hashlib.sha256(raw_aad + metadata + iv + ciphertext + tag).digest()
    return {
        "name": name,
        "key": key.hex(),
        "version": version,
        "object_id": object_id.hex(),
        "plaintext": plaintext.hex(),
        "aad": None if aad is None else aad.hex(),
        "iv": iv.hex(),
        "ciphertext": ciphertext.hex(),
        "tag": tag.hex(),
        "ciphertext_metadata": metadata.hex(),
        "hsm_aad": frame.hex(),
        "cdiv": cdiv.hex(),
    }


hello = b"Hello World!"
nile = b"project=nile,department=marketing"
first = stream("object id, version 1", 8)
second = stream("object id, version 2", 8)
last = stream("object id, last version", 8)

print(json.dumps([
    vector("foreign key, no AAD", 0, FOREIGN, hello, None),
    vector("foreign key, AAD", 0, FOREIGN, hello, nile),
    vector("version 1, no AAD", 1, first, hello, None),
    vector("version 1, empty AAD", 1, first, hello, b""),
    vector("version 1, AAD", 1, first, hello, nile),
    vector("version 1, AAD that looks like metadata", 1, first, hello, b"\x01" + bytes(3) + b"\x01" + first),
    vector("version 1, one byte", 1, first, b"\x00", nile),
    vector("version 1, 4300 bytes", 1, first, stream("4300 bytes", 4300), nile),
    vector("version 1, AAD of 8192 bytes", 1, first, hello, stream("8192 bytes", 8192)),
    vector("version 1, IV of 16 bytes", 1, first, hello, nile, iv_length=16),
    vector("version 2, AAD", 2, second, hello, nile),
    vector("version 4294967295, AAD", 2**32 - 1, last, hello, nile),
], indent=1))
