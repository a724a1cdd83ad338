//! expect: E0308
//! Protected text in an answer whose entry is not known to be durable.
use crate::api::reply;
use crate::store::memories::Memory;

fn attempt(memory: &Memory, index: u64) -> serde_json::Value {
    reply::record(memory, &index)
}
