"""What the keys that a file still holds open in it: every block, used or free. An independent reading of docs/format.md.

    scan = Scan(data_file, key_file)
    scan.blocks                       the plain text of every block that was ever written
    scan.deks(tenant, kind, holder)   how many wrapped keys of this holder the file's epoch keys open, wherever in the file they lie
"""

import struct
import sys
import uuid

from rosemary_server import ROOT

sys.path.insert(0, str(ROOT / "tests/vectors/format"))
from read_v1 import chacha_block, derive, fields, hchacha, unseal  # noqa: E402


class Scan:
    def __init__(self, data, key_file):
        body = data.read_bytes()
        head = body[:4096]
        self.instance, file = head[40:56], head[24:40]
        stride = struct.unpack("<I", head[16:20])[0]
        slot = head[64:192]
        kind, memory, passes, lanes = slot[0], *struct.unpack("<3I", slot[4:16])
        master = unseal(derive(key_file.read_bytes(), "rosemary/v1/kek-key-file", slot[16:48]),
                        fields("rosemary", 1, "key-slot", self.instance, 0, kind, memory, passes, lanes), slot[48:120])
        keys = unseal(derive(master, "rosemary/v1/superblock-seal"), fields("rosemary", 1, "superblock", file, 0), head[1088:1360])
        block_key = keys[:32]
        self.epochs = {struct.unpack("<I", keys[at:at + 4])[0]: keys[at + 4:at + 36] for at in (160, 196)}
        self.epochs.pop(0, None)
        pages = [(slot, body[8192 * slot:8192 * slot + 4152]) for slot in (1, 2, 3, 4)]
        self.blocks = []
        for slot, sealed in pages:
            if any(sealed):
                self.blocks.append(unseal(block_key, fields("rosemary", 1, "page-0", file, slot - 1), sealed))
        for at in range(40960, len(body) - 4135, stride):
            sealed = body[at:at + 4136]
            if any(sealed):
                self.blocks.append(open_unchecked(block_key, sealed))

    def deks(self, tenant, kind, holder):
        tenant, holder, found = uuid.UUID(tenant).bytes, uuid.UUID(holder).bytes, 0
        for block in self.blocks:
            # In a row: number, epoch, length 72, and the wrapped key.
            for at in range(2, len(block) - 72):
                if block[at] != 72 or block[at - 1] not in self.epochs:
                    continue
                aad = fields("dek1", self.instance, tenant, bytes([kind]), holder, block[at - 2], block[at - 1])
                try:
                    unseal(self.epochs[block[at - 1]], aad, block[at + 1:at + 73])
                    found += 1
                except AssertionError:
                    pass
        return found


def open_unchecked(key, sealed):
    """The plain text, its tag not looked at: a scan wants whatever the key gives."""
    key, nonce = hchacha(key, sealed[:16]), bytes(4) + sealed[16:24]
    body = sealed[24:-16]
    stream = b"".join(chacha_block(key, 1 + i, nonce) for i in range(len(body) // 64))
    return (int.from_bytes(body, "little") ^ int.from_bytes(stream, "little")).to_bytes(len(body), "little")
