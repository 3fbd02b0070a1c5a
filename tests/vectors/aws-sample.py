#!/usr/bin/env python3
"""Makes aws-sample.json: ciphertexts by the rules of AWS's sample proxy (docs/ciphertext-format.md).

Needs the package `cryptography`. Nothing of xksd is in it. Run it to see that it gives the same
bytes:

    python3 tests/vectors/aws-sample.py | diff - tests/vectors/aws-sample.json
"""

import hashlib
import json
import struct

from cryptography.hazmat.primitives.ciphers.aead import AESGCM


def stream(label, length):
    """Bytes that look random and are the same on every run."""
    blocks = (hashlib.sha256(f"{label}/{i}".encode()).digest() for i in range(length // 32 + 1))
    return b"".join(blocks)[:length]


KEY = stream("key of the sample proxy", 32)


def vector(name, plaintext, aad, metadata, iv_length=12):
    iv = stream(f"iv of {name}", iv_length)
    digest = b"" if aad is None else hashlib.sha256(aad).digest()
    raw_aad = aad or b""
    raw_metadata = metadata or b""
    frame = struct.pack(">H", len(raw_aad)) + digest + bytes([len(raw_metadata)]) + raw_metadata
    sealed = AESGCM(KEY).encrypt(iv, plaintext, frame)
    ciphertext, tag = sealed[:-16], sealed[-16:]
    return {
        "name": name,
        "key": KEY.hex(),
        "plaintext": plaintext.hex(),
        "aad": None if aad is None else aad.hex(),
        "iv": iv.hex(),
        "ciphertext": ciphertext.hex(),
        "tag": tag.hex(),
        "ciphertext_metadata": None if metadata is None else metadata.hex(),
        "hsm_aad": frame.hex(),
        "cdiv": hashlib.sha256(raw_aad + raw_metadata + iv + ciphertext + tag).hexdigest(),
    }


hello = b"Hello World!"
nile = b"project=nile,department=marketing"
constant = b"v0.0.1"
longest = stream("a constant of 20 bytes", 20)

print(json.dumps([
    vector("no AAD, no metadata", hello, None, None),
    vector("empty AAD, no metadata", hello, b"", None),
    vector("AAD, no metadata", hello, nile, None),
    vector("no AAD, constant", hello, None, constant),
    vector("empty AAD, constant", hello, b"", constant),
    vector("AAD, constant", hello, nile, constant),
    vector("AAD, constant of 20 bytes", hello, nile, longest),
    vector("AAD that is the digest of none", hello, hashlib.sha256(b"").digest(), None),
    vector("one byte", b"\x00", nile, None),
    vector("4300 bytes, AAD of 8192 bytes", stream("4300 bytes", 4300), stream("8192 bytes", 8192), constant),
    vector("IV of 16 bytes", hello, nile, constant, iv_length=16),
], indent=1))
