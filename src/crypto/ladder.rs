//! The key ladder, the only one.
//!
//! ```text
//! passphrase (Argon2id) | key file | systemd credential | shares
//!        └─ KEK ─ opens a key slot ─> master key (random)
//!                                        └─ opens the superblock's body: block, MAC, audit, pepper, lookup and epoch keys (all random)
//!                                             └─ epoch key ─ opens a wrapped DEK (random, one per holder)
//!                                                  └─ HKDF ─> the key of a field
//! ```
//!
//! Invariants
//! - Each step but the last opens random keys sealed under the step above, bound to their place by associated data.
//! - At most two epoch keys exist; new DEKs are wrapped under the newer one.
//! - A key slot is bound to the instance, not to the file, so a copy of the data keeps its slots byte for byte.

use crate::base::id::InstanceId;
use crate::base::limits;
use crate::base::rng;
use crate::crypto::aead::{self, Aad, OVERHEAD_BYTES};
use crate::crypto::kdf::{self, Label};
use crate::crypto::secret::{Key, Secret};
use crate::crypto::sign::SigningKey;
use crate::crypto::unlock::{KdfCost, Kek, SlotKind};
use zeroize::Zeroizing;

/// Bytes of one key slot as stored.
pub const SLOT_BYTES: usize = 128;
/// Bytes of the superblock's body before sealing.
pub const BODY_BYTES: usize = 5 * 32 + 2 * 36;
/// Bytes of the superblock's body as stored, without and with the seed of the next audit signing key.
pub const SEALED_BODY_BYTES: [usize; 2] = [BODY_BYTES + OVERHEAD_BYTES, BODY_BYTES + 32 + OVERHEAD_BYTES];
/// Version in every associated data of format v1.
pub const FORMAT: u64 = 1;

/// Why keys do not open.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LadderError {
    /// No key slot is of the kind presented.
    #[error("the data file has no key slot for a {}; its slots are for: {}", presented.name(), names(present))]
    NoSlot {
        /// What was presented.
        presented: SlotKind,
        /// Kinds of the slots in use.
        present: Vec<SlotKind>,
    },
    /// A slot of that kind exists and does not open.
    #[error("the {} does not unlock the data file: it is another one's or was replaced; present the one this file was made with", .0.name())]
    Wrong(SlotKind),
    /// The key says itself that it belongs to another instance.
    #[error("the {} belongs to instance {key}, the data file to instance {file}; present the key of this instance", kind.name())]
    Foreign {
        /// What was presented.
        kind: SlotKind,
        /// The instance the key names.
        key: InstanceId,
        /// The instance of the file.
        file: InstanceId,
    },
    /// All slots are taken.
    #[error("all {} key slots are in use; remove one first", limits::KEY_SLOTS)]
    SlotsFull,
    /// Without any slot nothing would open the file again.
    #[error("this is the only key slot; add another key first")]
    LastSlot,
    /// There is no key in this slot.
    #[error("key slot {0} holds no key; see `rosemary keys list`")]
    NoSuchSlot(usize),
    /// An epoch is being left already.
    #[error("keys are being re-wrapped for another epoch; this goes on by itself while the service runs, then try again")]
    EpochBusy,
    /// The log is being handed over already.
    #[error("the audit log is being handed over to another key; this goes on by itself while the service runs, then try again")]
    SigningBusy,
    /// There is no key to hand the log over to.
    #[error("there is no next signing key")]
    NoNextSigning,
    /// The new slot's Argon2id cost is outside the bounds, or there is not enough memory to run it.
    #[error("the Argon2id cost is outside its bounds or this machine has too little free memory for it")]
    Cost,
    /// What should be a key does not open in its place.
    #[error("a wrapped key does not open: damaged or moved")]
    Damaged,
    /// The epoch key that wrapped this DEK no longer exists.
    #[error("the key of epoch {0} no longer exists: what it wrapped was erased")]
    UnknownEpoch(u32),
}

fn names(kinds: &[SlotKind]) -> String {
    kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ")
}

/// One key slot: the master key under one KEK.
///
/// Stored: kind u8 | zero 3 | memory KiB u32 | passes u32 | lanes u32 | salt 32 | nonce 24, master key 32, tag 16 | zero 8; all little-endian.
/// An unused slot is zero throughout.
#[derive(Clone)]
pub struct KeySlot {
    kind: SlotKind,
    cost: KdfCost,
    salt: [u8; 32],
    wrapped: [u8; 32 + OVERHEAD_BYTES],
}

impl KeySlot {
    /// Wraps `master` for slot `number` of `instance`.
    ///
    /// Errors: `Cost`.
    pub fn wrap(kek: &Kek, cost: KdfCost, master: &Key, instance: InstanceId, number: usize) -> Result<Self, LadderError> {
        let cost = if kek.kind() == SlotKind::Passphrase { cost } else { KdfCost::NONE };
        let mut slot = Self { kind: kek.kind(), cost, salt: rng::array(), wrapped: [0; 32 + OVERHEAD_BYTES] };
        let key = kek.slot_key(&slot.salt, &cost).ok_or(LadderError::Cost)?;
        aead::seal_into(&key, slot.aad(instance, number).bytes(), master.expose(), &mut slot.wrapped);
        Ok(slot)
    }

    /// The master key, if `kek`, or what it was typed from, opens this slot.
    pub fn unwrap(&self, kek: &Kek, instance: InstanceId, number: usize) -> Option<Key> {
        self.unwrap_with(kek, instance, number).or_else(|| kek.typed_back().iter().find_map(|kek| self.unwrap_with(kek, instance, number)))
    }

    fn unwrap_with(&self, kek: &Kek, instance: InstanceId, number: usize) -> Option<Key> {
        let key = kek.slot_key(&self.salt, &self.cost)?;
        let mut out = Zeroizing::new([0; 32]);
        aead::open_into(&key, self.aad(instance, number).bytes(), &self.wrapped, &mut *out).ok()?;
        Some(Secret::new(*out))
    }

    fn aad(&self, instance: InstanceId, number: usize) -> Aad {
        Aad::of("rosemary", &[&FORMAT.to_le_bytes(), b"key-slot", instance.bytes()])
            .number(u64::try_from(number).expect("a slot number is below 8"))
            .number(u64::from(self.kind.number()))
            .number(u64::from(self.cost.memory_kib))
            .number(u64::from(self.cost.passes))
            .number(u64::from(self.cost.lanes))
    }

    /// The kind of key that opens this slot.
    pub fn kind(&self) -> SlotKind {
        self.kind
    }

    /// As stored.
    pub fn to_bytes(&self) -> [u8; SLOT_BYTES] {
        let mut out = [0; SLOT_BYTES];
        out[0] = self.kind.number();
        out[4..8].copy_from_slice(&self.cost.memory_kib.to_le_bytes());
        out[8..12].copy_from_slice(&self.cost.passes.to_le_bytes());
        out[12..16].copy_from_slice(&self.cost.lanes.to_le_bytes());
        out[16..48].copy_from_slice(&self.salt);
        out[48..120].copy_from_slice(&self.wrapped);
        out
    }

    /// Reads a slot: `Ok(None)` if it is unused, `Err` if it is neither unused nor well-formed.
    pub fn from_bytes(bytes: &[u8; SLOT_BYTES]) -> Result<Option<Self>, LadderError> {
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let kind = SlotKind::from_number(bytes[0]).ok_or(LadderError::Damaged)?;
        if bytes[1..4] != [0; 3] || bytes[120..] != [0; 8] {
            return Err(LadderError::Damaged);
        }
        Ok(Some(Self {
            kind,
            cost: KdfCost { memory_kib: word(4), passes: word(8), lanes: word(12) },
            salt: bytes[16..48].try_into().expect("32 bytes"),
            wrapped: bytes[48..120].try_into().expect("72 bytes"),
        }))
    }
}

/// The key slots of one file.
pub type KeySlots = [Option<KeySlot>; limits::KEY_SLOTS];

/// The master key, from whichever slot `kek` opens.
///
/// Errors: `Foreign`, `NoSlot`, `Wrong`. A passphrase costs one Argon2id run per passphrase slot until one opens.
pub fn open_slots(slots: &KeySlots, kek: &Kek, instance: InstanceId) -> Result<Key, LadderError> {
    check_instance(kek, instance)?;
    let fitting = || slots.iter().enumerate().filter_map(|(number, slot)| Some((number, slot.as_ref().filter(|s| s.kind == kek.kind())?)));
    if fitting().next().is_none() {
        return Err(LadderError::NoSlot { presented: kek.kind(), present: slots.iter().flatten().map(KeySlot::kind).collect() });
    }
    fitting().find_map(|(number, slot)| slot.unwrap(kek, instance, number)).ok_or(LadderError::Wrong(kek.kind()))
}

/// Whether `kek` may be a key of `instance`: it does not say that it is another one's.
///
/// Errors: `Foreign`.
pub fn check_instance(kek: &Kek, instance: InstanceId) -> Result<(), LadderError> {
    match kek.instance().filter(|named| *named != instance) {
        Some(key) => Err(LadderError::Foreign { kind: kek.kind(), key, file: instance }),
        None => Ok(()),
    }
}

/// Wraps `master` in the first unused slot.
///
/// Errors: `SlotsFull`, `Cost`.
pub fn enrol(slots: &mut KeySlots, kek: &Kek, cost: KdfCost, master: &Key, instance: InstanceId) -> Result<usize, LadderError> {
    let number = slots.iter().position(Option::is_none).ok_or(LadderError::SlotsFull)?;
    slots[number] = Some(KeySlot::wrap(kek, cost, master, instance, number)?);
    Ok(number)
}

/// The slots that `kek` opens.
pub fn slots_of(slots: &KeySlots, kek: &Kek, instance: InstanceId) -> Vec<usize> {
    let fitting = slots.iter().enumerate().filter_map(|(number, slot)| Some((number, slot.as_ref().filter(|s| s.kind == kek.kind())?)));
    fitting.filter(|(number, slot)| slot.unwrap(kek, instance, *number).is_some()).map(|(number, _)| number).collect()
}

/// A holder's DEK under an epoch key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedDek {
    /// The epoch whose key wraps it.
    pub epoch: u32,
    /// nonce 24 | DEK 32 | tag 16.
    pub sealed: Vec<u8>,
}

/// The superblock's keys, opened. Not `Clone`; printed as its name alone.
pub struct Keys {
    block: Key,
    mac: Key,
    seed: Key,
    signing: SigningKey,
    /// Only while the log passes from one signing key to the next.
    next: Option<(Key, SigningKey)>,
    pepper: Key,
    lookup: Key,
    /// In ascending order of number; one or two.
    epochs: Vec<(u32, Key)>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys")
    }
}

impl Keys {
    /// Fresh random keys, epoch 1.
    pub fn random() -> Self {
        let seed = Key::random();
        Self {
            block: Key::random(),
            mac: Key::random(),
            signing: SigningKey::from_seed(&seed),
            seed,
            next: None,
            pepper: Key::random(),
            lookup: Key::random(),
            epochs: vec![(1, Key::random())],
        }
    }

    /// The same keys with a fresh block key, for another physical copy of the same data.
    pub fn for_copy(&self) -> Self {
        Self { block: Key::random(), ..self.duplicate() }
    }

    /// The same keys with a fresh MAC key, for a superblock under another master key.
    pub fn with_new_mac(&self) -> Self {
        Self { mac: Key::random(), ..self.duplicate() }
    }

    /// The same keys with a further epoch, under which new DEKs are wrapped from now on; `None` if there are two already, or no number is left.
    pub fn with_next_epoch(&self) -> Option<Self> {
        let next = self.epoch().checked_add(1).filter(|_| self.epochs.len() == 1)?;
        let mut keys = self.duplicate();
        keys.epochs.push((next, Key::random()));
        Some(keys)
    }

    /// The same keys without any epoch but the newest: what the others wrapped opens no more.
    pub fn with_newest_epoch_alone(&self) -> Self {
        let mut keys = self.duplicate();
        keys.epochs.drain(..keys.epochs.len() - 1);
        keys
    }

    /// The same keys with a further signing key, to which the log is handed over; `None` if there is one already.
    pub fn with_next_signing(&self) -> Option<Self> {
        if self.next.is_some() {
            return None;
        }
        let seed = Key::random();
        let signing = SigningKey::from_seed(&seed);
        Some(Self { next: Some((seed, signing)), ..self.duplicate() })
    }

    /// The same keys with the next signing key in the place of the one before; `None` if there is none.
    pub fn with_next_signing_alone(&self) -> Option<Self> {
        let (seed, signing) = self.duplicate().next?;
        Some(Self { seed, signing, next: None, ..self.duplicate() })
    }

    /// New keys of every kind for the same data after these were known to somebody. The pepper alone is carried on: it opens nothing, and
    /// without it no stored credential would be recognised.
    pub fn anew(&self) -> Option<Self> {
        let epochs = vec![(self.epoch().checked_add(1)?, Key::random())];
        Some(Self { pepper: self.pepper.duplicate(), epochs, ..Self::random() })
    }

    /// These keys and `new` ones side by side, while what these sealed is sealed again: it opens what these wrapped, wraps under the epoch of the
    /// new ones, and looks up by their lookup key. Never stored.
    pub fn beside(&self, new: &Self) -> Self {
        let both = self.duplicate();
        let epochs = both.epochs.into_iter().chain(new.duplicate().epochs).collect();
        Self { lookup: new.lookup.duplicate(), epochs, ..self.duplicate() }
    }

    fn duplicate(&self) -> Self {
        Self {
            block: self.block.duplicate(),
            mac: self.mac.duplicate(),
            signing: SigningKey::from_seed(&self.seed),
            seed: self.seed.duplicate(),
            next: self.next.as_ref().map(|(seed, _)| (seed.duplicate(), SigningKey::from_seed(seed))),
            pepper: self.pepper.duplicate(),
            lookup: self.lookup.duplicate(),
            epochs: self.epochs.iter().map(|(number, key)| (*number, key.duplicate())).collect(),
        }
    }

    /// Seals every block and page-0 slot of the file.
    pub fn block(&self) -> &Key {
        &self.block
    }

    /// Authenticates each superblock copy as a whole.
    pub fn mac(&self) -> &Key {
        &self.mac
    }

    /// Signs checkpoints and anchors; while the log is handed over, the key that it is handed over from.
    pub fn signing(&self) -> &SigningKey {
        &self.signing
    }

    /// The key that the log is handed over to, while it is.
    pub fn next_signing(&self) -> Option<&SigningKey> {
        self.next.as_ref().map(|(_, signing)| signing)
    }

    /// Keys the verifiers of stored credentials.
    pub fn pepper(&self) -> &Key {
        &self.pepper
    }

    /// Keys look-ups of sealed names.
    pub fn lookup(&self) -> &Key {
        &self.lookup
    }

    /// The epoch under which new DEKs are wrapped.
    pub fn epoch(&self) -> u32 {
        self.epochs.last().expect("there is always an epoch key").0
    }

    /// The epoch that is being left, while DEKs are re-wrapped from it.
    pub fn old_epoch(&self) -> Option<u32> {
        (self.epochs.len() == 2).then(|| self.epochs[0].0)
    }

    /// The oldest epoch whose key is still here, and the current one.
    pub fn epochs(&self) -> (u32, u32) {
        (self.epochs.first().map_or(0, |(number, _)| *number), self.epoch())
    }

    /// Wraps `dek` under the current epoch key. `aad` names its holder; the epoch is added to it here.
    pub fn wrap_dek(&self, dek: &Key, aad: &Aad) -> WrappedDek {
        let (epoch, key) = self.epochs.last().expect("there is always an epoch key");
        WrappedDek { epoch: *epoch, sealed: aead::seal(key, &aad.clone().number(u64::from(*epoch)), dek.expose()) }
    }

    /// Opens what [`Keys::wrap_dek`] made.
    ///
    /// Errors: `UnknownEpoch` if its epoch key was destroyed; `Damaged` if it is not that holder's.
    pub fn unwrap_dek(&self, wrapped: &WrappedDek, aad: &Aad) -> Result<Key, LadderError> {
        let unknown = LadderError::UnknownEpoch(wrapped.epoch);
        let (epoch, key) = self.epochs.iter().find(|(number, _)| *number == wrapped.epoch).ok_or(unknown)?;
        let mut out = Zeroizing::new([0; 32]);
        aead::open_into(key, aad.clone().number(u64::from(*epoch)).bytes(), &wrapped.sealed, &mut *out)
            .map_err(|_| LadderError::Damaged)?;
        Ok(Secret::new(*out))
    }

    /// Seals the keys under the master key for the superblock at `aad`.
    ///
    /// Body: block | MAC | audit seed | pepper | lookup (32 each) | two of (epoch u32 LE | key 32), an absent second one zero |
    /// while the log is handed over, the next audit seed.
    pub fn seal(&self, master: &Key, aad: &Aad) -> Vec<u8> {
        let bytes = if self.next.is_some() { BODY_BYTES + 32 } else { BODY_BYTES };
        let key = kdf::derive(&[master.expose()], Label::SuperblockSeal, &[]);
        aead::seal(&key, aad, &self.body()[..bytes])
    }

    /// Whether `sealed` is what [`Keys::seal`] made of these very keys.
    pub fn are_in(&self, master: &Key, aad: &Aad, sealed: &[u8]) -> bool {
        Self::open(master, aad, sealed).is_ok_and(|other| other.body() == self.body())
    }

    fn body(&self) -> Zeroizing<[u8; BODY_BYTES + 32]> {
        let mut body = Zeroizing::new([0; BODY_BYTES + 32]);
        for (i, key) in [&self.block, &self.mac, &self.seed, &self.pepper, &self.lookup].into_iter().enumerate() {
            body[32 * i..32 * (i + 1)].copy_from_slice(key.expose());
        }
        for (i, (number, key)) in self.epochs.iter().enumerate() {
            let at = 160 + 36 * i;
            body[at..at + 4].copy_from_slice(&number.to_le_bytes());
            body[at + 4..at + 36].copy_from_slice(key.expose());
        }
        if let Some((seed, _)) = &self.next {
            body[BODY_BYTES..].copy_from_slice(seed.expose());
        }
        body
    }

    /// Opens what [`Keys::seal`] made.
    ///
    /// Errors: `Damaged`.
    pub fn open(master: &Key, aad: &Aad, sealed: &[u8]) -> Result<Self, LadderError> {
        let key = kdf::derive(&[master.expose()], Label::SuperblockSeal, &[]);
        let mut body = Zeroizing::new([0; BODY_BYTES + 32]);
        let bytes = sealed.len().checked_sub(OVERHEAD_BYTES).filter(|bytes| SEALED_BODY_BYTES.contains(&(bytes + OVERHEAD_BYTES)));
        let bytes = bytes.ok_or(LadderError::Damaged)?;
        aead::open_into(&key, aad.bytes(), sealed, &mut body[..bytes]).map_err(|_| LadderError::Damaged)?;
        let key = |at: usize| Key::from_slice(&body[at..at + 32]).expect("32 bytes");
        let epochs: Vec<(u32, Key)> = [160, 196]
            .into_iter()
            .map(|at| (u32::from_le_bytes(body[at..at + 4].try_into().expect("4 bytes")), key(at + 4)))
            .filter(|(number, _)| *number != 0)
            .collect();
        if epochs.is_empty() || !epochs.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(LadderError::Damaged);
        }
        let seed = key(64);
        let next = (bytes > BODY_BYTES).then(|| (key(BODY_BYTES), SigningKey::from_seed(&key(BODY_BYTES))));
        Ok(Self {
            block: key(0),
            mac: key(32),
            signing: SigningKey::from_seed(&seed),
            seed,
            next,
            pepper: key(96),
            lookup: key(128),
            epochs,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance() -> InstanceId {
        InstanceId::from_bytes([7; 16])
    }

    #[test]
    fn eight_slots_hold_the_master_key_and_a_ninth_is_refused() {
        let master = Key::random();
        let mut slots = KeySlots::default();
        let keks: Vec<Kek> = (0..9u8).map(|i| Kek::for_test(&[i; 32])).collect();
        for (i, kek) in keks[..8].iter().enumerate() {
            assert_eq!(enrol(&mut slots, kek, KdfCost::NONE, &master, instance()), Ok(i));
        }
        assert_eq!(enrol(&mut slots, &keks[8], KdfCost::NONE, &master, instance()), Err(LadderError::SlotsFull));
        for kek in &keks[..8] {
            assert!(open_slots(&slots, kek, instance()).unwrap().matches(master.expose()));
        }
        assert_eq!(open_slots(&slots, &keks[8], instance()).unwrap_err(), LadderError::Wrong(SlotKind::KeyFile));
    }

    #[test]
    fn wrong_foreign_and_unfitting_keys_are_told_apart() {
        let master = Key::random();
        let mut slots = KeySlots::default();
        enrol(&mut slots, &Kek::for_test(&[1; 32]), KdfCost::NONE, &master, instance()).unwrap();
        let open = |kek: Kek| open_slots(&slots, &kek, instance()).unwrap_err();
        assert_eq!(open(Kek::for_test(&[2; 32])), LadderError::Wrong(SlotKind::KeyFile));
        assert!(matches!(open(Kek::passphrase_for_test("x")), LadderError::NoSlot { present, .. } if present == [SlotKind::KeyFile]));
        assert!(matches!(open(Kek::for_test(&[1; 32]).made_for(InstanceId::draw())), LadderError::Foreign { .. }));
        assert!(open_slots(&slots, &Kek::for_test(&[1; 32]).made_for(instance()), instance()).is_ok());
    }

    #[test]
    fn a_slot_is_bound_to_instance_number_kind_and_cost() {
        let (master, kek) = (Key::random(), Kek::passphrase_for_test("a long enough phrase"));
        let slot = KeySlot::wrap(&kek, KdfCost::FLOOR, &master, instance(), 3).unwrap();
        assert!(slot.unwrap(&kek, instance(), 3).is_some());
        assert!(slot.unwrap(&kek, instance(), 4).is_none());
        assert!(slot.unwrap(&kek, InstanceId::from_bytes([8; 16]), 3).is_none());
        let cost = KdfCost { passes: 3, ..KdfCost::FLOOR };
        assert!(KeySlot { cost, ..slot.clone() }.unwrap(&kek, instance(), 3).is_none());
        let bytes = slot.to_bytes();
        assert_eq!(KeySlot::from_bytes(&bytes).unwrap().unwrap().to_bytes(), bytes);
        for at in [1, 2, 3, 120, 127] {
            let mut changed = bytes;
            changed[at] = 1;
            assert!(KeySlot::from_bytes(&changed).is_err());
        }
    }

    #[test]
    fn a_dek_opens_for_its_holder_alone_and_an_unknown_epoch_is_its_own_error() {
        let keys = Keys::random();
        let (dek, aad) = (Key::random(), Aad::of("dek1", &[b"holder"]));
        let mut wrapped = keys.wrap_dek(&dek, &aad);
        assert!(keys.unwrap_dek(&wrapped, &aad).unwrap().matches(dek.expose()));
        assert_eq!(keys.unwrap_dek(&wrapped, &Aad::of("dek1", &[b"other"])).unwrap_err(), LadderError::Damaged);
        wrapped.epoch = 9;
        assert_eq!(keys.unwrap_dek(&wrapped, &aad).unwrap_err(), LadderError::UnknownEpoch(9));
    }

    #[test]
    fn the_body_opens_in_its_place_alone() {
        let (master, keys, aad) = (Key::random(), Keys::random(), Aad::of("place", &[]));
        let sealed = keys.seal(&master, &aad);
        assert_eq!(sealed.len(), SEALED_BODY_BYTES[0]);
        let opened = Keys::open(&master, &aad, &sealed).unwrap();
        assert!(opened.block().matches(keys.block().expose()) && opened.lookup().matches(keys.lookup().expose()));
        assert_eq!(opened.signing().public(), keys.signing().public());
        assert_eq!(opened.epoch(), 1);
        assert!(Keys::open(&master, &Aad::of("elsewhere", &[]), &sealed).is_err());
        assert!(Keys::open(&Key::random(), &aad, &sealed).is_err());
    }

    #[test]
    fn the_next_signing_key_is_carried_beside_the_present_one_until_it_takes_its_place() {
        let (master, keys, aad) = (Key::random(), Keys::random(), Aad::of("place", &[]));
        assert!(keys.next_signing().is_none() && keys.with_next_signing_alone().is_none());
        let both = keys.with_next_signing().unwrap();
        assert!(both.with_next_signing().is_none(), "one after the other");
        let sealed = both.seal(&master, &aad);
        assert_eq!(sealed.len(), SEALED_BODY_BYTES[1]);
        let opened = Keys::open(&master, &aad, &sealed).unwrap();
        let next = both.next_signing().unwrap().public();
        assert_eq!((opened.signing().public(), opened.next_signing().unwrap().public()), (keys.signing().public(), next));
        assert!(Keys::open(&master, &aad, &sealed[..sealed.len() - 1]).is_err());
        let alone = opened.with_next_signing_alone().unwrap();
        assert_eq!((alone.signing().public(), alone.next_signing().is_none()), (next, true));
        assert_eq!(alone.seal(&master, &aad).len(), SEALED_BODY_BYTES[0]);
    }

    #[test]
    fn keys_made_anew_share_nothing_but_the_pepper() {
        let old = Keys::random();
        let new = old.anew().unwrap();
        let kept = |of: fn(&Keys) -> &Key| of(&old).matches(of(&new).expose());
        assert!(kept(Keys::pepper) && !kept(Keys::block) && !kept(Keys::mac) && !kept(Keys::lookup));
        assert_ne!(old.signing().public(), new.signing().public());
        assert_eq!(new.epochs(), (2, 2));
        let aad = Aad::of("dek1", &[]);
        assert!(new.unwrap_dek(&old.wrap_dek(&Key::random(), &aad), &aad).is_err());
    }
}
