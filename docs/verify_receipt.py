#!/usr/bin/env python3
"""Checks the receipt of an erasure against a log's public key, with nothing but Python's standard library and verify_bundle.py beside it.

usage: verify_receipt.py RECEIPT LOG.vkey

An independent reading of docs/audit.md; it shares no code with Rosemary.
"""
import base64, json, sys

from verify_bundle import included, open_checkpoint, open_note, require, sha256

HEAD = "rosemary-erasure-receipt-v1\n"


def entry_of(receipt, what, op, vkey):
    told = receipt[what]
    # A log that a restore ended has a name of its own and the same key.
    key = base64.b64decode(vkey.split("+", 2)[2], validate=True)
    name = told["checkpoint"].split("\n", 1)[0]
    own = f"{name}+{sha256(name.encode(), bytes([10]), key)[:4].hex()}+{base64.b64encode(key).decode()}"
    size, root = open_checkpoint(told["checkpoint"], own)
    entry = json.loads(told["entry"])
    require(json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False) == told["entry"], f"{what}: not canonical JSON")
    proof = [base64.b64decode(step, validate=True) for step in told["proof"]]
    require(included(sha256(b"\x00", told["entry"].encode()), entry["i"], size, proof, root), f"{what}: its entry is not in the log")
    tells = (entry["op"], entry["outcome"], entry["tenant"], entry["res"]["ids"], entry["det"]["epoch"], entry["det"]["tombstone"])
    require(tells == (op, "ok", receipt["tenant"], [receipt["id"]], receipt["epoch"], receipt["tombstone"]), f"{what}: its entry tells of something else")


def main(receipt, vkey):
    vkey = open(vkey).read().strip()
    text = open_note(open(receipt, "rb").read().decode(), vkey)
    require(text.startswith(HEAD), "not the receipt of an erasure")
    line = text[len(HEAD):].removesuffix("\n")
    receipt = json.loads(line)
    require(json.dumps(receipt, sort_keys=True, separators=(",", ":"), ensure_ascii=False) == line, "not canonical JSON")
    entry_of(receipt, "destroyed", "erasure.destroy", vkey)
    entry_of(receipt, "ended", "erasure.end", vkey)
    print(f"{receipt['holder']} {receipt['id']} was erased: {receipt['memories']} memories; epoch {receipt['epoch']} is gone since {receipt['shredded_at']}")
    for backup in receipt["backups"]:
        print(f"backup {backup['id']} of {backup['begun_at']} still holds it, until {backup.get('expires_at', 'somebody removes it')}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except (ValueError, KeyError, IndexError, TypeError, OSError, RecursionError) as error:
        sys.exit(f"NOT VERIFIED: {error}")
