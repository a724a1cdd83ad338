"""`rosemary demo`: the lines that it prints work as they stand, it goes on where it stopped, and it touches nothing that is not its own."""

import http.client
import json
import re
import shlex
import signal
import socket
import ssl
import subprocess
import tempfile
import unittest
from pathlib import Path

from rosemary_server import BINARY, START_SECONDS


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Demo(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="rosemary demo ")  # a space: the lines must be quoted
        self.addCleanup(folder.cleanup)
        self.folder, self.port = Path(folder.name) / "try it", free_port()

    def command(self, *arguments):
        # Settings of a real instance must not reach the demo.
        environment = {"RM_DB_PATH": "/nowhere", "RM_NONSENSE": "1"}
        return [BINARY, "demo", "--dir", self.folder, "--port", str(self.port), *arguments], environment

    def start(self, *arguments):
        """Starts the demo; gives the process and all that it says up to its last line."""
        command, environment = self.command(*arguments)
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        said = ""
        for line in process.stdout:
            said += line
            if line.startswith("Ctrl-C"):
                return process, said
        self.fail(f"the demo ended: {said}{process.stderr.read()}")

    def stop(self, process):
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(START_SECONDS), 0)

    def refused(self, code, *words, arguments=()):
        command, environment = self.command(*arguments)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=START_SECONDS, check=False)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        for word in words:
            self.assertIn(word, done.stderr)

    def curl(self, line):
        """Does what the line would have curl do; gives status and body."""
        line = re.sub(r"\$\(cat ('[^']*'|[^)]*)\)", lambda found: Path(shlex.split(found[1])[0]).read_text(), line)
        words, url, method, body, headers, ca = shlex.split(line)[1:], None, "GET", None, {}, None
        while words:
            word = words.pop(0)
            if word == "--cacert":
                ca = words.pop(0)
            elif word == "-H":
                name, value = words.pop(0).split(": ", 1)
                headers[name] = value
            elif word == "-d":
                method, body = "POST", words.pop(0)
            else:
                url = re.fullmatch(r"https://localhost:(\d+)(/.*)", word)
        connection = http.client.HTTPSConnection("localhost", int(url[1]), timeout=30, context=ssl.create_default_context(cafile=ca))
        connection.request(method, url[2], body, headers)
        answer = connection.getresponse()
        status, text = answer.status, answer.read()
        connection.close()
        return status, json.loads(text)

    def lines(self, said):
        found = [line for line in said.splitlines() if line.startswith("curl ")]
        self.assertEqual(len(found), 6, said)
        return found

    def test_every_printed_line_works_on_the_first_and_on_the_second_run(self):
        process, said = self.start()
        self.assertIn("shown this once", said)
        key = re.search(r"rm_live_[0-9a-f]{48}", said)[0]
        health, write, ranked, agent, literal, browse = (self.curl(line) for line in self.lines(said))
        self.assertEqual([health[0], write[0]], [200, 201])
        self.assertEqual(health[1]["status"], "ok")
        self.assertIn("penicillin", json.dumps(ranked[1]).lower())
        self.assertTrue(agent[1]["results"][0]["explain"])
        self.assertGreater(literal[1]["count"], 0)
        self.assertGreater(browse[1]["total"], 1)
        self.stop(process)
        process, said = self.start()
        self.assertNotIn(key, said, "a key is printed once")
        self.assertIn("as you left them", said)
        again = [self.curl(line) for line in self.lines(said)]
        self.assertEqual([status for status, _ in again], [200, 201, 200, 200, 200, 200])
        self.assertEqual(again[1][1]["id"], write[1]["id"], "the memory of the first run is still there: the repeat is united with it")
        self.refused(84, "in use", arguments=("--reset",))
        self.stop(process)
        process, said = self.start("--reset")
        self.assertIn("invented notes", said)
        self.assertNotIn(key, said)
        self.stop(process)

    def test_everything_secret_is_private(self):
        process, _ = self.start()
        self.stop(process)
        self.assertEqual(self.folder.stat().st_mode & 0o777, 0o700)
        for name in ("memory.db", "kek", "key.pem", "owner-key", "agent-key"):
            self.assertEqual((self.folder / name).stat().st_mode & 0o077, 0, name)

    def test_a_folder_that_is_not_the_demos_is_refused(self):
        self.folder.mkdir()
        (self.folder / "memory.db").write_text("a real one")
        for arguments in ((), ("--reset",)):
            self.refused(73, "--dir", arguments=arguments)
        self.assertEqual([path.name for path in self.folder.iterdir()], ["memory.db"])
        self.assertEqual((self.folder / "memory.db").read_text(), "a real one")

    def test_a_port_in_use_is_named_with_the_remedy(self):
        with socket.socket() as other:
            other.bind(("127.0.0.1", self.port))
            other.listen()
            self.refused(69, str(self.port), "--port")


if __name__ == "__main__":
    unittest.main()
