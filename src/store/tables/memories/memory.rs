//! A memory as the layers above see it: opened, or as a client gives it.
//!
//! Promise: text is `Phi` throughout, so that nothing here can be shown without a witness; the rest stands in clear in the file too.

use serde::{Deserialize, Serialize};

use crate::base::id::{MemoryId, SubjectId};
use crate::base::time::Timestamp;
use crate::store::index::prepared::Prepared;
use crate::store::phi::Phi;

/// The contract's `memory_type`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum MemoryType {
    /// What is known.
    #[default]
    Semantic,
    /// What happened.
    Episodic,
    /// How something is done.
    Procedural,
}

impl MemoryType {
    /// All values, in the order of their wire names.
    pub const ALL: [MemoryType; 3] = [MemoryType::Semantic, MemoryType::Episodic, MemoryType::Procedural];

    /// The wire name.
    pub fn name(self) -> &'static str {
        match self {
            MemoryType::Semantic => "semantic",
            MemoryType::Episodic => "episodic",
            MemoryType::Procedural => "procedural",
        }
    }

    /// Reads the wire name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == text)
    }
}

/// Live or in the trash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Not in the trash.
    Live = 0,
    /// In the trash.
    Trash = 1,
}

/// How much of a memory to open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// Title and tags.
    Summary,
    /// Everything.
    Full,
}

/// The protected text of a memory.
#[derive(Debug)]
pub struct Text {
    /// Title.
    pub title: Phi,
    /// Content; empty in a summary.
    pub content: Phi,
    /// Tags in order.
    pub tags: Vec<Phi>,
    /// A JSON object as text.
    pub metadata: Option<Phi>,
    /// Who said it.
    pub speaker: Option<Phi>,
    /// Which run it belongs to.
    pub run_id: Option<Phi>,
    /// The external name of whom it is about.
    pub subject: Option<Phi>,
}

/// A memory, opened.
#[derive(Debug)]
pub struct Memory {
    /// Its id.
    pub id: MemoryId,
    /// Its text.
    pub text: Text,
    /// Who wrote it.
    pub origin: String,
    /// Which vendors may see it.
    pub allowed_vendors: Vec<String>,
    /// Its type.
    pub kind: MemoryType,
    /// The memory it replies to.
    pub parent: Option<MemoryId>,
    /// Whom it is about.
    pub subject: Option<SubjectId>,
    /// When it happened, if said.
    pub occurred_at: Option<Timestamp>,
    /// When it was written.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// When it was moved to the trash.
    pub deleted_at: Option<Timestamp>,
    /// 1 for a memory never updated.
    pub version: u32,
}

impl Memory {
    /// Bytes of its text as JSON.
    pub fn json_bytes(&self) -> usize {
        let text = &self.text;
        let texts = [&text.title, &text.content].into_iter().chain(&text.tags).chain(&text.metadata).chain(&text.speaker);
        texts.map(Phi::json_bytes).sum()
    }
}

/// A memory as it was before a change.
#[derive(Debug)]
pub struct Version {
    /// The memory as it was; its `version` is the number of this version.
    pub memory: Memory,
    /// When it was changed.
    pub changed_at: Timestamp,
}

/// What a client gives for a new memory.
pub struct NewMemory {
    /// Title, content, tags and the rest.
    pub text: Text,
    /// Who writes.
    pub origin: String,
    /// Who may see.
    pub allowed_vendors: Vec<String>,
    /// Its type.
    pub kind: MemoryType,
    /// When it happened.
    pub occurred_at: Option<Timestamp>,
    /// When it was written, if not now (import).
    pub created_at: Option<Timestamp>,
    /// See [`NewMemory::prepare`].
    pub prepared: Option<Box<Prepared>>,
}

/// What an update replaces.
pub struct Replacement {
    /// New title.
    pub title: Phi,
    /// New content.
    pub content: Phi,
    /// New tags.
    pub tags: Vec<Phi>,
    /// New vendors.
    pub allowed_vendors: Vec<String>,
    /// New metadata; `None` keeps the old.
    pub metadata: Option<Phi>,
    /// New speaker; `None` keeps the old.
    pub speaker: Option<Phi>,
    /// New run; `None` keeps the old.
    pub run_id: Option<Phi>,
    /// New time of the event; `None` keeps the old.
    pub occurred_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_an_answer_is_counted_as_json() {
        let now = Timestamp::from_ms(1);
        let memory = |content: String| Memory {
            id: MemoryId::draw(now),
            text: Text {
                title: Phi::new("\"\\\n\u{1}é".into()),
                content: Phi::new(content),
                tags: vec![Phi::new("tag".into())],
                metadata: None,
                speaker: None,
                run_id: None,
                subject: None,
            },
            origin: "test".into(),
            allowed_vendors: Vec::new(),
            kind: MemoryType::Semantic,
            parent: None,
            subject: None,
            occurred_at: None,
            created_at: now,
            updated_at: now,
            deleted_at: None,
            version: 1,
        };
        let fixed = 2 + 2 + 2 + 6 + 2 + 3;
        assert_eq!(serde_json::to_string(memory(String::new()).text.title.inner()).unwrap().len(), fixed - 3 + 2);
        assert_eq!(memory("x\u{1f}".into()).json_bytes(), fixed + 7);
    }
}
