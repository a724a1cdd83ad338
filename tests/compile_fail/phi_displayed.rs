//! expect: E0277
//! Protected text printed into a message.
use crate::store::phi::Phi;

fn attempt(text: &Phi) -> String {
    format!("{text}")
}
