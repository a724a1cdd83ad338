"""Mem0's paths as its clients use them: the requests and shapes of Python `mem0ai` 0.1 to 2.x and npm `mem0ai` 3.x, and what they must not reach."""

import json
import re
import unicodedata
import unittest
from urllib.parse import quote

from rosemary_server import ServerCase, unique

MEMORY = {
    "id", "memory", "user_id", "agent_id", "app_id", "run_id", "actor_id", "metadata", "categories", "created_at", "updated_at", "expiration_date",
}
OTHER = "other@clinic.example"
UNKNOWN = "01890000-0000-7000-8000-000000000000"


class Mem0Case(ServerCase):
    options = {"users": (OTHER,)}

    def setUp(self):
        self.user = unique("patient-")

    def add(self, text, client=None, **more):
        body = {"messages": [{"role": "user", "content": text}], "user_id": self.user, **more}
        return (client or self.owner).post("/v3/memories/add/", body).expect(200).json["results"][0]

    def list(self, client=None, path="/v3/memories/", **body):
        return (client or self.owner).post(path, body).expect(200).json

    def texts(self, client=None, **body):
        return [memory["memory"] for memory in self.list(client, **body)["results"]]

    def refusal(self, answer, status, words=None):
        """A refusal that the clients can show: they read `detail`."""
        self.assertEqual(answer.status, status, answer.body[:400])
        self.assertEqual(answer.json["detail"], answer.json["error"])
        if words:
            self.assertRegex(answer.json["detail"], words)
        return answer.json["detail"]


class Wire(Mem0Case):
    def test_the_token_scheme_of_the_clients_is_accepted_on_their_paths_alone(self):
        with self.server.client() as nobody:
            token = {"Authorization": f"Token {self.server.owner_key}"}
            ping = nobody.get("/v1/ping/", headers=token).expect(200).json
            self.assertEqual(ping, {"status": "ok", "org_id": "default", "project_id": "default", "user_email": None})
            nobody.get("/whoami", headers=token).expect(401)
            self.refusal(nobody.get("/v1/ping/"), 401)
            self.refusal(nobody.get("/v1/ping/", headers={"Authorization": "Token rm_live_wrong"}), 401, "Invalid API key")
        self.owner.get("/v1/ping/").expect(200)

    def test_an_unknown_path_is_refused_in_words_the_clients_show(self):
        self.refusal(self.owner.get("/v1/nothing/"), 404)
        self.refusal(self.owner.get("/v1/memories"), 404)
        self.refusal(self.owner.request("PATCH", "/v3/memories/", {}), 404)

    def test_a_body_that_is_announced_and_absent_means_nothing(self):
        memory = self.add("to be deleted")
        announced = {"Content-Type": "application/json"}
        self.owner.get(f"/v1/memories/{memory['id']}/", headers=announced).expect(200)
        self.owner.delete(f"/v1/memories/{memory['id']}/", headers=announced).expect(200)

    def test_every_answer_names_its_audit_entry(self):
        for answer in (self.owner.get("/v1/ping/"), self.owner.post("/v3/memories/", {}), self.owner.post("/v3/memories/search/", {"query": "x"})):
            self.assertGreater(answer.expect(200).audit_index, 0)


class Adding(Mem0Case):
    def test_messages_are_kept_word_for_word_and_the_answer_says_so(self):
        said = f"  Allergic to penicillin.\nSince 2019 {self.user} "
        body = {
            "messages": [{"role": "user", "content": said}, {"role": "assistant", "content": "Noted.", "name": "Rosie"}],
            "user_id": self.user, "agent_id": "triage", "app_id": "ward", "run_id": "round-1", "metadata": {"ward": "3"}, "infer": True,
        }
        answer = self.owner.post("/v3/memories/add/", body).expect(200).json
        self.assertEqual((answer["inferred"], answer["status"]), (False, "SUCCEEDED"))
        self.assertIn("word for word", answer["message"])
        first, second = answer["results"]
        self.assertEqual(set(first), MEMORY | {"event"})
        self.assertEqual((first["memory"], first["event"], first["actor_id"]), (said, "ADD", "user"))
        self.assertEqual((second["memory"], second["actor_id"]), ("Noted.", "Rosie"))
        for memory in (first, second):
            names = {key: memory[key] for key in ("user_id", "agent_id", "app_id", "run_id")}
            self.assertEqual(names, {"user_id": self.user, "agent_id": "triage", "app_id": "ward", "run_id": "round-1"})
            self.assertEqual((memory["metadata"], memory["categories"], memory["expiration_date"]), ({"ward": "3"}, [], None))
        record = self.owner.get(f"/memories/{first['id']}").expect(200).json
        self.assertEqual((record["content"], record["subject"], record["run_id"], record["origin"]), (said, self.user, "round-1", "mem0"))
        self.assertEqual((record["title"], record["speaker"]), ("Allergic to penicillin.", "user"))
        self.assertEqual(record["metadata"], {"ward": "3", "agent_id": "triage", "app_id": "ward"})

    def test_names_come_as_filters_or_by_themselves_but_not_two_at_once(self):
        text = unique("fact ")
        body = {"messages": [{"role": "user", "content": text}], "filters": {"user_id": self.user, "agent_id": 7}, "metadata": None, "infer": None}
        memory = self.owner.post("/v3/memories/add/", body).expect(200).json["results"][0]
        self.assertEqual((memory["user_id"], memory["agent_id"], memory["metadata"]), (self.user, "7", None))
        self.owner.post("/v3/memories/add/", {**body, "user_id": self.user}).expect(200)
        self.refusal(self.owner.post("/v3/memories/add/", {**body, "user_id": "another"}), 400, "must not differ")
        self.refusal(self.owner.post("/v3/memories/add/", {**body, "metadata": {"agent_id": "other"}}), 400, "must not differ")

    def test_all_messages_are_one_commit_or_none_is_kept(self):
        text = unique("never kept ")
        body = {"messages": [{"role": "user", "content": text}, {"role": "user", "content": ""}], "user_id": self.user}
        self.refusal(self.owner.post("/v3/memories/add/", body), 400, "^body/messages/1/content")
        self.assertEqual(self.texts(filters={"user_id": self.user}), [])
        many = [{"role": "user", "content": f"{text} {n}"} for n in range(201)]
        self.refusal(self.owner.post("/v3/memories/add/", {"messages": many, "user_id": self.user}), 400, "more than 200 items")
        answer = self.owner.post("/v3/memories/add/", {"messages": many[:200], "user_id": self.user}).expect(200)
        self.assertEqual(len(answer.json["results"]), 200)
        self.assertEqual(self.list(filters={"user_id": self.user})["count"], 200)

    def test_an_exact_repeat_is_the_memory_that_is_there(self):
        text = unique("twice ")
        first = self.add(text)
        again = self.owner.post("/v3/memories/add/", {"messages": [{"role": "user", "content": text}] * 2, "user_id": self.user}).expect(200).json
        self.assertEqual([(m["id"], m["event"]) for m in again["results"]], [(first["id"], "NOOP")] * 2)
        # Of somebody else it is not a repeat.
        self.assertEqual(self.add(text, user_id=unique("patient-"))["event"], "ADD")

    def test_parts_of_text_are_joined_and_other_parts_are_refused(self):
        parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
        body = {"messages": [{"role": "user", "content": parts}], "user_id": self.user}
        self.assertEqual(self.owner.post("/v3/memories/add/", body).expect(200).json["results"][0]["memory"], "one\ntwo")
        image = {"type": "image_url", "image_url": {"url": "https://elsewhere.example/x.png"}}
        self.refusal(self.owner.post("/v3/memories/add/", {"messages": [{"role": "user", "content": image}]}), 400)
        self.refusal(self.owner.post("/v3/memories/add/", {"messages": [{"role": "user", "content": [image]}]}), 400)

    def test_promises_that_are_not_kept_here_are_refused(self):
        body = {"messages": [{"role": "user", "content": unique()}], "user_id": self.user}
        self.refusal(self.owner.post("/v3/memories/add/", {**body, "expiration_date": "2027-01-01"}), 400, "do not expire")
        self.refusal(self.owner.post("/v3/memories/add/", {**body, "immutable": True}), 400, "immutable")
        self.refusal(self.owner.post("/v3/memories/add/", {**body, "unheard_of": 1}), 400, "additional properties")
        self.owner.post("/v3/memories/add/", {**body, "expiration_date": None, "immutable": False, "custom_instructions": "facts only"}).expect(200)

    def test_a_timestamp_is_when_it_happened(self):
        for given, shown in ((1_700_000_000, "2023-11-14T22:13:20.000Z"), ("2024-05-01", "2024-05-01T00:00:00.000Z"), ("2024-05-01T10:00:00+02:00", "2024-05-01T08:00:00.000Z")):
            self.assertEqual(self.add(unique(), timestamp=given)["created_at"], shown)
        self.refusal(self.owner.post("/v3/memories/add/", {"messages": "x", "timestamp": "last spring"}), 400, "timestamp")

    def test_bounds_hold_on_both_sides(self):
        body = {"messages": "x", "user_id": self.user}
        self.owner.post("/v3/memories/add/", {**body, "messages": "x" * 100_000}).expect(200)
        self.refusal(self.owner.post("/v3/memories/add/", {**body, "messages": "x" * 100_001}), 400)
        self.owner.post("/v3/memories/add/", {**body, "user_id": "u" * 200}).expect(200)
        self.refusal(self.owner.post("/v3/memories/add/", {**body, "user_id": "u" * 201}), 400)
        padding = "x" * (16_384 - len('{"agent_id":"a","k":""}'))
        self.owner.post("/v3/memories/add/", {**body, "agent_id": "a", "metadata": {"k": padding}}).expect(200)
        self.refusal(self.owner.post("/v3/memories/add/", {**body, "agent_id": "a", "metadata": {"k": padding + "x"}}), 400, "metadata")


class One(Mem0Case):
    def test_a_memory_is_read_changed_and_its_history_told(self):
        memory = self.add("Allergic to penicillin", agent_id="triage", metadata={"ward": "3"})
        path = f"/v1/memories/{memory['id']}/"
        self.assertEqual(self.owner.get(path).expect(200).json, {key: memory[key] for key in MEMORY})
        changed = self.owner.put(path, {"text": "Allergic to latex"}).expect(200).json
        self.assertEqual((changed["memory"], changed["metadata"], changed["agent_id"]), ("Allergic to latex", {"ward": "3"}, "triage"))
        self.assertEqual(self.owner.get(f"/memories/{memory['id']}").json["title"], "Allergic to latex")
        changed = self.owner.put(path, {"metadata": {"ward": "4"}, "expiration_date": None, "timestamp": 1_700_000_000}).expect(200).json
        self.assertEqual((changed["memory"], changed["metadata"], changed["agent_id"]), ("Allergic to latex", {"ward": "4"}, "triage"))
        self.assertEqual(changed["created_at"], "2023-11-14T22:13:20.000Z")
        self.assertEqual(self.owner.put(path, {"metadata": {}}).expect(200).json["metadata"], None)
        events = self.owner.get(f"{path}history/").expect(200).json
        told = [(event["event"], event["old_memory"], event["new_memory"]) for event in events]
        self.assertEqual(told[:2], [("ADD", None, "Allergic to penicillin"), ("UPDATE", "Allergic to penicillin", "Allergic to latex")])
        self.assertEqual([event["event"] for event in events], ["ADD", "UPDATE", "UPDATE", "UPDATE"])
        self.assertEqual({event["memory_id"] for event in events}, {memory["id"]})
        self.assertEqual(len({event["id"] for event in events}), 4)
        self.assertEqual(events, sorted(events, key=lambda event: event["created_at"]))

    def test_a_deleted_memory_is_in_the_trash_and_gone_for_mem0(self):
        memory = self.add(unique())
        path = f"/v1/memories/{memory['id']}/"
        self.assertIn("message", self.owner.delete(f"{path}?delete_linked=true").expect(200).json)
        self.refusal(self.owner.get(path), 404, "Memory not found")
        self.refusal(self.owner.put(path, {"text": "x"}), 404)
        self.refusal(self.owner.delete(path), 404)
        self.assertEqual(self.texts(filters={"user_id": self.user}), [])
        self.assertEqual([event["event"] for event in self.owner.get(f"{path}history/").expect(200).json], ["ADD", "DELETE"])
        self.owner.post(f"/memories/{memory['id']}/restore").expect(200)
        self.owner.get(path).expect(200)

    def test_an_update_must_change_something(self):
        path = f"/v1/memories/{self.add(unique())['id']}/"
        self.refusal(self.owner.put(path, {}), 400, "text, metadata or timestamp")
        self.refusal(self.owner.put(path, {"text": "x", "expiration_date": "2027-01-01"}), 400, "do not expire")
        self.refusal(self.owner.put(path, {"text": ""}), 400)
        self.refusal(self.owner.put(path, {"data": "x"}), 400, "additional properties")

    def test_an_id_that_is_none_and_an_id_of_nobody_read_alike(self):
        for odd in (UNKNOWN, "not-an-id", "%2e%2e", "search", UNKNOWN.upper()):
            for method, body in (("GET", None), ("PUT", {"text": "x"}), ("DELETE", None)):
                self.assertEqual(self.refusal(self.owner.request(method, f"/v1/memories/{odd}/", body), 404), "Memory not found")
            self.refusal(self.owner.get(f"/v1/memories/{odd}/history/"), 404)

    def test_a_memory_written_elsewhere_is_read_here(self):
        record = self.owner.remember("Allergies", "Penicillin: rash", ["allergy"], subject=self.user, speaker="Dr. Adler")
        memory = self.owner.get(f"/v1/memories/{record['id']}/").expect(200).json
        self.assertEqual((memory["memory"], memory["title"], memory["categories"]), ("Penicillin: rash", "Allergies", ["allergy"]))
        self.assertEqual((memory["user_id"], memory["actor_id"]), (self.user, "Dr. Adler"))
        self.owner.put(f"/v1/memories/{record['id']}/", {"text": "Penicillin: hives"}).expect(200)
        after = self.owner.get(f"/memories/{record['id']}").json
        self.assertEqual((after["title"], after["content"], after["tags"]), ("Allergies", "Penicillin: hives", ["allergy"]))


class Filters(Mem0Case):
    def setUp(self):
        super().setUp()
        self.one = self.add("Walks with a stick", agent_id="physio", run_id=f"{self.user}-r1", metadata={"ward": "3", "score": 4})
        self.two = self.add("Drinks green tea", app_id="kitchen", run_id=f"{self.user}-r2", metadata={"ward": "4", "score": 9}, timestamp="2024-05-01")
        self.three = self.owner.remember("Sleep", "Sleeps badly", ["night", "draft"], subject=self.user)["id"]

    def chosen(self, *conditions, **more):
        found = self.texts(filters={"AND": [{"user_id": self.user}, *conditions]}, **more)
        names = {"Walks with a stick": 1, "Drinks green tea": 2, "Sleeps badly": 3}
        return sorted(names[text] for text in found)

    def test_each_documented_field_and_operator_chooses_what_it_says(self):
        for condition, expected in (
            ({}, [1, 2, 3]),
            ({"agent_id": "physio"}, [1]),
            ({"agent_id": "*"}, [1]),
            ({"agent_id": None}, [2, 3]),
            ({"agent_id": {"ne": "physio"}}, [2, 3]),
            ({"app_id": {"in": ["kitchen", "garden"]}}, [2]),
            ({"run_id": "*"}, [1, 2]),
            ({"run_id": {"nin": [f"{self.user}-r1"]}}, [2, 3]),
            ({"created_at": {"lt": "2024-06-01"}}, [2]),
            ({"created_at": {"gte": "2024-05-01", "lte": "2024-05-01"}}, [2]),
            ({"timestamp": {"gt": "2024-05-01"}}, [1, 3]),
            ({"updated_at": {"gt": "2024-05-01"}}, [1, 2, 3]),
            ({"categories": {"contains": "nig"}}, [3]),
            ({"categories": {"in": ["night", "day"]}}, [3]),
            ({"categories": {"ne": "night"}}, [1, 2]),
            ({"metadata": {"ward": "3"}}, [1]),
            ({"metadata": {"ward": {"in": ["3", "4"]}}}, [1, 2]),
            ({"metadata": {"score": {"gt": 4}}}, [2]),
            ({"metadata": {"score": 4.0}}, [1]),
            ({"metadata": {"ne": {"ward": "3"}}}, [2, 3]),
            ({"metadata": {"ward": "*"}}, [1, 2]),
            ({"keywords": {"icontains": "GREEN"}}, [2]),
            ({"keywords": {"contains": "GREEN"}}, []),
            ({"memory_ids": [self.one["id"], self.three, UNKNOWN, "no id"]}, [1, 3]),
            ({"OR": [{"agent_id": "physio"}, {"app_id": "kitchen"}]}, [1, 2]),
            ({"NOT": [{"agent_id": "physio"}, {"app_id": "kitchen"}]}, [3]),
            ({"NOT": {"AND": [{"run_id": "*"}, {"metadata": {"ward": "4"}}]}}, [1, 3]),
            ({"OR": [{"user_id": "nobody"}, {"NOT": [{"categories": "draft"}]}]}, [1, 2]),
        ):
            with self.subTest(condition):
                self.assertEqual(self.chosen(condition), expected)

    def test_what_older_clients_say_beside_filters_narrows_too(self):
        self.assertEqual(self.chosen(metadata={"ward": "3"}), [1])
        self.assertEqual(self.chosen(categories=["night"]), [3])
        self.assertEqual(self.chosen(agent_id="physio"), [1])
        self.assertEqual(self.chosen(end_date="2024-05-01"), [2])
        self.assertEqual(self.chosen(start_date="2024-05-02"), [1, 3])
        listed = self.owner.get(f"/v1/memories/?user_id={quote(self.user)}&run_id={quote(self.user)}-r1").expect(200).json
        self.assertEqual([memory["id"] for memory in listed], [self.one["id"]])

    def test_a_filter_that_is_misread_is_refused_and_never_widened(self):
        for filters, words in (
            ({"users": self.user}, "^body/filters holds a key"),
            ({"AND": [{"user_id": {">=": "x"}}]}, "^body/filters/AND/0/user_id holds an operator"),
            ({"user_id": {"contains": "p"}}, "takes eq"),
            ({"created_at": {"gte": "soon"}}, "must be a date"),
            ({"AND": []}, "fewer than 1"),
            ({"AND": [{"user_id": self.user}] * 101}, "more than 100 conditions"),
            ({"metadata": {"a": {"b": 1}}}, "operator"),
            ([{"user_id": self.user}], "^body/filters"),
        ):
            with self.subTest(words):
                detail = self.refusal(self.owner.post("/v3/memories/", {"filters": filters}), 400, words)
                self.assertNotIn(self.user, detail)
                self.refusal(self.owner.post("/v3/memories/search/", {"query": "x", "filters": filters}), 400, words)

    def test_pages_are_whole_and_link_to_one_another(self):
        filters = {"filters": {"user_id": self.user}}
        page = self.owner.post("/v3/memories/?page=1&page_size=2", filters).expect(200).json
        self.assertEqual((page["count"], len(page["results"]), page["previous"]), (3, 2, None))
        self.assertEqual(page["next"], "/v3/memories/?page=2&page_size=2")
        rest = self.owner.post(page["next"], filters).expect(200).json
        self.assertEqual((rest["count"], rest["next"], rest["previous"]), (3, None, "/v3/memories/?page=1&page_size=2"))
        self.assertEqual(len({memory["id"] for memory in page["results"] + rest["results"]}), 3)
        self.assertEqual(self.owner.post("/v3/memories/?page=9007199254740991&page_size=1000", filters).expect(200).json["results"], [])
        for odd in ("page=0", "page_size=1001", "page=x", "pages=1"):
            self.refusal(self.owner.post(f"/v3/memories/?{odd}", filters), 400, "^querystring")

    def test_older_clients_get_arrays_unless_they_ask_for_pages(self):
        filters = {"filters": {"user_id": self.user}}
        self.assertEqual(len(self.owner.post("/v2/memories/", filters).expect(200).json), 3)
        self.assertEqual(self.owner.post("/v2/memories/?page=1&page_size=2", filters).expect(200).json["count"], 3)
        self.assertEqual(len(self.owner.post("/v2/memories/", {**filters, "output_format": "v1.1"}).expect(200).json["results"]), 3)
        self.assertEqual(len(self.owner.get(f"/v1/memories/?user_id={quote(self.user)}").expect(200).json), 3)
        self.assertEqual(len(self.owner.get(f"/v1/memories/?user_id={quote(self.user)}&top_k=2").expect(200).json), 2)
        found = self.owner.post("/v1/memories/search/", {"query": "tea", "user_id": self.user}).expect(200).json
        self.assertEqual(found[0]["id"], self.two["id"])
        self.assertEqual(self.owner.post("/v2/memories/search/", {"query": "tea", **filters, "output_format": "v1.1"}).expect(200).json["results"][0]["id"], self.two["id"])

    def test_a_search_chooses_by_its_filters_and_ranks(self):
        def found(**more):
            return self.owner.post("/v3/memories/search/", {"query": "walks stick tea", **more}).expect(200).json["results"]

        mine = found(filters={"user_id": self.user})
        self.assertEqual({memory["id"] for memory in mine[:2]}, {self.one["id"], self.two["id"]})
        self.assertEqual(mine[0]["score"], 1.0)
        self.assertEqual([m["score"] for m in mine], sorted((m["score"] for m in mine), reverse=True))
        self.assertEqual([m["id"] for m in found(filters={"AND": [{"user_id": self.user}, {"metadata": {"ward": "4"}}]})], [self.two["id"]])
        self.assertEqual([m["id"] for m in found(filters={"run_id": f"{self.user}-r1"})], [self.one["id"]])
        self.assertEqual(len(found(filters={"user_id": self.user}, top_k=1)), 1)
        self.assertEqual(len(found(filters={"user_id": self.user}, threshold=1.0)), 1)
        self.assertEqual(found(filters={"user_id": "nobody"}), [])
        only = found(filters={"user_id": self.user}, fields=["memory"])[0]
        self.assertEqual(set(only), {"id", "memory", "score"})
        self.refusal(self.owner.post("/v3/memories/search/", {"query": ""}), 400)
        self.refusal(self.owner.post("/v3/memories/search/", {"query": "x" * 4097}), 400)
        self.owner.post("/v3/memories/search/", {"query": "x " * 2048, "filters": {"user_id": self.user}}).expect(200)

    def test_replies_are_not_shown_as_memories(self):
        self.owner.post(f"/memories/{self.one['id']}/children", {"title": "Reply", "content": "a reply that walks", "tags": [], "subject": self.user}).expect(201)
        self.assertEqual(self.list(filters={"user_id": self.user})["count"], 3)


class Many(Mem0Case):
    def test_delete_all_moves_to_the_trash_what_carries_all_the_names(self):
        stays = self.add("of another run", run_id=f"{self.user}-b")
        goes = [self.add(f"of this run {n}", run_id=f"{self.user}-a")["id"] for n in range(3)]
        elsewhere = self.add("of another patient", user_id=unique("patient-"), run_id=f"{self.user}-a")
        path = f"/v1/memories/?user_id={quote(self.user)}&run_id={quote(self.user)}-a"
        answer = self.owner.delete(path).expect(200).json
        self.assertEqual((answer["deleted"], answer["kept"]), (3, 0))
        self.assertEqual(self.texts(filters={"user_id": self.user}), [stays["memory"]])
        self.owner.get(f"/v1/memories/{elsewhere['id']}/").expect(200)
        for memory in goes:
            self.owner.post(f"/memories/{memory}/restore").expect(200)
        self.assertEqual(self.list(filters={"user_id": self.user})["count"], 4)
        self.assertEqual(self.owner.delete("/v1/memories/?user_id=nobody-of-that-name").expect(200).json["deleted"], 0)

    def test_a_name_is_one_however_its_accents_are_written(self):
        """`user_id` was; of the other three a client that writes accents apart found and deleted nothing."""
        for kind in ("user_id", "agent_id", "app_id", "run_id"):
            for wrote, asked in (("NFC", "NFD"), ("NFD", "NFC")):
                name = unique("Amélie-")
                wrote, asked = unicodedata.normalize(wrote, name), unicodedata.normalize(asked, name)
                self.assertNotEqual(wrote, asked)
                kept = self.add("named", **{kind: wrote})
                for filters in ({kind: asked}, {kind: {"in": ["x", asked]}}):
                    self.assertEqual([one["id"] for one in self.list(filters=filters)["results"]], [kept["id"]], kind)
                self.assertEqual(kept[kind], wrote, "it is told as it was written")
                path = f"/v2/entities/{kind.removesuffix('_id')}/{quote(asked)}/"
                self.assertEqual(self.owner.delete(path).expect(200).json["deleted"], 1, kind)

    def test_delete_all_without_a_name_or_with_a_misread_one_deletes_nothing(self):
        self.add("stays")
        self.refusal(self.owner.delete("/v1/memories/"), 400, "must name what to delete")
        self.refusal(self.owner.delete("/v1/memories/?filters=%7B%27user_id%27%3A+%27x%27%7D"), 400, "additional properties")
        self.refusal(self.owner.delete(f"/v1/memories/?user_id={self.user}&user_id=x"), 400)
        self.refusal(self.owner.delete("/v1/memories/?user_id="), 400)
        self.assertEqual(self.texts(filters={"user_id": self.user}), ["stays"])

    def test_a_large_deletion_ends_though_it_takes_several_commits(self):
        for n in range(3):
            messages = [{"role": "user", "content": f"{n} {i}"} for i in range(150)]
            self.owner.post("/v3/memories/add/", {"messages": messages, "user_id": self.user}).expect(200)
        self.assertEqual(self.list(filters={"user_id": self.user})["count"], 450)
        self.assertEqual(self.owner.delete(f"/v1/memories/?user_id={self.user}").expect(200).json["deleted"], 450)
        self.assertEqual(self.list(filters={"user_id": self.user})["count"], 0)

    def test_replies_go_with_what_is_deleted_and_are_counted_once(self):
        parent = self.add("parent")
        reply = {"title": "Reply", "content": "reply", "tags": [], "subject": self.user}
        child = self.owner.post(f"/memories/{parent['id']}/children", reply).expect(201).json
        self.assertEqual(self.owner.delete(f"/v1/memories/?user_id={self.user}").expect(200).json["deleted"], 2)
        self.assertIn("deleted_at", self.owner.get(f"/memories/{child['id']}").expect(200).json)
        self.owner.post(f"/memories/{parent['id']}/restore").expect(200)
        self.assertEqual(len(self.owner.get(f"/memories/{parent['id']}/thread").expect(200).json["children"]), 1)

    def test_an_agent_deletes_only_what_it_wrote(self):
        cursor = self.agents["cursor"]
        self.add("written by the person")
        self.add("written by cursor", cursor)
        self.owner.remember(unique(), "hidden", [], allowed_vendors=["claude"], subject=self.user)
        answer = cursor.delete(f"/v1/memories/?user_id={self.user}").expect(200).json
        self.assertEqual((answer["deleted"], answer["kept"]), (1, 1))
        self.assertEqual(self.list(filters={"user_id": self.user})["count"], 2)

    def test_entities_are_named_counted_and_deleted(self):
        name = f"{self.user} / 4711+ü"
        run = unique("run")
        self.add("one", user_id=name, agent_id=f"{run}-agent", run_id=run)
        self.add("two", user_id=name, app_id=f"{run}-app")
        entities = {(e["type"], e["name"]): e["total_memories"] for e in self.owner.get("/v1/entities/").expect(200).json["results"]}
        self.assertEqual(entities["user", name], 2)
        self.assertEqual([entities[key] for key in (("agent", f"{run}-agent"), ("app", f"{run}-app"), ("run", run))], [1, 1, 1])
        first = self.owner.get("/v1/entities/?page=1&page_size=2").expect(200).json
        self.assertEqual((len(first["results"]), first["count"], first["next"]), (2, len(entities), "/v1/entities/?page=2&page_size=2"))
        self.assertEqual(self.owner.delete(f"/v2/entities/run/{run}/").expect(200).json["deleted"], 1)
        self.assertEqual(self.owner.delete(f"/v2/entities/user/{quote(name, safe='')}/").expect(200).json["deleted"], 1)
        left = {(e["type"], e["name"]) for e in self.owner.get("/v1/entities/").expect(200).json["results"]}
        self.assertFalse({("user", name), ("run", run), ("app", f"{run}-app")} & left)
        self.assertEqual(self.owner.delete("/v2/entities/agent/nobody/").expect(200).json["deleted"], 0)
        for odd in ("%ff", "%zz"):
            self.refusal(self.owner.delete(f"/v2/entities/user/{odd}/"), 404)
        self.refusal(self.owner.delete("/v2/entities/team/x/"), 404)

    def test_entities_of_others_are_not_named_and_not_deleted(self):
        self.add("mine", run_id=f"{self.user}-run")
        other = self.others[OTHER]
        self.assertNotIn(self.user, json.dumps(other.get("/v1/entities/").expect(200).json))
        for path in (f"/v2/entities/user/{self.user}/", f"/v2/entities/run/{self.user}-run/", f"/v1/memories/?user_id={self.user}", "/v1/memories/?user_id=*"):
            answer = other.delete(path).expect(200).json
            self.assertEqual(answer["kept"], 0)
        self.assertEqual(self.list(filters={"user_id": self.user})["count"], 1)
        hidden = unique("hidden-")
        self.owner.remember(unique(), "x", [], allowed_vendors=["claude"], subject=hidden)
        self.assertNotIn(hidden, json.dumps(self.agents["cursor"].get("/v1/entities/").expect(200).json))
        self.assertIn(hidden, json.dumps(self.agents["claude"].get("/v1/entities/").expect(200).json))

    def test_a_patient_whose_memories_were_deleted_keeps_their_key(self):
        memory = self.add("restored later")
        self.owner.delete(f"/v2/entities/user/{self.user}/").expect(200)
        self.owner.post(f"/memories/{memory['id']}/restore").expect(200)
        self.assertEqual(self.owner.get(f"/v1/memories/{memory['id']}/").expect(200).json["memory"], "restored later")

    def test_everything_of_ones_own_can_be_deleted_by_its_names(self):
        other = self.others[OTHER]
        self.add("theirs", other)
        other.remember(unique(), "without any name", [])
        other.delete("/v1/memories/?user_id=*&agent_id=*&app_id=*&run_id=*").expect(200)
        self.assertEqual(self.list(other)["count"], 0)

    def test_a_batch_changes_and_deletes_one_after_the_other(self):
        one, two = self.add("first"), self.add("second")
        body = {"memories": [{"memory_id": one["id"], "text": "first, changed"}, {"memory_id": two["id"], "metadata": {"k": 1}}]}
        self.assertEqual(self.owner.put("/v1/batch/", body).expect(200).json, {"message": "Successfully updated 2 memories"})
        self.assertEqual(self.owner.get(f"/v1/memories/{one['id']}/").json["memory"], "first, changed")
        self.assertEqual(self.owner.get(f"/v1/memories/{two['id']}/").json["metadata"], {"k": 1})
        body = {"memories": [{"memory_id": one["id"]}, {"memory_id": UNKNOWN}, {"memory_id": two["id"]}]}
        self.refusal(self.owner.delete("/v1/batch/", body=body), 404, "^body/memories/1: Memory not found; 1 of 3 were done before it$")
        self.owner.get(f"/v1/memories/{two['id']}/").expect(200)
        self.owner.delete("/v1/batch/", body={"memories": [{"memory_id": two["id"]}]}).expect(200)
        self.assertEqual(self.list(filters={"user_id": self.user})["count"], 0)

    def test_a_batch_that_cannot_be_read_does_nothing(self):
        memory = self.add("stays as it is")
        good = {"memory_id": memory["id"], "text": "changed"}
        for bad, status in (
            ([good, {"memory_id": "no id", "text": "x"}], 404), ([good, good], 400), ([good, {"memory_id": UNKNOWN}], 400), ([], 400),
            ([good, {"memory_id": UNKNOWN, "text": "x", "extra": 1}], 400), ([good] * 1001, 400),
        ):
            self.refusal(self.owner.put("/v1/batch/", {"memories": bad}), status)
        self.assertEqual(self.owner.get(f"/v1/memories/{memory['id']}/").json["memory"], "stays as it is")

    def test_a_batch_reaches_nobody_elses_memories(self):
        memory = self.add("mine")
        other = self.others[OTHER]
        self.refusal(other.put("/v1/batch/", {"memories": [{"memory_id": memory["id"], "text": "x"}]}), 404)
        self.refusal(other.delete("/v1/batch/", body={"memories": [{"memory_id": memory["id"]}]}), 404)
        self.refusal(self.agents["cursor"].delete("/v1/batch/", body={"memories": [{"memory_id": memory["id"]}]}), 403)

    def test_feedback_is_kept_as_a_reply_and_is_no_memory_of_its_own(self):
        memory = self.add("left arm")
        answer = self.owner.post("/v1/feedback/", {"memory_id": memory["id"], "feedback": "NEGATIVE", "feedback_reason": "it was the right arm"}).expect(200).json
        self.owner.post("/v1/feedback/", {"memory_id": memory["id"], "feedback": None}).expect(200)
        self.agents["cursor"].post("/v1/feedback/", {"memory_id": memory["id"], "feedback": "POSITIVE"}).expect(200)
        children = self.owner.get(f"/memories/{memory['id']}/thread").expect(200).json["children"]
        self.assertEqual([child["content"] for child in children], ["NEGATIVE: it was the right arm", "WITHDRAWN", "POSITIVE"])
        self.assertEqual((children[0]["id"], children[0]["subject"], children[2]["origin"]), (answer["id"], self.user, "cursor"))
        self.assertEqual(self.list(filters={"user_id": self.user})["count"], 1)
        for body, status in (({"memory_id": UNKNOWN}, 404), ({"memory_id": "x"}, 404), ({"memory_id": memory["id"], "feedback": "BAD"}, 400)):
            self.refusal(self.owner.post("/v1/feedback/", body), status)
        self.refusal(self.others[OTHER].post("/v1/feedback/", {"memory_id": memory["id"], "feedback": "POSITIVE"}), 404)


class Boundaries(Mem0Case):
    def test_an_export_is_asked_for_and_fetched_by_its_asker_alone(self):
        self.add("Penicillin")
        self.add("Latex", user_id=unique("somebody-else-"))
        asked = self.owner.post("/v1/exports/", {"schema": {"properties": {"allergy": {"type": "string"}}}, "filters": {"user_id": self.user}}).expect(201)
        self.assertEqual(asked.json["total_memories"], 1)
        self.add("Nuts")
        export = self.owner.post("/v1/exports/get/", {"memory_export_id": asked.json["id"]}).expect(200).json
        self.assertEqual(sorted(memory["memory"] for memory in export["memories"]), ["Nuts", "Penicillin"])
        self.assertEqual((export["count"], export["schema_applied"]), (2, False))
        for other in (self.others[OTHER], self.agents["cursor"]):
            self.refusal(other.post("/v1/exports/get/", {"memory_export_id": asked.json["id"]}), 404, "Export not found")
            self.assertEqual(other.post("/v1/exports/get/", {"memory_export_id": UNKNOWN}).status, 404)
        self.refusal(self.owner.post("/v1/exports/get/", {"memory_export_id": "x"}), 404, "Export not found")

    def test_the_older_clients_export_by_names(self):
        self.add("Penicillin")
        self.owner.post("/v1/exports/", {"schema": "{}", "user_id": self.user}).expect(201)
        self.assertEqual(self.owner.post("/v1/exports/get/", {"user_id": self.user}).expect(200).json["count"], 1)
        self.refusal(self.owner.post("/v1/exports/get/", {"org_id": "x"}), 400, "memory_export_id or filters")
        self.refusal(self.owner.post("/v1/exports/", {"filters": {"user_id": self.user}}), 400, "schema")
        self.refusal(self.owner.post("/v1/exports/", {"schema": {}, "filters": {"nonsense": 1}}), 400, "nonsense|filters")
        self.assertEqual(self.others[OTHER].post("/v1/exports/get/", {"user_id": self.user}).expect(200).json["count"], 0)

    def test_names_reach_nobody_elses_memories(self):
        secret = unique("secret ")
        mine = self.add(secret, agent_id="triage", run_id=f"{self.user}-run", metadata={"k": self.user})
        other = self.others[OTHER]
        for filters in ({"user_id": self.user}, {"run_id": f"{self.user}-run"}, {"memory_ids": [mine["id"]]}, {"metadata": {"k": self.user}}, {}, {"user_id": "*"}):
            self.assertEqual(self.list(other, filters=filters)["count"], 0, filters)
            self.assertEqual(other.post("/v3/memories/search/", {"query": secret, "filters": filters}).expect(200).json["results"], [])
        path = f"/v1/memories/{mine['id']}/"
        for answer in (other.get(path), other.put(path, {"text": "x"}), other.delete(path), other.get(f"{path}history/")):
            self.assertEqual(self.refusal(answer, 404), "Memory not found")
        # The same patient's memory of another person is that person's alone.
        theirs = self.add(secret, other)
        self.assertNotEqual(theirs["id"], mine["id"])
        self.assertEqual(self.list(other, filters={"user_id": self.user})["count"], 1)
        self.assertEqual(self.list(filters={"user_id": self.user})["count"], 1)

    def test_an_agent_sees_what_its_vendor_may_and_changes_what_it_wrote(self):
        cursor, claude = self.agents["cursor"], self.agents["claude"]
        hidden = self.owner.remember(unique(), "hidden from cursor", [], allowed_vendors=["claude"], subject=self.user)
        own = self.add("written by cursor", cursor)
        self.assertEqual(self.owner.get(f"/memories/{own['id']}").json["origin"], "cursor")
        self.assertEqual(self.texts(cursor, filters={"user_id": self.user}), ["written by cursor"])
        self.assertEqual(self.list(claude, filters={"user_id": self.user})["count"], 2)
        self.refusal(cursor.get(f"/v1/memories/{hidden['id']}/"), 404)
        self.assertEqual(cursor.post("/v3/memories/search/", {"query": "hidden", "filters": {"user_id": self.user}}).expect(200).json["results"], [])
        path = f"/v1/memories/{own['id']}/"
        self.refusal(claude.put(path, {"text": "x"}), 403, "only update memories they created")
        self.refusal(claude.delete(path), 403, "only delete memories they created")
        cursor.put(path, {"text": "changed by cursor"}).expect(200)
        cursor.delete(path).expect(200)
        self.refusal(cursor.get(f"{path}history/"), 404)
        # A name is never authority: claiming another agent's changes nothing.
        self.refusal(cursor.put(f"/v1/memories/{hidden['id']}/", {"metadata": {"agent_id": "claude"}}), 404)


if __name__ == "__main__":
    unittest.main()
