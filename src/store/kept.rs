//! The files that another took the place of, which stay beside the data file under names of their own: `….replaced-TIME`.
//!
//! Invariants
//! - What carries such a name is evidence and stays, unless an operator said that it is to be wiped: it has the end `.wiping` first, so that whoever
//!   comes after a crash knows of that word, and ends what it asked for.
//! - Nothing is wiped through a link, and never the data file itself.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::base::durable;
use crate::base::id::{FileId, InstanceId};
use crate::base::time::Clock;

/// Bytes at the beginning of a file that hold its keys: superblock copies and page-0 slots.
const HEAD_BYTES: usize = 40960;
/// How the name of a file ends that is being wiped.
const WIPING: &str = ".wiping";

/// The name that what lies at `path` gets when another file takes its place now.
pub fn name(path: &Path, clock: &Clock) -> PathBuf {
    let time: String = clock.now().to_string().chars().filter(char::is_ascii_alphanumeric).collect();
    with(path, &format!(".replaced-{time}"))
}

fn with(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// File id and instance that a file names in clear, if it is one of ours.
pub fn in_clear(path: &Path) -> Option<(FileId, InstanceId)> {
    let mut head = [0; 56];
    File::open(path).ok()?.read_exact(&mut head).ok()?;
    let id = |at: usize| head[at..at + 16].try_into().expect("16 bytes");
    (head[..8] == *b"ROSEMARY").then(|| (FileId::from_bytes(id(24)), InstanceId::from_bytes(id(40))))
}

/// Every name beside `path` of a file that was kept when another took its place, in their order.
///
/// Errors: the folder cannot be read.
pub fn beside(path: &Path) -> io::Result<Vec<PathBuf>> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Some(begins) = path.file_name().map(|name| format!("{}.replaced-", name.to_string_lossy())) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&begins) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Those of the file of this id.
///
/// Errors: as [`beside`].
pub fn names_of(path: &Path, file: FileId) -> io::Result<Vec<PathBuf>> {
    Ok(beside(path)?.into_iter().filter(|name| in_clear(name).is_some_and(|(id, _)| id == file)).collect())
}

/// Those that were to be wiped, which something cut off.
///
/// Errors: as [`beside`].
pub fn half_wiped(path: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(beside(path)?.into_iter().filter(|name| name.to_string_lossy().ends_with(WIPING)).collect())
}

/// Whether both are the same file on disk.
pub fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Writes zeros over the keys of the file at `kept` and removes it, in place of which `path` has another. Cut off, [`end_wiping`] ends it.
///
/// Errors: what the system refused, or what lies there is no file, or the one at `path`.
pub fn wipe(path: &Path, kept: &Path) -> io::Result<()> {
    let wiping = if kept.to_string_lossy().ends_with(WIPING) { kept.to_owned() } else { with(kept, WIPING) };
    let about = std::fs::symlink_metadata(kept)?;
    if !about.is_file() || is_same(&about, &std::fs::metadata(path)?) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file, or the data file itself; it was not touched"));
    }
    if wiping != kept {
        std::fs::rename(kept, &wiping)?;
        durable::sync_folder_of(&wiping)?;
    }
    let mut file = OpenOptions::new().write(true).custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(&wiping)?;
    file.write_all(&vec![0; HEAD_BYTES])?;
    file.sync_all()?;
    std::fs::remove_file(&wiping)?;
    durable::sync_folder_of(&wiping)
}

/// Ends what [`wipe`] was cut off from: gives each such name, and how that went. To be called once the file at `path` was opened.
///
/// Errors: as [`beside`].
pub fn end_wiping(path: &Path) -> io::Result<Vec<(PathBuf, io::Result<()>)>> {
    Ok(half_wiped(path)?.into_iter().map(|name| (name.clone(), wipe(path, &name))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{hex, rng};

    /// A folder with a data file in it, removed when dropped.
    struct House(PathBuf);

    impl House {
        fn new() -> Self {
            let folder = std::env::temp_dir().join(format!("rosemary-kept-{}", hex::encode(&rng::array::<8>())));
            std::fs::create_dir(&folder).unwrap();
            let house = Self(folder);
            house.put("memory.db");
            house
        }

        fn path(&self) -> PathBuf {
            self.0.join("memory.db")
        }

        fn put(&self, name: &str) -> PathBuf {
            let path = self.0.join(name);
            std::fs::write(&path, [7; 2 * HEAD_BYTES]).unwrap();
            path
        }
    }

    impl Drop for House {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_was_to_be_wiped_is_found_after_a_crash_at_each_step_and_evidence_stays() {
        // After a crash between the zeros and the removal the file had the name of evidence, and no keys; nothing told of it or ended it.
        let house = House::new();
        let evidence = house.put("memory.db.replaced-1");
        let renamed = house.put("memory.db.replaced-2.wiping");
        let zeroed = house.put("memory.db.replaced-3.wiping");
        std::fs::write(&zeroed, [0; HEAD_BYTES]).unwrap();
        house.put("other.db.replaced-4.wiping");
        assert_eq!(half_wiped(&house.path()).unwrap(), [renamed.clone(), zeroed.clone()]);
        let witness = house.0.join("witness");
        std::fs::hard_link(&renamed, &witness).unwrap();
        let ended = end_wiping(&house.path()).unwrap();
        assert!(ended.iter().map(|(name, _)| name).eq([&renamed, &zeroed]) && ended.iter().all(|(_, how)| how.is_ok()));
        assert_eq!(beside(&house.path()).unwrap(), std::slice::from_ref(&evidence));
        let wiped = std::fs::read(witness).unwrap();
        assert!(wiped[..HEAD_BYTES].iter().all(|byte| *byte == 0) && wiped[HEAD_BYTES] == 7);
        assert_eq!(std::fs::read(&evidence).unwrap(), [7; 2 * HEAD_BYTES]);
        wipe(&house.path(), &evidence).unwrap();
        assert!(beside(&house.path()).unwrap().is_empty() && house.path().exists());
    }

    #[test]
    fn nothing_is_wiped_through_a_link_and_the_data_file_never() {
        let house = House::new();
        let elsewhere = house.put("elsewhere");
        std::os::unix::fs::symlink(&elsewhere, house.0.join("memory.db.replaced-1.wiping")).unwrap();
        std::fs::hard_link(house.path(), house.0.join("memory.db.replaced-2.wiping")).unwrap();
        let ended = end_wiping(&house.path()).unwrap();
        assert!(ended.len() == 2 && ended.iter().all(|(_, how)| how.is_err()));
        assert!([elsewhere, house.path()].iter().all(|path| std::fs::read(path).unwrap() == [7; 2 * HEAD_BYTES]));
        assert_eq!(half_wiped(&house.path()).unwrap().len(), 2);
    }
}
