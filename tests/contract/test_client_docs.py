"""The programs in docs/clients run as they stand there: each in a folder that holds the certificate, with key and address in its environment, and
nothing else. Where a runtime is not on this machine, its page is not tried, and the test says so. The page of Mem0's client is tried by tests/clients."""

import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

from rosemary_server import ROOT, ServerCase

PAGES = ROOT / "docs/clients"
# Language of the block: the program it needs, the file it is saved as, how it is run.
RUN = {
    "sh": ("curl", "memory.sh", ["sh", "-eu", "memory.sh"]),
    "python": ("python3", "memory.py", ["python3", "memory.py"]),
    "ts": ("node", "memory.mjs", ["node", "memory.mjs"]),
    "java": ("java", "Memory.java", ["java", "Memory.java"]),
    "go": ("go", "memory.go", ["go", "run", "memory.go"]),
}


def blocks(page):
    """The page's programs: language and text. `text` blocks are for people."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", (PAGES / page).read_text(encoding="utf-8"), re.M | re.S)
    return [(language, text) for language, text in found if language != "text"]


class ClientDocs(ServerCase):
    def run_page(self, page, language):
        needed, name, command = RUN[language]
        ((written, program),) = blocks(page)
        self.assertEqual(written, language)
        if not shutil.which(needed):
            self.skipTest(f"{needed} is not on this machine: docs/clients/{page} is not tried")
        with tempfile.TemporaryDirectory(prefix="rosemary-client-") as folder:
            folder = pathlib.Path(folder)
            shutil.copy(self.server.folder / "cert.pem", folder / "cert.pem")
            (folder / name).write_text(program, encoding="utf-8")
            environment = {
                **{key: os.environ[key] for key in ("PATH", "LANG", "PYENV_ROOT", "JAVA_HOME", "GOROOT") if key in os.environ},
                "HOME": str(folder), "TMPDIR": str(folder), "KEY": self.server.owner_key, "ROSEMARY_URL": f"https://127.0.0.1:{self.server.port}",
                "NODE_EXTRA_CA_CERTS": "cert.pem", "GOFLAGS": "-mod=mod", "GO111MODULE": "off",
            }
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=300, check=False)
            self.assertEqual(done.returncode, 0, (done.stdout + done.stderr).decode(errors="replace"))
            self.assertIn(b"Walks 20 m with a stick", done.stdout)
            # Whom it does not trust, it does not talk to.
            shutil.copy(self.stranger(folder), folder / "cert.pem")
            refused = subprocess.run(command, cwd=folder, env={**environment, "NODE_EXTRA_CA_CERTS": "cert.pem"}, capture_output=True, timeout=300, check=False)
            self.assertNotEqual(refused.returncode, 0, "another server's certificate is not this one's")
            self.assertNotIn(b"Walks 20 m", refused.stdout)

    def stranger(self, folder):
        """The certificate of another instance."""
        file = folder / "stranger.pem"
        data = folder / "stranger"
        data.mkdir()
        done = self.server.run("init", RM_DB_PATH=str(data / "memory.db"), RM_ANCHOR_FILE=None)
        self.assertEqual(done.returncode, 0, done.stderr)
        shutil.copy(data / "cert.pem", file)
        return file

    def test_curl(self):
        self.run_page("curl.md", "sh")

    def test_python(self):
        self.run_page("python.md", "python")

    def test_typescript(self):
        self.run_page("typescript.md", "ts")

    def test_java(self):
        self.run_page("java.md", "java")

    def test_go(self):
        self.run_page("go.md", "go")

    def test_every_page_is_listed_and_every_program_is_tried(self):
        listed = set(re.findall(r"\]\(([a-z0-9]+\.md)\)", (PAGES / "README.md").read_text(encoding="utf-8")))
        there = {page.name for page in PAGES.glob("*.md")} - {"README.md"}
        self.assertEqual(listed, there)
        tried = {"curl.md", "python.md", "typescript.md", "java.md", "go.md"}
        self.assertEqual({page for page in there if blocks(page)} - tried - {"mem0.md", "mcp.md"}, set(), "pages with programs that nothing tries")


if __name__ == "__main__":
    unittest.main()
