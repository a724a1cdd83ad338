//! Opening what settings and arguments name, without waiting.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};

/// Opens the regular file at `path` for reading. A FIFO or a device is never waited for.
///
/// Errors: the system's; `IsADirectory`; `InvalidInput` for anything else that is no regular file.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let file = File::from(open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())?);
    let about = file.metadata()?;
    match about.is_file() {
        true => Ok(file),
        false if about.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
    }
}
