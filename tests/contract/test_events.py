"""Events: what becomes of a person's memories, told to that person alone, recorded before it is told, and over when the key is."""

import http.client
import json
import time
import unittest

from rosemary_server import ServerCase, unique

COLLEAGUE = "colleague@clinic.example"
KEYS = {"id", "user_id", "title", "content", "tags", "origin", "allowed_vendors", "created_at", "updated_at", "deleted_at",
        "shared_with_org_id", "shared_with_team_id", "shared_at", "parent_memory_id"}


class Stream:
    """An open event stream. `next()` is the next event as (name, data); `None` once the server has ended it."""

    def __init__(self, server, token, path="/events"):
        self.connection = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=40, context=server.tls())
        self.connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        self.response = self.connection.getresponse()
        self.status, self.headers = self.response.status, self.response.headers

    def next(self):
        name, data = None, None
        while line := self.response.readline():
            line = line.decode().rstrip("\n")
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("data: "):
                data = json.loads(line[6:])
            elif not line and data is not None:
                return name, data
        return None

    def close(self):
        self.connection.close()
        self.response.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Events(ServerCase):
    options = {"users": (COLLEAGUE,)}

    def watch(self, token=None):
        stream = Stream(self.server, token or self.server.owner_key)
        self.addCleanup(stream.close)
        self.assertEqual(stream.status, 200)
        self.assertEqual(stream.headers["content-type"], "text/event-stream")
        self.assertTrue(stream.headers["x-audit-index"].isdigit())
        name, hello = stream.next()
        self.assertEqual((name, set(hello)), ("hello", {"subscribed", "emitted_at"}))
        self.assertEqual(set(hello["subscribed"]), {"user_id", "org_id"})
        return stream

    def test_every_change_is_told_in_order_with_the_memory(self):
        with self.watch() as stream:
            me = self.owner.get("/users/me").json["id"]
            record = self.owner.remember(unique(), "before")
            path = f"/memories/{record['id']}"
            self.owner.put(path, {"title": record["title"], "content": "after", "tags": ["b"], "allowed_vendors": ["*"]}).expect(200)
            self.owner.delete(path).expect(200)
            self.owner.post(f"{path}/restore").expect(200)
            names = []
            for kind in ("created", "updated", "deleted", "restored"):
                name, event = stream.next()
                names.append(name)
                self.assertEqual(set(event), {"type", "memory_id", "user_id", "org_id", "team_id", "memory", "emitted_at"})
                self.assertEqual((event["type"], event["memory_id"], event["user_id"]), (f"memory.{kind}", record["id"], me))
                self.assertEqual(set(event["memory"]), KEYS)
                self.assertEqual(event["memory"]["user_id"], me)
                self.assertIn(event["memory"]["content"], ("before", "after"))
            self.assertEqual(names, ["memory.created", "memory.updated", "memory.deleted", "memory.restored"])
            self.owner.delete(f"{path}/permanent").expect(204)
            name, event = stream.next()
            self.assertEqual((name, event["memory_id"], "memory" in event), ("memory.purged", record["id"], False))

    def test_agents_writes_are_told_to_their_person_and_replies_too(self):
        with self.watch() as stream:
            record = self.agents["cursor"].remember(unique(), path="/agent/memories", allowed_vendors=["*"])
            reply = self.owner.remember(unique(), path=f"/memories/{record['id']}/children")
            told = [stream.next() for _ in range(2)]
            self.assertEqual([event["memory_id"] for _, event in told], [record["id"], reply["id"]])
            self.assertEqual(told[1][1]["memory"]["parent_memory_id"], record["id"])
            self.assertEqual(told[0][1]["memory"]["origin"], "cursor")

    def test_nobody_hears_of_another_persons_memories(self):
        with self.watch(self.server.user_keys[COLLEAGUE]) as theirs, self.watch() as mine:
            self.owner.remember(unique())
            own = self.others[COLLEAGUE].remember(unique())
            self.assertEqual(theirs.next()[1]["memory_id"], own["id"])
            self.assertNotEqual(mine.next()[1]["memory_id"], own["id"])

    def test_agents_may_not_watch(self):
        self.error(self.agents["cursor"].get("/events"), 403, "Agent keys cannot access this endpoint")
        with self.server.client("nobody") as nobody:
            self.error(nobody.get("/events"), 401)

    def test_a_stream_ends_with_its_key(self):
        made = self.owner.post("/api/keys", {"label": "stream"}).expect(200).json
        with self.watch(made["key"]) as stream:
            self.owner.delete(f"/api/keys/{made['id']}").expect(200)
            self.assertIsNone(stream.next())

    def test_a_fifth_stream_of_one_key_is_refused_and_its_place_comes_back(self):
        key = self.owner.post("/api/keys", {"label": "streams"}).expect(200).json["key"]
        streams = [self.watch(key) for _ in range(4)]
        with self.server.client(key) as client:
            self.error(client.get("/events"), 429, "At most 4 streams at once; close one")
            self.assertEqual(client.get("/whoami").status, 200)
        streams.pop().close()
        for _ in range(200):
            with Stream(self.server, key) as again:
                if again.status == 200:
                    return
            time.sleep(0.1)
        self.fail("the place of a closed stream was not given back")

    def test_head_is_the_head_alone(self):
        answer = self.owner.request("HEAD", "/events")
        self.assertEqual((answer.status, answer.body), (200, b""))


class Audit(ServerCase):
    def test_the_opening_and_every_told_event_are_in_the_log(self):
        with Stream(self.server, self.server.owner_key) as stream:
            stream.next()
            record = self.owner.remember(unique())
            stream.next()
        self.server.stop()
        bundle = self.server.folder / "log.ndjson"
        done = self.server.run("audit", "export", str(bundle))
        self.assertEqual(done.returncode, 0, done.stderr)
        entries = [json.loads(line) for line in bundle.read_bytes().splitlines() if line.startswith(b'{"actor') or b'"op":' in line]
        watched = [entry for entry in entries if entry["op"] == "memory.watch"]
        told = [entry for entry in entries if entry["op"] == "memory.event"]
        self.assertEqual(len(watched), 1)
        self.assertEqual([entry["res"]["ids"] for entry in told], [[record["id"]]])
        self.assertTrue(told[0]["phi"] and told[0]["outcome"] == "ok" and told[0]["cred"] == watched[0]["cred"])


if __name__ == "__main__":
    unittest.main()
