//! Which backups are known, whatever happened to their files: whoever is erased must be told of each that may still hold them.
//!
//! Asked: a file that lies somewhere and says what was erased is named by the receipt, and one that is surely gone is not.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::erase::{CANARY, LONG, person};
use super::*;
use crate::base::durable;
use crate::base::id::FileId;
use crate::crypto::unlock::{KdfCost, Kek};
use crate::engine::{EngineError, Options, Place, Unlock};
use crate::policy::action::{AskErasure, Instance, ReadErasures};
use crate::store::backup::{BackupError, Made, Order, State, Where};
use crate::store::erasure::{self, Holder, Refusal, Whom};
use crate::store::restore;

const OPTIONS: Options = Options { cache_bytes: 4 << 20, stride: 4608, tables: TABLES, kdf: KdfCost::FLOOR };
const HOUR: Option<Duration> = Some(Duration::from_secs(3600));

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("rosemary-known-{}", crate::base::hex::encode(&crate::base::rng::array::<8>())));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn sub(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::create_dir(&path).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn kek() -> Kek {
    Kek::for_test(&[7; 32])
}

/// A house with somebody whose memory says the canary.
fn house() -> (House, Principal) {
    let house = House::new();
    let nurse = person(house.vault(), "nurse@example.org", "a key of the nurse");
    create(house.vault(), &nurse, &Call::internal(), CANARY).unwrap();
    (house, nurse)
}

fn make(vault: &Vault, place: Where<'_>, keep: Option<Duration>, progress: &mut dyn FnMut(u64)) -> Result<Made, BackupError> {
    // Their order is that of their times.
    std::thread::sleep(Duration::from_millis(3));
    let never = AtomicBool::new(false);
    vault.backup(Order { place, key: None, keep, gentle: false, stop: &never, progress })
}

fn made(vault: &Vault, folder: &Path, keep: Option<Duration>) -> Made {
    make(vault, Where::Folder(folder), keep, &mut |_| {}).unwrap()
}

/// The backups that the receipt of this erasure names.
fn erased(vault: &Vault, user: UserId) -> Vec<FileId> {
    let who = Principal::system(vault.tenant(), vault.owner(), "console");
    let whom = Whom::Known(Holder::User(user));
    vault.write::<AskErasure, _, Refusal>(&who, Instance, &Call::internal(), move |a| erasure::ask(a, &whom)).unwrap();
    assert!(vault.rotation_done(LONG, |_| true));
    named(vault, user)
}

fn named(vault: &Vault, user: UserId) -> Vec<FileId> {
    let (who, id) = (Principal::system(vault.tenant(), vault.owner(), "console"), *user.bytes());
    let read = vault.read::<ReadErasures, _, Refusal>(&who, Instance, &Call::internal(), move |a| erasure::read(a, id)).unwrap();
    read.into_parts().0.1.unwrap().0.backups.iter().map(|backup| backup.id).collect()
}

fn says_canary(path: &Path) -> bool {
    let tape = Arc::new(Tape::recording(std::fs::read(path).unwrap()));
    held(&tape, "a backup").contents.values().any(|text| text.contains(CANARY))
}

fn state(vault: &Vault, id: FileId) -> State {
    vault.backups().unwrap().all.iter().find(|(known, _)| *known == id).unwrap().1.state
}

/// A service on a data file, restored from this backup over what lies at `path`.
fn restored(backup: &Path, path: &Path) -> Store {
    let (source, clock, never) = (Engine::inspect(backup, &OPTIONS, &kek()).unwrap(), Clock::system(), AtomicBool::new(false));
    let facts = restore::facts(&source, &clock).unwrap();
    let old = Engine::inspect(path, &OPTIONS, &kek()).ok();
    let (known, whole) = restore::known_of(path, old.as_ref(), &facts, clock.now());
    assert_eq!(whole, old.is_some());
    let kept = path.with_extension("replaced");
    let order = restore::Order {
        path,
        unlock: Unlock::AsHere,
        place: Place::Over(&kept),
        overridden: Default::default(),
        known: &known,
        stop: &never,
        progress: &mut |_, _| {},
    };
    restore::restore(&source, &facts, &clock, order).unwrap();
    drop(old);
    let fatal = Arc::<AtomicUsize>::default();
    Store::open(Engine::open(path, &OPTIONS, &kek()).unwrap(), settings(&clock, &fatal)).unwrap()
}

#[test]
fn a_backup_that_was_cut_off_after_its_end_may_exist_wherever_it_lies() {
    // One that had been made by hand into another folder was called failed at the next start: no receipt named it, and it said the text.
    let ((house, nurse), folder) = (house(), Folder::new());
    let (path, mut image) = (folder.0.join("by-hand.backup"), Vec::new());
    let backup = make(house.vault(), Where::File(&path), None, &mut |_| image = house.tape.image()).unwrap();
    let again = House::on(Arc::new(Tape::recording(image)), &Clock::system()).unwrap();
    let vault = again.vault();
    assert_eq!(state(vault, backup.id), State::Begun);
    vault.settle_backups(&folder.sub("backups")).unwrap();
    assert_eq!(state(vault, backup.id), State::Apart);
    vault.settle_backups(&folder.0.join("not mounted")).unwrap();
    assert_eq!(state(vault, backup.id), State::Apart);
    assert_eq!(erased(vault, nurse.user()), [backup.id]);
    assert!(says_canary(&path));
}

#[test]
fn a_backup_that_was_cut_off_in_its_folder_is_settled_there() {
    let ((house, _), folder) = (house(), Folder::new());
    let mut image = Vec::new();
    let backup = make(house.vault(), Where::Folder(&folder.0), HOUR, &mut |_| image = house.tape.image()).unwrap();
    let again = |image: &[u8]| House::on(Arc::new(Tape::recording(image.to_vec())), &Clock::system()).unwrap();
    // While its disk is not there nothing is decided for good.
    let house = again(&image);
    house.vault().settle_backups(&folder.0.join("not mounted")).unwrap();
    assert_eq!(state(house.vault(), backup.id), State::Apart);
    house.vault().settle_backups(&folder.0).unwrap();
    assert_eq!(state(house.vault(), backup.id), State::Done);
    // With the name that it has until it is whole it is none, and goes.
    let beside = crate::engine::beside(&backup.path);
    std::fs::rename(&backup.path, &beside).unwrap();
    let house = again(&image);
    house.vault().settle_backups(&folder.0).unwrap();
    assert_eq!((state(house.vault(), backup.id), beside.exists()), (State::Failed, false));
}

#[test]
fn a_backup_whose_disk_is_away_is_not_removed_and_is_again_when_it_is_back() {
    // With the disk of backups not mounted, what was over there counted as removed: no receipt named it, and it stayed for good.
    let ((house, nurse), folder) = (house(), Folder::new());
    let (vault, mount, away) = (house.vault(), folder.sub("mnt"), folder.0.join("away"));
    let first = made(vault, &mount, Some(Duration::from_millis(1)));
    std::fs::rename(&mount, &away).unwrap();
    std::fs::create_dir(&mount).unwrap();
    let root = [made(vault, &mount, HOUR), made(vault, &mount, HOUR)];
    assert_eq!(vault.remove_expired_backups(&mount).unwrap(), 0);
    vault.settle_backups(&mount).unwrap();
    assert_eq!(state(vault, first.id), State::Apart);
    let mut all = vec![first.id, root[0].id, root[1].id];
    assert_eq!(erased(vault, nurse.user()), all);
    assert!(says_canary(&away.join(first.path.file_name().unwrap())));
    // Mounted again, it is known where it is, and goes when its time is over; those under the mount are set apart.
    std::fs::rename(&mount, folder.0.join("under")).unwrap();
    std::fs::rename(&away, &mount).unwrap();
    vault.settle_backups(&mount).unwrap();
    all.push(made(vault, &mount, HOUR).id);
    assert_eq!(all.iter().map(|id| state(vault, *id)).collect::<Vec<_>>(), [State::Done, State::Apart, State::Apart, State::Done]);
    made(vault, &mount, HOUR);
    assert_eq!(vault.remove_expired_backups(&mount).unwrap(), 1);
    assert_eq!((state(vault, first.id), first.path.exists()), (State::Removed, false));
    assert_eq!(named(vault, nurse.user()), [root[0].id, root[1].id], "the later ones were made when the key was gone");
}

#[test]
fn a_backup_that_was_removed_by_hand_is_known_to_be_gone_where_the_folder_is_known() {
    let ((house, nurse), folder) = (house(), Folder::new());
    let vault = house.vault();
    let both = [made(vault, &folder.0, HOUR), made(vault, &folder.0, Some(Duration::from_millis(1)))];
    assert_eq!(erased(vault, nurse.user()), [both[0].id, both[1].id]);
    let bytes = std::fs::read(&both[1].path).unwrap();
    std::fs::remove_file(&both[1].path).unwrap();
    vault.settle_backups(&folder.0).unwrap();
    assert_eq!(named(vault, nurse.user()), [both[0].id]);
    // Another file under its name is not it; put back, it is there again, whatever its row said.
    std::fs::write(&both[1].path, std::fs::read(&both[0].path).unwrap()).unwrap();
    vault.settle_backups(&folder.0).unwrap();
    assert_eq!(state(vault, both[1].id), State::Removed);
    std::fs::write(&both[1].path, bytes).unwrap();
    vault.settle_backups(&folder.0).unwrap();
    assert_eq!((state(vault, both[1].id), named(vault, nurse.user()).len()), (State::Done, 2));
    std::fs::remove_file(&both[1].path).unwrap();
    vault.settle_backups(&folder.0).unwrap();
    assert_eq!(state(vault, both[1].id), State::Removed);
    // Nothing is left there that tells that it is the folder.
    std::fs::remove_file(&both[0].path).unwrap();
    vault.settle_backups(&folder.0).unwrap();
    assert_eq!((state(vault, both[0].id), named(vault, nurse.user())), (State::Done, vec![both[0].id]));
}

#[test]
fn a_backup_under_another_name_in_the_folder_and_a_copy_of_the_data_file_there_are_named() {
    let ((house, nurse), folder) = (house(), Folder::new());
    let vault = house.vault();
    let both = [made(vault, &folder.0, HOUR), made(vault, &folder.0, HOUR)];
    std::fs::rename(&both[0].path, folder.0.join("renamed")).unwrap();
    // A copy of the data file is no backup, and holds as much.
    std::fs::write(folder.0.join("copy.db"), house.tape.image()).unwrap();
    vault.settle_backups(&folder.0).unwrap();
    let mut wanted = vec![both[0].id, both[1].id, vault.engine().file()];
    let mut found = erased(vault, nurse.user());
    found.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(found, wanted);
    assert_eq!([0, 1].map(|n| state(vault, both[n].id)), [State::Apart, State::Done]);
}

#[test]
fn what_fails_after_the_new_name_leaves_a_file_that_is_known() {
    // The folder could not be synced: the row said that there was no file, and the file was there; a restore said that nothing had changed.
    let ((house, nurse), folder) = (house(), Folder::new());
    let vault = house.vault();
    let drop = folder.sub("drop");
    let path = drop.join("a.backup");
    durable::tests::REFUSED.set(Some(drop.clone()));
    let failed = make(vault, Where::File(&path), None, &mut |_| {}).unwrap_err();
    assert!(matches!(&failed, BackupError::File(_, EngineError::Unconfirmed(_))), "{failed}");
    let source = Engine::inspect(&path, &OPTIONS, &kek()).unwrap();
    let facts = restore::facts(&source, &Clock::system()).unwrap();
    let (aside, never) = (drop.join("memory.db"), AtomicBool::new(false));
    let order = restore::Order {
        path: &aside,
        unlock: Unlock::AsHere,
        place: Place::New,
        overridden: Default::default(),
        known: &[],
        stop: &never,
        progress: &mut |_, _| {},
    };
    let failed = restore::restore(&source, &facts, &Clock::system(), order).unwrap_err();
    durable::tests::REFUSED.set(None);
    assert!(failed.to_string().contains("in its place") && aside.exists(), "{failed}");
    let id = source.file();
    std::mem::drop(source);
    assert_eq!((state(vault, id), says_canary(&path)), (State::Apart, true));
    assert_eq!(erased(vault, nurse.user()), [id]);
}

#[test]
fn what_a_drill_left_when_it_was_cut_off_goes_with_the_next_start() {
    // A crash within a drill left a full copy of everything, which stayed until the next drill, or for good.
    let ((house, _), folder) = (house(), Folder::new());
    let left = [folder.0.join("rosemary-drill.db"), folder.0.join("rosemary-drill.db.new")];
    left.iter().for_each(|path| std::fs::write(path, house.tape.image()).unwrap());
    house.vault().settle_backups(&folder.0).unwrap();
    assert!(left.iter().all(|path| !path.exists()));
}

#[test]
fn a_restore_forgets_no_backup_and_knows_the_file_that_made_way() {
    // Of a backup made after the one that was restored no receipt told, and it was kept for good; and of the file that made way.
    let ((house, nurse), folder) = (house(), Folder::new());
    let (vault, backups, path) = (house.vault(), folder.sub("backups"), folder.0.join("memory.db"));
    let first = made(vault, &backups, HOUR);
    // Somebody else's end gives the file new keys: the later backup has other numbers than what is restored goes on with.
    erased(vault, person(vault, "other@example.org", "a key of another").user());
    let second = made(vault, &backups, HOUR);
    let stopped = AtomicBool::new(true);
    let given_up = Order { place: Where::Folder(&backups), key: None, keep: HOUR, gentle: false, stop: &stopped, progress: &mut |_| {} };
    assert!(matches!(vault.backup(given_up), Err(BackupError::Stopping)));
    std::fs::write(&path, house.tape.image()).unwrap();
    let replaced = Engine::inspect(&path, &OPTIONS, &kek()).unwrap().file();
    let store = restored(&first.path, &path);
    let vault = store.vault();
    let all = &vault.backups().unwrap().all;
    let known: Vec<_> = all.iter().map(|(id, row)| (*id, row.state, row.expires_at)).collect();
    let until = |made: &Made| made.backup.expires_at;
    assert_eq!((known[0], known[1]), ((first.id, State::Done, until(&first)), (second.id, State::Done, until(&second))));
    assert_eq!((known[2].1, known[3]), (State::Failed, (replaced, State::Apart, None)));
    assert_eq!(erased(vault, nurse.user()), [first.id, second.id, replaced]);
    assert!(says_canary(&second.path) && says_canary(&path.with_extension("replaced")));
    store.stop();
}

#[test]
fn what_lies_in_the_folder_is_known_though_no_row_came_over() {
    // Where the file that makes way does not open, or is lost, its rows are too.
    let ((house, nurse), folder) = (house(), Folder::new());
    let (vault, backups, path) = (house.vault(), folder.sub("backups"), folder.0.join("memory.db"));
    let first = made(vault, &backups, HOUR);
    let second = made(vault, &backups, HOUR);
    std::fs::write(backups.join("memory.db.replaced-1"), house.tape.image()).unwrap();
    std::fs::write(backups.join("another.backup"), [0; 5000]).unwrap();
    let other = House::new();
    let foreign = made(other.vault(), &backups, HOUR);
    let mut image = house.tape.image();
    let replaced = Engine::inspect(&backups.join("memory.db.replaced-1"), &OPTIONS, &kek()).unwrap().file();
    image[64..8192].fill(0);
    std::fs::write(&path, image).unwrap();
    let store = restored(&first.path, &path);
    let vault = store.vault();
    assert_eq!((state(vault, replaced), vault.backups().unwrap().all.len()), (State::Apart, 2));
    vault.settle_backups(&backups).unwrap();
    vault.settle_backups(&backups).unwrap();
    assert_eq!((state(vault, first.id), state(vault, second.id)), (State::Done, State::Apart));
    let known = vault.backups().unwrap().all;
    assert!(known.len() == 3 && known.iter().all(|(id, _)| *id != foreign.id));
    let named = erased(vault, nurse.user());
    assert!(named.len() == 3 && [first.id, second.id, replaced].iter().all(|id| named.contains(id)));
    store.stop();
}
