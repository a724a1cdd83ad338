//! Where a command writes what may be long: standard output, or a new file that is whole or not there.

use std::fs::{self, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use crate::base::durable;
use crate::cli::exit::{Exit, Failure};
use crate::cli::text;

/// Whether a new file can be made at `path`: asked before the data file is opened, so that a refused command leaves it as it was.
///
/// Errors: `Exists`; `FolderUnwritable`.
pub fn vacant(path: &Path) -> Result<(), Failure> {
    if path.symlink_metadata().is_ok() {
        return Err(Failure::new(Exit::Exists, format_args!("{}: exists already; it was not touched. Name another file", path.display())));
    }
    writable(durable::folder_of(path), path)
}

/// Whether files can be made in `folder`; `named` is what the operator named.
///
/// Errors: `FolderUnwritable`.
pub fn writable(folder: &Path, named: &Path) -> Result<(), Failure> {
    access(folder.join("."), Access::WRITE_OK | Access::EXEC_OK).map_err(|error| {
        let (named, folder, error) = (named.display(), folder.display(), io::Error::from(error));
        Failure::new(
            Exit::FolderUnwritable,
            format_args!("{named}: the folder {folder} must exist and be writable ({error}); make it, or mend its owner or mode"),
        )
    })
}

/// Where to: `-` is standard output, anything else a file that must not be there yet.
pub struct Output<'p> {
    path: &'p Path,
}

impl<'p> Output<'p> {
    /// Errors: as [`vacant`].
    pub fn at(path: &'p Path) -> Result<Self, Failure> {
        if path != Path::new("-") {
            vacant(path)?;
        }
        Ok(Self { path })
    }

    /// As [`Output::at`], of an export, which is nothing where nobody gets it.
    ///
    /// Errors: as [`vacant`]; `Io` where nobody would see standard output.
    pub fn seen_at(path: &'p Path) -> Result<Self, Failure> {
        if path == Path::new("-") {
            text::heard()?;
        }
        Self::at(path)
    }

    /// Runs `write`. A file has mode 0600 and the name with `.part` behind it until all of it is written and durable: half an export never
    /// passes for a whole one, whatever ends the program.
    pub fn write<T>(self, write: impl FnOnce(&mut Sink<'_>) -> Result<T, Failure>) -> Result<T, Failure> {
        if self.path == Path::new("-") {
            let mut out = BufWriter::new(io::stdout().lock());
            let mut sink = Sink { out: &mut out, name: Path::new("standard output") };
            let done = write(&mut sink)?;
            return sink.flush().map(|()| done);
        }
        let mut part = self.path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let failure = |error: io::Error| Failure::io(self.path, &error);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Failure::io(&part, &error),
            _ => failure(error),
        })?;
        let mut out = BufWriter::new(&file);
        let mut sink = Sink { out: &mut out, name: self.path };
        let done = write(&mut sink).and_then(|done| {
            sink.flush()?;
            file.sync_all()
                .and_then(|()| fs::rename(&part, self.path))
                .and_then(|()| durable::sync_folder_of(self.path))
                .map_err(failure)?;
            Ok(done)
        });
        if done.is_err() {
            let _ = fs::remove_file(&part);
        }
        done
    }
}

/// What is written to; its errors name it.
pub struct Sink<'s> {
    out: &'s mut dyn Write,
    name: &'s Path,
}

impl Sink<'_> {
    /// Writes a line.
    pub fn line(&mut self, line: &[u8]) -> Result<(), Failure> {
        let written = self.out.write_all(line).and_then(|()| self.out.write_all(b"\n"));
        written.map_err(|error| Failure::io(self.name, &error))
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(|error| Failure::io(self.name, &error))
    }
}
