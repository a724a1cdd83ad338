"""A wrong clock: in the past or far ahead when the service starts, and set while it runs. Nothing is lost, nothing stops, and it is said.

The clock of the service alone is wrong: a library of a few lines stands before the C library's and adds what a shared file says.
"""

import json
import os
import struct
import subprocess
import tempfile
import time
import unittest

from rosemary_server import Server, text, unique

YEAR = 365 * 24 * 3600
SHIM = r"""
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
static volatile long long *ahead;
__attribute__((constructor)) static void open_file(void) {
    int file = open(getenv("WRONG_CLOCK"), O_RDONLY);
    void *at = file < 0 ? MAP_FAILED : mmap(0, sizeof *ahead, PROT_READ, MAP_SHARED, file, 0);
    if (at != MAP_FAILED) ahead = at;
    if (file >= 0) close(file);
}
int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, clock, now) != 0;
    if (!failed && clock == CLOCK_REALTIME && ahead) now->tv_sec += *ahead;
    return failed ? -1 : 0;
}
"""
SAID = "the clock is behind the log's newest entry, or before this program was made: set it if it is wrong, and keep it by NTP"


class Clock(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        holder = tempfile.TemporaryDirectory(prefix="rosemary-test-")
        cls.addClassCleanup(holder.cleanup)
        source, cls.shim = os.path.join(holder.name, "clock.c"), os.path.join(holder.name, "clock.so")
        with open(source, "w", encoding="ascii") as file:
            file.write(SHIM)
        made = subprocess.run([os.environ.get("CC", "cc"), "-shared", "-fPIC", "-o", cls.shim, source], capture_output=True, check=False)
        if made.returncode != 0:
            raise unittest.SkipTest("no C compiler makes a shared library here")

    def setUp(self):
        self.server = Server().init()
        self.addCleanup(self.server.remove)
        self.file = self.server.folder / "ahead"
        self.file.write_bytes(bytes(8))
        self.server.change({"LD_PRELOAD": self.shim, "WRONG_CLOCK": self.file})
        self.kept = []
        self.ahead(YEAR)
        at = json.loads(self.server.run("status", "--json").stdout)["at"]
        self.ahead(0)
        if not at.startswith(time.strftime("%Y", time.gmtime(time.time() + YEAR))):
            self.skipTest("this program is linked statically: nothing can stand before its clock")

    def ahead(self, seconds):
        with open(self.file, "r+b") as file:
            file.write(struct.pack("=q", seconds))

    def remember(self):
        """One memory more; and every earlier one is as it was."""
        with self.server.client(self.server.owner_key) as owner:
            self.kept.append(owner.remember(unique(), unique()))
            for memory in self.kept:
                self.assertEqual(owner.get(f"/memories/{memory['id']}").expect(200).json["content"], memory["content"])
            self.assertEqual(len(owner.post("/memories/list", {"filter": {"by": "all"}}).expect(200).json["memories"]), len(self.kept))
        return self.kept[-1]["created_at"]

    def steps(self):
        log = self.server.folder / "log.ndjson"
        log.unlink(missing_ok=True)
        self.assertEqual(self.server.run("audit", "export", log).returncode, 0)
        entries = [json.loads(line) for line in log.read_text().splitlines()[:-1]]
        self.assertEqual([entry["i"] for entry in entries], list(range(len(entries))), "order is by index")
        return [(key, round(entry["det"][key] / 1000 / YEAR)) for entry in entries if entry["op"] == "system.clock" for key in entry["det"]]

    def test_a_service_that_starts_with_a_wrong_clock_serves_loses_nothing_and_says_so(self):
        self.server.start()
        self.remember()
        self.assertEqual(self.server.stop(), 0)
        told = len(self.server.output)
        for ahead, year in ((-40 * YEAR, "19"), (100 * YEAR, "21"), (0, "20")):
            self.ahead(ahead)
            if ahead < 0:
                problems = json.loads(self.server.run("status", "--json").stdout)["problems"]
                self.assertIn(SAID, problems)
                doctor = {check["name"]: check for check in json.loads(self.server.run("doctor", "--json").stdout)["checks"]}
                self.assertIn("before the data file was last written", json.dumps(doctor["clock"]))
            self.server.start()
            self.assertTrue(self.remember().startswith(year))
            # Behind is told, at 1986 and when it is right after 2126; ahead nobody can know of.
            self.assertEqual(SAID in bytes(self.server.output[told:]).decode(), ahead <= 0, ahead)
            with self.server.client(self.server.owner_key) as owner:
                self.assertEqual(SAID in owner.get("/api/v1/status").expect(200).json["problems"], ahead < 0)
            self.assertEqual(self.server.stop(), 0)
            told = len(self.server.output)
        self.assertEqual(self.steps(), [("back_ms", 40), ("back_ms", 100)])
        done = self.server.run("verify")
        self.assertEqual(done.returncode, 0, text(done))

    def test_a_clock_that_is_set_while_the_service_runs_costs_nothing(self):
        self.server.start()
        with self.server.client(self.server.owner_key) as owner:
            made = owner.post("/api/keys", {"label": "spare"}).expect(200).json
        for ahead in (0, 10 * YEAR, -40 * YEAR, 0):
            self.ahead(ahead)
            year = time.strftime("%Y", time.gmtime(time.time() + ahead))
            self.assertTrue(self.remember().startswith(year))
            with self.server.client(made["key"]) as spare:
                spare.get("/whoami").expect(200)
        with self.server.client(self.server.owner_key) as owner:
            owner.delete(f"/api/keys/{made['id']}").expect(200)
            with self.server.client(made["key"]) as spare:
                spare.get("/whoami").expect(401)
            # Whatever the clock said when: none is listed twice and none is missed, page by page.
            pages = [owner.post("/memories/list", {"filter": {"by": "all"}, "limit": 1, "offset": n}).expect(200).json["memories"] for n in range(len(self.kept))]
        self.assertEqual(sorted(memory["id"] for page in pages for memory in page), sorted(memory["id"] for memory in self.kept))
        self.assertEqual(self.server.stop(), 0)
        self.assertEqual(self.steps(), [("ahead_ms", 10), ("back_ms", 50), ("ahead_ms", 40)])
        done = self.server.run("verify")
        self.assertEqual(done.returncode, 0, text(done))


if __name__ == "__main__":
    unittest.main()
