//! What service and relay say to one another, what a name server answers, and what a model's endpoint answers.
//!
//! A frame that is read is written again as the same bytes. A name server's answer gives a bounded number of addresses, and only if it repeats the
//! question. An endpoint's answer gives at most one text, which a plain reading of its JSON gives too.

use rosemary::base::limits;
use rosemary::egress::frame::{self, Order, Said};
use rosemary::egress::model;
use rosemary::egress::resolve::{Kind, answers, question};
use serde_json::Value;

/// Beginnings of frames, parts of packets and of answers.
pub const WORDS: &[&str] = &[
    "\u{1}\u{0}\u{1}\u{1}\u{0}\u{1}",
    "\u{1}\u{1}\u{5}\u{0}\u{0}\u{0}",
    "\u{1}\u{5}\u{2}\u{0}",
    "\u{3}llm\u{7}example\u{0}\u{0}\u{1}\u{0}\u{1}",
    "\u{0}\u{5}\u{0}\u{1}",
    "\u{0}\u{1c}\u{0}\u{1}",
    "{\"choices\":[{\"message\":{\"content\":\"",
    "\"}}]}",
    "null",
];

/// Whether `written` is the frame around `body`.
fn is_same(written: Option<impl AsRef<[u8]>>, body: &[u8]) -> bool {
    written.is_some_and(|frame| frame.as_ref().get(4..) == Some(body))
}

/// The target; the first byte chooses what the rest is.
pub fn run(bytes: &[u8]) {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    match choice % 3 {
        0 => {
            if let Ok(said) = frame::decode::<Said>(bytes) {
                assert!(is_same(frame::encode(&said).map(|frame| frame.to_vec()), bytes));
            }
            if let Ok(order) = frame::decode::<Order>(bytes) {
                assert!(is_same(frame::encode(&order).map(|frame| frame.to_vec()), bytes));
            }
        }
        1 => {
            for kind in [Kind::V4, Kind::V6] {
                let asked = question(0x0706, "llm.example", kind).expect("a lawful name");
                // As it came, and as an answer to this very question.
                let mut answer = asked.clone();
                answer[2] = 0x81;
                answer[6..8].copy_from_slice(&[0, bytes.len().to_le_bytes()[0] % 8]);
                answer.extend_from_slice(bytes);
                for packet in [bytes, &answer] {
                    if let Ok(found) = answers(packet, &asked) {
                        assert!(found.len() <= limits::NAME_ADDRESSES_MAX && packet[..2] == asked[..2]);
                        assert!(found.iter().all(|address| address.is_ipv4() == (kind == Kind::V4)));
                    }
                }
            }
        }
        _ => {
            let Ok(text) = std::str::from_utf8(bytes) else { return };
            if let Some(found) = model::answer(text) {
                match serde_json::from_str::<Value>(text) {
                    Ok(value) => assert_eq!(value["choices"][0]["message"]["content"], **found),
                    // In a member that nobody reads it is JSON all the same (RFC 8259 section 6).
                    Err(error) => assert!(error.to_string().starts_with("number out of range"), "what gives an answer is JSON: {error}"),
                }
            }
        }
    }
}
