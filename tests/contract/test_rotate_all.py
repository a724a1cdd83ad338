"""`keys rotate all`: a new file under new keys of every kind, in the place of one whose keys were known to somebody.

Short form: a few random points of kill -9. Long form (ROSEMARY_LONG=1): 200 points.
"""

import json
import os
import pathlib
import random
import secrets
import shutil
import subprocess
import time
import unittest

from rosemary_server import BINARY, LONG, Server, text

POINTS = 200 if LONG else 6
RECORDS = 2000 if LONG else 150
USAGE, KEK_WRONG, LOCKED, DISK_FULL, ANCHOR, DAMAGED, OLDER = 2, 80, 84, 85, 86, 88, 94


class RotateAll(unittest.TestCase):
    def setUp(self):
        self.server = Server(users=("nurse@hospital.example",)).init()
        self.addCleanup(self.server.remove)

    def fill(self, count=40):
        lines = [json.dumps({"title": f"note {n}", "content": f"{n} " + secrets.token_hex(150), "tags": [f"t{n % 7}"], "run_id": f"run {n % 3}",
                             "metadata": {"agent_id": f"agent {n % 5}"}, **({"subject": f"patient {n % 20}"} if n % 2 else {})}) for n in range(count)]
        path = self.server.folder / "in.ndjson"
        path.write_text("\n".join(lines))
        self.done("import", path)

    def done(self, *arguments, code=0, **settings):
        done = self.server.run(*arguments, timeout=600, **settings)
        self.assertEqual(done.returncode, code, text(done))
        self.assertNotIn("panicked", text(done))
        return done

    def contents(self, **settings):
        return sorted(self.done("export", "-", **settings).stdout.decode().splitlines())

    def log_key(self, **settings):
        return json.loads(self.done("verify", "--json", **settings).stdout)["facts"]["log key"]

    def kept(self):
        return sorted(self.server.folder.glob(f"{self.server.data.name}.replaced-*"))

    def beside(self):
        return {path.name for path in self.server.folder.iterdir()}

    def test_everything_is_there_under_new_keys_and_the_old_file_is_kept(self):
        self.fill()
        self.server.start()
        with self.server.client(self.server.owner_key) as owner:
            record = owner.remember("changed", "before", subject="Jane", metadata={"app_id": "ward"})
            owner.put(f"/memories/{record['id']}", {"title": "changed", "content": "after", "tags": ["a"], "allowed_vendors": ["*"]}).expect(200)
            trashed = owner.remember("in the trash", "kept there")
            owner.delete(f"/memories/{trashed['id']}").expect(200, 204)
            now = owner.get(f"/memories/{record['id']}").expect(200).json
            versions = owner.get(f"/memories/{record['id']}/versions").expect(200).json
            trash = owner.get("/memories/trash").json
            revoked = owner.post("/api/keys", {"label": "to be revoked"}).json
            owner.delete(f"/api/keys/{revoked['id']}").expect(200, 204)
        self.assertEqual(self.server.stop(), 0)
        said = text(self.done("erase", "subject", "patient 1", "--yes", "--receipt", self.server.folder / "one.receipt"))
        erased = said.split("; erasure ")[1].split()[0]
        second = self.server.folder / "second.kek"
        self.done("keys", "add", "--key-file", second, "--make")
        before, old_key, image, anchor = self.contents(), self.log_key(), self.server.data.read_bytes(), self.server.anchor.read_bytes()
        bundle = self.server.folder / "before.ndjson"
        self.done("audit", "export", bundle)
        said = text(self.done("keys", "rotate", "all"))
        for word in ("pepper", "incident revoke-all", "is gone: enrol its key again", "the old file is kept as", "backup make", old_key):
            self.assertIn(word, said)
        [kept] = self.kept()
        self.assertNotIn(f"{self.server.data.name}.new", self.beside())
        self.assertEqual({path.name for path in self.server.anchor.parent.iterdir()}, {self.server.anchor.name, f"{self.server.anchor.name}.erased"})
        self.assertEqual(self.contents(), before)
        new_key = self.log_key()
        self.assertNotEqual(new_key, old_key)
        self.assertIn(new_key, said)
        # Who has a credential still has it; what was in the trash, versions and the log are as they were.
        self.server.start()
        with self.server.client(self.server.user_keys["nurse@hospital.example"]) as person:
            person.get("/whoami").expect(200)
        with self.server.client(revoked["key"]) as nobody:
            nobody.get("/whoami").expect(401)
        with self.server.client(self.server.owner_key) as owner:
            self.assertEqual(owner.get(f"/memories/{record['id']}").expect(200).json, now)
            self.assertEqual(owner.get(f"/memories/{record['id']}/versions").expect(200).json, versions)
            self.assertEqual(owner.get("/memories/trash").json, trash)
            found = owner.post("/api/v1/memories/search", {"query": "changed after"}).expect(200).json
            self.assertIn(record["id"], json.dumps(found))
            again = owner.post("/memories", {"title": "changed", "content": "after", "tags": ["b"], "subject": "Jane"}).expect(201).json
            self.assertTrue(again["id"])
            owner.remember("about her", "as before", subject="Jane")
        with self.server.agent("cursor") as agent:
            agent.get("/whoami").expect(200)
        self.done("keys", "rotate", "all", code=LOCKED)
        self.assertEqual(self.server.stop(), 0)
        # The log leads from the old key to the new one, and what was exported before still verifies.
        after = self.server.folder / "after.ndjson"
        self.done("audit", "export", after)
        self.assertEqual(after.read_text().splitlines()[:20], bundle.read_text().splitlines()[:20])
        for path, key in ((bundle, old_key), (after, old_key), (after, new_key)):
            self.done("verify", "--log", path, "--key", key)
        self.done("erase", "verify-receipt", self.server.folder / "one.receipt", "--key", old_key)
        self.done("erase", "receipt", erased, self.server.folder / "again.receipt")
        self.done("erase", "verify-receipt", self.server.folder / "again.receipt", "--key", new_key)
        self.done("erase", "verify-receipt", self.server.folder / "again.receipt", "--key", old_key, code=1)
        # The other slot is gone, and the superblock of before opens nothing of the new file.
        self.done("verify", RM_KEK_FILE=str(second), code=KEK_WRONG)
        whole = self.server.data.read_bytes()
        with open(self.server.data, "r+b") as file:
            file.write(image[:8192])
        self.assertIn(self.server.run("verify").returncode, (82, DAMAGED, 1))
        self.server.data.write_bytes(whole)
        # The old file, put back: the anchor knows better.
        shutil.copy(kept, self.server.data)
        self.done("verify", code=1)
        self.assertEqual(self.server.run("serve").returncode, ANCHOR)
        self.server.data.write_bytes(whole)
        # So does the anchor of before, with the old file's list: it does not belong to what is there now, and says so or agrees.
        self.server.anchor.write_bytes(anchor)
        self.done("verify")

    def test_another_key_opens_the_new_file_alone_and_the_old_one_can_be_wiped(self):
        self.fill()
        before, old, new = self.contents(), self.server.kek, self.server.folder / "new.kek"
        self.done("keys", "rotate", "all", "--key-file", old, code=USAGE)
        inode = os.stat(self.server.data).st_ino
        spare = self.server.folder / "evidence.db"
        os.link(self.server.data, spare)
        said = text(self.done("keys", "rotate", "all", "--key-file", new, "--make", "--wipe-old"))
        self.assertIn("written over", said)
        self.assertEqual((self.kept(), spare.read_bytes()[:40960].strip(b"\0")), ([], b""))
        self.assertNotEqual(os.stat(self.server.data).st_ino, inode)
        self.done("verify", code=KEK_WRONG)
        self.server.change({"RM_KEK_FILE": str(new)})
        self.assertEqual(self.contents(), before)
        # Run again as it was, after the settings were changed: it is done already. And once more after something happened: a third key.
        done = self.server.folder / "third.kek"
        self.done("keys", "rotate", "all", "--key-file", done, "--make")
        self.assertIn("under new keys already", text(self.done("keys", "rotate", "all", "--key-file", done, "--make")))
        self.server.change({"RM_KEK_FILE": str(done)})
        self.assertIn("under new keys already", text(self.done("keys", "rotate", "all")))
        self.assertEqual(self.contents(), before)

    def test_a_file_that_was_rolled_back_to_the_moment_after_is_not_anchored_as_a_run_that_was_cut_off(self):
        self.fill(5)
        new, old = self.server.folder / "new.kek", self.server.kek
        self.done("keys", "rotate", "all", "--key-file", new, "--make")
        self.server.change({"RM_KEK_FILE": str(new)})
        moment = self.server.data.read_bytes()
        self.fill(5)
        whole, anchor = self.server.data.read_bytes(), self.server.anchor.read_bytes()
        self.server.data.write_bytes(moment)
        self.assertEqual(self.server.run("serve").returncode, ANCHOR)
        for arguments, settings in (((), {}), (("--key-file", new), {"RM_KEK_FILE": str(old)})):
            done = self.done("keys", "rotate", "all", *arguments, code=ANCHOR, **settings)
            self.assertIn("rolled back", text(done))
            self.assertEqual(self.server.anchor.read_bytes(), anchor)
        self.server.data.write_bytes(whole)
        # Nor is an anchor made where there should be one.
        self.server.anchor.unlink()
        self.done("keys", "rotate", "all", "--key-file", new, code=ANCHOR, RM_KEK_FILE=str(old))
        self.assertFalse(self.server.anchor.exists())
        self.server.anchor.write_bytes(anchor)
        said = text(self.done("keys", "rotate", "all", "--key-file", new, RM_KEK_FILE=str(old)))
        self.assertNotIn("nothing happened", said)
        self.done("verify")

    def test_what_else_was_kept_is_named_and_a_copy_made_as_evidence_is_not_touched(self):
        self.fill(5)
        self.done("keys", "rotate", "all")
        [first] = self.kept()
        copy = first.with_name(first.name + "-evidence")
        shutil.copy(first, copy)
        image = copy.read_bytes()
        said = text(self.done("keys", "rotate", "all", "--wipe-old"))
        self.assertIn(f"{copy}: is there too", said)
        self.assertEqual((self.kept(), copy.read_bytes()), ([copy], image))
        # As when the service was started between a run that was cut off and the next: the file of before the first is not the one that is wiped.
        self.fill(5)
        said = text(self.done("keys", "rotate", "all", "--wipe-old"))
        self.assertIn(f"{copy}: is there too", said)
        self.assertEqual((self.kept(), copy.read_bytes()), ([copy], image))

    def test_a_wipe_that_was_cut_off_is_told_of_and_ended_by_the_next_run_or_start(self):
        """Between its keys' end and its own the old file had the name of evidence: nothing told of it, and no run found it again."""
        self.fill(5)
        self.done("keys", "rotate", "all")
        [old] = self.kept()
        copy, wiping = old.with_name(old.name + "-evidence"), old.with_name(old.name + ".wiping")
        shutil.copy(old, copy)
        old.rename(wiping)
        whole = self.server.data.read_bytes()
        self.server.data.write_bytes(b"")
        for command in (("serve",), ("keys", "rotate", "all", "--wipe-old")):
            self.assertNotEqual(self.server.run(*command).returncode, 0)
        self.assertCountEqual(self.kept(), [copy, wiping], "what took its place does not open: it may be the last that is whole")
        self.server.data.write_bytes(whole)
        self.server.start()
        self.assertEqual(self.kept(), [copy], "the next start")
        self.assertIn(b"wiped and removed", bytes(self.server.output))
        shutil.copy(copy, wiping)
        with open(wiping, "r+b") as file:
            file.write(b"\0" * 40960)
        status = json.loads(self.server.run("status", "--json").stdout)
        self.assertIn(f"{wiping} was to be wiped", " ".join(status["problems"]))
        self.server.stop()
        for arguments in (("doctor",), ("status",)):
            self.assertIn(f"{wiping}", text(self.server.run(*arguments)))
        self.assertIn(str(wiping), text(self.done("keys", "rotate", "all", "--wipe-old")))
        self.assertEqual(self.kept(), [copy], "the next run")

    def test_backups_that_all_hold_the_keys_of_before_are_told_of_until_there_is_another(self):
        def told():
            asked = [text(self.server.run(command)) for command in ("status", "doctor")]
            self.assertEqual(*("holds the keys of before" in said for said in asked))
            return "holds the keys of before" in asked[0]

        self.fill(5)
        self.done("keys", "rotate", "all")
        self.assertFalse(told(), "there is no backup at all")
        self.done("backup", "make", self.server.folder / "before.backup")
        self.assertFalse(told())
        self.done("keys", "rotate", "all")
        self.assertTrue(told())
        self.server.start()
        self.assertIn("holds the keys of before", " ".join(json.loads(self.server.run("status", "--json").stdout)["problems"]))
        self.server.stop()
        self.done("backup", "make", self.server.folder / "later.backup")
        self.assertFalse(told())

    def test_a_damaged_file_or_a_full_disk_changes_nothing(self):
        self.fill(10)
        whole = self.server.data.read_bytes()
        with open(self.server.data, "r+b") as file:
            file.truncate(1 << 43)  # a hole; more than any disk has left
        done = self.server.run("keys", "rotate", "all")
        self.assertEqual(done.returncode, DISK_FULL, text(done))
        self.assertIn("bytes are needed", text(done))
        self.server.data.write_bytes(whole)
        at = len(whole) // 4608
        hits = 0
        for block in range(9, at, max(1, at // 25)):
            damaged = bytearray(whole)
            damaged[40960 + block * 4608 + 100: 40960 + block * 4608 + 110] = b"\0" * 10
            self.server.data.write_bytes(damaged)
            done = self.server.run("keys", "rotate", "all")
            if done.returncode == 0:  # a free page
                for path in self.kept():
                    path.unlink()
            else:
                hits += 1
                self.assertEqual(self.kept(), [])
        self.assertGreater(hits, 0)

    def test_an_older_backup_comes_back_with_its_keys_and_only_if_the_operator_says_so(self):
        self.fill(10)
        backup = self.server.folder / "before.backup"
        self.done("erase", "subject", "patient 3", "--yes")
        self.done("backup", "make", backup)
        before = self.contents()
        self.done("keys", "rotate", "all")
        after = self.server.folder / "after.backup"
        self.done("backup", "make", after)
        self.done("restore", backup, "--to", self.server.folder / "aside.db")
        self.done("restore", backup, code=ANCHOR)
        self.done("restore", backup, "--forget-erasures", code=OLDER)
        self.done("restore", backup, "--discard-newer", "--forget-erasures")
        self.assertEqual(self.contents(), before)
        self.done("keys", "rotate", "all")
        self.done("verify")
        self.done("restore", after, "--discard-newer", "--forget-erasures")
        self.assertEqual(self.contents(), before)
        self.done("verify")

    def test_a_kill_at_any_moment_leaves_the_old_file_or_the_new_one_and_the_same_command_ends_it(self):
        self.fill(RECORDS)
        self.done("erase", "subject", "patient 1", "--yes")
        before, first = self.contents(), self.log_key()
        whole = {path: path.read_bytes() for path in (self.server.data, self.server.anchor, pathlib.Path(f"{self.server.anchor}.erased"), self.server.kek)}
        new = self.server.folder / "new.kek"
        began = time.monotonic()
        self.done("keys", "rotate", "all", "--key-file", new, "--make")
        took, ends = time.monotonic() - began, {"old": 0, "new": 0}
        for point in range(POINTS):
            for path in [*self.kept(), new]:
                path.unlink()
            for path, content in whole.items():
                path.write_bytes(content)
            self.server.change({"RM_KEK_FILE": str(self.server.kek)})
            command = [str(BINARY), "keys", "rotate", "all", "--key-file", str(new), "--make", *(["--wipe-old"] if point % 2 else [])]
            asked = subprocess.Popen(command, env=self.server.environment(), cwd=self.server.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            # The steps are near the end: renaming, list, anchor, wiping.
            time.sleep(took * (random.random() * 1.1 if point % 2 else 0.85 + random.random() * 0.25))
            asked.kill()
            asked.wait(60)
            # Whichever file is in place serves with its own key, and has everything.
            opens = self.server.run("verify", "--json")
            there = "new" if opens.returncode == KEK_WRONG else "old"
            ends[there] += 1
            settings = {"RM_KEK_FILE": str(new)} if there == "new" else {}
            if point % 3 == 0:
                self.assertEqual(self.contents(**settings), before, there)
            else:
                self.done("verify", **settings)
            self.done("keys", "rotate", "all", *command[4:])
            self.server.change({"RM_KEK_FILE": str(new)})
            self.assertEqual(self.contents(), before)
            self.assertNotEqual(self.log_key(), first)
            self.assertLessEqual(len(self.kept()), 1 + (there == "new" and point % 3 == 0))
            left = [*self.server.folder.glob("*.new"), *self.server.anchor.parent.glob("*.next")]
            self.assertEqual(left, [])
        bundle = self.server.folder / "log.ndjson"
        self.done("audit", "export", bundle)
        self.done("verify", "--log", bundle, "--key", first)
        print(f"kill -9 during keys rotate all: {POINTS} points, {ends['old']} left the old file, {ends['new']} the new one", flush=True)


if __name__ == "__main__":
    unittest.main()
