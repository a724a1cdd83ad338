"""kill -9 under many writers: every acknowledged write and its audit entry is there afterwards, and the file opens at once.

Short form: 3 rounds of 16 writers. Long form (ROSEMARY_LONG=1): 20 rounds of 64.
"""

import http.client
import random
import ssl
import threading
import time
import unittest

from rosemary_server import LONG, Server, percentile, text

ROUNDS, WRITERS, SECONDS = (20, 64, 3.0) if LONG else (3, 16, 1.5)
# With a key file; the debug build that the short form runs is allowed more.
UNLOCK_SECONDS = 1.0 if LONG else 3.0


class Writer(threading.Thread):
    """Writes, changes and deletes until the connection breaks; keeps what was acknowledged."""

    def __init__(self, server, number, salt):
        super().__init__(daemon=True)
        self.server, self.number, self.salt = server, number, salt
        self.kept, self.gone, self.unsure, self.entries, self.error = {}, set(), set(), [], None

    def run(self):
        pick = random.Random(self.salt * 1000 + self.number)
        try:
            with self.server.client(self.server.owner_key, timeout=20) as client:
                for turn in range(1_000_000):
                    self.step(client, pick, turn)
        except (OSError, http.client.HTTPException, ssl.SSLError):
            pass
        except BaseException as error:  # reported by the test; a thread's exception would be lost
            self.error = error

    def step(self, client, pick, turn):
        name = f"round {self.salt} writer {self.number} turn {turn}"
        body = {"title": name, "content": f"{name} " * 20, "tags": [f"w{self.number}"], "allowed_vendors": ["*"]}
        chance = pick.random()
        target = pick.choice(list(self.kept)) if self.kept and chance < 0.4 else None
        if target is None:
            answer = client.post("/memories", body)
        else:
            # Between the request and its answer either state is lawful.
            del self.kept[target]
            self.unsure.add(target)
            answer = client.put(f"/memories/{target}", body) if chance < 0.3 else client.delete(f"/memories/{target}/permanent")
        if answer.status not in (200, 201, 204):
            raise AssertionError(f"{answer.status}: {answer.body[:200]!r}")
        self.entries.append(answer.audit_index)
        if target is None:
            self.kept[answer.json["id"]] = name
        else:
            self.unsure.discard(target)
            if answer.status == 200:
                self.kept[target] = name
            else:
                self.gone.add(target)


class Kill(unittest.TestCase):
    def test_no_acknowledged_write_is_lost(self):
        server = Server(settings={"RM_MAX_CONNECTIONS_PER_ADDRESS": 256})
        self.addCleanup(server.remove)
        server.init()
        kept, gone, entries, unlocks, acknowledged = {}, set(), [], [], 0
        for round_number in range(ROUNDS):
            server.start()
            unlocks.append(server.start_seconds)
            self.check(server, kept, gone, entries)
            writers = [Writer(server, n, round_number) for n in range(WRITERS)]
            for writer in writers:
                writer.start()
            time.sleep(SECONDS * random.uniform(0.5, 1.0))
            server.kill()
            for writer in writers:
                writer.join(60)
                self.assertFalse(writer.is_alive())
                if writer.error:
                    raise writer.error
                kept |= writer.kept
                gone |= writer.gone
                entries += writer.entries
                acknowledged += len(writer.entries)
            done = server.run("verify", timeout=600)
            self.assertEqual(done.returncode, 0, text(done))
        server.start()
        unlocks.append(server.start_seconds)
        self.check(server, kept, gone, entries)
        self.assertGreater(acknowledged, ROUNDS * WRITERS, "too few writes to prove anything")
        # The first start follows a clean init; the rest follow a kill.
        worst = max(unlocks[1:])
        print(f"\nkill -9: {ROUNDS} rounds, {WRITERS} writers, {acknowledged} acknowledged writes, 0 lost; "
              f"start to listening: median {percentile(unlocks[1:], 0.5) * 1000:.0f} ms, worst {worst * 1000:.0f} ms")
        self.assertLess(worst, UNLOCK_SECONDS)

    def check(self, server, kept, gone, entries):
        self.assertEqual(len(entries), len(set(entries)), "two answers name one audit entry")
        with server.client(server.owner_key) as client:
            now = client.get("/whoami").expect(200).audit_index
            self.assertTrue(all(index < now for index in entries), "an acknowledged entry is missing from the log")
            found = {}
            names = list(kept)
            for start in range(0, len(names), 200):
                body = {"filter": {"by": "ids", "ids": names[start:start + 200]}, "limit": 500}
                found |= {m["id"]: m["title"] for m in client.post("/memories/list", body).expect(200).json["memories"]}
            self.assertEqual({i: found.get(i) for i in kept}, kept, "an acknowledged write is missing")
            for i in random.sample(sorted(gone), min(50, len(gone))):
                client.get(f"/memories/{i}").expect(404)


if __name__ == "__main__":
    unittest.main()
