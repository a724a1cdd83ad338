//! expect: E0277
//! A client's words in the operator's log.
use crate::base::log::{Level, line};

fn attempt(words: String) {
    line(Level::Info, "said", &[("words", &words)]);
}
