//! expect: E0277
//! A witness of one's own.
use crate::store::phi::Witness;

struct Bystander;

impl Witness for Bystander {}
