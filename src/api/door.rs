//! The door: what clients meet before the data file is unlocked, and the way to the API afterwards.
//!
//! Invariants
//! - While it is shut nothing of a request is looked at but its path, and every answer is 503: `/health` says `locked`, all else says why.
//! - What was refused meanwhile is counted, and told once by the entry of the unlocking.
//! - Once open it does not shut again before the process ends.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crate::api::reply::{Failure, Shape};
use crate::api::run::{Api, health};
use crate::base::limits;
use crate::http::{Handler, Method, Refusal, Reply, Request};

/// See the module text.
pub struct Door {
    since: Instant,
    /// Whether a language model may be asked, once it is open.
    model: bool,
    api: OnceLock<Arc<Api>>,
    refused: AtomicU64,
}

impl Door {
    /// A shut one.
    pub fn shut(model: bool) -> Self {
        Self { since: Instant::now(), model, api: OnceLock::new(), refused: AtomicU64::new(0) }
    }

    /// From now on requests are answered by `api`.
    pub fn open(&self, api: Arc<Api>) {
        let _ = self.api.set(api);
    }

    /// How many requests were refused so far because it was shut.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn count(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    fn locked(&self, request: &Request) -> Reply {
        self.count();
        if request.path == "/health" && matches!(request.method, Method::Get | Method::Head) {
            return health("locked", self.since.elapsed().as_secs(), self.model);
        }
        let text = "The data file is locked until its operator unlocks it; nothing was done";
        Failure { code: Some("locked"), ..Failure::new(503, text) }.reply(Shape::of(&request.path))
    }
}

impl Handler for Arc<Door> {
    fn body_limit(&self, method: Method, path: &str) -> usize {
        self.api.get().map_or(limits::BODY_BYTES_MAX, |api| api.body_limit(method, path))
    }

    fn refuse(&self, refusal: &Refusal) -> Reply {
        match self.api.get() {
            Some(api) => api.refuse(refusal),
            None => {
                self.count();
                refusal.reply()
            }
        }
    }

    fn handle(&self, request: Request) -> Reply {
        match self.api.get() {
            Some(api) => api.handle(request),
            None => self.locked(&request),
        }
    }

    fn tls_failed(&self, client: IpAddr) {
        match self.api.get() {
            Some(api) => api.tls_failed(client),
            None => self.count(),
        }
    }
}
