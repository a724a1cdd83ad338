//! What the system grants this process for its connections: each is a file, and a thread while its peer is slow.
//!
//! Invariants
//! - Nothing is taken that was not granted: the soft limit on files is raised to the hard one, which needs no privilege.
//! - What is too little is named, never an error: the service then serves as many as it can, and refuses or delays the others.

use std::fs;
use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::base::limits;

/// A grant that does not reach, and what raises it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Short {
    /// What is granted too little of.
    pub what: &'static str,
    /// So many are granted.
    pub granted: u64,
    /// So many could be needed.
    pub needed: u64,
    /// How to get more.
    pub remedy: &'static str,
}

/// Takes what is granted of files and threads, and tells where that is too little for so many connections at once.
pub fn take(connections: u32) -> Vec<Short> {
    let limit = getrlimit(Resource::Nofile);
    // Refused: then it stays as it was, and that is what is looked at.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let needed = u64::from(connections) + limits::BESIDE_CONNECTIONS;
    let short = |what, granted: Option<u64>, remedy| {
        granted.filter(|granted| *granted < needed).map(|granted| Short { what, granted, needed, remedy })
    };
    let files = short("files", getrlimit(Resource::Nofile).current, "LimitNOFILE= in the unit, or ulimit -Hn");
    let threads = short(
        "threads",
        threads(Path::new("/sys/fs/cgroup"), &fs::read_to_string("/proc/self/cgroup").unwrap_or_default()),
        "TasksMax= in the unit",
    );
    files.into_iter().chain(threads).collect()
}

/// Threads that the control group of this process (a line of `/proc/self/cgroup`, cgroups(7)) and those around it may have; `None`: no limit is seen.
fn threads(root: &Path, groups: &str) -> Option<u64> {
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let groups = Path::new(own).ancestors().map(|group| root.join(group).join("pids.max"));
    groups.filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_of_the_groups_around_counts_and_no_limit_is_none() {
        let root = std::env::temp_dir().join(format!("rosemary-granted-{}", crate::base::hex::encode(&crate::base::rng::array::<8>())));
        let group = root.join("system.slice/rosemary.service");
        fs::create_dir_all(&group).unwrap();
        let set = |folder: &Path, max: &str| fs::write(folder.join("pids.max"), max).unwrap();
        let seen = || threads(&root, "1:name=systemd:/\n0::/system.slice/rosemary.service\n");
        assert_eq!(seen(), None);
        set(&group, "max\n");
        assert_eq!(seen(), None);
        set(&group, "4096\n");
        assert_eq!(seen(), Some(4096));
        set(group.parent().unwrap(), "512\n");
        assert_eq!(seen(), Some(512));
        assert_eq!(threads(&root, ""), None);
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn too_few_files_are_named_and_as_many_as_are_granted_are_taken() {
        let before = getrlimit(Resource::Nofile);
        let short = take(u32::MAX);
        let now = getrlimit(Resource::Nofile);
        assert_eq!((now.current, now.maximum), (before.maximum, before.maximum));
        if let Some(most) = before.maximum.filter(|most| *most < u64::from(u32::MAX)) {
            assert!(short.iter().any(|short| short.what == "files" && short.granted == most), "{short:?}");
        }
        assert!(take(0).iter().all(|short| short.granted < limits::BESIDE_CONNECTIONS));
    }
}
