//! expect: E0061
//! Protected text read by nobody in particular.
use crate::store::phi::Phi;

fn attempt(text: &Phi) -> &str {
    text.expose()
}
