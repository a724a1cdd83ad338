"""Keys above the file as the operator turns them: what unlocks it, and the epoch of keys inside."""

import json
import random
import ssl
import subprocess
import sys
import time
import unittest

from rosemary_server import BINARY, LONG, ROOT, Server, text, unique

USAGE, KEK_WRONG, KEK_MISSING, ANCHOR = 2, 80, 81, 86


class Keys(unittest.TestCase):
    def setUp(self):
        self.server = Server().init()
        self.addCleanup(self.server.remove)
        self.server.start()
        with self.server.client(self.server.owner_key) as owner:
            self.record = owner.remember("kept", "through every change of keys", subject="Jane")
        self.assertEqual(self.server.stop(), 0)

    def keys(self, *arguments, code=0, **settings):
        done = self.server.run("keys", *arguments, **settings)
        self.assertEqual(done.returncode, code, text(done))
        return text(done)

    def works(self, **settings):
        self.server.change({name: str(value) for name, value in settings.items()})
        self.server.start()
        with self.server.client(self.server.owner_key) as owner:
            self.assertEqual(owner.get(f"/memories/{self.record['id']}").expect(200).json, self.record)
        self.assertEqual(self.server.stop(), 0)

    def test_several_keys_unlock_the_file_until_their_slot_is_taken(self):
        second = self.server.folder / "second.kek"
        self.assertIn("opens it", self.keys("list"))
        self.keys("add", "--key-file", second, "--make")
        self.assertEqual(second.stat().st_mode & 0o777, 0o600)
        self.keys("add", "--key-file", second, code=USAGE)
        self.keys("remove", "0", code=USAGE)
        self.works(RM_KEK_FILE=second)
        self.keys("remove", "0")
        self.keys("remove", "1", code=USAGE)
        first = self.server.kek
        done = self.server.run("verify", RM_KEK_FILE=str(first))
        self.assertEqual(done.returncode, KEK_WRONG, text(done))
        self.works()

    def test_the_kek_is_rotated_and_the_old_one_opens_nothing_any_more(self):
        new = self.server.folder / "new.kek"
        before = self.server.data.read_bytes()[:8192]
        self.keys("rotate", "kek", "--key-file", new, "--make")
        self.assertEqual(self.server.run("verify").returncode, KEK_WRONG)
        self.works(RM_KEK_FILE=new)
        # The superblock of before, put back: the old key unlocks it, and the data say that it is an older one.
        with open(self.server.data, "r+b") as file:
            now = file.read(8192)
            file.seek(0)
            file.write(before)
        done = self.server.run("serve", RM_KEK_FILE=str(self.server.kek))
        self.assertEqual(done.returncode, ANCHOR, text(done))
        self.assertIn("superblock", text(done))
        with open(self.server.data, "r+b") as file:
            file.write(now)
        self.works()

    def test_the_epoch_is_rotated_and_the_log_tells_of_it(self):
        self.keys("rotate", "epoch")
        self.works()
        log = self.server.folder / "log.ndjson"
        self.assertEqual(self.server.run("audit", "export", log).returncode, 0)
        said = log.read_text()
        self.assertEqual([said.count(f'"setting":"{word}"') for word in ("begin", "end")], [2, 1])
        self.assertEqual(self.server.run("verify").returncode, 0)

    def make_shares(self, *arguments):
        done = self.server.run("keys", "shares", *arguments)
        self.assertEqual(done.returncode, 0, text(done))
        return done.stdout.decode().splitlines()

    def recover(self, lines, new, code=0):
        done = subprocess.run(
            [str(BINARY), "keys", "recover", "--key-file", str(new), "--make"], env=self.server.environment(), cwd=self.server.folder,
            input="\n".join(lines).encode(), capture_output=True, timeout=120, check=False,
        )
        self.assertEqual(done.returncode, code, text(done))
        return text(done)

    def test_any_two_of_three_shares_recover_a_file_whose_key_is_lost(self):
        shares, others = self.make_shares(), self.make_shares()
        self.assertEqual(len(shares), 3)
        self.server.kek.rename(self.server.folder / "lost")
        new = self.server.folder / "recovered.kek"
        self.assertIn("1 shares are here and 2 are needed", self.recover(shares[:1], new, KEK_MISSING))
        self.assertIn("given already", self.recover([shares[0], shares[0]], new, KEK_WRONG))
        self.assertIn("another set", self.recover([shares[0], others[1]], new, KEK_WRONG))
        self.assertIn("mistyped", self.recover([shares[0], shares[1][:-1] + "~"], new, KEK_WRONG))
        self.assertIn("are needed", self.recover([], new, KEK_MISSING))
        self.assertFalse(new.exists())
        typed = [shares[2].split(": ")[1].lower(), shares[0].replace("-", " ")]
        self.recover(typed, new)
        self.works(RM_KEK_FILE=new)
        self.assertIn("set of shares", self.keys("list"))
        self.keys("remove", "1")
        self.recover(shares[:2], self.server.folder / "never", KEK_WRONG)
        self.recover(others[:2], self.server.folder / "third.kek")
        for share in shares + others:
            self.assertNotIn(share.split(": ")[1].encode(), self.server.data.read_bytes())

    def test_shares_of_another_instance_open_nothing_and_bounds_are_kept(self):
        for bad in (("--need", "1"), ("--need", "4"), ("--of", "17"), ("--of", "1")):
            self.keys("shares", *bad, code=USAGE)
        self.assertEqual(len(self.make_shares("--need", "3", "--of", "5")), 5)
        other = Server().init()
        self.addCleanup(other.remove)
        alien = other.run("keys", "shares").stdout.decode().splitlines()
        self.recover(alien[:2], self.server.folder / "never", KEK_WRONG)

    def test_a_new_master_key_leaves_the_present_key_alone(self):
        second = self.server.folder / "second.kek"
        self.keys("add", "--key-file", second, "--make")
        said = self.keys("rotate", "master")
        self.assertIn("slot 1 (key file) is gone", said)
        self.works()
        self.assertEqual(self.server.run("verify", RM_KEK_FILE=str(second)).returncode, KEK_WRONG)
        self.keys("add", "--key-file", second)
        self.keys("rotate", "master", RM_KEK_FILE=second)
        self.assertEqual(self.server.run("verify").returncode, KEK_WRONG)
        self.works(RM_KEK_FILE=second)
        self.server.start()
        self.keys("rotate", "master", code=84)

    def test_the_tls_key_is_rotated_and_the_running_service_takes_it(self):
        cert, key = self.server.folder / "cert.pem", self.server.folder / "key.pem"
        before = (cert.read_bytes(), key.read_bytes())
        self.server.start()
        self.keys("rotate", "tls")
        self.assertTrue(cert.read_bytes() != before[0] and key.read_bytes() != before[1])
        self.assertEqual(key.stat().st_mode & 0o777, 0o600)
        until = time.monotonic() + 30
        while True:  # the service reads it within a moment
            try:
                with self.server.client(self.server.owner_key) as owner:
                    owner.get("/whoami").expect(200)
                break
            except ssl.SSLError:
                self.assertLess(time.monotonic(), until)
        self.assertEqual(self.server.stop(), 0)
        # Somebody's own pair: a wrong one is refused and changes nothing.
        other = Server().init()
        self.addCleanup(other.remove)
        now = (cert.read_bytes(), key.read_bytes())
        self.keys("rotate", "tls", "--cert", other.folder / "cert.pem", "--key", key, code=90)
        self.keys("rotate", "tls", "--cert", other.folder / "cert.pem", code=USAGE)
        self.assertEqual((cert.read_bytes(), key.read_bytes()), now)
        self.keys("rotate", "tls", "--cert", other.folder / "cert.pem", "--key", other.folder / "key.pem")
        self.assertEqual(cert.read_bytes(), (other.folder / "cert.pem").read_bytes())
        self.works()
        log = self.server.folder / "log.ndjson"
        self.assertEqual(self.server.run("audit", "export", log).returncode, 0)
        self.assertEqual(log.read_text().count('"op":"keys.tls"'), 2)

    def test_every_holders_key_is_renewed_online_and_offline(self):
        self.keys("rotate", "deks")
        self.works()
        self.server.start()
        with self.server.client(self.server.owner_key) as owner:
            owner.put(f"/memories/{self.record['id']}", {**{k: self.record[k] for k in ("title", "tags", "allowed_vendors")}, "content": "anew"})
            self.keys("rotate", "deks")
            self.assertEqual(owner.get(f"/memories/{self.record['id']}").expect(200).json["content"], "anew")
            versions = owner.get(f"/memories/{self.record['id']}/versions").expect(200).json["versions"]
            self.assertEqual(versions[-1]["content"], "through every change of keys")
            owner.remember("new", "about her", subject="Jane")
        self.assertEqual(self.server.stop(), 0)
        self.assertEqual(self.server.run("verify").returncode, 0)
        log = self.server.folder / "log.ndjson"
        self.assertEqual(self.server.run("audit", "export", log).returncode, 0)
        entries = [json.loads(line) for line in log.read_text().splitlines()[:-1]]
        stages = [entry["det"]["setting"] for entry in entries if entry["op"] == "keys.renew" and "setting" in entry.get("det", {})]
        self.assertEqual(stages, ["doubling", "sealing", "dropping", "leaving", "done"] * 2)

    def log_key(self):
        done = self.server.run("verify", "--json")
        self.assertEqual(done.returncode, 0, text(done))
        return json.loads(done.stdout)["facts"]["log key"]

    def bundle(self, name, *arguments):
        path = self.server.folder / name
        done = self.server.run("audit", "export", path, *arguments)
        self.assertEqual(done.returncode, 0, text(done))
        return path

    def verifies(self, bundle, key, code=0):
        """By the program and by one that shares no code with it; gives the newest key."""
        done = self.server.run("verify", "--log", bundle, "--key", key, "--json")
        self.assertEqual(done.returncode, code, text(done))
        vkey = self.server.folder / "given.vkey"
        vkey.write_text(key + "\n")
        other = subprocess.run([sys.executable, str(ROOT / "docs/verify_bundle.py"), str(bundle), str(vkey)], capture_output=True, timeout=120, check=False)
        self.assertEqual(other.returncode == 0, code == 0, text(other))
        return json.loads(done.stdout)["facts"].get("log key")

    def test_the_logs_key_is_changed_and_whoever_holds_an_older_one_follows_it(self):
        keys = [self.log_key()]
        before = self.bundle("before.ndjson")
        self.keys("rotate", "audit")
        keys.append(self.log_key())
        self.server.start()
        self.keys("rotate", "audit")
        with self.server.client(self.server.owner_key) as owner:
            self.assertEqual(owner.get(f"/memories/{self.record['id']}").expect(200).json, self.record)
        self.server.kill()
        self.server.start()
        self.assertEqual(self.server.stop(), 0)
        keys.append(self.log_key())
        self.assertEqual(len(set(keys)), 3)
        for name, range in (("all.ndjson", ()), ("some.ndjson", ("--from", "3", "--to", "9"))):
            after = self.bundle(name, *range)
            for key in keys:
                self.assertEqual(self.verifies(after, key), keys[2])
        self.assertEqual(self.verifies(before, keys[0]), keys[0])
        self.verifies(before, keys[2], code=1)
        # Without its introduction, or with one that is bent, the new key is nobody's.
        lines = after.read_text().splitlines()
        trailer = json.loads(lines[-1])
        for bent in ([], trailer["keys"][:1], trailer["keys"][1:], trailer["keys"][::-1], trailer["keys"][:1] * 2):
            forged = self.server.folder / "forged.ndjson"
            forged.write_text("\n".join(lines[:-1] + [json.dumps({**trailer, "keys": bent}, separators=(",", ":"))]) + "\n")
            self.verifies(forged, keys[0], code=1)
            if bent == trailer["keys"][:1]:
                self.verifies(forged, keys[2])

    def test_receipts_backups_and_anchors_of_before_a_change_of_the_logs_key_still_count(self):
        first, backup, anchor = self.log_key(), self.server.folder / "before.backup", self.server.anchor.read_bytes()
        receipts = [self.server.folder / name for name in ("before.receipt", "after.receipt", "restored.receipt")]
        said = text(self.server.run("erase", "subject", "Jane", "--yes", "--receipt", receipts[0]))
        erased = said.split("; erasure ")[1].split()[0]
        self.assertEqual(self.server.run("backup", "make", backup).returncode, 0)
        self.keys("rotate", "audit")
        second = self.log_key()
        after = self.server.folder / "after.backup"
        self.assertEqual(self.server.run("backup", "make", after).returncode, 0)
        self.assertEqual(self.server.run("erase", "receipt", erased, receipts[1]).returncode, 0)

        def check(receipt, key):
            return self.server.run("erase", "verify-receipt", receipt, "--key", key).returncode

        self.assertEqual([check(receipts[0], first), check(receipts[1], second)], [0, 0])
        self.assertEqual([check(receipts[0], second), check(receipts[1], first)], [1, 1])
        # The anchor of before the change is one that the old key may have signed; a file of before it is an older one.
        now = self.server.anchor.read_bytes()
        self.server.anchor.write_bytes(anchor)
        self.assertEqual(self.server.run("verify").returncode, 0)
        self.server.anchor.write_bytes(now)
        # A backup of before the change goes back, and says that something came after it.
        done = self.server.run("restore", backup)
        self.assertEqual(done.returncode, 94, text(done))
        self.assertEqual(self.server.run("restore", backup, "--to", self.server.folder / "aside.db").returncode, 0)
        # One of after it: its log ends, the next begins, and the change of key after that ends both under their own keys.
        done = self.server.run("restore", after, "--discard-newer")
        self.assertEqual(done.returncode, 0, text(done))
        restored = self.log_key()
        self.keys("rotate", "audit")
        third = self.log_key()
        self.assertEqual(self.verifies(self.bundle("restored.ndjson"), restored), third)
        self.assertEqual(self.server.run("erase", "receipt", erased, receipts[2]).returncode, 0)
        self.assertEqual([check(receipts[2], third), check(receipts[2], restored)], [0, 1])
        vkey = self.server.folder / "third.vkey"
        vkey.write_text(third)
        other = subprocess.run([sys.executable, str(ROOT / "docs/verify_receipt.py"), str(receipts[2]), str(vkey)], capture_output=True, timeout=60, check=False)
        self.assertEqual(other.returncode, 0, text(other))

    def test_a_kill_at_any_moment_of_a_rotation_loses_nothing_and_the_next_start_goes_on(self):
        first = self.log_key()
        self.server.start()
        with self.server.client(self.server.owner_key) as owner:
            kept = [owner.remember(f"kept {number}", unique(), subject=f"subject {number % 7}") for number in range(60)]
        for round in range(200 if LONG else 9):
            what = ["audit", "deks", "epoch", "deks", "epoch"][round % 5]
            asked = subprocess.Popen([str(BINARY), "keys", "rotate", what], env=self.server.environment(), cwd=self.server.folder,
                                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(random.random() * 0.25)
            self.server.kill()
            asked.wait(60)
            self.server.start()
        with self.server.client(self.server.owner_key) as owner:
            for record in kept:
                self.assertEqual(owner.get(f"/memories/{record['id']}").expect(200).json, record)
            self.keys("rotate", "deks")
        self.assertEqual(self.server.stop(), 0)
        self.assertEqual(self.verifies(self.bundle("log.ndjson"), first), self.log_key())

    def test_a_key_of_another_instance_is_not_enrolled(self):
        other = Server().init()
        self.addCleanup(other.remove)
        alien = other.folder / "made.kek"
        self.assertEqual(other.run("keys", "add", "--key-file", alien, "--make").returncode, 0)
        self.assertIn("instance", self.keys("add", "--key-file", alien, code=KEK_WRONG))


if __name__ == "__main__":
    unittest.main()
