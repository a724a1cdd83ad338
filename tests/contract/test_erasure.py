"""Erasure, from the request to the receipt: what was erased is opened by no key that is left, in no block, no backup made since, no log and
no process; everybody else keeps everything; older copies of the data are erased again, and kill -9 at any moment loses nothing.

Short form: a few random points. Long form (ROSEMARY_LONG=1): 200 points, and 100,000 holders wrapped anew while requests go on.
"""

import json
import os
import pathlib
import random
import re
import secrets
import subprocess
import sys
import threading
import time
import unittest

from raw_scan import Scan
from rosemary_server import BINARY, LONG, ROOT, Server, text

POINTS = 200 if LONG else 4
HOLDERS = 100_000
FOUND, USAGE, LOCKED, ANCHOR, OLDER = 1, 2, 84, 86, 94
NURSE = "nurse@clinic.example"


def canary(kind):
    return f"Zq{kind}{secrets.token_hex(9)}Xv"


class Case(unittest.TestCase):
    def setUp(self):
        self.server = Server(users=(NURSE,))
        self.addCleanup(self.server.remove)
        self.backups = self.server.folder / "backups"
        self.backups.mkdir(mode=0o700)
        # Backups are made when a test asks for one.
        self.server.change({"RM_BACKUP_DIR": self.backups, "RM_BACKUP_EVERY_HOURS": 0, "RM_BACKUP_DRILL_DAYS": 0})
        self.server.init()

    def done(self, *arguments, code=0, given=b"", **settings):
        done = subprocess.run([str(BINARY), *arguments], env=self.server.environment(settings), cwd=self.server.folder, input=given,
                              capture_output=True, timeout=600, check=False)
        self.server.output += done.stdout + done.stderr
        self.assertEqual(done.returncode, code, text(done))
        self.assertNotIn("panicked", text(done))
        return done

    def make(self):
        return pathlib.Path(self.done("backup", "make").stdout.decode().strip())

    def key(self):
        return re.search(r"rosemary/[0-9a-f-]{36}\+[0-9a-f]{8}\+\S+", text(self.server.run("doctor")))[0]

    def check_receipt(self, note):
        """By the program, and by a reader that shares nothing with it. Gives what it says."""
        path, key = self.server.folder / "a.receipt", self.server.folder / "log.vkey"
        path.write_text(note)
        key.write_text(self.key())
        said = json.loads(subprocess.run([str(BINARY), "erase", "verify-receipt", str(path), "--key", key.read_text(), "--json"], env={},
                                         capture_output=True, check=True).stdout)
        read = subprocess.run([sys.executable, str(ROOT / "docs/verify_receipt.py"), str(path), str(key)], capture_output=True, check=False)
        self.assertEqual(read.returncode, 0, text(read))
        self.assertIn(said["id"], text(read))
        # What was changed is not sound.
        for old, new in (("user", "usex"), ('"memories":', '"memories":1')):
            path.write_text(note.replace(old, new, 1))
            if path.read_text() != note:
                self.done("erase", "verify-receipt", str(path), "--key", key.read_text(), code=FOUND)
                self.assertNotEqual(subprocess.run([sys.executable, str(ROOT / "docs/verify_receipt.py"), str(path), str(key)],
                                                   capture_output=True, check=False).returncode, 0)
        self.assertTrue(said.pop("sound"))
        return said

    def contents(self, **settings):
        return {r["title"]: r for r in map(json.loads, self.done("export", "-", **settings).stdout.decode().splitlines())}


class Online(Case):
    def erase(self, owner, holder, name):
        asked = owner.post("/api/v1/erasures", {"holder": holder, "name": name}).expect(202).json
        end = time.monotonic() + 120
        while (found := owner.get(f"/api/v1/erasures/{asked['id']}").expect(200).json)["stage"] != "done":
            self.assertLess(time.monotonic(), end, found)
            time.sleep(0.05)
        return found

    def test_an_erased_user_and_subject_leave_nothing_that_a_key_opens(self):
        server, word, of_nurse, of_jane = self.server, canary("kept"), canary("nurse"), canary("jane")
        jane = canary("MRN")
        server.start()
        with server.client(server.owner_key) as owner, server.client(server.user_keys[NURSE]) as nurse:
            kept = [owner.remember(f"kept {n}", word, **({"subject": "John"} if n % 2 else {})) for n in range(6)]
            for n in range(4):
                nurse.remember(f"{of_nurse} {n}", of_nurse, speaker=of_nurse)
                nurse.remember(f"about {n}", of_jane, subject=jane)
                owner.remember(f"about {n}", of_jane, subject=jane)
            owner.post("/api/v1/memories/search", {"query": of_jane}).expect(200)
        server.stop()
        before = self.make()
        server.start()
        with server.client(server.owner_key) as owner, server.client(server.user_keys[NURSE]) as nurse, server.agent("cursor") as agent:
            missing = owner.post("/api/v1/erasures", {"holder": "user", "name": "nobody@clinic.example"}).expect(404)
            self.assertEqual(missing.json["title"], "Not found")
            owner.post("/api/v1/erasures", {"holder": "subject", "name": "nobody"}).expect(404)
            owner.post("/api/v1/erasures", {"holder": "user", "name": server.settings["RM_OWNER_EMAIL"]}).expect(409)
            owner.post("/api/v1/erasures", {"holder": "tenant", "name": "x"}).expect(400)
            owner.get("/api/v1/erasures/none").expect(404)
            for stranger in (nurse, agent):
                stranger.post("/api/v1/erasures", {"holder": "user", "name": NURSE}).expect(403)
                stranger.get("/api/v1/erasures").expect(403)
            gone = [self.erase(owner, "user", NURSE), self.erase(owner, "subject", jane)]
            self.assertEqual([e["memories"] for e in gone], [8, 4])
            nurse.get("/whoami").expect(401)
            for erasure in gone:
                self.assertEqual([b["id"][:8] for b in erasure["backups"]], [before.stem[-8:]], "the backup of before still holds it")
            listed = owner.get("/api/v1/erasures").expect(200).json["erasures"]
            self.assertEqual({e["id"] for e in listed}, {e["id"] for e in gone})
            # Asked again it is the same erasure; a person of that address, or a subject of that name, would be somebody new.
            self.assertEqual(owner.post("/api/v1/erasures", {"holder": "user", "name": gone[0]["id"]}).expect(202).json["stage"], "done")
            owner.post("/api/v1/erasures", {"holder": "user", "name": NURSE}).expect(404)
            self.assertEqual(owner.post("/agent/memories/search", {"term": of_jane}).expect(200).json["memories"], [])
        # The restart that ends an erasure run: a new process has nothing of it.
        server.stop()
        server.start()
        with server.client(server.owner_key) as owner:
            for record in kept:
                self.assertEqual(owner.get(f"/memories/{record['id']}").expect(200).json, record)
            owner.post("/memories/list", {"filter": {"by": "all"}}).expect(200)
            owner.post("/api/v1/memories/search", {"query": "kept"}).expect(200)
            self.memory_is_clean((of_nurse, of_jane, jane))
        server.stop()
        after = self.make()
        for erasure in gone:
            said = self.check_receipt(erasure["receipt"])
            self.assertEqual((said["id"], said["memories"], said["holder"]), (erasure["id"], erasure["memories"], erasure["holder"]))
        me = said["tenant"]
        kinds = ((1, gone[0]["id"]), (2, gone[1]["id"]))
        scan = Scan(before, server.kek)
        self.assertTrue(all(scan.deks(me, kind, id) for kind, id in kinds), "the scan finds a key that is there")
        for path in (server.data, after):
            scan = Scan(path, server.kek)
            self.assertGreater(len(scan.blocks), 10)
            self.assertEqual([scan.deks(me, kind, id) for kind, id in kinds], [0, 0], path.name)
            for block in scan.blocks:
                for word in (of_nurse, of_jane, jane, NURSE):
                    self.assertNotIn(word.encode(), block)
        printed = bytes(server.output) + b"".join(answer.body for answer in server.refusals)
        ledger = pathlib.Path(f"{server.anchor}.erased").read_bytes()
        for word in (of_nurse, of_jane, jane):
            for place in (printed, ledger, server.anchor.read_bytes(), "\n".join(self.log()).encode()):
                self.assertNotIn(word.encode(), place)

    def log(self):
        return self.done("audit", "export", "-").stdout.decode().splitlines()

    def memory_is_clean(self, words):
        """Reads all that the process has mapped, as root can."""
        pid, seen, found = self.server.process.pid, False, []
        try:
            memory = open(f"/proc/{pid}/mem", "rb", 0)
        except PermissionError:
            self.skipTest("the process's memory cannot be read on this machine")
        with memory, open(f"/proc/{pid}/maps", encoding="utf-8") as maps:
            for line in maps:
                start, end = (int(part, 16) for part in line.split()[0].split("-"))
                if line.split()[1][0] != "r" or "[v" in line:
                    continue
                memory.seek(start)
                try:
                    body = memory.read(end - start)
                except OSError:
                    continue
                seen |= b"clinic-test" in body
                found += [word for word in words if word.encode() in body]
        self.assertTrue(seen, "the scan sees what the process certainly holds")
        self.assertEqual(found, [])


class Offline(Case):
    def setUp(self):
        super().setUp()
        self.server.start()
        with self.server.client(self.server.owner_key) as owner, self.server.client(self.server.user_keys[NURSE]) as nurse:
            for n in range(10):
                owner.remember(f"kept {n}", "words", subject=f"subject {n % 4}")
                nurse.remember(f"hers {n}", "words", subject=f"subject {n % 4}")
            owner.remember("about Jane", "words", subject="Jane")
        self.server.stop()

    def test_the_operator_erases_with_a_yes_and_keeps_the_receipt(self):
        receipt = self.server.folder / "nurse.receipt"
        self.done("erase", "user", NURSE, code=USAGE)
        self.done("erase", "user", NURSE, code=USAGE, given=b"no\n")
        self.assertIn("rosemary erase list", text(self.done("erase", "subject", "nobody", "--yes", code=USAGE)))
        self.done("erase", "user", self.server.settings["RM_OWNER_EMAIL"], "--yes", code=USAGE)
        self.done("erase", "user", NURSE, "--receipt", str(receipt), given=b"yes\n")
        self.assertEqual(receipt.stat().st_mode & 0o777, 0o600)
        said = self.check_receipt(receipt.read_text())
        self.assertEqual((said["holder"], said["memories"], said["backups"]), ("user", 10, []))
        note = self.done("erase", "subject", "Jane", "--yes").stdout.decode()
        self.assertEqual(self.check_receipt(note)["memories"], 1)
        listed = json.loads(self.done("erase", "list", "--json").stdout)["erasures"]
        self.assertEqual({e["stage"] for e in listed}, {"done"})
        self.assertIn(said["id"], text(self.done("erase", "list")))
        self.assertEqual(len(self.contents()), 10)
        # Another log's key, another file: not sound.
        other = Server().init()
        self.addCleanup(other.remove)
        wrong = re.search(r"rosemary/[0-9a-f-]{36}\+[0-9a-f]{8}\+\S+", text(other.run("doctor")))[0]
        self.assertIn("NOT SOUND", text(self.done("erase", "verify-receipt", str(receipt), "--key", wrong, code=FOUND)))
        self.done("erase", "verify-receipt", str(receipt), "--key", "nonsense", code=USAGE)
        # While the service runs, the console says where to ask.
        self.server.start()
        self.assertIn("/api/v1/erasures", text(self.done("erase", "list", code=LOCKED)))
        self.server.stop()
        # A restore ends the log in which the receipts' entries are; they are given, and verify, all the same.
        backup = self.make()
        self.done("restore", str(backup), "--discard-newer")
        again = self.done("erase", "receipt", said["id"]).stdout.decode()
        self.assertEqual(self.check_receipt(again)["tombstone"], said["tombstone"])
        self.done("verify")

    def test_an_older_backup_is_erased_again_and_a_ledger_that_is_too_old_is_refused(self):
        ledger = pathlib.Path(f"{self.server.anchor}.erased")
        backup = self.make()
        self.done("erase", "subject", "Jane", "--yes")
        written, anchor = ledger.read_bytes(), self.server.anchor.read_bytes()
        self.assertIn("erased", text(self.done("restore", str(backup), "--discard-newer")))
        listed = json.loads(self.done("erase", "list", "--json").stdout)["erasures"]
        self.assertEqual([e["stage"] for e in listed], ["done"], "whom the ledger names is erased before anything serves")
        self.assertNotIn("about Jane", self.contents())
        self.assertEqual(len(self.contents()), 10)
        # Put back by hand, the older file is refused by the anchor; with an anchor of its own it is erased again as it starts.
        self.server.data.write_bytes(backup.read_bytes())
        self.done("restore", str(backup), "--discard-newer")
        # The list gone, or another: refused, unless the operator says so, and the log tells.
        for other in (None, written.replace(b"subject", b"user"), written[:-2]):
            ledger.unlink(missing_ok=True)
            if other is not None:
                ledger.write_bytes(other)
            self.server.anchor.write_bytes(anchor)
            self.assertIn(str(self.server.anchor), text(self.done("restore", str(backup), "--discard-newer", code=ANCHOR)))
        ledger.unlink()
        self.done("restore", str(backup), "--discard-newer", "--forget-erasures")
        entry = json.loads(self.done("audit", "export", "-").stdout.decode().splitlines()[0])
        self.assertEqual((entry["reason"], entry["det"]["setting"]), ("override", "newer.erased"))
        self.assertIn("about Jane", self.contents())

    def test_a_receipt_names_backups_made_after_the_one_restored_and_the_file_that_made_way(self):
        # Restoring an older backup forgot every later one: the receipt named the first alone, and the second lay there and said the text.
        first, second = self.make(), self.make()
        said = text(self.done("restore", str(first), "--discard-newer"))
        replaced = re.search(r"name it as backup (\S{8})", said)[1]
        receipt = self.check_receipt(self.done("erase", "subject", "Jane", "--yes").stdout.decode())
        self.assertEqual({b["id"][:8] for b in receipt["backups"]}, {first.stem[-8:], second.stem[-8:], replaced})
        # With the data file lost its rows are too: what lies in the folder is found there.
        self.server.data.unlink()
        self.done("restore", str(first), "--discard-newer")
        receipt = self.check_receipt(self.done("erase", "receipt", receipt["id"]).stdout.decode())
        self.assertEqual({b["id"][:8] for b in receipt["backups"]}, {first.stem[-8:], second.stem[-8:]})
        # So are those that a damaged one knew of, which says so and is named itself.
        data = self.server.data.read_bytes()
        self.server.data.write_bytes(data[:64] + bytes(8128) + data[8192:])
        said = text(self.done("restore", str(first), "--discard-newer"))
        self.assertIn("cannot be read: receipts of erasures name those in RM_BACKUP_DIR", said)
        replaced = re.search(r"name it as backup (\S{8})", said)[1]
        receipt = self.check_receipt(self.done("erase", "receipt", receipt["id"]).stdout.decode())
        self.assertEqual({b["id"][:8] for b in receipt["backups"]}, {first.stem[-8:], second.stem[-8:], replaced})
        self.done("verify")

    def test_a_start_without_the_ledger_that_the_anchor_knows_of_is_refused(self):
        ledger = pathlib.Path(f"{self.server.anchor}.erased")
        backup = self.make()
        self.done("erase", "subject", "Jane", "--yes")
        self.done("restore", str(backup), "--discard-newer", RM_ANCHOR_FILE=None)
        # The restored file knows nothing of the erasure, its new log is not the anchor's.
        self.done("key", "list", code=ANCHOR)
        ledger.unlink()
        self.done("anchor", "accept")
        self.assertIn("about Jane", self.contents())

    def test_kill_at_random_points_of_an_erasure_loses_nobody_and_the_receipt_comes(self):
        data, anchor = self.server.data.read_bytes(), self.server.anchor.read_bytes()
        began = time.monotonic()
        self.done("erase", "user", NURSE, "--yes")
        took, cut, stages = time.monotonic() - began, 0, set()
        ledger = pathlib.Path(f"{self.server.anchor}.erased")
        for point in range(POINTS):
            ledger.unlink(missing_ok=True)
            self.server.data.write_bytes(data)
            self.server.anchor.write_bytes(anchor)
            process = subprocess.Popen([str(BINARY), "erase", "user", NURSE, "--yes"], env=self.server.environment(), cwd=self.server.folder,
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(took * random.Random(f"erase {point}").uniform(0.2, 1.0))
            cut += process.poll() is None
            process.kill()
            process.wait()
            listed = json.loads(self.done("erase", "list", "--json").stdout)["erasures"]
            stages.add(listed[0]["stage"] if listed else "not asked")
            note = self.done("erase", "receipt", listed[0]["id"]) if listed else self.done("erase", "user", NURSE, "--yes")
            note = note.stdout.decode()
            self.assertIn("rosemary-erasure-receipt-v1", note)
            if point % 20 == 0:
                self.assertEqual(self.check_receipt(note)["memories"], 10)
                self.done("verify")
            self.assertEqual(sorted(self.contents()), sorted([f"kept {n}" for n in range(10)] + ["about Jane"]))
            self.assertNotIn(NURSE, text(self.done("key", "list")))
        self.assertGreater(cut, 0, "no run was cut off: the test proves nothing")
        print(f"kill -9 during an erasure: {POINTS} points, {cut} cut off, stages found {sorted(stages)}", file=sys.stderr)


@unittest.skipUnless(LONG, "measures for minutes: ROSEMARY_LONG=1")
class Measured(Case):
    def test_100_000_holders_are_wrapped_anew_within_10_seconds_while_requests_go_on(self):
        lines = "\n".join(json.dumps({"title": f"n{n}", "content": "words", "tags": [], "subject": f"subject {n}"}) for n in range(HOLDERS))
        path = self.server.folder / "in.ndjson"
        path.write_text(lines)
        self.done("import", str(path))
        self.server.start()
        stop, done, slowest = threading.Event(), [0, 0], [0.0, 0.0]

        def load(which, work):
            with self.server.client(self.server.owner_key) as client:
                while not stop.is_set():
                    began = time.monotonic()
                    work(client)
                    slowest[which] = max(slowest[which], time.monotonic() - began)
                    done[which] += 1

        threads = [threading.Thread(target=load, args=(0, lambda c: c.remember("during", "the run"))),
                   threading.Thread(target=load, args=(1, lambda c: c.post("/agent/memories/list", {"limit": 5}).expect(200)))]
        for thread in threads:
            thread.start()
        with self.server.client(self.server.owner_key) as owner:
            began = time.monotonic()
            asked = owner.post("/api/v1/erasures", {"holder": "user", "name": NURSE}).expect(202).json
            while (found := owner.get(f"/api/v1/erasures/{asked['id']}").expect(200).json)["stage"] != "done":
                time.sleep(0.02)
            took = time.monotonic() - began
        stop.set()
        for thread in threads:
            thread.join()
        print(f"{HOLDERS} holders wrapped anew in {took:.1f} s; meanwhile {done[0]} writes (slowest {slowest[0]:.2f} s), "
              f"{done[1]} reads (slowest {slowest[1]:.2f} s)", file=sys.stderr)
        self.assertEqual(found["memories"], 0)
        self.assertLessEqual(took, 10)
        self.assertGreater(min(done), 0)


if __name__ == "__main__":
    unittest.main()
