//! The whole-file walk behind `verify`: every superblock copy, page-0 slot and block, then redb's own checksum walk.
//!
//! Promise: the file is not changed (the walk runs over an overlay), and a block that is authentic but old, which no seal can tell, is
//! found where the tree reaches it, because redb keeps a checksum of each child beside its pointer.

use std::path::Path;
use std::sync::Arc;

use crate::base::limits::CHECK_LISTED_MAX;
use crate::crypto::unlock::Kek;
use crate::engine::batch::{Open, Opening, catch, lock_to_read};
use crate::engine::block::{Blocks, SEALED_BYTES, place};
use crate::engine::frozen::Live;
use crate::engine::header::{PageZero, SLOT_STARTS, Superblock};
use crate::engine::medium::{Medium, Overlay};
use crate::engine::{Engine, EngineError, Options};

/// What the walk found.
#[derive(Debug)]
pub struct Report {
    /// Which superblock copies hold and say what the newest does. One alone still opens the file.
    pub superblocks: [bool; 2],
    /// Counters of the page-0 slots A, A', B, B' that open. A pair that was being written during a power cut may not.
    pub page_slots: [Option<u64>; 4],
    /// Blocks that open.
    pub blocks: u64,
    /// Places that were never written.
    pub blank: u64,
    /// Blocks that do not open. In free space a power cut may leave some; where the tree reaches one, `tree` fails.
    pub damaged: u64,
    /// The first of them.
    pub damaged_first: Vec<u64>,
    /// Bytes behind the last whole block.
    pub trailing_bytes: u64,
    /// Whether every page that the tables reach is there and has the checksum its parent holds.
    pub tree: Result<(), EngineError>,
}

impl Report {
    /// Whether every stored row is what was last committed (short of a replay of the whole file).
    pub fn is_sound(&self) -> bool {
        self.tree.is_ok()
    }

    /// Whether neither mirror of one page-0 pair opens, though both pairs were written: if it held the newest commit, that is lost.
    pub fn lost_pair(&self) -> bool {
        self.page_slots.chunks(2).any(|pair| pair == [None; 2]) && self.page_slots.iter().max() > Some(&Some(1))
    }

    /// Whether nothing at all is amiss, spare copies and free space included.
    pub fn is_spotless(&self) -> bool {
        let newest = self.page_slots.iter().flatten().max();
        let mirrored = self.page_slots.iter().flatten().filter(|counter| Some(*counter) == newest).count() == 2;
        self.is_sound() && self.superblocks == [true; 2] && mirrored && self.damaged == 0 && self.trailing_bytes == 0
    }
}

impl Engine {
    /// Walks the file at `path`, locked and unchanged; with the report comes an engine over the same overlay, if the tree opened, for checks
    /// of what the tables mean.
    ///
    /// Errors: as [`Engine::open`] when not even the superblock opens.
    pub fn check(path: &Path, options: &Options, kek: &Kek) -> Result<(Report, Option<Self>), EngineError> {
        Self::check_on(&lock_to_read(path)?, options, kek)
    }

    pub(super) fn check_on(medium: &Arc<dyn Medium>, options: &Options, kek: &Kek) -> Result<(Report, Option<Self>), EngineError> {
        let head = Superblock::read(&**medium, kek)?;
        let mut report = Report {
            superblocks: head.copies(&**medium)?,
            page_slots: [None; 4],
            blocks: 0,
            blank: 0,
            damaged: 0,
            damaged_first: Vec::new(),
            trailing_bytes: 0,
            tree: Ok(()),
        };
        for (slot, counter) in (0..SLOT_STARTS.len()).zip(&mut report.page_slots) {
            *counter = PageZero::read_slot(&**medium, head.file, head.keys.block(), slot)?.map(|page| page.counter);
        }
        report.walk_blocks(medium, &head)?;
        let (above, head) = (Live::new(Arc::new(Overlay::new(Arc::clone(medium)).map_err(EngineError::io)?)), Arc::new(head));
        let engine = Open::new(&above, &head, options, Opening::Walking).map(|open| Self::of(above, head, options, open));
        Ok(match engine {
            Ok(engine) => (report, Some(engine)),
            Err(error) => (Report { tree: Err(error), ..report }, None),
        })
    }
}

impl Report {
    fn walk_blocks(&mut self, medium: &Arc<dyn Medium>, head: &Superblock) -> Result<(), EngineError> {
        let len = medium.len().map_err(EngineError::io)?;
        let stride = u64::from(head.stride);
        let blocks = Blocks::new(Arc::clone(medium), head.file, head.keys.block(), head.stride, PageZero::empty());
        blocks.opened();
        let mut plain = [0; super::header::BLOCK_BYTES];
        for number in 1.. {
            let at = place(number, stride);
            if at + stride > len {
                self.trailing_bytes = len.saturating_sub(at);
                break;
            }
            match blocks.read_block(number, &mut plain).map_err(EngineError::io) {
                Ok(()) => self.blocks += 1,
                Err(EngineError::Block(_)) if is_blank(medium, at)? => self.blank += 1,
                Err(EngineError::Block(_)) => {
                    self.damaged += 1;
                    if self.damaged_first.len() < CHECK_LISTED_MAX {
                        self.damaged_first.push(number);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn is_blank(medium: &Arc<dyn Medium>, at: u64) -> Result<bool, EngineError> {
    let mut sealed = [0; SEALED_BYTES];
    medium.read_at(at, &mut sealed).map_err(EngineError::io)?;
    Ok(sealed.iter().all(|byte| *byte == 0))
}

impl Open {
    /// redb's walk over every reachable page. Needs the store to itself.
    ///
    /// Errors: `Damaged`, `Block`, `Io`, `Panicked`; `InUse` if a snapshot is alive.
    pub(super) fn check_tree(&mut self) -> Result<(), EngineError> {
        catch(|| match self.db.check_integrity() {
            Ok(true) => Ok(()),
            Ok(false) => Err(EngineError::Damaged("the list of free pages")),
            Err(redb::DatabaseError::TransactionInProgress) => Err(EngineError::InUse),
            Err(error) => Err(error.into()),
        })
    }
}
