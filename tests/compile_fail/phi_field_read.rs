//! expect: E0616
//! Protected text taken from its field.
use crate::store::phi::Phi;

fn attempt(text: &Phi) -> &String {
    &text.0
}
