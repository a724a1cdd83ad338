#!/usr/bin/env python3
"""Checks an audit bundle against a log's public key, with nothing but Python's standard library.

usage: verify_bundle.py BUNDLE.ndjson LOG.vkey

LOG.vkey may be an older key of the log: the bundle leads from it to the one that signed.

An independent reading of docs/audit.md: canonical JSON (RFC 8785), Merkle tree (RFC 6962), signed note and checkpoint (C2SP),
Ed25519 (RFC 8032). It shares no code with Rosemary.
"""
import base64, hashlib, json, sys


def require(condition, message):  # not `assert`, which `python3 -O` leaves out
    if not condition:
        raise ValueError(message)


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


# --- Ed25519 verification, RFC 8032 section 5.1.7 and its appendix ---
P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P


def add(a, b):
    e, f = (a[1] - a[0]) * (b[1] - b[0]) % P, (a[1] + a[0]) * (b[1] + b[0]) % P
    g, h = 2 * a[3] * b[3] * D % P, 2 * a[2] * b[2] % P
    return (f - e) * (h - g) % P, (h + g) * (f + e) % P, (h - g) * (h + g) % P, (f - e) * (f + e) % P


def multiply(k, point):
    result = (0, 1, 1, 0)
    while k:
        if k & 1:
            result = add(result, point)
        point, k = add(point, point), k >> 1
    return result


def decompress(data):
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    x2 = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(x2, (P + 3) // 8, P)
    if (x * x - x2) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    require(y < P and not (x * x - x2) % P and not (x == 0 and sign), "not a point of the curve")
    x = P - x if x & 1 != sign else x
    return x, y, 1, x * y % P


BASE = decompress((4 * pow(5, -1, P) % P).to_bytes(32, "little"))


def signature_holds(public, message, signature):
    r, s = decompress(signature[:32]), int.from_bytes(signature[32:], "little")
    k = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little") % L
    a, b = multiply(s, BASE), add(r, multiply(k, decompress(public)))
    return s < L and (a[0] * b[2] - b[0] * a[2]) % P == 0 and (a[1] * b[2] - b[1] * a[2]) % P == 0


# --- signed note and checkpoint, C2SP ---
def open_note(note, vkey):
    name, key_id, key = vkey.split("+", 2)
    key = base64.b64decode(key, validate=True)
    require(key[0] == 1 and len(key) == 33 and sha256(name.encode(), b"\n", key)[:4].hex() == key_id, "not a verifier key")
    text, signatures = note.rsplit("\n\n", 1)
    text += "\n"
    held = 0
    for line in signatures.splitlines():
        dash, signer, signature = line.split(" ")
        signature = base64.b64decode(signature, validate=True)
        if dash == "\u2014" and signer == name and signature[:4].hex() == key_id:
            require(signature_holds(key[1:], text.encode(), signature[4:]), "the signature is wrong")
            held += 1
    require(held, "it is not signed by this key")
    return text


def open_checkpoint(note, vkey):
    origin, size, root = open_note(note, vkey).split("\n")[:3]
    require(origin == vkey.split("+", 1)[0], "the checkpoint is another log's")
    return int(size), base64.b64decode(root, validate=True)


# --- Merkle tree, RFC 6962 section 2.1, where `proof` stands for everything outside first..end ---
def root_of(leaves, first, low, high, proof):
    if high <= first or low >= first + len(leaves):
        return proof.pop(0)
    if high - low == 1:
        return leaves[low - first]
    middle = low + (1 << (high - low - 1).bit_length() - 1)
    left = root_of(leaves, first, low, middle, proof)
    return sha256(b"\x01", left, root_of(leaves, first, middle, high, proof))


def included(leaf, index, size, proof, root):
    """RFC 9162 section 2.1.3.2."""
    require(index < size, "the entry is not below the checkpoint's size")
    at, last, found = index, size - 1, leaf
    for step in proof:
        require(last > 0, "the proof is too long")
        if at & 1 or at == last:
            found = sha256(b"\x01", step, found)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            found = sha256(b"\x01", found, step)
        at, last = at >> 1, last >> 1
    return last == 0 and found == root


def goes_on(old, old_root, new, new_root, proof):
    """RFC 9162 section 2.1.4.2, for 0 < old <= new."""
    if old == new:
        return old_root == new_root and not proof
    proof = ([] if old & (old - 1) else [old_root]) + proof
    at, last = old - 1, new - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    first = second = proof[0]
    for step in proof[1:]:
        require(last > 0, "the proof is too long")
        if at & 1 or at == last:
            first, second = sha256(b"\x01", step, first), sha256(b"\x01", step, second)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            second = sha256(b"\x01", second, step)
        at, last = at >> 1, last >> 1
    return last == 0 and first == old_root and second == new_root


def hashes(texts):
    return [base64.b64decode(text, validate=True) for text in texts]


# --- the chain of keys: each introduced by an entry under a checkpoint that it and the one before it signed ---
def follow(vkey, links, note):
    """Size and root of `note`, signed by the key whose turn it is, and the last key of the chain."""
    turns, key_id = [], lambda vkey: vkey.split("+", 2)[1]
    for link in links:
        line, both = link["handover"]["entry"], link["handover"]["checkpoint"]
        entry = json.loads(line)
        details = entry["det"]
        if details["key_old"] != key_id(vkey) and not turns:
            continue  # before the key that is trusted
        require(json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False) == line, "a change of key: not canonical JSON")
        told = (entry["op"], entry["outcome"], details["setting"], details["key_old"])
        require(told == ("keys.audit", "ok", "handover", key_id(vkey)), "a change of key does not follow the one before")
        name, public = vkey.split("+", 1)[0], b"\x01" + bytes.fromhex(details["key_public"])
        new = f"{name}+{sha256(name.encode(), bytes([10]), public)[:4].hex()}+{base64.b64encode(public).decode()}"
        end = open_checkpoint(both, vkey)
        require(open_checkpoint(both, new) == end and key_id(new) == details["key_new"], "a change of key is not signed by both")
        require(included(sha256(b"\x00", line.encode()), entry["i"], end[0], hashes(link["handover"]["proof"]), end[1]), "no entry introduces the key")
        require(not turns or turns[-1][1][0] < end[0], "a change of key does not follow the one before")
        turns.append((vkey, end, hashes(link["consistency"])))
        vkey = new
    size = int(note.split("\n")[1])
    signer = next((old for old, end, _ in turns if size <= end[0]), vkey)
    size, root = open_checkpoint(note, signer)
    for _, end, proof in turns:
        require(size < end[0] or goes_on(*end, size, root, proof), "the log does not go on from a change of key")
    return size, root, vkey


def main(bundle, vkey):
    lines = open(bundle, "rb").read().decode().split("\n")
    require(lines.pop() == "", "the last line has no end")
    trailer = json.loads(lines.pop())
    require(trailer["bundle"] == 1, "not a bundle of version 1")
    trusted = open(vkey).read().strip()
    size, root, newest = follow(trusted, trailer.get("keys", []), trailer["checkpoint"])
    proof = hashes(trailer["proof"])
    first = json.loads(lines[0])["i"] if lines else 0
    require(type(first) is int and 0 <= first and first + len(lines) <= size, "more entries than the checkpoint signed")
    for number, line in enumerate(lines):
        entry = json.loads(line)
        canonical = json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        require(canonical == line, f"line {number + 1}: not canonical JSON")
        require(entry["v"] == 1 and entry["i"] == first + number, f"line {number + 1}: entry {first + number} must stand here")
    leaves = [sha256(b"\x00", line.encode()) for line in lines]
    found = root_of(leaves, first, 0, size, proof) if size else sha256()
    require(found == root and not proof, "the entries are not what the checkpoint signed")
    print(f"entries {first} to {first + len(lines) - 1} of {size} are what the log signed")
    if newest != trusted:
        print(f"its key now: {newest}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except (ValueError, KeyError, IndexError, OSError, RecursionError) as error:
        sys.exit(f"NOT VERIFIED: {error}")
