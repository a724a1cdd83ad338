//! expect: E0599
//! Protected text copied away.
use crate::store::phi::Phi;

fn attempt(text: &Phi) -> Phi {
    Phi::clone(text)
}
