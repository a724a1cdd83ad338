"""What the operator's mistakes get: one line that names the thing and the remedy, a distinct exit code, and the file untouched."""

import os
import re
import secrets
import shutil
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

from rosemary_server import BINARY, Server, digest, text, write_private


# The exit codes of `rosemary --help` that these mistakes must give.
UNAVAILABLE, EXISTS, PERMISSION, CONFIG = 69, 73, 77, 78
KEK_WRONG, KEK_MISSING, SUPERBLOCK, FORMAT_NEWER, LOCKED, DISK_FULL, ANCHOR, DAMAGED, TENANT, CERTIFICATE, FOLDER = 80, 81, 82, 83, 84, 85, 86, 88, 89, 90, 91
NO_INPUT, IO = 66, 74
# Where the page-0 slots A, A', B, B' begin (docs/format.md).
SLOTS = 8192, 16384, 24576, 32768


class Operator(unittest.TestCase):
    """Each test breaks one thing of a working folder that holds one memory."""

    def setUp(self):
        self.server = Server().init()
        self.addCleanup(self.server.remove)
        self.server.start()
        with self.server.client(self.server.owner_key) as owner:
            self.record = owner.remember("kept", "through every mistake")
        self.assertEqual(self.server.stop(), 0)

    def refused(self, codes, *names, command="serve", untouched=True, **settings):
        """Runs `command`, expects it to end at once with one of `codes` and one line that names `names`; the data file keeps its bytes."""
        before = digest(self.server.data) if self.server.data.exists() else None
        done = self.server.run(command, timeout=60, **settings)
        said = text(done)
        self.assertIn(done.returncode, codes if isinstance(codes, tuple) else (codes,), said)
        self.assertNotIn("panicked", said)
        # Warnings and log lines of lesser weight may stand before it.
        lines = [line for line in done.stderr.decode().splitlines() if "warning: " not in line and line[:3] not in ("<4>", "<6>", "<7>")]
        self.assertEqual(len(lines), 1, f"not one line: {said}")
        for name in names:
            self.assertIn(str(name).lower(), said.lower())
        if untouched and before:
            self.assertEqual(digest(self.server.data), before, "the data file was changed")

    def works_again(self):
        self.server.start()
        with self.server.client(self.server.owner_key) as owner:
            self.assertEqual(owner.get(f"/memories/{self.record['id']}").expect(200).json, self.record)
        self.assertEqual(self.server.stop(), 0)

    def damage(self, *spots, length=64):
        with open(self.server.data, "r+b") as file:
            for spot in spots:
                file.seek(spot)
                file.write(secrets.token_bytes(length))

    def test_a_wrong_kek_a_missing_kek_and_anothers_kek_are_told_apart(self):
        good = self.server.kek.read_bytes()
        write_private(self.server.kek, secrets.token_hex(32))
        self.refused(KEK_WRONG, "key file")
        self.server.kek.unlink()
        self.refused((KEK_MISSING, CONFIG), self.server.kek)
        other = Server().init()
        self.addCleanup(other.remove)
        write_private(self.server.kek, other.kek.read_bytes())
        self.refused(KEK_WRONG, "key file")
        write_private(self.server.kek, good)
        self.works_again()

    def test_no_kek_setting_is_a_configuration_error(self):
        self.refused(CONFIG, "RM_KEK_FILE", RM_KEK_FILE=None)

    def test_a_refused_command_leaves_the_file_as_it_was(self):
        # Each of these opened the data file for writing first, and said what was wrong afterwards.
        folder, usage = self.server.folder, 2
        there, gone = folder / "there", folder / "gone" / "x"
        there.write_text("not to be touched")
        for code, *command in (
            (usage, "key", "make", "--label", ""),
            (usage, "key", "make", "--user", "nope"),
            (usage, "key", "revoke", "x"),
            (usage, "keys", "remove", "99"),
            (usage, "keys", "remove", "1"),
            (usage, "keys", "remove", "0"),
            (usage, "keys", "shares", "--need", "1"),
            (KEK_MISSING, "keys", "add", "--key-file", gone),
            (FOLDER, "keys", "add", "--make", "--key-file", gone),
            (EXISTS, "keys", "add", "--make", "--key-file", there),
            (usage, "audit", "export", folder / "log", "--from", "3", "--to", "2"),
            (FOLDER, "audit", "export", gone),
            (FOLDER, "export", gone),
            (EXISTS, "export", there),
            (FOLDER, "backup", "make", gone),
            (EXISTS, "backup", "make", there),
            (usage, "erase", "receipt", "x", folder / "receipt"),
            (FOLDER, "erase", "subject", "x", "--yes", "--receipt", gone),
            (IO, "import", folder),
        ):
            with self.subTest(command):
                before = digest(self.server.data)
                done = self.server.run(*map(str, command))
                self.assertEqual(done.returncode, code, text(done))
                self.assertEqual(digest(self.server.data), before, f"the data file was changed: {text(done)}")
                if gone in command:
                    self.assertIn(f"{gone}: ", text(done))
        self.assertEqual(there.read_text(), "not to be touched")

    def test_what_is_shown_once_is_not_made_for_nobody(self):
        # With standard output closed, keys and exports went nowhere, and the exit code was 0.
        def run(redirection, *command):
            return subprocess.run(
                ["bash", "-c", f'"$0" "$@" {redirection}', str(BINARY), *command],
                env=self.server.environment(), cwd=self.server.folder, stderr=subprocess.PIPE, stdout=subprocess.PIPE, timeout=60, check=False)

        keys = lambda: [line[108:132].strip() for line in self.server.run("key", "list").stdout.decode().splitlines()[1:]]
        known = keys()
        for command in (("key", "make"), ("keys", "shares"), ("export",), ("audit", "export", "-")):
            before = digest(self.server.data)
            done = run(">&-", *command)
            self.assertEqual((done.returncode, digest(self.server.data)), (IO, before), text(done))
            self.assertIn("standard output", text(done))
        self.assertEqual(run(">/dev/null", "export").returncode, 0)
        # Where it is found out too late, the key is dead.
        self.assertEqual(keys(), known)
        for gone in ("| true", ">/dev/full"):
            done = run(f"{gone}; exit ${{PIPESTATUS[0]}}", "key", "make")
            self.assertEqual(done.returncode, IO, text(done))
            self.assertIn("revoked", text(done))
        self.assertEqual(len([revoked for revoked in keys() if revoked != "-"]), 2)
        self.assertEqual(run(">/dev/full", "--help").returncode, IO)
        self.assertEqual(run("| true; exit ${PIPESTATUS[0]}", "--help").returncode, 0)

    def test_a_message_names_what_to_do(self):
        # Each of these said what was wrong and not what to do, or something else than what to do.
        folder, junk = self.server.folder, self.server.folder / "junk"
        junk.write_text("nothing of ours" * 1000)
        self.refused(SUPERBLOCK, junk, "check the path", "backup", untouched=False, RM_DB_PATH=junk)
        (folder / "inside").mkdir()
        self.refused(IO, "name a file", RM_DB_PATH=f"{folder / 'inside'}/")
        records = folder / "records"
        for content in (b'\xef\xbb\xbf{"title": "begins with", "content": "a mark"}\n', b'{"title": "a", "content": "b"}\n'):
            records.write_bytes(content)
            done = self.server.run("import", str(records))
            self.assertEqual(done.returncode, 0, text(done))
        for content in (b'\x1f\x8b\x08 packed', ):
            records.write_bytes(content)
            before = digest(self.server.data)
            done = self.server.run("import", str(records))
            self.assertEqual((done.returncode, digest(self.server.data)), (65, before), text(done))
            self.assertIn("compressed", text(done))
        records.write_bytes(b'{"title": "a", "content": "b"}\n')
        self.assertEqual(self.server.run("incident", "freeze").returncode, 0)
        done = self.server.run("import", str(records))
        self.assertEqual(done.returncode, PERMISSION, text(done))
        self.assertIn("rosemary incident thaw", text(done))
        self.assertEqual(self.server.run("incident", "thaw").returncode, 0)
        self.works_again()

    def test_a_lost_pair_of_page_0_is_told_of(self):
        # Both mirrors of the newest commit gone was "sound", and nothing else.
        whole = self.server.data.read_bytes()
        self.assertNotIn("pair", text(self.server.run("verify", RM_ANCHOR_FILE=None)))
        for pair in SLOTS[:2], SLOTS[2:]:
            self.server.data.write_bytes(whole)
            self.damage(*(at + 100 for at in pair))
            done = self.server.run("verify", RM_ANCHOR_FILE=None)
            self.assertEqual(done.returncode, 0, text(done))
            self.assertIn("the newest commit may be lost", text(done).lower())

    def test_init_prints_the_key_of_the_log(self):
        other = Server()
        self.addCleanup(other.remove)
        said = text(other.run("init"))
        found = re.search(r"rosemary/\S+\+\S+", said)
        self.assertTrue(found, said)
        self.assertIn(found[0], text(other.run("doctor")))

    def test_a_pipe_as_a_file_of_the_settings_is_refused_and_never_waited_for(self):
        # A start hung for ever in opening it.
        pipe = self.server.folder / "pipe"
        os.mkfifo(pipe, 0o600)
        self.refused(KEK_MISSING, pipe, "not a regular file", RM_KEK_FILE=pipe)
        self.refused(CERTIFICATE, pipe, "not a regular file", RM_TLS_CERT=pipe, RM_TLS_KEY=pipe)
        self.refused(ANCHOR, pipe, RM_ANCHOR_FILE=pipe)
        self.works_again()

    def test_a_kek_that_others_may_read_is_refused(self):
        self.server.kek.chmod(0o644)
        self.refused((KEK_MISSING, PERMISSION, CONFIG), self.server.kek, "chmod")
        self.server.kek.chmod(0o600)
        self.works_again()

    def test_a_short_kek_is_refused(self):
        good = self.server.kek.read_bytes()
        for bad in (b"", b"short", b"x" * 31):
            write_private(self.server.kek, bad)
            self.refused((KEK_MISSING, CONFIG), self.server.kek)
        write_private(self.server.kek, good)
        self.works_again()

    def test_one_damaged_superblock_copy_is_survived_and_two_are_refused(self):
        for spot in (0, 4096):
            with self.subTest(spot):
                original = self.server.data.read_bytes()[spot:spot + 4096]
                self.damage(spot)
                self.works_again()
                with open(self.server.data, "r+b") as file:  # whole again, whether or not it was repaired meanwhile
                    file.seek(spot)
                    file.write(original)
        original = self.server.data.read_bytes()
        self.damage(0, 4096, length=512)
        self.refused(SUPERBLOCK, self.server.data)
        self.server.data.write_bytes(original)
        self.works_again()

    def test_a_newer_format_version_is_told_from_damage(self):
        for copy in (0, 4096):
            with open(self.server.data, "r+b") as file:
                file.seek(copy + 8)  # docs/format.md: the format version, two bytes, behind the magic
                file.write((2).to_bytes(2, "little"))
        self.refused(FORMAT_NEWER, self.server.data)

    def test_a_file_that_is_not_ours_is_refused(self):
        for content in (b"", b"x", b"SQLite format 3\0" * 4096, secrets.token_bytes(100_000), bytes(100_000)):
            self.server.data.write_bytes(content)
            self.refused((SUPERBLOCK, DAMAGED), self.server.data)

    def test_a_truncated_file_is_refused(self):
        size = self.server.data.stat().st_size
        for length in (4095, 8192, 40960, size // 2):
            whole = self.server.data.read_bytes()
            os.truncate(self.server.data, length)
            self.refused((SUPERBLOCK, DAMAGED, ANCHOR))
            self.server.data.write_bytes(whole)
        self.works_again()

    def test_a_second_server_on_the_same_file_is_refused(self):
        self.server.start()
        self.refused(LOCKED, self.server.data, untouched=False)
        # Its console is the first one's too, which was told of with a remedy of its own.
        self.assertNotIn("console", text(self.server.run("serve")))
        self.refused(LOCKED, self.server.data, command="verify", untouched=False)
        with self.server.client(self.server.owner_key) as owner:
            owner.get("/whoami").expect(200)
        self.assertEqual(self.server.stop(), 0)

    def test_init_does_not_touch_an_existing_file(self):
        self.refused(EXISTS, self.server.data, command="init")
        self.works_again()

    def test_another_tenants_label_is_refused(self):
        self.refused(TENANT, "RM_TENANT_ID", RM_TENANT_ID="another-clinic")
        self.works_again()

    def test_certificate_problems_name_the_file(self):
        cert, key = self.server.folder / "cert.pem", self.server.folder / "key.pem"
        good = cert.read_bytes(), key.read_bytes()
        cert.unlink()
        self.refused(CERTIFICATE, cert)
        cert.write_bytes(b"no certificate")
        self.refused(CERTIFICATE, cert)
        cert.write_bytes(good[0])
        write_private(key, b"no key")
        self.refused(CERTIFICATE, key)
        key.unlink()
        self.refused(CERTIFICATE, key)
        other = Server().init()
        self.addCleanup(other.remove)
        write_private(key, (other.folder / "key.pem").read_bytes())
        self.refused(CERTIFICATE, "key.pem")
        write_private(key, good[1])
        self.works_again()

    def test_a_private_key_that_others_may_read_is_refused(self):
        key = self.server.folder / "key.pem"
        self.assertEqual(key.stat().st_mode & 0o077, 0, "init makes it private")
        key.chmod(0o644)
        self.refused((CERTIFICATE, PERMISSION), key, "chmod")

    def test_a_port_in_use_is_named(self):
        self.server.start()
        second = Server(settings={"RM_PORT": self.server.port}).init()
        self.addCleanup(second.remove)
        done = second.run("serve", timeout=30)
        self.assertEqual(done.returncode, UNAVAILABLE, text(done))
        self.assertIn(str(self.server.port), text(done))
        self.server.stop()

    def test_a_rollback_behind_the_anchor_is_refused(self):
        old = self.server.data.read_bytes()
        self.server.start()
        with self.server.client(self.server.owner_key) as owner:
            for n in range(5):
                owner.remember(f"later {n}")
        self.assertEqual(self.server.stop(), 0)
        new = self.server.data.read_bytes()
        self.server.data.write_bytes(old)
        self.refused(ANCHOR, "anchor")
        self.server.data.write_bytes(new)
        self.works_again()

    def test_a_missing_damaged_or_foreign_anchor_is_refused(self):
        good = self.server.anchor.read_bytes()
        other = Server().init()
        self.addCleanup(other.remove)
        other.start()
        other.stop()
        self.server.anchor.unlink()
        self.refused(ANCHOR, "anchor")
        for bad in (b"", good[:-10], other.anchor.read_bytes(), good.replace(b"\n", b"\r\n")):
            self.server.anchor.write_bytes(bad)
            self.refused(ANCHOR, "anchor")
        self.server.anchor.write_bytes(good)
        self.works_again()

    def test_verify_finds_a_single_damaged_block(self):
        size = self.server.data.stat().st_size
        whole = self.server.data.read_bytes()
        self.assertEqual(self.server.run("verify").returncode, 0)
        found = 0
        spots = [spot for spot in range(40960, size, max(4608, (size - 40960) // 24)) if any(whole[spot:spot + 512])]
        for spot in spots:
            self.damage(spot + 100, length=1)
            done = self.server.run("verify", timeout=120)
            self.assertGreaterEqual(done.returncode, 0, text(done))
            self.assertNotIn("panicked", text(done))
            found += done.returncode != 0
            self.server.data.write_bytes(whole)
        # A spot may lie in a page that nothing refers to any more.
        self.assertGreater(found, 0)
        print(f"\nverify: {found} of {len(spots)} single damaged bytes found; the rest lie in free pages")

    @unittest.skipUnless(os.geteuid() != 0, "root writes everywhere: run as another user to test an unwritable folder")
    def test_an_unwritable_folder_is_named(self):
        folder = self.server.folder / "readonly"
        folder.mkdir(mode=0o500)
        self.refused((FOLDER, PERMISSION), folder, command="init", RM_DB_PATH=folder / "memory.db", RM_ANCHOR_FILE=None)

    def test_a_missing_folder_is_named(self):
        folder = self.server.folder / "absent"
        self.refused((FOLDER, NO_INPUT, IO), folder, command="init", RM_DB_PATH=folder / "memory.db", RM_ANCHOR_FILE=None)
        self.assertFalse(folder.exists())

    def test_a_folder_of_a_read_only_file_system_is_named(self):
        # /proc refuses new files to everybody, root included.
        self.refused((FOLDER, NO_INPUT, IO, PERMISSION), "/proc", command="init", RM_DB_PATH="/proc/memory.db", RM_ANCHOR_FILE=None)

    def test_doctor_runs_on_a_good_folder_and_says_what_is_off(self):
        done = self.server.run("doctor")
        self.assertIn("rate", text(done).lower(), "limits are turned off here, and doctor says so")
        self.assertTrue(self.server.run("doctor", "--json").stdout.strip().startswith(b"{"))


def fill(path, leave=0):
    """Takes all but `leave` bytes of what the file system of `path` still has."""
    free = os.statvfs(path.parent)
    path.write_bytes(bytes(max(0, free.f_bavail * free.f_frsize - leave)))


@unittest.skipUnless(os.geteuid() == 0 and shutil.which("mount"), "FULL DISK NOT TESTED HERE: needs root, to mount a small tmpfs")
class FullDisk(unittest.TestCase):
    SIZE_MIB = 160

    def setUp(self):
        self.mount = tempfile.mkdtemp(prefix="rosemary-small-")
        self.addCleanup(os.rmdir, self.mount)
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={self.SIZE_MIB}m", "tmpfs", self.mount], capture_output=True, check=False)
        if made.returncode:
            self.skipTest(f"FULL DISK NOT TESTED HERE: mount refused: {made.stderr.decode().strip()}")
        self.addCleanup(subprocess.run, ["umount", "-l", self.mount], check=False)
        self.server = Server(settings={"RM_DB_PATH": f"{self.mount}/memory.db", "RM_TLS_CERT": None})
        self.server.data = Path(self.mount) / "memory.db"
        self.addCleanup(self.server.remove)

    def test_a_full_disk_refuses_writes_keeps_reads_and_recovers(self):
        self.server.init()
        # The certificate is made beside the data file; clients look for it in the server's folder.
        shutil.copy(Path(self.mount) / "cert.pem", self.server.folder / "cert.pem")
        self.server.start()
        with self.server.client(self.server.owner_key) as owner:
            record = owner.remember("before", "the disk was full")
            filler = Path(self.mount) / "filler"
            fill(filler)
            # What was reserved ahead is written first.
            for n in range(1200):
                answer = owner.post("/memories", {"title": f"t{n}", "content": "x" * 90_000, "tags": []})
                if answer.status != 201:
                    break
            self.assertEqual(answer.status, 507, answer.body[:200])
            self.assertIsInstance(answer.json["error"], str)
            owner.get(f"/memories/{record['id']}").expect(200)
            filler.unlink()
            answer = owner.post("/memories", {"title": "after", "content": "space returned", "tags": []})
            for _ in range(50):
                if answer.status == 201:
                    break
                time.sleep(0.2)
                answer = owner.post("/memories", {"title": "after", "content": "space returned", "tags": []})
            answer.expect(201)
        self.assertEqual(self.server.stop(), 0)
        self.assertEqual(self.server.run("verify").returncode, 0)

    def test_init_on_a_full_disk_leaves_nothing_behind(self):
        fill(Path(self.mount) / "filler", leave=8192)
        done = self.server.run("init")
        self.assertEqual(done.returncode, DISK_FULL, text(done))
        self.assertFalse(self.server.data.exists())


if __name__ == "__main__":
    unittest.main()
