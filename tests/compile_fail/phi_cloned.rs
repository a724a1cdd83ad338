//! expect: E0277
//! Protected text copied away.
use crate::store::phi::Phi;

fn attempt(text: &Phi) -> Phi {
    Phi::clone(text)
}
