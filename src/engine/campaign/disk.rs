//! A disk in memory that remembers every call, can lose power and can refuse.

use std::io;
use std::sync::Mutex;

use super::Chance;
use crate::engine::medium::Medium;

/// One call that changes the disk.
#[derive(Clone, Debug)]
pub enum Op {
    Write(u64, Vec<u8>),
    SetLen(u64),
    Sync,
}

pub fn apply(image: &mut Vec<u8>, op: &Op) {
    match op {
        Op::Write(at, bytes) => {
            let at = usize::try_from(*at).unwrap();
            if image.len() < at + bytes.len() {
                image.resize(at + bytes.len(), 0);
            }
            image[at..at + bytes.len()].copy_from_slice(bytes);
        }
        Op::SetLen(len) => image.resize(usize::try_from(*len).unwrap(), 0),
        Op::Sync => {}
    }
}

/// Goes through a recorded run: `during` is told the number of each change, and may ask as often as it likes for what a power cut before that
/// change's end leaves. Gives what is durable at last.
pub fn replay(ops: &[Op], chance: &mut Chance, mut during: impl FnMut(usize, &mut dyn FnMut() -> Vec<u8>)) -> Vec<u8> {
    let (mut durable, mut pending) = (Vec::new(), Vec::new());
    for (at, op) in ops.iter().enumerate() {
        pending.push(op.clone());
        during(at, &mut || cut(&durable, &pending, chance));
        if matches!(op, Op::Sync) {
            pending.drain(..).for_each(|op| apply(&mut durable, &op));
        }
    }
    durable
}

/// What a power cut may make of the calls since the last sync. 512-byte sectors each old, new or garbage; 4 KiB pieces old or new; a prefix
/// of the calls; none; all.
pub fn cut(durable: &[u8], pending: &[Op], chance: &mut Chance) -> Vec<u8> {
    let mut image = durable.to_vec();
    let mode = chance.below(6);
    let prefix = chance.below(pending.len() + 1);
    for (i, op) in pending.iter().enumerate() {
        match (mode, op) {
            (0, _) => return image,
            (1, _) => apply(&mut image, op),
            (2, _) if i < prefix => apply(&mut image, op),
            (2, _) => return image,
            (_, Op::SetLen(_)) if chance.one_in(2) => apply(&mut image, op),
            (_, Op::Write(at, bytes)) => {
                let size = if mode == 3 { 4096 } else { 512 };
                let mut from = 0;
                while from < bytes.len() {
                    let place = at + from as u64;
                    let to = bytes.len().min(from + size - usize::try_from(place % size as u64).unwrap());
                    match chance.below(if mode == 5 { 5 } else { 10 }) {
                        0 if size == 512 => {
                            let garbage = (from..to).map(|_| chance.next().to_le_bytes()[0]).collect();
                            apply(&mut image, &Op::Write(place, garbage));
                        }
                        0..5 if mode != 5 => {}
                        1 if mode == 5 => {}
                        _ => apply(&mut image, &Op::Write(place, bytes[from..to].to_vec())),
                    }
                    from = to;
                }
            }
            _ => {}
        }
    }
    image
}

/// Remembers every change from an image on.
#[derive(Debug, Default)]
pub struct Tape {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    view: Vec<u8>,
    ops: Vec<Op>,
    keep: bool,
    /// What a power cut would leave at least: changed at each sync. Only kept for faults.
    durable: Vec<u8>,
    calls: u64,
    fault: Option<Fault>,
    chance: Option<Chance>,
    /// What `reserve` answers, if not that there is room for anything.
    space: Option<u64>,
}

/// The system refuses: from call `at` on, `times` calls.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub at: u64,
    pub times: u64,
    pub kind: io::ErrorKind,
}

impl Tape {
    /// Starts from `image` and remembers each change.
    pub fn recording(image: Vec<u8>) -> Self {
        Self { state: Mutex::new(State { view: image, keep: true, ..State::default() }) }
    }

    /// Starts from `image` and refuses as `fault` says.
    pub fn faulty(image: Vec<u8>, fault: Option<Fault>, seed: u64) -> Self {
        let durable = image.clone();
        Self { state: Mutex::new(State { view: image, durable, fault, chance: Some(Chance(seed)), ..State::default() }) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn ops(&self) -> Vec<Op> {
        self.lock().ops.clone()
    }

    pub fn count(&self) -> usize {
        self.lock().ops.len()
    }

    pub fn image(&self) -> Vec<u8> {
        self.lock().view.clone()
    }

    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    /// Refuses as `fault` says, counted from the calls so far.
    pub fn refuse(&self, fault: Fault) {
        let mut state = self.lock();
        state.fault = Some(Fault { at: state.calls + fault.at, ..fault });
    }

    /// Lets this much room be left.
    pub fn leave(&self, bytes: Option<u64>) {
        self.lock().space = bytes;
    }

    /// What a power cut now would leave at least.
    pub fn durable(&self) -> Vec<u8> {
        self.lock().durable.clone()
    }

    /// What was not written when the system lost it is not read either.
    pub fn forget_unwritten(&self) {
        self.forget().expect("a tape forgets");
    }

    /// The system works again.
    pub fn mend(&self) {
        self.lock().fault = None;
    }
}

impl State {
    /// Counts the call; an error if it is to be refused.
    fn call(&mut self) -> io::Result<()> {
        let now = self.calls;
        self.calls += 1;
        match self.fault {
            Some(fault) if (fault.at..fault.at + fault.times).contains(&now) => Err(fault.kind.into()),
            _ => Ok(()),
        }
    }

    fn change(&mut self, op: Op) {
        apply(&mut self.view, &op);
        if self.keep || self.chance.is_some() {
            self.ops.push(op);
        }
    }
}

impl Medium for Tape {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().view.len() as u64)
    }

    fn read_at(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.lock();
        state.call()?;
        let at = usize::try_from(at).unwrap();
        let from = state.view.get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(from);
        Ok(())
    }

    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.lock();
        if let Err(error) = state.call() {
            // A refused write may have written its beginning.
            let part = state.chance.as_mut().map_or(0, |chance| chance.below(bytes.len() + 1));
            state.change(Op::Write(at, bytes[..part].to_vec()));
            return Err(error);
        }
        state.change(Op::Write(at, bytes.to_vec()));
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.lock();
        state.call()?;
        state.change(Op::SetLen(len));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.lock();
        let refused = state.call();
        if state.keep {
            state.change(Op::Sync);
        } else if let Some(mut chance) = state.chance.take() {
            // After a refused sync the system takes the pages for clean: some reached the disk, the rest is lost once it forgets them.
            let pending = std::mem::take(&mut state.ops);
            state.durable = match refused {
                Ok(()) => {
                    let mut image = std::mem::take(&mut state.durable);
                    pending.iter().for_each(|op| apply(&mut image, op));
                    image
                }
                Err(_) => cut(&state.durable, &pending, &mut chance),
            };
            state.chance = Some(chance);
        }
        refused
    }

    fn forget(&self) -> io::Result<()> {
        let mut state = self.lock();
        if state.chance.is_some() {
            let mut image = state.durable.clone();
            state.ops.iter().for_each(|op| apply(&mut image, op));
            state.view = image;
        }
        Ok(())
    }

    fn reserve(&self) -> u64 {
        self.lock().space.unwrap_or(u64::MAX)
    }
}
