"""The graph of one's memories: nodes, threads, tags in common, clusters."""

import hashlib

from rosemary_server import ServerCase, unique

OTHER = "other@clinic.example"
KEYS = {"nodes", "edges", "clusters", "scope", "days", "max_nodes", "truncated"}
NODE = {"id", "title", "tags", "author_id", "shared", "is_thread_root", "is_thread_child", "reply_count", "created_at", "cluster_id", "color"}


class Graph(ServerCase):
    options = {"users": (OTHER,)}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.root = cls.owner.remember("Root", unique(), ["insulin", "glucose", "diet"])
        cls.child = cls.owner.post(f"/memories/{cls.root['id']}/children", {"title": "Child", "content": unique(), "tags": ["insulin", "diet"]}).expect(201).json
        cls.sibling = cls.owner.remember("Sibling", unique(), ["glucose", "diet", "sweet"])
        cls.far = cls.owner.remember("Far", unique(), ["gait"])
        gone = cls.owner.remember("Gone", unique(), ["insulin", "glucose", "diet"])
        cls.owner.delete(f"/memories/{gone['id']}").expect(200)

    def graph(self, query=""):
        found = self.owner.get(f"/graph{query}").expect(200).json
        self.assertEqual(set(found), KEYS)
        return found

    def test_nodes_and_edges(self):
        found = self.graph("?scope=personal&include_similarity=1")
        nodes = {node["id"]: node for node in found["nodes"]}
        self.assertEqual([node["title"] for node in found["nodes"]], ["Far", "Sibling", "Child", "Root"])
        self.assertEqual({frozenset(node) for node in found["nodes"]}, {frozenset(NODE)})
        root, child = nodes[self.root["id"]], nodes[self.child["id"]]
        self.assertEqual((root["is_thread_root"], root["is_thread_child"], root["reply_count"]), (True, False, 1))
        self.assertEqual((child["is_thread_root"], child["is_thread_child"], child["reply_count"]), (False, True, 0))
        self.assertEqual(root["author_id"], self.owner.get("/users/me").json["id"])
        edges = {(e["type"], e["weight"], frozenset((e["source"], e["target"]))) for e in found["edges"]}
        self.assertEqual(edges, {("parent_of", 3, frozenset((self.root["id"], self.child["id"]))),
                                 ("shared_tag", 2, frozenset((self.root["id"], self.child["id"]))),
                                 ("shared_tag", 2, frozenset((self.root["id"], self.sibling["id"])))})
        parent = next(e for e in found["edges"] if e["type"] == "parent_of")
        self.assertEqual((parent["source"], parent["target"]), (self.root["id"], self.child["id"]))
        self.assertEqual((found["scope"], found["days"], found["max_nodes"], found["truncated"]), ("personal", 0, 500, False))

    def test_clusters(self):
        found = self.graph()
        (cluster,) = found["clusters"]
        self.assertEqual(cluster["tags"], ["diet", "glucose", "insulin", "sweet"])
        self.assertEqual(cluster["id"], hashlib.sha256(b"diet|glucose|insulin|sweet").hexdigest()[:16])
        self.assertEqual((cluster["name"], cluster["member_count"]), ("diet/glucose/insulin", 3))
        nodes = {node["title"]: node for node in found["nodes"]}
        self.assertEqual({title: node["cluster_id"] for title, node in nodes.items()},
                         {"Root": cluster["id"], "Child": cluster["id"], "Sibling": cluster["id"], "Far": None})
        self.assertEqual(nodes["Root"]["color"], cluster["color"])
        self.assertNotEqual(nodes["Far"]["color"], cluster["color"])
        again = self.graph()
        self.assertEqual(again, found, "the same memories give the same graph")

    def test_what_is_asked_for(self):
        self.assertFalse([e for e in self.graph("?include_similarity=0")["edges"] if e["type"] == "shared_tag"])
        self.assertFalse([e for e in self.graph("?sim_min_shared=3")["edges"] if e["type"] == "shared_tag"])
        self.assertEqual(len([e for e in self.graph("?sim_min_shared=1")["edges"] if e["type"] == "shared_tag"]), 3)
        one = self.graph("?max_nodes=1")
        self.assertEqual(([n["title"] for n in one["nodes"]], one["max_nodes"], one["truncated"]), (["Far"], 1, True))
        self.assertEqual(len(self.graph("?days=1")["nodes"]), 4)
        self.assertEqual(len(self.graph("?scope=both")["nodes"]), 4)
        for bad in ("max_nodes=0", "max_nodes=2001", "scope=all", "sim_min_shared=0", "days=0", "days=x", "x=1"):
            self.error(self.owner.get(f"/graph?{bad}"), 400)

    def test_a_team_that_nobody_is_in_has_an_empty_graph(self):
        found = self.graph("?scope=team")
        self.assertEqual((found["nodes"], found["edges"], found["clusters"], found["truncated"]), ([], [], [], False))

    def test_others_and_agents_see_nothing_of_it(self):
        self.error(self.agents["cursor"].get("/graph"), 403, "Agent keys cannot access this endpoint")
        self.assertEqual(self.others[OTHER].get("/graph").expect(200).json["nodes"], [])
