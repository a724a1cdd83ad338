//! expect: E0277
//! Protected text written out by serde.
use crate::store::phi::Phi;

fn attempt(text: &Phi) -> Result<String, serde_json::Error> {
    serde_json::to_string(text)
}
