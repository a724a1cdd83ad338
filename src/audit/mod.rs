//! Audit: what was done, and proof that the record is whole.
//!
//! Pure: no files, no clock, no chance; uses `base` and `crypto` alone, so that an auditor's verifier can be made of it.
//!
//! ```text
//! Entry ──line──▶ leaf hash ──append──▶ tree ──root──▶ checkpoint, signed     (one per batch)
//!                                        └─▶ proofs: inclusion, consistency, range
//! ```

pub mod chain;
pub mod checkpoint;
pub mod coalesce;
pub mod entry;
mod json;
pub mod merkle;
pub mod names;
pub mod note;
pub mod receipt;
pub mod verify;

pub use coalesce::{Coalescer, Emit, Who};
pub use entry::{Actor, Credential, Detail, Details, Entry, Id, RequestId, Resource, Word};
pub use merkle::{Appender, FullTile, Hash, Tiles, Tree, TreeError, leaf_hash};
pub use names::{ActorKind, Decision, Device, Outcome, Reason};

#[cfg(test)]
mod tests {
    use super::entry::{Actor, Detail, Entry, Part, Resource, tests::golden};
    use super::names::{ActorKind, Decision, Device, Outcome, Purpose, Reason};

    fn table(head: &str, rows: impl Iterator<Item = String>) -> String {
        format!("\n{head}\n{}\n{}\n", "|---".repeat(head.matches('|').count() - 1) + "|", rows.collect::<Vec<_>>().join("\n"))
    }

    #[test]
    fn the_documented_tables_are_those_of_the_code() {
        let mut text = include_str!("../../docs/audit.md").to_owned();
        let mut replace = |name: &str, table: String| {
            let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end {name} -->"));
            let from = text.find(&begin).unwrap_or_else(|| panic!("{begin}")) + begin.len();
            let to = text.find(&end).unwrap_or_else(|| panic!("{end}"));
            text.replace_range(from..to, &(table + "\n"));
        };
        let tables = [("", Entry::FIELDS), ("actor.", Actor::FIELDS), ("res.", Resource::FIELDS), ("part.", Part::FIELDS)];
        let fields = tables.iter().flat_map(|(object, fields)| {
            fields.iter().map(move |(key, maybe, about)| {
                let maybe = if *maybe { "may be absent" } else { "always" };
                format!("| `{object}{key}` | {maybe} | {} |", about.trim())
            })
        });
        replace("fields", table("| key | present | meaning |", fields));
        replace("details", table("| key | meaning |", Detail::ALL.iter().map(|(key, about)| format!("| `{key}` | {about} |"))));
        macro_rules! names {
            ($($name:literal $kind:ident)*) => {$(
                let rows = $kind::ALL.iter().map(|value| format!("| `{}` | {} |", value.text(), value.meaning()));
                replace($name, table(concat!("| `", $name, "` | meaning |"), rows));
            )*};
        }
        names!("actor.kind" ActorKind "decision" Decision "outcome" Outcome "reason" Reason "device" Device "purpose" Purpose);
        golden("../../docs/audit.md", &text);
    }
}
