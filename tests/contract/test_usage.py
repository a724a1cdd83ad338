"""Quotas and uses: what one may keep, keeps and used; who exceeds it is refused, whichever way the write comes."""

import threading
import time
import unittest

from rosemary_server import Server, ServerCase, unique

OTHER = "other@clinic.example"
FULL = {"error", "plan", "memory_count", "limit", "upgrade_url"}


class Unlimited(ServerCase):
    options = {"users": (OTHER,)}

    def test_the_owner_has_no_cap_and_may_write(self):
        before = self.owner.get("/usage/check").expect(200).json
        self.assertEqual(set(before), {"allowed", "plan", "memory_count", "limits", "memories_remaining"})
        self.assertEqual((before["plan"], before["allowed"], before["limits"], before["memories_remaining"]), ("admin", True, {"maxMemories": -1}, -1))
        record = self.owner.remember(unique())
        self.assertEqual(self.owner.get("/usage").json["memory_count"], before["memory_count"] + 1)
        self.owner.delete(f"/memories/{record['id']}").expect(200)
        self.assertEqual(self.owner.get("/usage?month=2026-01").json["memory_count"], before["memory_count"], "the trash does not count")
        self.owner.post(f"/memories/{record['id']}/restore").expect(200)
        self.assertEqual(self.owner.get("/usage").json["memory_count"], before["memory_count"] + 1)

    def test_nobody_has_a_cap_unless_one_is_set(self):
        other = self.others[OTHER].get("/usage").expect(200).json
        self.assertEqual((other["plan"], other["limits"]["maxMemories"], other["allowed"]), ("free", -1, True))
        self.assertEqual(self.others[OTHER].get("/users/me").json["plan"], "free")

    def test_agents_cannot_ask(self):
        for path in ("/usage", "/usage/check", "/billing/status", "/api/v1/usage"):
            self.error(self.agents["cursor"].get(path), 403)

    def test_billing_is_not_configured(self):
        status = self.owner.get("/billing/status").expect(200).json
        self.assertEqual(set(status), {"plan", "has_billing", "limits", "memory_count", "memories_remaining", "cancel_at_period_end", "current_period_end"})
        self.assertEqual((status["has_billing"], status["limits"], status["current_period_end"]), (False, {"maxMemories": -1, "maxApiKeys": -1}, None))
        for path in ("/billing/checkout", "/billing/portal"):
            answer = self.owner.post(path)
            self.assertEqual((answer.status, answer.json), (503, {"error": "Billing not configured"}))
            self.assertNotIn("retry-after", answer.headers)

    def test_keys_are_bounded_for_everybody_but_the_owner(self):
        other = self.others[OTHER]
        made = []
        while (answer := other.post("/api/keys", {"label": "one of many"})).status == 200:
            made.append(answer.json["id"])
        self.assertEqual((answer.status, set(answer.json)), (429, {"error", "plan", "active_keys", "limit", "upgrade_url"}))
        self.assertEqual((answer.json["active_keys"], answer.json["limit"]), (100, 100))
        other.delete(f"/api/keys/{made[0]}").expect(200)
        other.post("/api/keys", {"label": "again"}).expect(200)

    def test_uses_are_counted_by_month(self):
        month = time.strftime("%Y-%m", time.gmtime())

        def now():
            found = {row["month"]: row for row in self.others[OTHER].get("/api/v1/usage").expect(200).json["months"]}
            return found.get(month, {"writes": 0, "reads": 0, "queries": 0, "total_ops": 0})

        other, before = self.others[OTHER], now()
        record = other.remember(unique())
        other.get(f"/memories/{record['id']}").expect(200)
        other.get("/memories/01890000-0000-7000-8000-000000000000").expect(404)
        other.post("/memories/list", {"filter": {"by": "tags", "tags": [unique()]}}).expect(200)
        other.post("/agent/memories/search", {"term": "nothing counts this"}).expect(200)
        other.post("/agent/memories/browse", {"filter": {"by": "all"}}).expect(200)
        other.post("/v3/memories/add/", {"messages": [{"role": "user", "content": unique()}, {"role": "user", "content": unique()}]}).expect(200)
        after = now()
        self.assertEqual({key: after[key] - before[key] for key in ("writes", "reads", "queries", "total_ops")},
                         {"writes": 2, "reads": 2, "queries": 0, "total_ops": 4})


class Verified(unittest.TestCase):
    def test_the_check_of_the_file_compares_uses_with_the_log(self):
        with Server(users=(OTHER,)) as server:
            with server.client(server.user_keys[OTHER]) as other, server.agent("cursor") as agent:
                other.remember(unique())
                other.get("/agent/memories/latest").expect(200)
                agent.remember(unique(), path="/agent/memories", allowed_vendors=["*"])
            server.stop()
            verified = server.run("verify")
            self.assertEqual(verified.returncode, 0, verified.stdout + verified.stderr)


class Capped(ServerCase):
    options = {"users": (OTHER,), "settings": {"RM_SANDBOX_MEMORY_CAP": 6}}

    def full(self, answer, **more):
        self.assertEqual((answer.status, {key: value for key, value in answer.json.items() if key != "detail"}),
                         (429, {"error": "Memory limit reached", "plan": "free", "memory_count": 6, "limit": 6, "upgrade_url": None, **more}))

    def test_who_is_at_the_cap_is_refused_by_every_way_and_may_do_the_rest(self):
        other = self.others[OTHER]
        kept = [other.remember(unique(), unique()) for _ in range(5)]
        parent = kept[0]
        # Two memories in one write do not come past it, and neither is kept.
        two = [{"role": "user", "content": unique()}, {"role": "user", "content": unique()}]
        answer = other.post("/v3/memories/add/", {"messages": two})
        self.assertEqual((answer.status, answer.json["memory_count"], answer.json["limit"]), (429, 5, 6))
        # Nor do many writers at once.
        writers = [self.server.client(self.server.user_keys[OTHER]) for _ in range(8)]
        statuses = []
        threads = [threading.Thread(target=lambda c=c: statuses.append(c.post("/memories", {"title": unique(), "content": unique(), "tags": []}).status)) for c in writers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for client in writers:
            client.close()
        self.assertEqual(sorted(statuses), [201] + [429] * 7)
        body = {"title": unique(), "content": unique(), "tags": [], "allowed_vendors": ["*"]}
        for path, sent in (("/memories", body), ("/agent/memories", body), (f"/memories/{parent['id']}/children", body), ("/v3/memories/add/", {"messages": "x"}),
                           ("/v1/memories/", {"messages": "x"}), (f"/agent/memories/{parent['id']}/children", body)):
            with self.subTest(path):
                self.full(other.post(path, sent))
        status = other.get("/usage").json
        self.assertEqual((status["allowed"], status["memory_count"], status["limits"]["maxMemories"], status["memories_remaining"]), (False, 6, 6, 0))
        # An update, an exact repeat and the trash are not refused; what was trashed makes room.
        other.put(f"/memories/{parent['id']}", {"title": "t", "content": unique(), "tags": [], "allowed_vendors": ["*"]}).expect(200)
        again = other.post("/memories", {"title": kept[1]["title"], "content": kept[1]["content"], "tags": ["again"]}).expect(201).json
        self.assertEqual(again["id"], kept[1]["id"])
        other.delete(f"/memories/{kept[2]['id']}").expect(200)
        self.assertTrue(other.get("/usage").json["allowed"])
        other.post("/memories", body).expect(201)
        # What comes back from the trash counts again: by trashing, writing and restoring in turn one had as many as one liked.
        self.full(other.post(f"/memories/{kept[2]['id']}/restore"))
        other.get(f"/memories/{kept[2]['id']}").expect(200)
        # The owner is not concerned.
        for _ in range(8):
            self.owner.remember(unique(), unique())
