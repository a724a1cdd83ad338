"""The kernel's lock on the running service, listeners passed in, and what the service manager is told."""

import os
import re
import signal
import socket
import subprocess
import time
import unittest
from pathlib import Path

from rosemary_server import BINARY, Server, text


def states(pid, field):
    """The values of a field of /proc/PID/task/*/status, over all threads."""
    found = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            lines = (task / "status").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):  # a thread that ended meanwhile
            continue
        found.update(line.split()[1] for line in lines if line.startswith(field + ":"))
    return found


class Lock(unittest.TestCase):
    def test_every_thread_of_the_service_is_locked_and_it_still_serves_writes_and_stops(self):
        with Server() as server, server.client(server.owner_key) as owner:
            owner.remember("locked", "in")
            self.assertEqual(states(server.process.pid, "Seccomp"), {"2"})
            self.assertEqual(states(server.process.pid, "NoNewPrivs"), {"1"})
            self.assertEqual(server.stop(), 0)

    def test_off_is_said_in_the_log_and_by_doctor(self):
        with Server(settings={"RM_EGRESS_LOCK": "off"}) as server:
            self.assertEqual(states(server.process.pid, "Seccomp"), {"0"})
            server.stop()
            self.assertIn(b"egress lock is off", server.output)
            done = server.run("doctor")
            self.assertEqual(done.returncode, 1)
            self.assertRegex(text(done), r"weak +egress lock")

    def test_doctor_tries_every_way_out_and_prints_what_the_kernel_answered(self):
        with Server() as server:
            server.stop()
            said = text(server.run("doctor"))
            self.assertRegex(said, r"on +egress lock +(\d+) ways out tried, \1 refused by the kernel")
            for way in ("TCP over IPv4", "TCP over IPv6", "UDP", "DNS", "a UNIX socket", "a child program"):
                for thread in ("an older thread", "this thread", "a new thread"):
                    self.assertRegex(said, rf"on +egress attempt +{way} from {thread}: Operation not permitted")

    def test_an_unreadable_value_of_the_switch_does_not_start(self):
        server = Server(settings={"RM_EGRESS_LOCK": "perhaps"})
        self.addCleanup(server.remove)
        done = server.run("serve")
        self.assertEqual(done.returncode, 78)
        self.assertIn("RM_EGRESS_LOCK", text(done))


class Manager(unittest.TestCase):
    """A service manager played by this test: it opens the listener, passes it in, and hears how it goes."""

    def setUp(self):
        self.server = Server().init()
        self.addCleanup(self.server.remove)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.listener.close)
        self.stray, other = socket.socketpair()
        self.addCleanup(self.stray.close)
        self.addCleanup(other.close)
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.manager.close)
        self.manager.bind(str(self.server.folder / "notify"))
        self.manager.settimeout(20)

    def start(self, passed, **settings):
        """Starts the service as systemd would: `passed` as descriptor 3, and one that nobody listed as descriptor 7."""
        environment = self.server.environment(settings) | {"LISTEN_FDS": "1", "NOTIFY_SOCKET": str(self.server.folder / "notify"), "WATCHDOG_USEC": "400000"}
        script = f"exec 3<&{passed.fileno()} 7<&{self.stray.fileno()}; export LISTEN_PID=$$; exec {BINARY} serve"
        process = subprocess.Popen(
            ["bash", "-c", script], env=environment, cwd=self.server.folder, pass_fds=(passed.fileno(), self.stray.fileno()),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.kill)
        return process

    def told(self, wanted):
        """Waits until the manager is told a line."""
        while True:
            lines = self.manager.recv(4096).decode().splitlines()
            if wanted in lines:
                return lines

    def test_a_listener_passed_in_is_served_other_descriptors_are_closed_and_the_manager_hears_of_it(self):
        process = self.start(self.listener)
        self.told("READY=1")
        self.server.port = self.listener.getsockname()[1]
        with self.server.client(self.server.owner_key) as owner:
            owner.remember("over a socket", "that somebody else opened")
        descriptors = Path(f"/proc/{process.pid}/fd")
        self.assertTrue((descriptors / "3").exists())
        target = os.readlink(f"/proc/self/fd/{self.stray.fileno()}")
        self.assertNotIn(target, [os.readlink(descriptor) for descriptor in descriptors.iterdir()])
        self.told("WATCHDOG=1")
        process.send_signal(signal.SIGHUP)
        self.assertTrue(any(re.fullmatch(r"MONOTONIC_USEC=\d+", line) for line in self.told("RELOADING=1")))
        self.told("READY=1")
        process.send_signal(signal.SIGTERM)
        self.told("STOPPING=1")
        self.assertEqual(process.wait(30), 0)

    def test_a_descriptor_that_does_not_listen_is_refused_with_its_remedy(self):
        process = self.start(self.stray)
        self.assertEqual(process.wait(30), 69)
        said = process.stderr.read().decode()
        self.assertIn("LISTEN_FDS", said)
        self.assertNotIn("panicked", said)

    def test_sighup_reads_the_level_of_the_log_anew_and_keeps_it_when_it_cannot(self):
        settings = self.server.folder / "settings"
        settings.touch(0o600)
        process = self.start(self.listener, RM_SETTINGS_FILE=settings)
        self.told("READY=1")
        for level, info in (("error", False), ("info", True), ("nonsense", True)):
            settings.write_text(f"RM_PORT=1\nRM_LOG={level}\n")
            process.send_signal(signal.SIGHUP)
            self.told("RELOADING=1")
            self.told("READY=1")
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        said = process.stderr.read().decode()
        self.assertEqual(said.count("the level of the log was read anew"), 1)  # at "error", that line itself is not printed
        self.assertIn("the level of the log stays", said)
        self.assertIn("RM_LOG", said)


if __name__ == "__main__":
    unittest.main()
