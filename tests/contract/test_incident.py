"""When something has gone wrong: every credential dead at once, records read-only, a notice for the officer; online and offline."""

import json
import subprocess
import time
import unittest

from test_dashboard import DASHBOARD, token
from rosemary_server import BINARY, OWNER, Server, key_in, text, unique

USAGE, EXISTS = 2, 73


class Incident(unittest.TestCase):
    def setUp(self):
        self.server = Server(users=("nurse@clinic.example",)).init().start()
        self.addCleanup(self.server.remove)
        self.owner = self.server.client(self.server.owner_key)
        self.addCleanup(self.owner.close)
        self.secret = unique("canary")
        self.record = self.owner.remember("before", self.secret, subject="Jane")

    def incident(self, *arguments, code=0):
        done = self.server.run("incident", *map(str, arguments))
        self.assertEqual(done.returncode, code, text(done))
        return text(done)

    def entries(self):
        log = self.server.folder / "log.ndjson"
        log.unlink(missing_ok=True)
        self.assertEqual(self.server.run("audit", "export", log).returncode, 0)
        return [json.loads(line) for line in log.read_text().splitlines()[:-1]]

    def test_every_credential_is_dead_with_the_next_request_and_stays_so(self):
        tokens = [self.server.owner_key, self.server.user_keys["nurse@clinic.example"], self.server.api_key, *self.server.agent_keys.values()]
        clients = [self.server.client(token) for token in tokens]
        for client in clients:
            self.addCleanup(client.close)
            client.get("/whoami").expect(200)
        said = self.incident("revoke-all")
        self.assertRegex(said, r"2 stored credentials and 3 keys of the settings are dead")
        for client in clients:
            client.get("/whoami").expect(401)
        self.assertRegex(self.incident("revoke-all"), r"0 stored credentials and 0 keys")
        self.assertEqual(self.server.stop(), 0)
        self.server.start()
        for token in tokens:
            with self.server.client(token) as client:
                client.get("/whoami").expect(401)
        self.assertEqual(self.server.stop(), 0)

        # Other values in the settings, and a key made at the console, are taken.
        fresh = unique("another-key-of-the-settings-")
        # One that moves to another name stays dead.
        moved = self.server.agent_keys["cursor"]
        self.server.change({"RM_API_KEY": fresh, "RM_AGENT_KEY_CURSOR": unique("another-agents-key-"), "RM_AGENT_KEY_ELSEWHERE": moved})
        made = key_in(self.server.run("key", "make").stdout)
        self.server.start()
        for token in (fresh, made):
            with self.server.client(token) as client:
                self.assertEqual(client.get(f"/memories/{self.record['id']}").expect(200).json["content"], self.secret)
        with self.server.client(moved) as agent:
            agent.get("/whoami").expect(401)
        self.assertEqual(self.server.stop(), 0)
        told = [entry for entry in self.entries() if entry["op"] == "incident.revoke_all"]
        self.assertEqual([entry["n"] for entry in told], [5, 0])
        self.assertEqual(self.server.run("verify").returncode, 0)

    def test_a_dashboards_key_is_dead_too_for_those_it_knows_and_for_newcomers(self):
        self.server.stop()
        self.server.change(DASHBOARD)
        self.server.start()

        def status(email, key=DASHBOARD["RM_DASHBOARD_SERVICE_KEY"], **signed):
            with self.server.client(key) as client:
                return client.get("/users/me", headers={"X-Dashboard-Token": token(email, **signed)}).status

        self.assertEqual(status("known@clinic.example"), 200)
        self.incident("revoke-all")
        self.assertEqual([status("known@clinic.example"), status("newcomer@clinic.example")], [401, 401])
        # Neither is it taken with a new key: what is signed with the old secret may be anybody's.
        key, secret = unique("another-key-of-the-dashboard-"), unique("another-secret-of-the-dashboard-and-longer-")
        for settings, answer in (({"RM_DASHBOARD_SERVICE_KEY": key}, 401), ({"RM_DASHBOARD_JWT_SECRET": secret}, 200)):
            self.server.stop()
            self.server.change(settings)
            self.server.start()
            signed = {"secret": self.server.settings["RM_DASHBOARD_JWT_SECRET"]}
            self.assertEqual(status("known@clinic.example", key, **signed), answer)

    def test_a_frozen_instance_reads_and_does_not_write_until_it_is_thawed(self):
        spare = self.owner.post("/api/keys", {"label": "spare"}).expect(200, 201).json
        self.incident("thaw", code=USAGE)
        self.incident("freeze")
        self.incident("freeze", code=USAGE)
        writes = [
            lambda c: c.post("/memories", {"title": "t", "content": "c", "tags": []}),
            lambda c: c.put(f"/memories/{self.record['id']}", {"title": "t", "content": "c", "tags": [], "allowed_vendors": ["*"]}),
            lambda c: c.delete(f"/memories/{self.record['id']}"),
            lambda c: c.delete("/memories/trash"),
            lambda c: c.post("/api/keys", {"label": "more"}),
            lambda c: c.post("/v1/memories/", {"messages": [{"role": "user", "content": "hello"}], "user_id": "u"}),
        ]
        for write in writes:
            answer = write(self.owner).expect(503)
            self.assertIn("read-only", answer.json["error"])
        with self.server.agent("claude") as agent:
            agent.post("/agent/memories", {"title": "t", "content": "c", "tags": [], "allowed_vendors": ["*"]}).expect(503)
        self.assertEqual(self.owner.get(f"/memories/{self.record['id']}").expect(200).json, self.record)
        self.assertEqual(self.server.stop(), 0)
        lines = self.server.folder / "more.ndjson"
        lines.write_text('{"title":"t","content":"c"}\n')
        self.assertNotEqual(self.server.run("import", lines).returncode, 0)
        self.server.start()
        with self.server.client(self.server.owner_key) as owner:
            writes[0](owner).expect(503)
            # Whoever must be shut out is: a key is revoked all the same.
            owner.delete(f"/api/keys/{spare['id']}").expect(200)
            with self.server.client(spare["key"]) as shut_out:
                shut_out.get("/whoami").expect(401)
            self.incident("thaw")
            writes[0](owner).expect(201)
        self.assertEqual(self.server.stop(), 0)
        entries = self.entries()
        refused = [entry for entry in entries if entry.get("reason") == "read_only"]
        self.assertEqual(len(refused), 9, [entry["op"] for entry in refused])
        frozen = [entry for entry in entries if entry["op"] == "incident.freeze"]
        self.assertEqual([entry["outcome"] for entry in frozen], ["refused", "ok", "refused", "ok"])
        self.assertEqual(self.server.run("verify").returncode, 0)

    def test_whoever_asks_how_it_stands_is_told_that_it_is_frozen(self):
        def told(words, code):
            done = self.server.run("status", "--json")
            found = json.loads(done.stdout)
            self.assertEqual(done.returncode, code, found)
            frozen = [problem for problem in found["problems"] if words in problem]
            return found["frozen_at"], frozen, text(self.server.run("status"))

        words = "records are read-only until somebody runs rosemary incident thaw"
        since, problems, shown = told(words, 0)
        self.assertEqual((since, problems), (None, []))
        self.assertRegex(shown, r"(?m)^frozen +no$")
        self.incident("freeze")
        since, problems, shown = told(words, 1)
        self.assertEqual(problems, [f"frozen since {since}: {words}"])
        self.assertRegex(shown, rf"(?m)^frozen +since {since}: records are read-only$")
        self.assertEqual(self.owner.get("/api/v1/status").expect(200).json["frozen_at"], since)
        self.assertEqual(self.server.stop(), 0)
        self.assertEqual(told(words, 1)[:2], (since, problems), "stopped, it is still frozen")
        self.assertIn(problems[0], text(self.server.run("doctor")))
        self.incident("thaw")
        self.assertNotIn("frozen since", text(self.server.run("doctor")))

    def test_the_notice_tells_what_was_done_and_nothing_of_any_record(self):
        backup = self.server.folder / "one.backup"
        self.assertEqual(self.server.stop(), 0)
        self.assertEqual(self.server.run("backup", "make", backup).returncode, 0)
        self.server.start()
        self.incident("revoke-all")
        self.incident("freeze")
        self.incident("rotate")
        notice = self.server.folder / "notice.md"
        self.incident("report", notice)
        self.assertEqual(notice.stat().st_mode & 0o777, 0o600)
        said = notice.read_text()
        for word in ("memory.create", "incident.revoke_all", "rosemary/", "epochs 1 to 1", "keys of the settings", "checkpoint of"):
            self.assertIn(word, said)
        for secret in (self.secret, "Jane", OWNER, "nurse", self.server.api_key, self.server.owner_key, str(self.server.folder)):
            self.assertNotIn(secret, said)
        self.incident("report", notice, code=EXISTS)
        self.assertEqual(self.server.stop(), 0)
        offline = self.incident("report", "-", "--hours", "1")
        self.assertIn("## The log at this moment, signed", offline)
        self.assertEqual(self.server.run("verify").returncode, 0)
        # What the settings' keys were before is dead; the data are there under new keys.
        self.incident("thaw")
        made = key_in(self.server.run("key", "make").stdout)
        self.server.start()
        with self.server.client(made) as owner:
            self.assertEqual(owner.get(f"/memories/{self.record['id']}").expect(200).json["content"], self.secret)

    def test_a_kill_at_any_moment_leaves_each_step_done_or_not_done(self):
        for delay in (0, 0.01, 0.03, 0.08, 0.2):
            asked = subprocess.Popen([str(BINARY), "incident", "revoke-all"], env=self.server.environment(), cwd=self.server.folder,
                                     stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            time.sleep(delay)
            self.server.kill()
            told = b"are dead" in b"".join(asked.communicate(timeout=60))
            self.server.start()
            with self.server.client(self.server.api_key) as client:
                status = client.get("/whoami").expect(200, 401).status
            self.assertFalse(told and status == 200, "what was told is done")
            with self.server.client(self.server.owner_key) as client:
                self.assertEqual(client.get("/whoami").expect(200, 401).status, status, "all or nothing")


if __name__ == "__main__":
    unittest.main()
