"""A service that starts locked: nothing on the machine opens the data, until somebody brings the key to its console."""

import json
import os
import socket
import struct
import subprocess
import threading
import time
import unittest

from rosemary_server import BINARY, Server, text, write_private

USAGE, TEMPORARY, CONFIG, KEK_WRONG, KEK_MISSING = 2, 75, 78, 80, 81


def console(server, ask, **given):
    """One question over the console's socket, as docs/keys.md describes it; the last frame of the answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.settimeout(60)
        line.connect(str(server.folder / "console.sock"))
        question = json.dumps({"ask": ask, "with": given}).encode()
        line.sendall(struct.pack("<I", len(question)) + question)
        with line.makefile("rb") as frames:
            while True:
                length, = struct.unpack("<I", frames.read(4))
                answer = json.loads(frames.read(length))
                if "say" not in answer:
                    return answer


class Sealed(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with Server():  # whose OpenAPI document describes the answers of locked ones too
            pass

    def setUp(self):
        self.server = Server()
        self.addCleanup(self.server.remove)

    def seal(self):
        self.server.init()
        self.server.change({"RM_KEK_FILE": None, "RM_SEALED_START": "on"})

    def unlock(self, *arguments, code=0, typed=b""):
        done = subprocess.run(
            [str(BINARY), "unlock", *map(str, arguments)], env=self.server.environment(), cwd=self.server.folder, input=typed,
            capture_output=True, timeout=60, check=False,
        )
        self.assertEqual(done.returncode, code, text(done))
        return text(done)

    def log(self):
        """The entries of the log; the service must be stopped."""
        log = self.server.folder / "log.ndjson"
        log.unlink(missing_ok=True)
        done = self.server.run("audit", "export", log, RM_SEALED_START=None, RM_KEK_FILE=self.server.kek)
        self.assertEqual(done.returncode, 0, text(done))
        return [json.loads(line) for line in log.read_text().splitlines()[:-1]]

    def test_a_locked_service_says_so_answers_nothing_else_and_serves_once_unlocked(self):
        self.seal()
        server = self.server.start()
        owner = server.client(server.owner_key)
        self.addCleanup(owner.close)
        for path in ("/memories/x", "/whoami", "/api/v1/operations/x", "/v1/ping/", "/openapi.json", "/no/such/path"):
            answer = owner.get(path).expect(503)
            self.assertIn("locked", answer.json["error"])
        self.assertEqual(owner.get("/health").expect(503).json["status"], "locked")
        owner.post("/memories", {"title": "t", "content": "c", "tags": []}).expect(503)
        self.assertEqual(console(server, "state"), {"done": {"state": "locked"}})
        refused = console(server, "keys.rotate_epoch")["failed"]
        self.assertEqual(refused["exit"], TEMPORARY)
        self.assertIn("unlock", refused["message"])

        wrong = server.folder / "wrong"
        write_private(wrong, "w" * 64)
        self.unlock("--key-file", wrong, code=KEK_WRONG)
        self.assertIn("wait", self.unlock("--key-file", server.kek, code=TEMPORARY), "a wrong key makes everybody wait")
        self.assertEqual(self.unlock_patiently(), {"done": {"state": "open"}})
        self.assertEqual(owner.get("/health").expect(200).json["status"], "ok")
        record = owner.remember("after", "the unlocking")
        self.unlock("--key-file", server.kek, code=USAGE)
        with server.agent("cursor") as agent:
            agent.get("/whoami").expect(200)
        self.assertEqual(server.stop(), 0)

        told = [entry for entry in self.log() if entry["op"] == "instance.unlock"]
        self.assertEqual(len(told), 1)
        self.assertEqual((told[0]["det"]["attempts"], told[0]["det"]["setting"]), (1, "key_file"))
        self.assertGreaterEqual(told[0]["det"]["refused"], 8)
        server.start()
        owner.connection.close()
        owner = server.client(server.owner_key)
        self.addCleanup(owner.close)
        owner.get(f"/memories/{record['id']}").expect(503)
        self.unlock("--key-file", server.kek)
        self.assertEqual(owner.get(f"/memories/{record['id']}").expect(200).json, record)

    def test_a_passphrase_alone_makes_the_file_and_unlocks_it(self):
        self.server.change({"RM_KEK_FILE": None, "RM_SEALED_START": "on"})
        made = subprocess.run([str(BINARY), "init"], env=self.server.environment(), cwd=self.server.folder, input=b"open sesame please\n",
                              capture_output=True, timeout=120, check=False)
        self.assertEqual(made.returncode, 0, text(made))
        self.server.start()
        self.unlock(code=KEK_MISSING)
        self.unlock(typed=b"open sesame pleased\n", code=KEK_WRONG)
        while "unlocked and answers" not in (said := self.try_unlock(b"open sesame please\n")):
            self.assertIn("wait", said)
            time.sleep(0.05)
        with self.server.client() as nobody:
            nobody.get("/health").expect(200)
        self.assertEqual(self.server.stop(), 0)
        self.assertNotIn(b"sesame", bytes(self.server.output))

    def try_unlock(self, typed):
        done = subprocess.run([str(BINARY), "unlock"], env=self.server.environment(), cwd=self.server.folder, input=typed,
                              capture_output=True, timeout=60, check=False)
        return text(done)

    def test_what_is_said_to_the_console_is_bounded_and_nonsense_changes_nothing(self):
        self.seal()
        server = self.server.start()
        path = str(server.folder / "console.sock")
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
        for sent in (b"\xff\xff\xff\xff", b"\x02\x00\x00\x00{}", b"\x05\x00\x00\x00", b"\x00\x00\x00\x00", b"\x04\x00\x00\x00null"):
            with socket.socket(socket.AF_UNIX) as line:
                line.settimeout(30)
                line.connect(path)
                line.sendall(sent)
                line.shutdown(socket.SHUT_WR)
                while line.recv(4096):
                    pass
        for given in ({}, {"kind": 9, "secret": "00"}, {"kind": 1, "secret": "0"}, {"kind": 1, "secret": ""}, {"kind": "1", "secret": "00"}):
            self.assertEqual(console(server, "unlock", **given)["failed"]["exit"], USAGE, given)
        held = [socket.socket(socket.AF_UNIX) for _ in range(40)]
        for line in held:
            line.connect(path)
        for line in held:
            line.close()
        self.unlock_patiently()
        with server.client(server.owner_key) as owner:
            owner.get("/whoami").expect(200)
        self.assertEqual(console(server, "no.such.question")["failed"]["exit"], USAGE)
        self.assertEqual(console(server, "unlock", kind=1, secret="00")["failed"]["exit"], USAGE)

    def unlock_patiently(self):
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                done = console(self.server, "unlock", kind=1, secret=self.server.kek.read_bytes().hex())
                if "done" in done:
                    return done
                self.assertEqual(done["failed"]["exit"], TEMPORARY)
            except (OSError, struct.error):  # too many connections at once
                pass
            time.sleep(0.05)
        self.fail("the right key does not unlock")

    def test_a_locked_service_stops_when_told_and_dies_without_a_trace(self):
        self.seal()
        before = self.server.data.read_bytes()
        self.server.start()
        self.assertEqual(self.server.stop(), 0)
        self.server.start().kill()
        self.assertEqual(self.server.data.read_bytes(), before)
        self.server.start()  # over the socket that the killed one left
        self.unlock("--key-file", self.server.kek)

    def test_one_source_of_the_key_and_a_console_that_can_be_made(self):
        self.server.init()
        done = self.server.run("serve", RM_SEALED_START="on")
        self.assertEqual(done.returncode, CONFIG)
        self.assertIn("RM_SEALED_START", text(done))
        done = self.server.run("serve", RM_SEALED_START="on", RM_KEK_FILE=None, RM_CONSOLE_SOCKET="/nowhere/at/all.sock")
        self.assertEqual(done.returncode, 69, text(done))
        self.assertIn("RM_CONSOLE_SOCKET", text(done))
        done = self.server.run("unlock")
        self.assertEqual(done.returncode, TEMPORARY, text(done))

    def test_shares_unlock_a_locked_service(self):
        self.server.init()
        shares = self.server.run("keys", "shares").stdout.splitlines()
        self.server.change({"RM_KEK_FILE": None, "RM_SEALED_START": "on"})
        self.server.start()
        self.unlock("--shares", typed=shares[1] + b"\n", code=KEK_MISSING)
        self.unlock("--shares", typed=shares[1] + b"\n" + shares[2] + b"\n")

    def test_two_who_bring_keys_at_once_do_not_both_open_it(self):
        self.seal()
        server = self.server.start()
        answers = []

        def bring():
            answers.append(console(server, "unlock", kind=1, secret=server.kek.read_bytes().hex()))

        threads = [threading.Thread(target=bring) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(sum("done" in answer for answer in answers), 1, answers)

    def test_a_running_service_rotates_its_epoch_by_the_console(self):
        server = self.server.init().start()
        with server.client(server.owner_key) as owner:
            record = owner.remember("kept", "while the keys change")
            self.assertEqual(server.run("keys", "rotate", "epoch").returncode, 0)
            self.assertEqual(owner.get(f"/memories/{record['id']}").expect(200).json, record)
        self.assertEqual(server.run("keys", "list").returncode, 84, "what needs the closed file says that it is in use")


if __name__ == "__main__":
    unittest.main()
