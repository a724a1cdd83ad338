//! Unlocking: what the operator holds (key file, passphrase file, systemd credential) becomes the key that opens a key slot.
//!
//! Promise: bytes are taken only from a regular file that its owner alone can write and, for key files and passphrases, read; a message names the
//! file and the remedy, never a byte of it. A file of the product's own form names the instance it was made for, so that the key of
//! another instance is recognised instead of being called wrong.
//!
//! Own form of a key file, one line: `rosemary-kek-v1 <instance uuid> <64 hex digits>`; the digits may stand in groups. Any other content of
//! at least 32 bytes is taken as it is. Digits typed back from paper open what their key locks, however they are grouped and whether a
//! newline ends them ([`Kek::typed_back`]). A passphrase file loses one trailing newline.

use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use argon2::{Algorithm, Argon2, Params, Version};
use zeroize::Zeroizing;

use crate::base::file::open_regular;
use crate::base::id::InstanceId;
use crate::base::{durable, hex, limits};
use crate::crypto::kdf::{self, Label};
use crate::crypto::secret::{Key, Secret};

/// First word of a key file of the product's own form.
const KEY_FILE_WORD: &str = "rosemary-kek-v1";

/// Where the operator keeps what unlocks the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KekSource {
    /// A file of random bytes (`RM_KEK_FILE`).
    KeyFile(PathBuf),
    /// A file that holds a passphrase (`RM_KEK_PASSPHRASE_FILE`).
    PassphraseFile(PathBuf),
    /// A credential that systemd hands over, already decrypted, in a folder of its own.
    Credential(PathBuf),
}

/// Kinds of key slot; the number is what is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SlotKind {
    /// Opened by a key file.
    KeyFile = 1,
    /// Opened by a passphrase, through Argon2id.
    Passphrase = 2,
    /// Opened by a systemd credential.
    Credential = 3,
    /// Opened by printed shares that are brought together.
    Shares = 4,
}

impl SlotKind {
    /// The kind stored as `number`.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::KeyFile, Self::Passphrase, Self::Credential, Self::Shares].into_iter().find(|kind| kind.number() == number)
    }

    /// The number that is stored.
    pub fn number(self) -> u8 {
        match self {
            Self::KeyFile => 1,
            Self::Passphrase => 2,
            Self::Credential => 3,
            Self::Shares => 4,
        }
    }

    /// The kind as one word, for the log.
    pub fn word(self) -> &'static str {
        match self {
            Self::KeyFile => "key_file",
            Self::Passphrase => "passphrase",
            Self::Credential => "credential",
            Self::Shares => "shares",
        }
    }

    /// The kind in the operator's words.
    pub fn name(self) -> &'static str {
        match self {
            Self::KeyFile => "key file",
            Self::Passphrase => "passphrase",
            Self::Credential => "systemd credential",
            Self::Shares => "set of shares",
        }
    }
}

/// Cost of Argon2id (RFC 9106). All zero in slots that are not opened by a passphrase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KdfCost {
    /// Memory, KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl KdfCost {
    /// None: for keys that are random already.
    pub const NONE: Self = Self { memory_kib: 0, passes: 0, lanes: 0 };
    /// The default for new passphrase slots: 256 MiB, 3 passes, 1 lane.
    pub const DEFAULT: Self = Self { memory_kib: 256 * 1024, passes: 3, lanes: 1 };
    /// The least that is accepted: 19 MiB, 2 passes, 1 lane (OWASP password storage).
    pub const FLOOR: Self = Self { memory_kib: 19 * 1024, passes: 2, lanes: 1 };

    /// Whether these parameters may be run: asked before any memory is allocated, since they are read from a file.
    pub fn is_allowed(&self) -> bool {
        (Self::FLOOR.memory_kib..=limits::ARGON2_KIB_MAX).contains(&self.memory_kib)
            && (Self::FLOOR.passes..=limits::ARGON2_PASSES_MAX).contains(&self.passes)
            && (Self::FLOOR.lanes..=limits::ARGON2_LANES_MAX).contains(&self.lanes)
    }
}

/// Why there is no key to unlock with.
#[derive(Debug, thiserror::Error)]
pub enum UnlockError {
    /// The file cannot be opened or read.
    #[error("{path}: cannot be read ({error}); check the path and that this user may read it")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system said, or that it is no regular file.
        error: io::Error,
    },
    /// Others than its owner and group can read the file, or others than its owner change it.
    #[error(
        "{path}: mode {mode:03o} lets too many read or change it; chmod 0640 or stricter, and replace the key if they may have read it"
    )]
    Exposed {
        /// The file.
        path: String,
        /// Its permission bits.
        mode: u32,
    },
    /// Too little to be a key.
    #[error("{path}: {found} bytes are too few, {needed} are needed; make one with: head -c 32 /dev/urandom")]
    TooShort {
        /// The file.
        path: String,
        /// Bytes found.
        found: usize,
        /// Bytes needed.
        needed: usize,
    },
    /// Too much to be a key.
    #[error("{path}: longer than {} bytes; this is not a key or passphrase file", limits::KEK_BYTES_MAX)]
    TooLong {
        /// The file.
        path: String,
    },
    /// Begins like a key file of ours and is not one.
    #[error("{path}: begins like a Rosemary key file but is damaged; restore it from its safe copy")]
    Malformed {
        /// The file.
        path: String,
    },
}

/// What the operator presented: opens key slots of one kind.
#[derive(Debug)]
pub struct Kek {
    kind: SlotKind,
    secret: Secret<Vec<u8>>,
    instance: Option<InstanceId>,
    /// The last slot key from a passphrase: a start asks for it twice, and Argon2id is slow on purpose.
    derived: Mutex<Option<([u8; 32], KdfCost, Key)>>,
}

impl Kek {
    /// Reads the key from where the operator keeps it.
    ///
    /// Errors: [`UnlockError`], each naming the file and the remedy.
    pub fn read(source: &KekSource) -> Result<Self, UnlockError> {
        match source {
            KekSource::KeyFile(path) => Self::from_key_bytes(SlotKind::KeyFile, read_private(path)?, path),
            KekSource::Credential(path) => Self::from_key_bytes(SlotKind::Credential, read_private(path)?, path),
            KekSource::PassphraseFile(path) => {
                let mut bytes = read_private(path)?;
                if bytes.last() == Some(&b'\n') {
                    bytes.pop();
                }
                if bytes.is_empty() {
                    return Err(UnlockError::TooShort { path: name(path), found: 0, needed: 1 });
                }
                Ok(Self {
                    kind: SlotKind::Passphrase,
                    secret: Secret::new(std::mem::take(&mut *bytes)),
                    instance: None,
                    derived: Mutex::default(),
                })
            }
        }
    }

    /// Writes a new random key file of the product's own form, readable by its owner alone, for the instance `instance`.
    ///
    /// Errors: the system's; an existing file is never replaced.
    pub fn write_key_file(path: &Path, instance: InstanceId) -> io::Result<Self> {
        let secret = Key::random();
        let digits = Zeroizing::new(hex::encode(secret.expose()));
        let line = Zeroizing::new(format!("{KEY_FILE_WORD} {instance} {}\n", digits.as_str()));
        durable::create(path, line.as_bytes(), 0o600)?;
        Ok(Self {
            kind: SlotKind::KeyFile,
            secret: Secret::new(secret.expose().to_vec()),
            instance: Some(instance),
            derived: Mutex::default(),
        })
    }

    /// A passphrase that was typed.
    pub fn passphrase(secret: Secret<Vec<u8>>) -> Self {
        Self::presented(SlotKind::Passphrase, secret, None)
    }

    /// A key that was read elsewhere, as [`Kek::parts`] gave it.
    pub fn presented(kind: SlotKind, secret: Secret<Vec<u8>>, instance: Option<InstanceId>) -> Self {
        Self { kind, secret, instance, derived: Mutex::default() }
    }

    /// What it consists of, for whoever takes it to the service.
    pub fn parts(&self) -> (SlotKind, &Secret<Vec<u8>>, Option<InstanceId>) {
        (self.kind, &self.secret, self.instance)
    }

    /// The kind of slot this opens.
    pub fn kind(&self) -> SlotKind {
        self.kind
    }

    /// The instance the key was made for, if it says so.
    pub fn instance(&self) -> Option<InstanceId> {
        self.instance
    }

    /// The key that opens a slot with this salt and cost; `None` if the cost is outside what may be run or memory is short.
    ///
    /// Key file, credential and shares: HKDF over the bytes with the salt as context. Passphrase: Argon2id v1.3 to 32 bytes, then HKDF.
    pub fn slot_key(&self, salt: &[u8; 32], cost: &KdfCost) -> Option<Key> {
        let secret = self.secret.expose();
        match self.kind {
            SlotKind::KeyFile if *cost == KdfCost::NONE => Some(kdf::derive(&[secret], Label::KeyFile, &[salt])),
            SlotKind::Credential if *cost == KdfCost::NONE => Some(kdf::derive(&[secret], Label::Credential, &[salt])),
            SlotKind::Shares if *cost == KdfCost::NONE => Some(kdf::derive(&[secret], Label::Shares, &[salt])),
            SlotKind::Passphrase if cost.is_allowed() => {
                let mut derived = self.derived.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some((_, _, key)) = derived.as_ref().filter(|(known, at, _)| known == salt && at == cost) {
                    return Some(key.duplicate());
                }
                let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32)).ok()?;
                let mut out = Zeroizing::new([0; 32]);
                Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password_into(secret, salt, &mut *out).ok()?;
                let key = kdf::derive(&[&*out], Label::Passphrase, &[]);
                *derived = Some((*salt, *cost, key.duplicate()));
                Some(key)
            }
            _ => None,
        }
    }

    /// What else the content of a key file can mean if it is 64 hex digits and white space: a key that was typed from its paper copy. The
    /// digits alone (`rosemary-setup`), with a newline (a file made by other means), and the bytes they stand for (our own form).
    pub fn typed_back(&self) -> Vec<Self> {
        let content = self.secret.expose();
        let mut digits = Zeroizing::new(Vec::with_capacity(content.len() + 1));
        digits.extend(content.iter().filter(|byte| !byte.is_ascii_whitespace()).map(u8::to_ascii_lowercase));
        let bytes = std::str::from_utf8(&digits).ok().and_then(hex::decode).map(Zeroizing::new).filter(|bytes| bytes.len() == 32);
        let Some(bytes) = bytes.filter(|_| matches!(self.kind, SlotKind::KeyFile | SlotKind::Credential)) else { return Vec::new() };
        let alone = digits.to_vec();
        digits.push(b'\n');
        [alone, digits.to_vec(), bytes.to_vec()].map(|secret| Self::presented(self.kind, Secret::new(secret), None)).into()
    }

    fn from_key_bytes(kind: SlotKind, mut bytes: Zeroizing<Vec<u8>>, path: &Path) -> Result<Self, UnlockError> {
        if bytes.starts_with(KEY_FILE_WORD.as_bytes()) {
            let (secret, instance) = parse_own_form(&bytes).ok_or_else(|| UnlockError::Malformed { path: name(path) })?;
            return Ok(Self { kind, secret, instance: Some(instance), derived: Mutex::default() });
        }
        if bytes.len() < limits::KEK_BYTES_MIN {
            return Err(UnlockError::TooShort { path: name(path), found: bytes.len(), needed: limits::KEK_BYTES_MIN });
        }
        Ok(Self { kind, secret: Secret::new(std::mem::take(&mut *bytes)), instance: None, derived: Mutex::default() })
    }

    /// A key file's key from its bytes, for tests.
    #[cfg(test)]
    pub fn for_test(bytes: &[u8]) -> Self {
        Self { kind: SlotKind::KeyFile, secret: Secret::new(bytes.to_vec()), instance: None, derived: Mutex::default() }
    }

    /// A passphrase, for tests.
    #[cfg(test)]
    pub fn passphrase_for_test(text: &str) -> Self {
        Self { kind: SlotKind::Passphrase, secret: Secret::new(text.as_bytes().to_vec()), instance: None, derived: Mutex::default() }
    }

    /// The same key, made for `instance`, for tests.
    #[cfg(test)]
    pub fn made_for(self, instance: InstanceId) -> Self {
        Self { instance: Some(instance), ..self }
    }
}

fn parse_own_form(bytes: &[u8]) -> Option<(Secret<Vec<u8>>, InstanceId)> {
    let line = std::str::from_utf8(bytes).ok()?;
    let mut words = line.split_ascii_whitespace();
    let (_, instance) = (words.next()?, InstanceId::parse(words.next()?)?);
    let mut digits = Zeroizing::new(String::with_capacity(line.len()));
    digits.extend(words);
    let secret = Secret::new(hex::decode(&digits)?);
    (secret.expose().len() == 32).then_some((secret, instance))
}

fn name(path: &Path) -> String {
    path.display().to_string()
}

/// Permission bits that a key or passphrase file must not have. Its group may read it: `root:rosemary 0640` keeps the service from changing its own
/// key, and systemd shows a credential to the unit's user by ACL, which appears as that bit.
pub const EXPOSING_BITS: u32 = 0o037;

/// The whole file, if no more than its owner may change it and no more than its group may read it. Mode and bytes come from one open file.
fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, UnlockError> {
    let unreadable = |error: io::Error| UnlockError::Unreadable { path: name(path), error };
    let file = open_regular(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.mode() & 0o777;
    if mode & EXPOSING_BITS != 0 {
        return Err(UnlockError::Exposed { path: name(path), mode });
    }
    // One allocation, so that growing the buffer leaves no copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(limits::KEK_BYTES_MAX + 1));
    file.take(u64::try_from(limits::KEK_BYTES_MAX + 1).expect("small")).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > limits::KEK_BYTES_MAX {
        return Err(UnlockError::TooLong { path: name(path) });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    /// A path of its own; what stands there is removed with this value.
    struct Temporary(PathBuf);

    impl Temporary {
        fn draw() -> Self {
            Self(std::env::temp_dir().join(format!("rosemary-kek-{}", hex::encode(&crate::base::rng::array::<8>()))))
        }
    }

    impl std::ops::Deref for Temporary {
        type Target = Path;

        fn deref(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for Temporary {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    fn file(bytes: &[u8], mode: u32) -> Temporary {
        let path = Temporary::draw();
        fs::write(&*path, bytes).unwrap();
        fs::set_permissions(&*path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn a_key_file_readable_by_others_too_short_too_long_or_absent_is_refused() {
        let read = |path: &Path| Kek::read(&KekSource::KeyFile(path.into()));
        assert!(matches!(read(&file(&[7; 32], 0o660)), Err(UnlockError::Exposed { mode: 0o660, .. })));
        assert!(matches!(read(&file(&[7; 32], 0o604)), Err(UnlockError::Exposed { .. })));
        assert!(matches!(read(&file(&[7; 31], 0o600)), Err(UnlockError::TooShort { found: 31, .. })));
        assert!(matches!(read(&file(&vec![7; limits::KEK_BYTES_MAX + 1], 0o600)), Err(UnlockError::TooLong { .. })));
        assert!(
            matches!(read(Path::new("/nowhere/at/all")), Err(UnlockError::Unreadable { error, .. }) if error.kind() == io::ErrorKind::NotFound)
        );
        assert!(matches!(read(Path::new("/")), Err(UnlockError::Unreadable { .. })));
        assert!(read(&file(&[7; 32], 0o400)).is_ok());
        assert!(read(&file(&[7; 32], 0o640)).is_ok(), "root's file, read through the service's group");
    }

    #[test]
    fn a_message_names_the_file_and_never_its_bytes() {
        let path = file(b"correct horse battery", 0o600);
        let text = Kek::read(&KekSource::KeyFile(path.to_path_buf())).unwrap_err().to_string();
        assert!(text.contains(path.to_str().unwrap()) && !text.contains("horse"));
    }

    #[test]
    fn our_own_key_file_names_its_instance_and_a_damaged_one_is_refused() {
        let path = Temporary::draw();
        let instance = InstanceId::draw();
        let made = Kek::write_key_file(&path, instance).unwrap();
        let read = Kek::read(&KekSource::KeyFile(path.to_path_buf())).unwrap();
        assert_eq!(read.instance(), Some(instance));
        assert_eq!(made.secret.expose(), read.secret.expose());
        assert!(Kek::write_key_file(&path, instance).is_err(), "an existing key file is never replaced");
        let mut bytes = fs::read(&*path).unwrap();
        bytes.truncate(bytes.len() - 2);
        let damaged = file(&bytes, 0o600);
        assert!(matches!(Kek::read(&KekSource::KeyFile(damaged.to_path_buf())), Err(UnlockError::Malformed { .. })));
    }

    #[test]
    fn digits_typed_from_paper_open_what_their_key_locks() {
        // The paper copy of `rosemary-setup` is printed in groups of 8; typed back with them and a newline it opened nothing.
        use crate::crypto::ladder::KeySlot;
        let (path, instance, master) = (Temporary::draw(), InstanceId::draw(), Key::random());
        let own = Kek::write_key_file(&path, instance).unwrap();
        let line = fs::read_to_string(&*path).unwrap();
        let digits = line.trim_end().rsplit(' ').next().unwrap();
        let groups = digits.as_bytes().chunks(8).map(|group| std::str::from_utf8(group).unwrap()).collect::<Vec<_>>().join(" ");
        let newline = format!("{digits}\n");
        let forms = [digits.to_owned(), newline.clone(), groups.clone(), format!("{}\n", groups.to_uppercase()), groups.replace(' ', "\n")];
        for made in [own, Kek::for_test(digits.as_bytes()), Kek::for_test(newline.as_bytes())] {
            let slot = KeySlot::wrap(&made, KdfCost::NONE, &master, instance, 0).unwrap();
            for form in &forms {
                let typed = Kek::read(&KekSource::KeyFile(file(form.as_bytes(), 0o600).to_path_buf())).unwrap();
                assert_eq!(slot.unwrap(&typed, instance, 0).map(|key| *key.expose()), Some(*master.expose()), "{} bytes", form.len());
            }
            assert!(slot.unwrap(&Kek::for_test(digits.replace(&digits[..1], "g").as_bytes()), instance, 0).is_none());
            assert!(slot.unwrap(&Kek::for_test(format!("{digits}00").as_bytes()), instance, 0).is_none());
        }
        let whole = line.replace(digits, &groups);
        let typed = Kek::read(&KekSource::KeyFile(file(whole.as_bytes(), 0o600).to_path_buf())).unwrap();
        assert_eq!(typed.instance(), Some(instance));
        assert!(Kek::passphrase_for_test(digits).typed_back().is_empty());
    }

    #[test]
    fn a_passphrase_loses_one_newline_and_no_more() {
        let read = |bytes: &[u8]| Kek::read(&KekSource::PassphraseFile(file(bytes, 0o600).to_path_buf()));
        assert_eq!(read(b"open sesame\n").unwrap().secret.expose(), b"open sesame");
        assert_eq!(read(b"open sesame\n\n").unwrap().secret.expose(), b"open sesame\n");
        assert!(matches!(read(b"\n"), Err(UnlockError::TooShort { .. })));
    }

    #[test]
    fn costs_outside_the_bounds_are_never_run() {
        let kek = Kek::passphrase_for_test("x");
        for cost in [
            KdfCost { memory_kib: limits::ARGON2_KIB_MAX + 1, ..KdfCost::FLOOR },
            KdfCost { memory_kib: KdfCost::FLOOR.memory_kib - 1, ..KdfCost::FLOOR },
            KdfCost { passes: limits::ARGON2_PASSES_MAX + 1, ..KdfCost::FLOOR },
            KdfCost { passes: 1, ..KdfCost::FLOOR },
            KdfCost { lanes: limits::ARGON2_LANES_MAX + 1, ..KdfCost::FLOOR },
            KdfCost { lanes: 0, ..KdfCost::FLOOR },
            KdfCost { memory_kib: u32::MAX, passes: u32::MAX, lanes: u32::MAX },
        ] {
            assert!(kek.slot_key(&[0; 32], &cost).is_none(), "{cost:?}");
        }
        assert!(KdfCost::DEFAULT.is_allowed() && KdfCost::FLOOR.is_allowed());
        assert!(kek.slot_key(&[0; 32], &KdfCost::FLOOR).is_some());
    }
}
