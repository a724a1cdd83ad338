//! API: what a request may carry, how often it may come, and the document that says so.

pub mod body;
pub mod docs;
pub mod inputs;
pub mod openapi;
pub mod schema;
pub mod throttle;
