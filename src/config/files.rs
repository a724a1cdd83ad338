//! Reading files that hold a secret: key, passphrase, static key.
//!
//! Invariants
//! - Only regular files that nobody but owner and group can read, and only the owner can write, are read.
//! - At most [`limits::SECRET_FILE_BYTES_MAX`] bytes are read; opening never waits (a FIFO or a device is refused).
//! - What is read is wiped when dropped; an error names path and remedy, never content.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use zeroize::Zeroizing;

use crate::base::file::open_regular;
use crate::base::limits;
use crate::crypto::secret::Secret;

/// Modes that would let others read, or group or others replace, the file.
const FORBIDDEN_MODE: u32 = 0o027;

/// Opens the file at `path` if it is a regular one that others can neither read nor change.
///
/// Errors: one sentence `<path>: <what>; <remedy>`, for the operator.
pub fn open_private(path: &Path) -> Result<File, String> {
    let shown = path.display();
    let file = open_regular(path).map_err(|error| match error.kind() {
        ErrorKind::IsADirectory | ErrorKind::InvalidInput => format!("{shown}: not a regular file; give one"),
        _ => format!("{shown}: {error}; check the path and that the service's user may read it"),
    })?;
    let mode = file.metadata().map_err(|error| format!("{shown}: {error}; check the file"))?.permissions().mode() & 0o7777;
    if mode & FORBIDDEN_MODE != 0 {
        return Err(format!("{shown}: mode {mode:04o} lets others read or change the secret; chmod 0640 or stricter"));
    }
    Ok(file)
}

/// The bytes of the secret file at `path`, as they stand. Errors as [`open_private`].
pub fn read_secret(path: &Path) -> Result<Secret<Vec<u8>>, String> {
    let (shown, file) = (path.display(), open_private(path)?);
    let mut bytes = Zeroizing::new(Vec::with_capacity(limits::SECRET_FILE_BYTES_MAX + 1));
    let most = u64::try_from(limits::SECRET_FILE_BYTES_MAX).expect("a small constant") + 1;
    file.take(most).read_to_end(&mut bytes).map_err(|error| format!("{shown}: {error}; check the file"))?;
    match bytes.len() {
        0 => Err(format!("{shown}: empty; write the secret into it")),
        length if length > limits::SECRET_FILE_BYTES_MAX => {
            Err(format!("{shown}: longer than {} bytes; give the file that holds the secret alone", limits::SECRET_FILE_BYTES_MAX))
        }
        _ => Ok(Secret::new(std::mem::take(&mut *bytes))),
    }
}

/// The text of the secret file at `path`, without one line end at its end. Errors as [`read_secret`].
pub fn read_secret_text(path: &Path) -> Result<Secret<String>, String> {
    let bytes = read_secret(path)?;
    let text = std::str::from_utf8(bytes.expose()).map_err(|_| format!("{}: not UTF-8 text; write the secret as text", path.display()))?;
    let text = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
    if text.trim().is_empty() {
        return Err(format!("{}: blank; write the secret into it", path.display()));
    }
    Ok(Secret::new(text.into()))
}
