"""Keys above the file as the operator turns them: what unlocks it, and the epoch of keys inside."""

import subprocess
import unittest

from rosemary_server import Server, key_in, text, unique

USAGE, KEK_WRONG, ANCHOR = 2, 80, 86


class Keys(unittest.TestCase):
    def setUp(self):
        self.server = Server().init()
        self.addCleanup(self.server.remove)
        self.server.start()
        with self.server.client(self.server.owner_key) as owner:
            self.record = owner.remember("kept", "through every change of keys", subject="Jane")
        self.assertEqual(self.server.stop(), 0)

    def keys(self, *arguments, code=0, **settings):
        done = self.server.run("keys", *arguments, **settings)
        self.assertEqual(done.returncode, code, text(done))
        return text(done)

    def works(self, **settings):
        self.server.change({name: str(value) for name, value in settings.items()})
        self.server.start()
        with self.server.client(self.server.owner_key) as owner:
            self.assertEqual(owner.get(f"/memories/{self.record['id']}").expect(200).json, self.record)
        self.assertEqual(self.server.stop(), 0)

    def test_several_keys_unlock_the_file_until_their_slot_is_taken(self):
        second = self.server.folder / "second.kek"
        self.assertIn("opens it", self.keys("list"))
        self.keys("add", "--key-file", second, "--make")
        self.assertEqual(second.stat().st_mode & 0o777, 0o600)
        self.keys("add", "--key-file", second, code=USAGE)
        self.keys("remove", "0", code=USAGE)
        self.works(RM_KEK_FILE=second)
        self.keys("remove", "0")
        self.keys("remove", "1", code=USAGE)
        first = self.server.kek
        done = self.server.run("verify", RM_KEK_FILE=str(first))
        self.assertEqual(done.returncode, KEK_WRONG, text(done))
        self.works()

    def test_the_kek_is_rotated_and_the_old_one_opens_nothing_any_more(self):
        new = self.server.folder / "new.kek"
        before = self.server.data.read_bytes()[:8192]
        self.keys("rotate", "kek", "--key-file", new, "--make")
        self.assertEqual(self.server.run("verify").returncode, KEK_WRONG)
        self.works(RM_KEK_FILE=new)
        # The superblock of before, put back: the old key unlocks it, and the data say that it is an older one.
        with open(self.server.data, "r+b") as file:
            now = file.read(8192)
            file.seek(0)
            file.write(before)
        done = self.server.run("serve", RM_KEK_FILE=str(self.server.kek))
        self.assertEqual(done.returncode, ANCHOR, text(done))
        self.assertIn("superblock", text(done))
        with open(self.server.data, "r+b") as file:
            file.write(now)
        self.works()

    def test_the_epoch_is_rotated_and_the_log_tells_of_it(self):
        self.keys("rotate", "epoch")
        self.works()
        log = self.server.folder / "log.ndjson"
        self.assertEqual(self.server.run("audit", "export", log).returncode, 0)
        said = log.read_text()
        self.assertEqual([said.count(f'"setting":"{word}"') for word in ("begin", "end")], [2, 1])
        self.assertEqual(self.server.run("verify").returncode, 0)

    def test_a_key_of_another_instance_is_not_enrolled(self):
        other = Server().init()
        self.addCleanup(other.remove)
        alien = other.folder / "made.kek"
        self.assertEqual(other.run("keys", "add", "--key-file", alien, "--make").returncode, 0)
        self.assertIn("instance", self.keys("add", "--key-file", alien, code=KEK_WRONG))


if __name__ == "__main__":
    unittest.main()
