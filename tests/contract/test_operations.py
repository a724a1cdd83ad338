"""docs/operations.md, literally: its ten commands without systemd, in an empty folder, lead to a running, backed-up, verified instance."""

import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import unittest

from rosemary_server import BINARY, ROOT, Server, text

DOCUMENT = (ROOT / "docs/operations.md").read_text()


def block(mark):
    return re.search(rf"<!-- {mark} -->\n```sh\n(.*?)```", DOCUMENT, re.S)[1]


class TenCommands(unittest.TestCase):
    def test_each_block_has_ten(self):
        for mark in ("package", "plain"):
            self.assertEqual(len(block(mark).splitlines()), 10, mark)

    @unittest.skipUnless(shutil.which("curl") and shutil.which("bash"), "needs curl and bash")
    def test_the_plain_ones_lead_to_a_running_backed_up_verified_instance(self):
        commands = block("plain")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            # The one thing that is not as it stands: the port may be in use on this machine.
            commands = commands.replace("RM_PORT=8443", f"RM_PORT={probe.getsockname()[1]}")
        with tempfile.TemporaryDirectory(prefix="rosemary-ten-") as folder:
            script = f"set -e\ncd {folder}\n{commands}\nkill $!\nwait $!\nrosemary verify\n"
            environment = {"PATH": f"{BINARY.parent}:{os.environ['PATH']}"}
            process = subprocess.Popen(["bash", "-c", script], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
            try:
                said = process.communicate(timeout=300)[0].decode(errors="replace")
            finally:
                try:
                    # Only what this test started: the group of its own shell.
                    os.killpg(process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            self.assertEqual(process.returncode, 0, said[-4000:])
            for words in ("Penicillin: rash on both arms", "answering", "drill", "passed", "sound"):
                self.assertIn(words, said)
            self.assertEqual(len(list(pathlib.Path(folder, "other-disk/backups").glob("*.backup"))), 1)


class Certificate(unittest.TestCase):
    def test_init_takes_over_a_certificate_that_fits_its_key_and_no_other(self):
        one, two = Server().init(), Server()
        self.addCleanup(one.remove)
        self.addCleanup(two.remove)
        cert, key = one.folder / "cert.pem", one.folder / "key.pem"
        other = two.folder / "other.pem"
        other.write_text("not a key")
        refused = two.run("init", "--cert", str(cert), "--key", str(other))
        self.assertEqual(refused.returncode, 90, text(refused))
        self.assertFalse(two.data.exists())
        self.assertEqual(two.run("init", "--cert", str(cert)).returncode, 2)
        done = two.run("init", "--cert", str(cert), "--key", str(key))
        self.assertEqual(done.returncode, 0, text(done))
        for name in ("cert.pem", "key.pem"):
            self.assertEqual((two.folder / name).read_bytes(), (one.folder / name).read_bytes())
        self.assertEqual((two.folder / "key.pem").stat().st_mode & 0o777, 0o600)
        two.start()
        with two.client() as client:
            client.get("/health").expect(200)
        two.stop()


class Addresses(unittest.TestCase):
    def test_every_exit_code_that_it_names_is_one(self):
        known = re.findall(r"^ +(\d+)  ", subprocess.run([str(BINARY), "--help"], capture_output=True, check=True).stdout.decode(), re.M)
        section = DOCUMENT[DOCUMENT.index("## When something is wrong"):]
        named = {code for row in re.findall(r"^\| ([\d, ]+)", section, re.M) for code in re.findall(r"\d+", row)}
        self.assertGreater(len(named), 8)
        self.assertEqual(named - set(known), set())


if __name__ == "__main__":
    unittest.main()
