//! The road every request takes: credential → buckets → route → role → schema → operation (policy, work, entry) → answer.
//!
//! Invariants
//! - Whoever has no valid credential reaches public routes only, and counts against their address.
//! - Agents reach the routes that name them, and nothing else.
//! - What one request brings of what could come in several (messages, memories of a batch) counts as several, before any of it is done.
//! - Every admitted request has exactly one audit entry; refusals that carry no data and could be repeated for free are counted instead.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::json;

use crate::api::mcp::Mcp;
use crate::api::oauth::OAuth;
use crate::api::ops::status::Surroundings;
use crate::api::reply::{self, Answered, Done, Failure, Shape, Words};
use crate::api::routes::{self, Found, Route};
use crate::api::schema::{Fields, Part};
use crate::api::stream::Places;
use crate::api::throttle::{self, Key, Taken, Throttle};
use crate::api::{body, mem0, openapi};
use crate::audit::{Device, Reason};
use crate::authn::credential::{Unauthenticated, bearer};
use crate::authn::jwt::JwtError;
use crate::authn::{CredentialRef, Principal, Role};
use crate::base::id::OperationId;
use crate::base::{duty, limits};
use crate::config::Model;
use crate::egress::hub::Hub;
use crate::http::{self, Handler, Method, Refusal, Reply, Request};
use crate::identity;
use crate::policy::action::{Action, CreatePerson, Instance, Reads, Writes};
use crate::store::gate::{Access, Admission, Asked, Call, Fault, Receipt, Recorded, Refused};
use crate::store::phi::Phi;
use crate::store::sign_in::SignedIn;
use crate::store::vault::Vault;
use crate::store::writer::Unavailable;

/// What an agent is told of a path that is not for agents.
const AGENT_ROUTE: &str = "Agent keys cannot access this endpoint";

/// What the API needs from the configuration.
pub struct Settings {
    /// Requests a minute without a valid credential, by address; 0 is no limit.
    pub address_per_minute: u32,
    /// Requests a minute by credential.
    pub credential_per_minute: u32,
    /// Administrative requests a minute by person: a key made by one of them brings no further ones.
    pub admin_per_minute: u32,
    /// Where clients reach the service.
    pub public_url: String,
    /// The language model and the way to it, if it may be asked.
    pub model: Option<(Model, Arc<Hub>)>,
    /// What is around the store, for who asks how the instance stands.
    pub surroundings: Arc<Surroundings>,
}

/// The product behind HTTP.
pub struct Api {
    pub(in crate::api) vault: Vault,
    pub(in crate::api) addresses: Throttle,
    pub(in crate::api) credentials: Throttle,
    people: Throttle,
    admin: Throttle,
    document: Vec<u8>,
    pub(in crate::api) vendors: Vec<String>,
    pub(in crate::api) streams: Arc<Places>,
    /// Questions that are with the language model.
    pub(in crate::api) questions: Arc<Places>,
    pub(in crate::api) exports: mem0::Exports,
    pub(in crate::api) oauth: OAuth,
    /// Where clients reach the service.
    pub(in crate::api) public_url: String,
    pub(in crate::api) model: Option<(Model, Arc<Hub>)>,
    pub(in crate::api) surroundings: Arc<Surroundings>,
    pub(in crate::api) mcp: Mcp,
    started_ms: u64,
}

/// One admitted request on its way through an operation.
pub struct Cx<'a> {
    /// The product.
    pub api: &'a Api,
    /// Who asks.
    pub who: &'a Principal,
    /// What the audit log will tell.
    pub call: Call,
    /// The path's `:id`.
    pub id: &'a str,
    /// The checked body or query string.
    pub fields: Fields,
    /// The verb that the operation asks for.
    pub verb: &'static str,
    /// As it came, without its path.
    pub request: &'a Request,
    /// The shape of a failure.
    pub shape: Shape,
}

/// Somebody without a valid credential.
struct Stranger {
    /// A credential that was valid once.
    credential: Option<CredentialRef>,
    /// For the log.
    reason: Reason,
    /// The 401's text; or the whole answer, when the store could not be asked.
    why: Result<Unauthenticated, Box<Reply>>,
}

impl Stranger {
    /// Nobody could be asked who this is.
    fn unanswered(why: Unavailable, request: &Request) -> Self {
        let answer = Failure::unavailable(why).reply(Shape::of(&request.path));
        Self { credential: None, reason: Reason::Latched, why: Err(Box::new(answer)) }
    }
}

impl Api {
    /// The API over an open vault.
    pub fn new(vault: Vault, settings: &Settings) -> Self {
        let docs: Vec<_> = routes::ROUTES.iter().map(|route| route.doc).collect();
        Self {
            addresses: Throttle::new(settings.address_per_minute),
            credentials: Throttle::new(settings.credential_per_minute),
            people: Throttle::new(settings.credential_per_minute.saturating_mul(limits::RATE_PER_PERSON_TIMES)),
            admin: Throttle::new(settings.admin_per_minute),
            document: openapi::document(env!("CARGO_PKG_VERSION"), &settings.public_url, &docs).to_string().into_bytes(),
            model: settings.model.clone(),
            vendors: vault.vendors(),
            streams: Places::streams(),
            questions: Places::of([limits::EGRESS_ORDERS_PER_PERSON_MAX, limits::EGRESS_ORDERS_PER_PERSON_MAX, limits::EGRESS_ORDERS_MAX]),
            exports: mem0::Exports::default(),
            oauth: OAuth::new(settings.address_per_minute > 0),
            public_url: settings.public_url.clone(),
            surroundings: Arc::clone(&settings.surroundings),
            mcp: Mcp::new(&settings.public_url),
            started_ms: vault.clock().mono_ms(),
            vault,
        }
    }

    pub(in crate::api) fn now_ms(&self) -> u64 {
        self.vault.clock().mono_ms()
    }

    /// Who asks, as of which generation of the credentials; or why nobody was recognised.
    fn authenticate(&self, request: &Request) -> Result<(Principal, u64), Stranger> {
        let token = match bearer(request.header("authorization"), mem0::is_path(&request.path)) {
            Ok(token) => token,
            Err(why) => return Err(Stranger { credential: None, reason: Reason::Unauthenticated, why: Ok(why) }),
        };
        match self.vault.admit(token) {
            Ok(Admission::Principal(who, generation)) => self.agent(request, who).map(|who| (who, generation)),
            Ok(Admission::Revoked(id)) => Err(Stranger {
                credential: Some(CredentialRef::Stored(id)),
                reason: Reason::RevokedCredential,
                why: Ok(Unauthenticated::Invalid),
            }),
            Ok(Admission::Expired(id)) => Err(Stranger {
                credential: Some(CredentialRef::Grant(id)),
                reason: Reason::ExpiredCredential,
                why: Ok(Unauthenticated::Invalid),
            }),
            // The dashboard speaks for persons, never for an AI tool.
            Ok(Admission::Dashboard) if Shape::of(&request.path) != Shape::Mcp => self.by_dashboard(request),
            Ok(Admission::Unknown | Admission::Dashboard) => {
                Err(Stranger { credential: None, reason: Reason::BadCredential, why: Ok(Unauthenticated::Invalid) })
            }
            Err(why) => Err(Stranger::unanswered(why, request)),
        }
    }

    /// For whom the dashboard asks, whose key was shown; somebody who signs in for the first time is made known.
    fn by_dashboard(&self, request: &Request) -> Result<(Principal, u64), Stranger> {
        let stranger = |reason, why| Err(Stranger { credential: None, reason, why: Ok(why) });
        let mut tokens = request.headers.all("x-dashboard-token").filter(|token| !token.is_empty());
        let token = match (tokens.next(), tokens.next()) {
            (Some(token), None) => token,
            (None, _) => return stranger(Reason::Unauthenticated, Unauthenticated::DashboardMissing),
            (Some(_), Some(_)) => return stranger(Reason::BadCredential, Unauthenticated::DashboardInvalid),
        };
        for _ in 0..2 {
            match self.vault.admit_dashboard(token).map_err(|why| Stranger::unanswered(why, request))? {
                SignedIn::Principal(who, generation, None) => return Ok((*who, generation)),
                SignedIn::New(email, None) => self.seat(email, request)?,
                SignedIn::Refused(JwtError::Expired) => return stranger(Reason::ExpiredCredential, Unauthenticated::DashboardExpired),
                // A token that approves one thing does not sign in.
                SignedIn::Principal(.., Some(_)) | SignedIn::New(_, Some(_)) | SignedIn::Refused(JwtError::Invalid) => {
                    return stranger(Reason::BadCredential, Unauthenticated::DashboardInvalid);
                }
            }
        }
        Err(Stranger::unanswered(Unavailable::Busy, request))
    }

    /// [`Api::seat`] for routes that do their own authentication.
    pub(in crate::api) fn seated(&self, email: Phi, request: &Request) -> Result<(), Reply> {
        self.seat(email, request)
            .map_err(|stranger| stranger.why.map_or_else(|answer| *answer, |why| Shape::of(&request.path).error(401, why.to_string())))
    }

    /// A request of `who` that no row of the table stands for.
    pub(in crate::api) fn cx<'a>(&'a self, who: &'a Principal, call: Call, verb: &'static str, request: &'a Request) -> Cx<'a> {
        Cx { api: self, who, call, id: "", fields: Fields::default(), verb, request, shape: Shape::of(&request.path) }
    }

    /// The answer to an address that asks too often; counted.
    pub(in crate::api) fn too_many_strangers(&self, request: &Request, taken: &Taken) -> Reply {
        self.vault.refuse_address(request.client, Reason::AddressRate, 429);
        too_many(Shape::of(&request.path), taken)
    }

    /// Makes somebody known for whom the dashboard asks: an operation of its own, with its own entry.
    fn seat(&self, email: Phi, request: &Request) -> Result<(), Stranger> {
        let stranger = |answer| Stranger { credential: None, reason: Reason::Quota, why: Err(Box::new(answer)) };
        let shape = Shape::of(&request.path);
        if let Some(taken) = refused(self.credentials.take(Key::of_static("RM_DASHBOARD_SERVICE_KEY", &[]), self.now_ms()).as_ref()) {
            return Err(stranger(too_many(shape, taken)));
        }
        let dashboard = Principal::system(self.vault.tenant(), self.vault.owner(), "dashboard");
        let call = self.call(request, 201, None);
        let seated =
            self.vault.write::<CreatePerson, _, _>(&dashboard, Instance, &call, move |access| identity::seat_person(access, &email));
        seated.map(drop).map_err(|refused| stranger(Failure::refused(&refused, &Words::ADMIN).reply(shape)))
    }

    /// What the log will tell of `request`.
    pub(in crate::api) fn call(&self, request: &Request, ok_status: u16, admitted: Option<u64>) -> Call {
        Call {
            operation: OperationId::draw(),
            rid: request.header("x-request-id").map(str::trim).filter(|id| !id.is_empty()).map(|id| self.vault.request_id(id.as_bytes())),
            ip: Some(request.client),
            device: Device::of_user_agent(request.header("user-agent").unwrap_or_default().as_bytes()),
            ok_status,
            admitted,
        }
    }

    /// Whom a credential makes of its holder on this path: MCP lets in agents alone.
    fn agent(&self, request: &Request, who: Principal) -> Result<Principal, Stranger> {
        if Shape::of(&request.path) != Shape::Mcp {
            return Ok(who);
        }
        match self.vault.agent_of(who) {
            Ok(Some(agent)) => Ok(agent),
            Ok(None) => Err(Stranger { credential: None, reason: Reason::BadCredential, why: Ok(Unauthenticated::Invalid) }),
            Err(why) => Err(Stranger::unanswered(why, request)),
        }
    }

    /// Counts so many requests of `who`, all or none: the credential's rate, or whatever refuses them.
    fn count(&self, who: &Principal, requests: u32) -> Option<Taken> {
        let (now_ms, owner) = (self.now_ms(), who.user() == self.vault.owner());
        // A person's rate is looked at before anything is counted: what it refuses must not use up the credential's.
        let person = |requests| if owner { None } else { self.people.take_all(who.user(), requests, now_ms) };
        let stands = person(0);
        if let Some(over) = stands.filter(|stands| requests.min(stands.limit / limits::RATE_PER_PERSON_TIMES) > stands.remaining) {
            return Some(Taken { allowed: false, ..over });
        }
        let taken = self.credentials.take_all(bucket(who), requests, now_ms)?;
        if taken.allowed {
            person(requests.min(taken.limit));
        }
        Some(taken)
    }

    /// Counts `more` further requests of `who` for what one request brings, all or none: the refusal if they are too many. Ask before anything is
    /// done. What is more than a minute's requests takes a minute in which nothing else was asked, and is told so.
    pub(in crate::api) fn further(&self, who: &Principal, more: usize, shape: Shape) -> Option<Reply> {
        let more = u32::try_from(more).unwrap_or(u32::MAX - 1);
        let over = self.count(who, more).filter(|taken| !taken.allowed)?;
        self.vault.refuse_credential(who.credential(), Reason::CredentialRate, 429);
        let text = match more + 1 {
            all if all > over.limit => format!(
                "This counts as {all} requests, more than the {} of a minute: it takes a minute of its own; retry in {} s, or send fewer at once",
                over.limit, over.reset_s
            ),
            _ => over.error(),
        };
        // The other headers are those of every answer.
        Some(shape.error(429, text).header("retry-after", over.reset_s.to_string()))
    }

    fn answer(&self, request: Request) -> Reply {
        let shape = Shape::of(&request.path);
        let (who, admitted) = match self.authenticate(&request) {
            Ok(found) => found,
            Err(stranger) => return self.unauthenticated(&request, stranger),
        };
        let mut taken = self.count(&who, 1);
        if let Some(taken) = refused(taken.as_ref()) {
            self.vault.refuse_credential(who.credential(), Reason::CredentialRate, 429);
            return too_many(shape, taken);
        }
        let reply = self.routed(request, &who, admitted, shape, &mut taken);
        // There one request may have counted as several.
        if taken.is_some() && matches!(shape, Shape::Mem0 | Shape::Mcp) {
            taken = self.credentials.take_all(bucket(&who), 0, self.now_ms());
        }
        match taken {
            // A refusal for a rate tells of its own window.
            Some(taken) if reply.headers.iter().all(|(name, _)| *name != throttle::LIMIT) => telling(reply, &taken),
            _ => reply,
        }
    }

    /// The answer to whoever has no valid credential.
    fn unauthenticated(&self, request: &Request, stranger: Stranger) -> Reply {
        let shape = Shape::of(&request.path);
        let taken = self.addresses.take(request.client, self.now_ms());
        if let Some(taken) = refused(taken.as_ref()) {
            self.vault.refuse_address(request.client, Reason::AddressRate, 429);
            // A flood waits for its answers: an address has few connections, so this bounds what it can ask a second.
            duty::step_aside();
            std::thread::sleep(limits::FLOOD_PAUSE);
            return too_many(shape, taken);
        }
        if let Some(public) = self.public(request) {
            return public;
        }
        let why = match stranger.why {
            Ok(why) => why,
            Err(unavailable) => return *unavailable,
        };
        match stranger.credential {
            Some(credential) => self.vault.refuse_credential(&credential, stranger.reason, 401),
            None => self.vault.refuse_address(request.client, stranger.reason, 401),
        }
        match shape {
            Shape::Mcp => self.mcp.unauthenticated(&why.to_string()),
            _ => shape.error(401, why.to_string()).header("www-authenticate", "Bearer"),
        }
    }

    /// The routes that need no credential and touch no data.
    fn public(&self, request: &Request) -> Option<Reply> {
        if let Some(reply) = self.oauth(request) {
            return Some(reply);
        }
        if !matches!(request.method, Method::Get | Method::Head) {
            return None;
        }
        match request.path.as_str() {
            "/health" => Some(self.health()),
            "/openapi.json" => Some(Reply::bytes(200, "application/json; charset=utf-8", self.document.clone())),
            // Browsers ask for these unasked and without a credential; there is no picture.
            "/favicon.ico" | "/icon.png" => Some(unknown_route(request.method, &request.path, Shape::Contract)),
            _ => None,
        }
    }

    fn health(&self) -> Reply {
        let seconds = self.now_ms().saturating_sub(self.started_ms) / 1000;
        health(if self.vault.is_up() { "ok" } else { "unavailable" }, seconds, self.model.is_some())
    }

    /// `taken` is what the credential's window gave; it becomes what the route's own gave, if that one will refuse first.
    fn routed(&self, mut request: Request, who: &Principal, admitted: u64, shape: Shape, taken: &mut Option<Taken>) -> Reply {
        if let Some(public) = self.public(&request) {
            return public;
        }
        let method = if request.method == Method::Head { Method::Get } else { request.method };
        let path = std::mem::take(&mut request.path);
        let (route, id) = match routes::find(method, &path) {
            Found::Route(route, id) => (route, id),
            Found::OtherMethod(allowed) if matches!(shape, Shape::Problem | Shape::Mcp) => {
                self.vault.refuse_credential(who.credential(), Reason::Method, 405);
                return shape.error(405, "This path does not take this method").header("allow", allowed.join(", "));
            }
            // The contract's order: an agent is told that this is none of its paths before it is told that there is none.
            Found::OtherMethod(_) | Found::Nothing if matches!(who.role(), Role::Agent(_)) && !routes::is_agents(&path) => {
                self.vault.refuse_credential(who.credential(), Reason::AgentRoute, 403);
                return shape.error(403, agent_route(who));
            }
            Found::OtherMethod(_) | Found::Nothing => {
                self.vault.refuse_credential(who.credential(), Reason::UnknownRoute, 404);
                return unknown_route(request.method, &path, shape);
            }
        };
        let call = self.call(&request, route.doc.answer.0, Some(admitted));
        let mut cx = Cx { api: self, who, call, id, fields: Fields::default(), verb: route.verb, request: &request, shape };
        if matches!(who.role(), Role::Agent(_)) && !route.agents() {
            return cx.refuse(Reason::AgentRoute, 403, agent_route(who)).reply(shape);
        }
        if route.administrative() {
            let admin = self.admin.take(who.user(), self.now_ms());
            if let Some(taken) = refused(admin.as_ref()) {
                self.vault.refuse_credential(who.credential(), Reason::AdminRate, 429);
                return too_many(shape, taken);
            }
            *taken = admin.into_iter().chain(*taken).min_by_key(|taken| taken.remaining);
        }
        match input(route, &request, shape) {
            Ok(fields) => cx.fields = fields,
            Err(text) => return cx.refuse(Reason::Schema, 400, text).reply(shape),
        }
        (route.run)(&mut cx).unwrap_or_else(|failure| failure.reply(shape))
    }
}

/// What `/health` says: `ok` with 200, anything else with 503.
pub(in crate::api) fn health(status: &str, uptime_seconds: u64, model: bool) -> Reply {
    let body = json!({
        "service": "reflect-memory",
        "status": status,
        "uptime_seconds": uptime_seconds,
        "deployment_mode": "self-host",
        "network_boundary": "private",
        "model_egress": if model { "enabled" } else { "disabled" },
        "public_webhooks": false,
    });
    Reply::json(if status == "ok" { 200 } else { 503 }, &body)
}

/// The checked input of a route, or what is wrong with it.
fn input(route: &Route, request: &Request, shape: Shape) -> Result<Fields, String> {
    let coerce = shape == Shape::Contract;
    let query = match route.doc.query {
        Some(schema) => {
            let query = body::form(request.query.as_deref().unwrap_or_default()).map_err(|error| error.to_string())?;
            Some(schema.check(Part::Query, Some(query), true).map_err(|error| error.to_string())?)
        }
        None => None,
    };
    if !route.doc.reads_body() {
        return Ok(query.unwrap_or_default());
    }
    let presented = body::read(request.header("content-type"), &request.body).map_err(|error| error.to_string())?;
    match route.doc.body {
        Some(schema) => {
            let mut fields = schema.check(Part::Body, presented, coerce).map_err(|error| error.to_string())?;
            if let Some(query) = query {
                fields.join(query);
            }
            Ok(fields)
        }
        None => {
            if let Some(mut unused) = presented {
                crate::api::schema::wipe(&mut unused);
            }
            Ok(Fields::default())
        }
    }
}

fn refused(taken: Option<&Taken>) -> Option<&Taken> {
    taken.filter(|taken| !taken.allowed)
}

fn too_many(shape: Shape, taken: &Taken) -> Reply {
    telling(shape.error(429, taken.error()), taken)
}

/// `reply` with what is left of a window.
fn telling(reply: Reply, taken: &Taken) -> Reply {
    taken.headers().into_iter().fold(reply, |reply, (name, value)| reply.header(name, value))
}

/// The bucket of a credential.
pub(in crate::api) fn bucket(who: &Principal) -> Key {
    match who.credential() {
        CredentialRef::Stored(id) | CredentialRef::Grant(id) => (*id).into(),
        CredentialRef::Static { name, id } => Key::of_static(name, &id.0),
        // It speaks for many.
        CredentialRef::Dashboard { .. } => who.user().into(),
        CredentialRef::None => Key::of_static("", &[]),
    }
}

/// What an agent is told whose path this is not.
fn agent_route(who: &Principal) -> &'static str {
    if who.by_oauth() { "OAuth tokens cannot access this endpoint" } else { AGENT_ROUTE }
}

pub(in crate::api) fn unknown_route(method: Method, path: &str, shape: Shape) -> Reply {
    match shape {
        Shape::Problem | Shape::Mem0 | Shape::Mcp => shape.error(404, "No such path"),
        Shape::Contract => Reply::json(
            404,
            &json!({ "message": format!("Route {}:{path} not found", method.name()), "error": "Not Found", "statusCode": 404 }),
        ),
    }
}

impl Handler for Arc<Api> {
    fn body_limit(&self, _: Method, _: &str) -> usize {
        limits::BODY_BYTES_MAX
    }

    fn refuse(&self, refusal: &Refusal) -> Reply {
        let reason = match refusal.reason {
            http::Reason::ForeignHost => Reason::Host,
            http::Reason::ForeignOrigin => Reason::Origin,
            http::Reason::BodyTooLarge => Reason::TooLarge,
            _ => Reason::Framing,
        };
        self.vault.refuse_address(refusal.client, reason, refusal.reason.status());
        refusal.reply()
    }

    #[cfg(not(feature = "bench-internals"))]
    fn handle(&self, request: Request) -> Reply {
        self.answer(request)
    }

    /// For benches of searching: also tells the microseconds of work, without waiting for the commit, and those of processor time among them.
    #[cfg(feature = "bench-internals")]
    fn handle(&self, request: Request) -> Reply {
        use crate::base::time::processor_time;
        use crate::store::stopwatch;
        if !request.path.ends_with("/search") {
            return self.answer(request);
        }
        let (since, cpu) = (std::time::Instant::now(), processor_time());
        let reply = self.answer(request);
        let (work, cpu) = (since.elapsed().saturating_sub(stopwatch::take()), processor_time().saturating_sub(cpu));
        reply.header("x-bench-work-us", work.as_micros().to_string()).header("x-bench-cpu-us", cpu.as_micros().to_string())
    }

    fn tls_failed(&self, client: std::net::IpAddr) {
        self.vault.refuse_address(client, Reason::BadHandshake, 0);
    }
}

impl Cx<'_> {
    /// Runs a read; `words` gives the text of a denial.
    pub fn look<A: Reads, T, E: Fault + std::error::Error>(
        &self,
        target: A::Target,
        words: &Words,
        work: impl for<'t> Fn(&mut Access<'t, A>) -> Result<T, E>,
    ) -> Done<T> {
        debug_assert_eq!(self.verb, A::NAME, "a row names the verb that its operation asks for");
        self.api.vault.read::<A, T, E>(self.who, target, &self.call, work).map_err(|refused| Failure::refused(&refused, words))
    }

    /// As [`Cx::look`], for work that goes through many records: few do so at once, and askers take turns.
    pub fn walk<A: Reads, T, E: Fault + std::error::Error>(
        &self,
        target: A::Target,
        words: &Words,
        work: impl for<'t> Fn(&mut Access<'t, A>) -> Result<T, E>,
    ) -> Done<T> {
        debug_assert_eq!(self.verb, A::NAME, "a row names the verb that its operation asks for");
        self.api.vault.walk::<A, T, E>(self.who, target, &self.call, work).map_err(|refused| Failure::refused(&refused, words))
    }

    /// Runs a write; `words` gives the text of a denial.
    pub fn change<A: Writes, T: Send + 'static, E: Fault + std::error::Error + Send + 'static>(
        &self,
        target: A::Target,
        words: &Words,
        work: impl for<'t> FnOnce(&mut Access<'t, A>) -> Result<T, E> + Send + 'static,
    ) -> Done<T> {
        self.try_write::<A, T, E>(target, work).map_err(|refused| Failure::refused(&refused, words))
    }

    /// Writes the answer from a value that is recorded.
    pub fn answer<T>(&self, done: Recorded<T>, answer: impl FnOnce(&T, &Receipt) -> Vec<u8>) -> Reply {
        reply::written(self.call.ok_status, done, answer)
    }

    /// As [`Cx::read`], for what is asked most: nobody waits for the entry, the answer is sent by whoever finds it durable.
    pub fn read_later<A: Reads, T: Send + 'static, E: Fault + std::error::Error + Send + 'static>(
        &self,
        target: A::Target,
        words: &'static Words,
        work: for<'t> fn(&mut Access<'t, A>) -> Result<T, E>,
        answer: fn(&T, &Receipt) -> Vec<u8>,
    ) -> Answered {
        debug_assert_eq!(self.verb, A::NAME, "a row names the verb that its operation asks for");
        let (asked, vault, reply) = (self.asked::<A>(target), self.api.vault.clone(), self.replies(words, answer));
        Ok(Reply::later(move |turn| vault.read_then(asked, work, move |done| turn.answer(reply(done)))))
    }

    /// As [`Cx::write`], in the manner of [`Cx::read_later`].
    pub fn write_later<A: Writes, T: Send + 'static, E: Fault + std::error::Error + Send + 'static>(
        &self,
        target: A::Target,
        words: &'static Words,
        work: impl for<'t> FnOnce(&mut Access<'t, A>) -> Result<T, E> + Send + 'static,
        answer: fn(&T, &Receipt) -> Vec<u8>,
    ) -> Answered {
        debug_assert_eq!(self.verb, A::NAME, "a row names the verb that its operation asks for");
        let (asked, vault, reply) = (self.asked::<A>(target), self.api.vault.clone(), self.replies(words, answer));
        Ok(Reply::later(move |turn| vault.write_then(asked, work, move |done| turn.answer(reply(done)))))
    }

    /// What makes the answer once it is known how it ended.
    fn replies<T, E: Fault + std::error::Error>(
        &self,
        words: &'static Words,
        answer: fn(&T, &Receipt) -> Vec<u8>,
    ) -> impl FnOnce(Result<Recorded<T>, Refused<E>>) -> Reply + Send + use<T, E> {
        let (status, shape) = (self.call.ok_status, self.shape);
        move |done| match done {
            Ok(recorded) => reply::written(status, recorded, answer),
            Err(refused) => Failure::refused(&refused, words).reply(shape),
        }
    }

    fn asked<A: Action>(&self, target: A::Target) -> Asked<A> {
        Asked { who: self.who.clone(), target, call: self.call.clone() }
    }

    /// [`Cx::look`] and [`Cx::answer`].
    pub fn read<A: Reads, T, E: Fault + std::error::Error>(
        &self,
        target: A::Target,
        words: &Words,
        work: impl for<'t> Fn(&mut Access<'t, A>) -> Result<T, E>,
        answer: impl FnOnce(&T, &Receipt) -> Vec<u8>,
    ) -> Answered {
        Ok(self.answer(self.look(target, words, work)?, answer))
    }

    /// [`Cx::change`] and [`Cx::answer`].
    pub fn write<A: Writes, T: Send + 'static, E: Fault + std::error::Error + Send + 'static>(
        &self,
        target: A::Target,
        words: &Words,
        work: impl for<'t> FnOnce(&mut Access<'t, A>) -> Result<T, E> + Send + 'static,
        answer: impl FnOnce(&T, &Receipt) -> Vec<u8>,
    ) -> Answered {
        Ok(self.answer(self.change(target, words, work)?, answer))
    }

    /// As [`Cx::change`], for several commits of one request.
    pub fn try_write<A: Writes, T: Send + 'static, E: Fault + std::error::Error + Send + 'static>(
        &self,
        target: A::Target,
        work: impl for<'t> FnOnce(&mut Access<'t, A>) -> Result<T, E> + Send + 'static,
    ) -> Result<Recorded<T>, Refused<E>> {
        debug_assert_eq!(self.verb, A::NAME, "a row names the verb that its operation asks for");
        self.api.vault.write::<A, T, E>(self.who, target, &self.call, work)
    }

    /// Records a refusal before any verb was tried: one that the schema cannot express, or of the road itself.
    pub fn refuse(&self, reason: Reason, status: u16, text: impl Into<Cow<'static, str>>) -> Failure {
        self.record(reason, Failure::new(status, text))
    }

    /// An id that is not an id: recorded and answered like one that does not exist.
    pub fn missing(&self, words: &Words) -> Failure {
        self.record(Reason::NotFound, words.failure(404))
    }

    fn record(&self, reason: Reason, failure: Failure) -> Failure {
        match self.api.vault.record(self.who, &self.call, self.verb, reason, failure.status) {
            Ok(receipt) => failure.recorded(&receipt),
            Err(why) => Failure::unavailable(why),
        }
    }
}
