#!/usr/bin/env python3
"""Opens the published vectors of format v1 with nothing but this file and docs/format.md: an independent reader.

Usage: read_v1.py [v1.txt]. Exit 0 if every value is as published. Argon2id is not in Python's standard library, so the key file opens slot 0;
the passphrase's slot is left to the product's own tests. Slow and not constant-time: for verification only.
"""
import hashlib, hmac, struct, sys, uuid
from pathlib import Path


def rotate(value, by):
    return (value << by | value >> (32 - by)) & 0xFFFFFFFF


def rounds(state):
    s = list(state)
    for _ in range(10):
        for a, b, c, d in ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15), (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)):
            for x, y, z, by in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
                s[x] = (s[x] + s[y]) & 0xFFFFFFFF
                s[z] = rotate(s[z] ^ s[x], by)
    return s


CONSTANTS = struct.unpack("<4I", b"expand 32-byte k")


def chacha_block(key, counter, nonce):
    state = CONSTANTS + struct.unpack("<8I", key) + (counter,) + struct.unpack("<3I", nonce)
    return struct.pack("<16I", *((a + b) & 0xFFFFFFFF for a, b in zip(rounds(state), state)))


def hchacha(key, nonce):
    s = rounds(CONSTANTS + struct.unpack("<8I", key) + struct.unpack("<4I", nonce))
    return struct.pack("<8I", *s[:4], *s[12:])


def poly1305(key, message):
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    total = 0
    for i in range(0, len(message), 16):
        total = (total + int.from_bytes(message[i : i + 16] + b"\x01", "little")) * r % ((1 << 130) - 5)
    return ((total + int.from_bytes(key[16:], "little")) & ((1 << 128) - 1)).to_bytes(16, "little")


def padded(data):
    return data + bytes(-len(data) % 16)


def unseal(key, aad, sealed):
    nonce, body, tag = sealed[:24], sealed[24:-16], sealed[-16:]
    key, nonce = hchacha(key, nonce[:16]), bytes(4) + nonce[16:]
    mac = padded(aad) + padded(body) + struct.pack("<QQ", len(aad), len(body))
    assert poly1305(chacha_block(key, 0, nonce)[:32], mac) == tag, "sealed bytes do not open"
    stream = b"".join(chacha_block(key, 1 + i, nonce) for i in range((len(body) + 63) // 64))
    return bytes(a ^ b for a, b in zip(body, stream))


def fields(*values):
    out = b""
    for value in values:
        value = value.encode() if isinstance(value, str) else struct.pack("<Q", value) if isinstance(value, int) else value
        out += struct.pack("<I", len(value)) + value
    return out


def derive(material, label, *context):
    prk = hmac.digest(bytes(32), material, "sha256")
    return hmac.digest(prk, fields(label, *context) + b"\x01", "sha256")


def main(path):
    values = dict(line.split(" = ") for line in path.read_text().splitlines() if not line.startswith("#"))
    texts = ("passphrase", "file-id", "instance-id", "generation")
    data = {name: bytes.fromhex(value) for name, value in values.items() if name not in texts}
    file, instance = uuid.UUID(values["file-id"]).bytes, uuid.UUID(values["instance-id"]).bytes
    pattern = bytes(i % 251 for i in range(4096))
    for copy in (0, 1):
        block = data[f"superblock-{copy}"]
        assert len(block) == 4096 and block[:8] == b"ROSEMARY"
        version, suite, plain, stride, zero = struct.unpack("<HHIII", block[8:24])
        assert (version, suite, plain, stride, zero) == (1, 1, 4096, 4608, 0)
        assert block[24:40] == file and block[40:56] == instance
        assert struct.unpack("<Q", block[56:64])[0] == int(values["generation"])
        assert hashlib.sha256(block[:4032]).digest() == block[4032:4064]
        slot = block[64:192]
        kind, memory, passes, lanes = slot[0], *struct.unpack("<3I", slot[4:16])
        assert (kind, memory, passes, lanes) == (1, 0, 0, 0)
        key = derive(data["key-file"], "rosemary/v1/kek-key-file", slot[16:48])
        master = unseal(key, fields("rosemary", 1, "key-slot", instance, 0, kind, memory, passes, lanes), slot[48:120])
        assert master == data["master-key"]
        seal = derive(master, "rosemary/v1/superblock-seal")
        keys = unseal(seal, fields("rosemary", 1, "superblock", file, copy), block[1088:1360])
        assert keys[:32] == data["block-key"] and keys[32:64] == data["mac-key"]
        assert keys[96:128] == data["pepper"] and keys[128:160] == data["lookup-key"]
        assert block[1360:4032] == bytes(2672)
        assert hmac.digest(keys[32:64], fields(block[:4064]), "sha256") == block[4064:]
    for slot in (2, 3):
        page = unseal(data["block-key"], fields("rosemary", 1, "page-0", file, slot), data[f"page-0-slot-{slot}"])
        assert struct.unpack("<QQ", page[:16]) == (7, 40960) and page[16:] == pattern
    assert unseal(data["block-key"], fields("rosemary", 1, "block", file, 3), data["block-3"]) == pattern
    assert struct.unpack("<I", keys[160:164])[0] == 1
    aad = fields("dek1", instance, bytes([1]) * 16, bytes([1]), bytes([2]) * 16, 1, 1)
    assert unseal(keys[164:196], aad, data["wrapped-dek"]) == data["dek"]
    print("format v1: every published value opens as documented")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("v1.txt"))
