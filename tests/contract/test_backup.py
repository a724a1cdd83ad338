"""Backups and restores: what was written comes back, whole; wrong, damaged, foreign and older backups are refused by name; kill -9 at any
moment of a backup, a restore or an upgrade loses nothing, and the same command run again ends it.

Short form: a few random points of each. Long form (ROSEMARY_LONG=1): 200 points of each, and backups of 1,000,000 memories (ROSEMARY_MEMORIES for
another number) while others write.
"""

import array
import json
import multiprocessing
import os
import pathlib
import random
import re
import secrets
import shutil
import statistics
import subprocess
import sys
import time
import unittest
from datetime import date

from rosemary_server import BINARY, LONG, ROOT, Server, digest, key_in, text, write_private

POINTS = 200 if LONG else 5
RECORDS = 3000 if LONG else 600
MEMORIES = int(os.environ.get("ROSEMARY_MEMORIES", "1000000"))
WRITERS, ROUNDS, WINDOW_SECONDS = 16, 3, 20
LOSS_MAX, GROWTH_MAX = 0.35, 64 << 20
NO_INPUT, EXISTS, KEK_WRONG, KEK_MISSING, SUPERBLOCK, LOCKED, ANCHOR, DAMAGED, TENANT, FOLDER, INSTANCE, OLDER = 66, 73, 80, 81, 82, 84, 86, 88, 89, 91, 93, 94
RELEASED = ROOT / "tests/vectors/released"


class Case(unittest.TestCase):
    def setUp(self):
        self.server = Server()
        self.addCleanup(self.server.remove)
        self.folder = self.server.folder / "backups"
        self.folder.mkdir(mode=0o700)
        self.server.change({"RM_BACKUP_DIR": self.folder})
        self.server.init()

    def fill(self, count=40):
        lines = [json.dumps({"title": f"note {n}", "content": f"{n} " + secrets.token_hex(150), "tags": [f"t{n % 7}"],
                             **({"subject": f"patient {n % 20}"} if n % 2 else {})}) for n in range(count)]
        path = self.server.folder / "in.ndjson"
        path.write_text("\n".join(lines))
        self.done("import", str(path))

    def done(self, *arguments, code=0, **settings):
        done = self.server.run(*arguments, timeout=600, **settings)
        self.assertEqual(done.returncode, code, text(done))
        self.assertNotIn("panicked", text(done))
        return done

    def make(self, *arguments, **settings):
        return pathlib.Path(self.done("backup", "make", *arguments, **settings).stdout.decode().strip())

    def contents(self, **settings):
        """Every memory of the owner without its ids and times: what a restore must give back."""
        lines = self.done("export", "-", **settings).stdout.decode().splitlines()
        return sorted((r["title"], r["content"], tuple(r["tags"]), r.get("subject"), r["id"], r["created_at"]) for r in map(json.loads, lines))

    def said(self, done, *words):
        for word in words:
            self.assertIn(str(word), text(done))


class Backup(Case):
    def test_a_backup_gives_back_every_memory_and_key_and_the_log_goes_on(self):
        self.fill()
        before = self.contents()
        backup = self.make()
        self.assertEqual(backup.stat().st_mode & 0o777, 0o600)
        self.assertEqual(len(list(self.folder.iterdir())), 1)
        self.done("backup", "verify", str(backup))
        listed = json.loads(self.done("backup", "list", "--json").stdout)["backups"]
        self.assertEqual([(b["state"], b["bytes"]) for b in listed], [("done", backup.stat().st_size)])
        self.server.data.unlink()
        self.server.anchor.unlink()
        told = json.loads(self.done("restore", str(backup), "--json").stdout)
        self.assertEqual((told["memories"], told["replaced"]), (len(before), None))
        self.assertEqual(self.contents(), before)
        self.done("verify")
        # The old log is in the file, and line 0 of the new one names its end.
        bundle = self.server.folder / "log.ndjson"
        self.done("audit", "export", str(bundle))
        first = json.loads(bundle.read_text().splitlines()[0])
        self.assertEqual((first["op"], first["i"]), ("system.restore", 0))
        self.assertEqual((first["det"]["log"], first["det"]["size"]), (told["past_log"], told["past_entries"]))
        self.assertEqual(first["det"]["file"], listed[0]["id"])
        # It serves, with the key that was shown at the beginning.
        self.server.start()
        with self.server.client(self.server.owner_key) as owner:
            owner.remember("after", "the restore")
        self.assertEqual(self.server.stop(), 0)
        again = self.make()
        self.done("restore", str(again), "--discard-newer")
        self.assertEqual(len(self.contents()), len(before) + 1)
        self.done("verify")

    def test_a_backup_under_its_own_key_opens_with_that_key_alone(self):
        self.fill(5)
        before = self.contents()
        key = self.server.folder / "backup-key"
        write_private(key, secrets.token_bytes(32))
        own = {"RM_BACKUP_KEY_FILE": key}
        backup = self.make(**own)
        self.said(self.done("backup", "verify", str(backup), code=KEK_WRONG), backup.name)
        self.done("backup", "verify", str(backup), **own)
        # The backup key opens the backup and not the data file, from which the backup was made.
        self.done("verify", code=KEK_WRONG, RM_KEK_FILE=key)
        # On a machine that has lost everything else: the restored file gets a new key, which alone opens it.
        self.server.data.unlink()
        self.server.anchor.unlink()
        fresh = {**own, "RM_KEK_FILE": self.server.folder / "new-kek"}
        self.said(self.done("restore", str(backup), **fresh), "made the key file")
        self.assertEqual(self.contents(**fresh), before)
        self.done("verify", code=KEK_WRONG)
        self.done("verify", code=KEK_WRONG, RM_KEK_FILE=key)
        # A key named on the command line does as well.
        self.done("backup", "verify", str(backup), "--key", str(key))

    def test_older_data_over_newer_is_refused_unless_asked_for(self):
        self.fill(5)
        backup = self.make()
        self.fill(3)
        newer = self.contents()
        bytes_before = digest(self.server.data)
        refused = self.done("restore", str(backup), code=OLDER)
        self.said(refused, "audit entries that were written after this backup", "--discard-newer")
        self.assertEqual(digest(self.server.data), bytes_before, "a refused restore changes nothing")
        told = json.loads(self.done("restore", str(backup), "--discard-newer", "--json").stdout)
        kept = pathlib.Path(told["replaced"])
        self.assertEqual(digest(kept), bytes_before, "what was replaced is kept")
        self.assertEqual(len(self.contents()), 5)
        entry = json.loads(self.done("audit", "export", "-").stdout.splitlines()[0])
        self.assertEqual((entry["reason"], entry["det"]["setting"]), ("override", "newer"))
        # What was replaced still opens, with another anchor, and holds what was newer.
        self.assertEqual(self.contents(RM_DB_PATH=kept, RM_ANCHOR_FILE=None), newer)
        # The data file gone, the anchor alone knows that there was more.
        self.server.data.unlink()
        self.said(self.done("restore", str(backup), code=OLDER), "RM_ANCHOR_FILE")
        self.done("restore", str(backup), "--discard-newer")
        self.done("verify")

    def test_wrong_damaged_and_foreign_backups_are_named(self):
        self.fill(5)
        backup = self.make()
        before = digest(self.server.data)
        other = self.server.folder / "other.backup"
        body = bytearray(backup.read_bytes())

        def refused(content, code, *words):
            other.write_bytes(content)
            for command in (["restore", str(other), "--discard-newer"], ["restore", str(other), "--to", str(self.server.folder / "aside.db")]):
                self.said(self.done(*command, code=code), other.name, *words)
            self.assertEqual(digest(self.server.data), before)
            self.assertFalse((self.server.folder / "aside.db").exists())

        refused(b"", SUPERBLOCK, "not a backup")
        refused(secrets.token_bytes(100_000), SUPERBLOCK, "not a backup")
        refused(body[:-20_000], DAMAGED, "damaged")
        both = bytearray(body)
        both[100] ^= 1
        both[4196] ^= 1
        refused(both, DAMAGED, "superblock")
        flipped = bytearray(body)
        for at in range(40960 + 2000, len(flipped), 4608):
            flipped[at] ^= 1
        refused(flipped, DAMAGED, "damaged")
        self.said(self.done("backup", "verify", str(self.server.folder / "none"), code=NO_INPUT), "no such file", "backup list")
        self.said(self.done("restore", str(backup), code=TENANT, RM_TENANT_ID="another"), "RM_TENANT_ID")
        self.said(self.done("restore", str(backup), "--to", str(self.server.data), code=EXISTS), "exists")
        self.said(self.done("verify", "--json", code=0), "sound")
        # A backup is not served, and another instance's data makes no way for it.
        self.said(self.done("key", "list", code=NO_INPUT, RM_DB_PATH=backup, RM_ANCHOR_FILE=None), "rosemary restore")
        with Server(settings={"RM_ANCHOR_FILE": None}) as stranger:
            stranger.stop()
            done = stranger.run("restore", str(backup), "--discard-newer", "--key", str(self.server.kek))
            self.assertEqual(done.returncode, INSTANCE, text(done))
            self.said(done, "instance", "--to")
        # In use.
        self.server.start()
        self.said(self.done("restore", str(backup), "--discard-newer", code=LOCKED), "in use")
        self.server.stop()

    def test_a_damaged_data_file_is_replaced_only_when_asked_for_and_kept(self):
        self.fill(5)
        backup, before = self.make(), self.contents()
        self.server.anchor.unlink()
        broken = bytearray(self.server.data.read_bytes())
        broken[100] ^= 1
        broken[4196] ^= 1
        self.server.data.write_bytes(broken)
        self.said(self.done("restore", str(backup), code=OLDER), "does not open", "--discard-newer")
        told = json.loads(self.done("restore", str(backup), "--discard-newer", "--json").stdout)
        self.assertEqual(pathlib.Path(told["replaced"]).read_bytes(), broken)
        self.assertEqual(self.contents(), before)

    def test_a_place_that_cannot_be_written_to_is_named_and_leaves_a_failed_row(self):
        self.said(self.done("backup", "make", str(self.folder / "none/x.backup"), code=FOLDER), self.folder / "none", "must exist")
        # A name that no file system takes: found out after the backup was begun.
        self.said(self.done("backup", "make", str(self.folder / ("x" * 300)), code=FOLDER), "cannot be made")
        listed = json.loads(self.done("backup", "list", "--json").stdout)["backups"]
        self.assertEqual([b["state"] for b in listed], ["failed"])
        self.said(self.done("backup", "make", str(self.server.data), code=EXISTS), "exists")


class Serving(Case):
    """The running service makes its own backups, removes old ones, and proves by drills that they can be restored."""

    def until(self, what, seconds=60):
        """Asks for the list of backups until `what` holds for it."""
        end = time.monotonic() + seconds
        while True:
            with self.server.client(self.server.owner_key) as owner:
                found = owner.get("/api/v1/backups").expect(200).json
            if what(found):
                return found
            self.assertLess(time.monotonic(), end, found)
            time.sleep(0.1)

    def test_it_backs_up_when_due_or_asked_drills_and_says_so(self):
        self.fill()
        before = self.contents()
        self.server.change({"RM_BACKUP_KEEP_DAYS": 30})
        self.server.start()
        found = self.until(lambda found: "last_drill" in found)
        self.assertEqual([b["state"] for b in found["backups"]], ["done"])
        drill = found["last_drill"]
        self.assertEqual((drill["passed"], drill["memories"], drill["backup"]), (True, len(before), found["backups"][0]["id"]))
        self.assertGreater(drill["restore_ms"], 0)
        begun, kept = (found["backups"][0][k][:10] for k in ("begun_at", "expires_at"))
        self.assertEqual((date.fromisoformat(kept) - date.fromisoformat(begun)).days, 30)
        with self.server.client(self.server.owner_key) as owner:
            owner.remember("later", "than the first backup")
            owner.post("/api/v1/backups").expect(202)
        found = self.until(lambda found: [b["state"] for b in found["backups"]] == ["done", "done"])
        self.assertEqual(self.server.stop(), 0)
        files = sorted(path.name for path in self.folder.iterdir())
        self.assertEqual(len(files), 2, files)
        newest = next(self.folder / name for name in files if found["backups"][1]["id"][:8] in name)
        self.done("restore", str(newest), "--discard-newer")
        self.assertEqual(len(self.contents()), len(before) + 1)
        # Every step is in the log that ended, and the drill by hand agrees.
        self.said(self.done("backup", "drill"), "passed", f"{len(before) + 1} memories")

    def test_agents_and_other_people_neither_see_nor_ask_for_backups(self):
        made = self.done("key", "make", "--user", "second@clinic.example")
        self.server.start()
        with self.server.client(key_in(made.stdout)) as second, self.server.agent("cursor") as agent:
            for client in (second, agent):
                client.get("/api/v1/backups").expect(403)
                client.post("/api/v1/backups").expect(403)
        self.server.stop()
        self.server.change({"RM_BACKUP_DIR": None})
        self.server.start()
        with self.server.client(self.server.owner_key) as owner:
            refused = owner.post("/api/v1/backups").expect(409)
            self.assertIn("RM_BACKUP_DIR", refused.json["error"])

    def test_a_plain_copy_of_the_data_file_is_called_one(self):
        copy = self.server.folder / "copy.db"
        shutil.copy(self.server.data, copy)
        self.said(self.done("backup", "verify", str(copy)), "a copy of a data file, not a backup")
        self.said(self.done("restore", str(copy), "--to", str(self.server.folder / "aside.db")), "a copy of a data file, not a backup")
        self.done("backup", "make", str(self.server.folder / "real"))
        self.assertNotIn("copy of a data file", text(self.done("backup", "verify", str(self.server.folder / "real"))))

    def test_a_backup_made_elsewhere_does_not_make_the_drill_fail(self):
        # The drill took the newest that was known, and looked for it in the folder.
        self.done("backup", "make")
        self.done("backup", "make", str(self.server.folder / "elsewhere.backup"))
        self.said(self.done("backup", "drill"), "passed")

    def test_a_drill_with_a_damaged_backup_fails_and_is_on_record(self):
        self.fill(5)
        backup = self.make()
        body = bytearray(backup.read_bytes())
        for at in range(40960 + 2000, len(body), 4608):
            body[at] ^= 1
        backup.write_bytes(body)
        self.said(self.done("backup", "drill", code=DAMAGED), "drill failed", "damaged")
        listed = json.loads(self.done("backup", "list", "--json").stdout)
        self.assertEqual(listed["last_drill"]["passed"], False)
        self.assertEqual([path.name for path in self.folder.iterdir()], [backup.name])
        self.server.change({"RM_BACKUP_DIR": self.server.folder / "none"})
        self.said(self.done("doctor", code=1), "RM_BACKUP_DIR")


class Released(Case):
    """A file of every released version opens, says what it held, and can be backed up and restored by this one."""

    def settings(self, version):
        folder = self.server.folder / version
        folder.mkdir()
        data, kek = folder / "memory.db", folder / "kek"
        shutil.copy(RELEASED / f"{version}.db", data)
        write_private(kek, (RELEASED / f"{version}.kek").read_bytes())
        return {"RM_DB_PATH": data, "RM_KEK_FILE": kek, "RM_TENANT_ID": "ward-3", "RM_ANCHOR_FILE": None}

    def test_every_released_format_opens_and_is_restored(self):
        versions = sorted(path.stem for path in RELEASED.glob("*.db"))
        self.assertIn("0.1.0", versions)
        for version in versions:
            with self.subTest(version=version):
                settings = self.settings(version)
                # As it was written, before anything is made anew in it.
                backup = None
                self.done("verify", **settings)
                for _ in range(2):
                    records = {r[0]: r for r in self.contents(**settings)}
                    self.assertEqual(sorted(records), ["Dana: intake", "Ward rule", "reply"])
                    self.assertEqual(records["Dana: intake"][1:4], ("arrived by ambulance, stable", ("intake", "ward-3"), "patient-1"))
                    self.done("verify", **settings)
                    backup = self.make(**settings)
                    self.done("restore", str(backup), "--discard-newer", **settings)

    def test_a_newer_format_is_refused_and_left_alone(self):
        settings = self.settings("0.1.0")
        data = settings["RM_DB_PATH"]
        body = bytearray(data.read_bytes())
        body[8] = body[4104] = 9
        data.write_bytes(body)
        self.said(self.done("key", "list", code=83, **settings), "newer")
        self.assertEqual(data.read_bytes(), body)

    def test_kill_at_random_points_of_an_upgrade_loses_nothing(self):
        settings = self.settings("0.1.0")
        data = settings["RM_DB_PATH"]
        original = data.read_bytes()
        began = time.monotonic()
        self.done("key", "list", **settings)
        took = time.monotonic() - began
        held = sum(1 for _ in self.contents(**settings))
        for point in range(POINTS):
            data.write_bytes(original)
            interrupted(self.server, took, point, "key", "list", **settings)
            self.done("verify", **settings)
            self.assertEqual(len(self.contents(**settings)), held)


def interrupted(server, took, point, *arguments, **settings):
    """Runs a command and kills it somewhere in its time. Whether it was still running."""
    process = subprocess.Popen([str(BINARY), *arguments], env=server.environment(settings), cwd=server.folder, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    time.sleep(took * random.Random(f"{arguments[0]} {point}").uniform(0.0, 1.05))
    running = process.poll() is None
    process.kill()
    process.wait()
    return running


class Interrupted(Case):
    def test_kill_at_random_points_of_a_backup_leaves_no_false_backup(self):
        self.fill(RECORDS)
        before = len(self.contents())
        began = time.monotonic()
        self.make()
        took, cut = time.monotonic() - began, 0
        for point in range(POINTS):
            cut += interrupted(self.server, took, point, "backup", "make")
            # What has the name of a backup is one; the data file is sound whatever happened.
            for path in self.folder.glob("*.backup"):
                self.done("backup", "verify", str(path))
            if point % (10 if LONG else 1) == 0:
                self.done("verify")
            last = self.make()
            rows = json.loads(self.done("backup", "list", "--json").stdout)["backups"]
            self.assertNotIn("begun", [row["state"] for row in rows], "the next backup settles what was cut off")
            done = {row["id"][:8] for row in rows if row["state"] == "done"}
            self.assertIn(last.stem[-8:], done)
            for path in self.folder.iterdir():
                self.assertEqual(path.suffix, ".backup", "what was cut off is cleared away")
                self.assertIn(path.stem[-8:], done)
                path.unlink()
        self.assertEqual(len(self.contents()), before)
        self.assertGreater(cut, 0, "no run was cut off: the test proves nothing")

    def test_kill_at_random_points_of_a_restore_is_ended_by_the_next_run(self):
        self.fill(RECORDS)
        before, backup = self.contents(), self.make()
        self.fill(3)
        newer, anchor = self.server.data.read_bytes(), self.server.anchor.read_bytes()
        began = time.monotonic()
        self.done("restore", str(backup), "--discard-newer")
        took, cut = time.monotonic() - began, 0
        for point in range(POINTS):
            for path in self.server.folder.glob("memory.db*"):
                path.unlink()
            self.server.data.write_bytes(newer)
            self.server.data.chmod(0o600)
            self.server.anchor.write_bytes(anchor)
            cut += interrupted(self.server, took, point, "restore", str(backup), "--discard-newer")
            # At no moment is there neither the old file nor the new one, and what was replaced is not lost.
            self.assertTrue(self.server.data.exists())
            old = [p for p in self.server.folder.glob("memory.db*") if not p.name.endswith(".new") and p.read_bytes() == newer]
            self.assertTrue(old, "the file that was to be replaced is lost")
            self.done("restore", str(backup), "--discard-newer")
            self.done("verify")
            self.assertEqual(self.contents(), before)
        self.assertGreater(cut, 0, "no run was cut off: the test proves nothing")


def write_on(server, number, counts, stop, path):
    """One writer, a process of its own: memory after memory on one connection; leaves the audit index of each answer at `path`."""
    head = f"POST /memories HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {server.owner_key}\r\nContent-Type: application/json\r\n"
    indices, words = array.array("Q"), " ".join(secrets.token_hex(3) for _ in range(60))
    with server.socket(timeout=120) as line:
        while not stop.is_set():
            body = json.dumps({"title": f"load {number} {len(indices)}", "content": words, "tags": ["load"]})
            line.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
            answer, size = b"", None
            while size is None or len(answer) < size:
                answer += line.recv(65536)
                if size is None and (end := answer.find(b"\r\n\r\n")) >= 0:
                    size = end + 4 + int(re.search(rb"(?i)\r\ncontent-length: (\d+)", answer)[1])
            assert answer.startswith(b"HTTP/1.1 201 "), answer
            indices.append(int(re.search(rb"(?i)\r\nx-audit-index: (\d+)", answer)[1]))
            counts[number] = len(indices)
    path.write_bytes(indices.tobytes())


@unittest.skipUnless(LONG, "measures for many minutes: ROSEMARY_LONG=1")
class BackupUnderLoad(Case):
    def setUp(self):
        super().setUp()
        # Backups and drills when the test asks for them.
        self.server.change({"RM_BACKUP_EVERY_HOURS": 0, "RM_BACKUP_DRILL_DAYS": 0})

    def done(self, *arguments, code=0, **settings):
        done = self.server.run(*arguments, timeout=3600, **settings)
        self.assertEqual(done.returncode, code, text(done))
        return done

    def fill_many(self):
        draw, path = random.Random(7), self.server.folder / "in.ndjson"
        words = [draw.randbytes(draw.randint(1, 5)).hex() for _ in range(30_000)]
        with path.open("w", encoding="ascii") as file:
            for n in range(MEMORIES):
                content = " ".join(draw.choices(words, k=16))
                file.write(f'{{"title":"note {n}","content":"{content}","tags":["ward-{n % 40}"],"run_id":"run-{n // 10}"}}\n')
        self.done("import", str(path))
        path.unlink()

    def watch(self, until):
        """Writes a second, and the most resident bytes, while `until` gives false."""
        began, before, most = time.monotonic(), sum(self.counts), 0
        while not until():
            most = max(most, self.server.resident_bytes())
            time.sleep(0.2)
        return (sum(self.counts) - before) / (time.monotonic() - began), most

    def quiet(self):
        end = time.monotonic() + WINDOW_SECONDS
        return self.watch(lambda: time.monotonic() > end)

    def backups(self):
        with self.server.client(self.server.owner_key) as owner:
            found = owner.get("/api/v1/backups").expect(200).json["backups"]
        self.assertNotIn("failed", [b["state"] for b in found])
        return [b for b in found if b["state"] == "done"]

    def backup(self):
        """Has one made. Gives what was seen meanwhile, and the seconds it took."""
        known, began = len(self.backups()), time.monotonic()
        with self.server.client(self.server.owner_key) as owner:
            owner.post("/api/v1/backups").expect(202)
        return (*self.watch(lambda: len(self.backups()) > known), time.monotonic() - began)

    def test_writes_go_on_beside_a_backup_which_is_one_commit_in_bounded_memory(self):
        self.fill_many()
        self.server.start()
        fork = multiprocessing.get_context("fork")
        stop, self.counts = fork.Event(), fork.Array("Q", WRITERS, lock=False)
        noted = [self.server.folder / f"writer {n}" for n in range(WRITERS)]
        writers = [fork.Process(target=write_on, args=(self.server, n, self.counts, stop, noted[n])) for n in range(WRITERS)]
        for writer in writers:
            writer.start()
            self.addCleanup(writer.kill)
        self.quiet()
        without, beside = [self.quiet()], []
        for _ in range(ROUNDS):
            beside.append(self.backup())
            without.append(self.quiet())
        stop.set()
        for writer in writers:
            writer.join(120)
            self.assertEqual(writer.exitcode, 0)
        losses = [1 - during / statistics.mean((before, after)) for (before, _), (during, *_), (after, _) in zip(without, beside, without[1:])]
        # Against the windows around each, as the store's own cache fills up meanwhile.
        growth = max(during - max(before, after) for (_, before), (_, during, _), (_, after) in zip(without, beside, without[1:]))
        loss = statistics.median(losses)
        mib = lambda count: f"{count / (1 << 20):.0f}"
        print(f"{MEMORIES} memories, {WRITERS} writers: {', '.join(f'{rate:.0f}' for rate, _ in without)} writes a second without a backup, "
              f"{', '.join(f'{rate:.0f}' for rate, *_ in beside)} beside one, which took {', '.join(f'{took:.0f}' for *_, took in beside)} s: "
              f"{', '.join(f'{part:.0%}' for part in losses)} less. Resident MiB: {', '.join(mib(most) for _, most in without)} without, "
              f"{', '.join(mib(most) for _, most, _ in beside)} beside", file=sys.stderr)

        # The last one: sound, and restored aside it holds what was answered before its last audit entry, and nothing else.
        self.assertEqual(self.server.stop(), 0)
        backup = max(self.folder.glob("*.backup"), key=lambda path: path.stat().st_mtime)
        self.done("backup", "verify", str(backup))
        aside = self.server.folder / "aside.db"
        told = json.loads(self.done("restore", str(backup), "--to", str(aside), "--json").stdout)
        indices = []
        for path in noted:
            indices.append(array.array("Q"))
            indices[-1].frombytes(path.read_bytes())
        expected = {f"load {n} {i}" for n, of in enumerate(indices) for i, index in enumerate(of) if index < told["past_entries"]}
        self.assertGreater(sum(map(len, indices)), len(expected), "nothing was written after it began: the test proves nothing")
        out, before = self.server.folder / "out.ndjson", 0
        self.done("export", str(out), RM_DB_PATH=aside, RM_ANCHOR_FILE=None)
        with out.open(encoding="utf-8") as lines:
            for title in (json.loads(line)["title"] for line in lines):
                if title.startswith("note "):
                    before += 1
                else:
                    expected.remove(title)
        self.assertEqual((before, expected), (MEMORIES, set()))

        # The drill's figure is in the status.
        self.done("backup", "drill")
        drill = json.loads(self.server.run("status", "--json").stdout)["drill"]
        print(f"restored by the drill in {drill['last']['restore_ms'] / 1000:.1f} s of {drill['restore_ms_max'] / 3_600_000:.0f} h; "
              f"file {mib(self.server.data.stat().st_size)} MiB, backup {mib(backup.stat().st_size)}", file=sys.stderr)
        self.assertTrue(drill["last"]["passed"])
        self.assertEqual(drill["last"]["memories"], told["memories"])
        self.assertLessEqual(drill["last"]["restore_ms"], drill["restore_ms_max"])
        self.assertLessEqual(loss, LOSS_MAX)
        self.assertLessEqual(growth, GROWTH_MAX)


if __name__ == "__main__":
    unittest.main()
