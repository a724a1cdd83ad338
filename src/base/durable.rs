//! Durable small files: whole or not at all.
//!
//! Promise: after [`replace`] returns Ok the file holds the new bytes, also after a power cut; if it fails or the machine stops
//! midway, the file holds the old bytes or the new ones, never a mixture. A temporary file may be left behind by a crash.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Writes `bytes` beside `path`, syncs, renames over it and syncs the folder. The new file has permissions `mode` (for example 0o600).
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = Path::new(&beside);
    match fs::remove_file(beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    fs::rename(beside, path)?;
    sync_folder_of(path)
}

/// Writes a new file that must not exist yet, and syncs it and its folder.
pub fn create(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    sync_folder_of(path)
}

/// Removes a file, and makes that durable.
pub fn remove(path: &Path) -> io::Result<()> {
    fs::remove_file(path)?;
    sync_folder_of(path)
}

/// Makes a creation, a rename or a removal of `path` durable.
pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    #[cfg(test)]
    if tests::REFUSED.with_borrow(|refused| refused.as_deref().is_some_and(|refused| path.starts_with(refused))) {
        return Err(io::ErrorKind::Other.into());
    }
    File::open(folder_of(path))?.sync_all()
}

/// The folder in which `path` lies.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
pub mod tests {
    use std::cell::RefCell;
    use std::path::PathBuf;

    thread_local! {
        /// Below this folder this thread's syncs of folders fail.
        pub static REFUSED: RefCell<Option<PathBuf>> = const { RefCell::new(None) };
    }
}
