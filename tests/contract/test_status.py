"""How the instance says it stands: at its console, over HTTP, and read from the file while nothing runs; and what else an operator meets:
memory that stays out of swap, disks that are full or read-only, a wrong clock, folders that cannot be written to."""

import json
import os
import pathlib
import re
import subprocess
import tempfile
import time
import unittest

from rosemary_server import Server, digest, text

FOUND, UNAVAILABLE, LOCKED, CONFIG, FULL, FOLDER, PERMISSION = 1, 69, 84, 78, 85, 91, 77
OTHER = "other@clinic.example"


class Case(unittest.TestCase):
    def setUp(self):
        self.server = Server(users=(OTHER,))
        self.addCleanup(self.server.remove)
        self.server.init()

    def status(self, code=0, **settings):
        done = self.server.run("status", "--json", **settings)
        self.assertEqual(done.returncode, code, text(done))
        return json.loads(done.stdout)


class Status(Case):
    def test_a_stopped_instance_is_looked_at_without_a_byte_written(self):
        before = digest(self.server.data)
        found = self.status(code=FOUND)
        self.assertEqual((found["state"], found["uptime_seconds"], found["connections"]["open"]), ("stopped", None, None))
        self.assertIn("the service is stopped", found["problems"])
        self.assertGreater(found["log"]["entries"], 0)
        self.assertEqual(found["anchor"]["entries_behind"], 0)
        shown = self.server.run("status")
        self.assertEqual(shown.returncode, FOUND)
        self.assertIn(found["log"]["id"], text(shown))
        self.assertIn("PROBLEM", text(shown))
        self.assertEqual(digest(self.server.data), before)

    def test_the_console_and_the_api_of_a_running_service_say_the_same(self):
        self.server.start()
        with self.server.client(self.server.owner_key) as owner:
            owner.remember()
            over_http = owner.get("/api/v1/status").expect(200).json
            at_console = self.status()
            changing = {"at", "uptime_seconds", "log", "anchor", "space", "connections", "index"}
            self.assertEqual({k: v for k, v in over_http.items() if k not in changing}, {k: v for k, v in at_console.items() if k not in changing})
            self.assertEqual((over_http["state"], over_http["problems"], over_http["connections"]["open"]), ("answering", [], 1))
            self.assertGreater(over_http["log"]["entries"], 1)
        self.assertIn("answering", text(self.server.run("status")))
        # One that has a console elsewhere cannot be asked, and the file is in use: said by name.
        done = self.server.run("status", RM_CONSOLE_SOCKET=str(self.server.folder / "none.sock"))
        self.assertEqual(done.returncode, LOCKED)
        self.assertIn("RM_CONSOLE_SOCKET", text(done))

    def test_agents_and_other_people_are_not_told(self):
        self.server.start()
        with self.server.client(self.server.user_keys[OTHER]) as other, self.server.agent("cursor") as agent:
            other.get("/api/v1/status").expect(403)
            agent.get("/api/v1/status").expect(403)

    def test_what_asks_for_attention_is_named(self):
        folder = self.server.folder / "backups"
        folder.mkdir(mode=0o700)
        self.server.change({"RM_BACKUP_DIR": folder})
        self.assertIn("there is no backup yet", self.status(code=FOUND)["problems"])
        made = self.server.run("backup", "make")
        backup = pathlib.Path(made.stdout.decode().strip())
        found = self.status(code=FOUND)
        self.assertEqual(found["problems"], ["the service is stopped"])
        self.assertEqual(found["backup"]["last"]["id"][:8], backup.stem[-8:])
        self.assertEqual(self.server.run("backup", "drill").returncode, 0)
        drill = self.status(code=FOUND)["drill"]
        self.assertTrue(drill["last"]["passed"] and drill["last"]["restore_ms"] < drill["restore_ms_max"] == 72 * 3_600_000)
        body = bytearray(backup.read_bytes())
        for at in range(40960 + 2000, len(body), 4608):
            body[at] ^= 1
        backup.write_bytes(body)
        self.server.run("backup", "drill")
        self.assertTrue(any("drill" in problem and "FAILED" in problem for problem in self.status(code=FOUND)["problems"]))
        self.server.anchor.write_text("nonsense")
        self.assertTrue(any("anchor" in problem for problem in self.status(code=FOUND)["problems"]))

    def test_a_locked_service_says_that_it_is_locked(self):
        self.server.change({"RM_KEK_FILE": None, "RM_SEALED_START": "on"})
        self.server.start()
        found = self.status(code=FOUND)
        self.assertEqual(found["state"], "locked")
        self.assertIn("rosemary unlock", found["problems"][0])

    def test_memory_is_locked_when_asked_for(self):
        self.server.change({"RM_LOCK_MEMORY": "on"})
        try:
            self.server.start()
        except AssertionError:
            # A machine that does not allow it: refused by name, with what to do.
            self.assertIn(b"RM_LOCK_MEMORY: the kernel refused", bytes(self.server.output))
            self.assertIn(b"LimitMEMLOCK", bytes(self.server.output))
            return
        locked = re.search(r"VmLck:\s+(\d+) kB", pathlib.Path(f"/proc/{self.server.process.pid}/status").read_text())
        self.assertGreater(int(locked[1]), 1000)
        self.assertTrue(self.status()["memory_locked"])
        with self.server.client(self.server.owner_key) as owner:
            owner.remember()
            owner.post("/api/v1/memories/search", {"query": "content"}).expect(200)


@unittest.skipUnless(os.geteuid() == 0, "mounts need root")
class Disks(Case):
    """A disk of its own, in memory, that can be filled or made read-only."""

    def setUp(self):
        super().setUp()
        self.mount = pathlib.Path(tempfile.mkdtemp(prefix="rosemary-disk-"))
        self.addCleanup(self.mount.rmdir)
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160m,mode=0700", "none", str(self.mount)], capture_output=True, check=False)
        if done.returncode != 0:
            self.skipTest("this machine mounts nothing")
        self.addCleanup(subprocess.run, ["umount", "-l", str(self.mount)], check=False)

    def moved(self):
        """The data file lies on the disk from here on."""
        for name in ("memory.db", "cert.pem", "key.pem"):
            (self.mount / name).write_bytes((self.server.folder / name).read_bytes())
            (self.mount / name).chmod(0o600)
        self.server.change({"RM_DB_PATH": self.mount / "memory.db"})

    def test_a_full_disk_refuses_writes_keeps_reads_and_recovers(self):
        self.moved()
        self.server.start()
        with self.server.client(self.server.owner_key) as owner:
            kept = owner.remember("kept", "before the disk was full")
            filler = self.mount / "filler"
            free = os.statvfs(self.mount)
            with open(filler, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - (4 << 20))
            seen = set()
            for number in range(4000):
                answer = owner.post("/memories", {"title": f"n{number}", "content": "x" * 20_000, "tags": []})
                seen.add(answer.status)
                if answer.status == 507:
                    break
            self.assertIn(507, seen)
            self.assertEqual(owner.get(f"/memories/{kept['id']}").expect(200).json, kept)
            found = self.status(code=FOUND)
            self.assertFalse(found["space"]["writes"])
            self.assertTrue(any("disk" in problem for problem in found["problems"]))
            filler.unlink()
            # Room again: it is looked for once a second.
            end = time.monotonic() + 60
            while owner.post("/memories", {"title": "after", "content": "c", "tags": []}).status != 201:
                self.assertLess(time.monotonic(), end, "room is not found again")
                time.sleep(0.1)
        self.assertEqual(self.server.stop(), 0)
        self.assertEqual(self.server.run("verify").returncode, 0)

    def test_a_backup_that_does_not_fit_is_refused_before_it_begins(self):
        filler = self.mount / "filler"
        free = os.statvfs(self.mount)
        with open(filler, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - (1 << 20))
        done = self.server.run("backup", "make", str(self.mount / "x.backup"))
        self.assertEqual(done.returncode, FULL, text(done))
        self.assertIn("free", text(done))
        self.assertEqual(sorted(path.name for path in self.mount.iterdir()), ["filler"])
        done = self.server.run("init", RM_DB_PATH=str(self.mount / "another.db"), RM_ANCHOR_FILE=None)
        self.assertIn(done.returncode, (0, FULL), text(done))

    def test_a_read_only_disk_is_named_and_nothing_is_lost(self):
        self.moved()
        before = digest(self.mount / "memory.db")
        subprocess.run(["mount", "-o", "remount,ro", str(self.mount)], check=True)
        for command in (("key", "list"), ("serve",)):
            done = self.server.run(*command, RM_CONSOLE_SOCKET=str(self.server.folder / "console.sock"))
            self.assertIn(done.returncode, (FOLDER, PERMISSION), text(done))
            self.assertIn("memory.db", text(done))
            self.assertNotIn("panicked", text(done))
        # What only reads goes on.
        self.assertEqual(self.server.run("verify").returncode, 0)
        subprocess.run(["mount", "-o", "remount,rw", str(self.mount)], check=True)
        self.assertEqual(digest(self.mount / "memory.db"), before)
        self.assertEqual(self.server.run("key", "list").returncode, 0)

    def test_a_folder_that_cannot_be_written_to_is_named(self):
        subprocess.run(["mount", "-o", "remount,ro", str(self.mount)], check=True)
        done = self.server.run("init", RM_DB_PATH=str(self.mount / "new.db"), RM_ANCHOR_FILE=None)
        self.assertEqual(done.returncode, FOLDER, text(done))
        self.assertIn(str(self.mount), text(done))
        # No folder for the console: a service serves without one, and says so.
        self.server.change({"RM_CONSOLE_SOCKET": self.mount / "console.sock"})
        self.server.start()
        self.assertIn(b"there is no console; name a path in a folder of the service's user", bytes(self.server.output))
        with self.server.client(self.server.owner_key) as owner:
            kept = owner.remember()
        self.assertEqual(self.server.stop(), 0)
        # A locked one could never be unlocked: it says so and does not start.
        done = self.server.run("serve", RM_SEALED_START="on", RM_KEK_FILE=None)
        self.assertEqual(done.returncode, UNAVAILABLE, text(done))
        for said in ("RM_CONSOLE_SOCKET", str(self.mount / "console.sock"), "name a path in a folder of the service's user"):
            self.assertIn(said, text(done))
        self.server.change({"RM_CONSOLE_SOCKET": None})
        self.server.start()
        with self.server.client(self.server.owner_key) as owner:
            owner.get(f"/memories/{kept['id']}").expect(200)


if __name__ == "__main__":
    unittest.main()
