//! API: operations, and the skins that reach them.
//!
//! `routes` is the one table: router, OpenAPI, audit names, refusal tests and documentation follow from it. `run` is the road every request
//! takes. `stream` is how an answer goes on. `ops` has one function a row. `reply` makes answers, which a `Receipt` alone lets read protected
//! text; `answers` describes what they look like. `door` is what stands before an open store, `throttle` counts requests, `body` and `schema` check
//! what comes in; `administration` is what answers to administrators hold.

mod administration;
mod answers;
#[cfg(test)]
mod attacks;
pub mod body;
pub mod briefing;
pub mod door;
pub mod inputs;
pub mod mcp;
pub mod mem0;
pub mod oauth;
pub mod openapi;
pub mod ops;
pub mod reply;
pub mod routes;
pub mod run;
pub mod schema;
pub mod stream;
pub mod throttle;
