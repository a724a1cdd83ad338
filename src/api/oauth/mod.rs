//! OAuth 2.1 for the connectors of AI tools: discovery (RFC 8414, RFC 9728), registration (RFC 7591), authorization with PKCE (RFC 7636) and a page
//! of consent of our own, tokens and their rotation, revocation (RFC 7009), audiences (RFC 8707), the issuer in answers (RFC 9207).
//!
//! ```text
//! client ─POST /register─▶ id          person's browser ─GET /authorize─▶ /oauth/consent ─key, vendor, Allow─▶ back to the client with a code
//! client ─POST /token, code and verifier─▶ tokens ─…─▶ POST /token, refresh token ─▶ new tokens, the old ones gone
//! ```
//!
//! Invariants
//! - Nobody is sent to an address that the client did not register, byte for byte; what is wrong before that is known is told to the browser.
//! - A consent is a person's own act: their key, typed into our page, or the word of the dashboard at which they signed in.
//! - What a stranger can cause without a credential costs no disk: it lives in memory, bounded ([`waiting`]), and its refusals are counted.
//! - Asking for a head alone begins and decides nothing.
//! - Tokens are in one answer only, after the commit that holds their verifiers and the entry.

mod consent;
pub mod page;
mod register;
mod token;
pub mod waiting;

use serde_json::{Map, Value, json};

use crate::api::answers::{Members, Shape, TRUE, answer, constant, id, list_of, number, text, texts, time, word};
use crate::api::body;
use crate::api::reply::{self, Answered, Words};
use crate::api::run::{Api, Cx};
use crate::api::throttle::Throttle;
use crate::audit::Reason;
use crate::authn::Principal;
use crate::authn::credential::bearer;
use crate::authn::oauth::{ClientId, SCOPES};
use crate::base::limits;
use crate::crypto::secret::Key;
use crate::http::{Authority, Method, Reply, Request};
use crate::policy::action::{CountGrants, Instance};
use crate::store::gate::Admission;
use crate::store::grants::{self, Client};
use crate::store::writer::Unavailable;
use std::sync::Arc;

/// What OAuth keeps between requests.
pub struct OAuth {
    waiting: waiting::Waiting,
    registrations: Throttle,
    /// Ties a form to the browser that it was shown in.
    csrf: Key,
}

impl OAuth {
    /// With nothing that waits. `limited`: whether rates of strangers are limited at all.
    pub fn new(limited: bool) -> Self {
        let registrations = Throttle::new(if limited { limits::OAUTH_REGISTRATIONS_PER_MINUTE } else { 0 });
        Self { waiting: waiting::Waiting::default(), registrations, csrf: Key::random() }
    }
}

/// Why a request for tokens and the like is not done, in the shape of RFC 6749 section 5.2.
struct Refused {
    status: u16,
    error: &'static str,
    description: String,
    reason: Reason,
}

impl Refused {
    fn request(description: impl Into<String>) -> Self {
        Self { status: 400, error: "invalid_request", description: description.into(), reason: Reason::Schema }
    }

    fn client() -> Self {
        let description = "The client is not known here, or its secret is wrong".into();
        Self { status: 401, error: "invalid_client", description, reason: Reason::BadCredential }
    }

    fn grant() -> Self {
        let description = "The code or token is unknown, used up, over, or was given for something else".into();
        Self { status: 400, error: "invalid_grant", description, reason: Reason::BadCredential }
    }

    fn unavailable(_: Unavailable) -> Self {
        Self { status: 503, error: "temporarily_unavailable", description: "The service cannot answer now".into(), reason: Reason::Latched }
    }

    fn of(error: &'static str, description: &str) -> Self {
        Self { status: 400, error, description: description.into(), reason: Reason::Schema }
    }
}

/// Parameters of a query string or a form; each at most once (RFC 6749 section 3.1).
struct Params(Map<String, Value>);

impl Params {
    fn read(text: &str) -> Result<Self, Refused> {
        match body::form(text) {
            Ok(Value::Object(map)) if map.values().all(Value::is_string) => Ok(Self(map)),
            Ok(_) => Err(Refused::request("A parameter may occur once")),
            Err(error) => Err(Refused::request(error.to_string())),
        }
    }

    fn of_form(request: &Request) -> Result<Self, Refused> {
        let kind = request.header("content-type").unwrap_or_default().split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err(Refused::request("The body must be application/x-www-form-urlencoded"));
        }
        Self::read(std::str::from_utf8(&request.body).map_err(|_| Refused::request("The body must be UTF-8"))?)
    }

    /// The value, if it is there and not empty.
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str).filter(|value| !value.is_empty())
    }

    fn required(&self, name: &'static str) -> Result<&str, Refused> {
        self.get(name).ok_or_else(|| Refused::request(format!("{name} is required")))
    }
}

impl Drop for Params {
    fn drop(&mut self) {
        crate::api::schema::wipe(&mut Value::Object(std::mem::take(&mut self.0)));
    }
}

/// A value of a query (RFC 3986): everything but unreserved characters escaped.
fn encoded(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// `uri` with these parameters behind what it has.
fn with_query(uri: &str, params: &[(&str, Option<&str>)]) -> String {
    let pairs: Vec<String> = params.iter().filter_map(|(name, value)| Some(format!("{name}={}", encoded((*value)?)))).collect();
    format!("{uri}{}{}", if uri.contains('?') { '&' } else { '?' }, pairs.join("&"))
}

impl Api {
    /// Answers what belongs to OAuth and does its own authentication; nothing if it is something else.
    pub(in crate::api) fn oauth(&self, request: &Request) -> Option<Reply> {
        let method = if request.method == Method::Head { Method::Get } else { request.method };
        let answer = match (method, request.path.as_str()) {
            // What these answer is made by doing it, which who asks for the head alone did not want.
            (_, "/authorize" | "/oauth/approve") if request.method == Method::Head => Ok(self.not_by_head(request)),
            (Method::Get, "/.well-known/oauth-authorization-server") => Ok(self.server_metadata(request)),
            (Method::Get, "/.well-known/oauth-protected-resource/mcp") => Ok(self.resource_metadata(request)),
            (_, path) if path.starts_with("/.well-known/oauth-") => {
                Ok(crate::api::run::unknown_route(request.method, path, reply::Shape::Contract))
            }
            (Method::Post, "/register") => self.register(request),
            (Method::Get, "/authorize") => Ok(self.authorize(request)),
            (Method::Get, "/oauth/consent") => Ok(self.consent_page(request)),
            (Method::Post, "/oauth/consent") => Ok(self.consent(request)),
            (Method::Get, "/oauth/approve") => Ok(self.approve(request)),
            (Method::Post, "/oauth/approve-s2s") => Ok(self.approve_by_service(request)),
            (Method::Post, "/token") => self.token(request),
            (Method::Post, "/revoke") => self.revoke(request),
            (Method::Get, "/oauth/status") if self.is_service(request) => Ok(self.service_status(request)),
            _ => return None,
        };
        Some(answer.unwrap_or_else(|refused| self.refused(request, &refused)))
    }

    fn not_by_head(&self, request: &Request) -> Reply {
        self.vault.refuse_address(request.client, Reason::Method, 405);
        reply::Shape::Contract.error(405, "This path does not take this method").header("allow", "GET")
    }

    /// Counts and words a refusal.
    fn refused(&self, request: &Request, refused: &Refused) -> Reply {
        self.vault.refuse_address(request.client, refused.reason, refused.status);
        let reply = Reply::json(refused.status, &json!({ "error": refused.error, "error_description": refused.description }));
        match refused.status {
            401 => reply.header("www-authenticate", "Basic realm=\"token\""),
            503 => reply.header("retry-after", "1"),
            _ => reply,
        }
    }

    /// This server as the client reaches it: the public URL; without one, the address that was asked, which `http` has found to be ours.
    fn issuer(&self, request: &Request) -> String {
        let Authority { host, port } = &request.authority;
        match port {
            _ if !self.public_url.starts_with("https://localhost:") => self.public_url.clone(),
            Some(port) => format!("https://{host}:{port}"),
            None => format!("https://{host}"),
        }
    }

    fn server_metadata(&self, request: &Request) -> Reply {
        let issuer = self.issuer(request);
        let at = |path: &str| format!("{issuer}{path}");
        let methods = ["none", "client_secret_post", "client_secret_basic"];
        Reply::json(
            200,
            &json!({
                "issuer": issuer,
                "authorization_endpoint": at("/authorize"),
                "token_endpoint": at("/token"),
                "registration_endpoint": at("/register"),
                "revocation_endpoint": at("/revoke"),
                "response_types_supported": ["code"],
                "response_modes_supported": ["query"],
                "grant_types_supported": ["authorization_code", "refresh_token"],
                "code_challenge_methods_supported": ["S256"],
                "token_endpoint_auth_methods_supported": methods,
                "revocation_endpoint_auth_methods_supported": methods,
                "scopes_supported": SCOPES,
                "authorization_response_iss_parameter_supported": true,
            }),
        )
    }

    fn resource_metadata(&self, request: &Request) -> Reply {
        let issuer = self.issuer(request);
        Reply::json(
            200,
            &json!({
                "resource": format!("{issuer}/mcp"),
                "authorization_servers": [issuer],
                "scopes_supported": SCOPES,
                "bearer_methods_supported": ["header"],
                "resource_name": "Rosemary",
            }),
        )
    }

    /// The client of this id, whether or not somebody has consented to it.
    fn oauth_client(&self, id: ClientId) -> Result<Option<Arc<Client>>, Unavailable> {
        match self.oauth.waiting.client(id, self.now_ms()) {
            Some(client) => Ok(Some(client)),
            None => Ok(self.vault.client(id)?.map(Arc::new)),
        }
    }

    /// Whether the dashboard's own key is shown, which alone is nobody.
    fn is_service(&self, request: &Request) -> bool {
        bearer(request.header("authorization"), false).is_ok_and(|token| matches!(self.vault.admit(token), Ok(Admission::Dashboard)))
    }

    /// `GET /oauth/status` by the dashboard's key.
    fn service_status(&self, request: &Request) -> Reply {
        let who = Principal::system(self.vault.tenant(), self.vault.owner(), "dashboard");
        let mut cx = self.cx(&who, self.call(request, 200, None), "oauth.status", request);
        status(&mut cx).unwrap_or_else(|failure| failure.reply(reply::Shape::Contract))
    }
}

/// `GET /oauth/status`
pub fn status(cx: &mut Cx<'_>) -> Answered {
    let [registrations, decisions, codes] = cx.api.oauth.waiting.counts(cx.api.now_ms());
    cx.read::<CountGrants, _, _>(Instance, &Words::ADMIN, grants::counts, |(clients, granted), _| {
        reply::json(&json!({
            "registrations_waiting": registrations,
            "decisions_waiting": decisions,
            "codes_waiting": codes,
            "clients": clients,
            "grants": granted,
        }))
    })
}

const ADDRESS: Shape = text("https://memory.hospital.example:8443/token");

/// The components of these routes.
pub(in crate::api) const COMPONENTS: Members = &[
    ("OAuthError", answer(&[("error", text("invalid_grant"))], &[("error_description", text("The code or token is unknown"))])),
    (
        "OAuthServer",
        answer(
            &[
                ("issuer", text("https://memory.hospital.example:8443")),
                ("authorization_endpoint", ADDRESS),
                ("token_endpoint", ADDRESS),
                ("registration_endpoint", ADDRESS),
                ("revocation_endpoint", ADDRESS),
                ("response_types_supported", texts("code")),
                ("response_modes_supported", texts("query")),
                ("grant_types_supported", texts("authorization_code")),
                ("code_challenge_methods_supported", texts("S256")),
                ("token_endpoint_auth_methods_supported", texts("none")),
                ("revocation_endpoint_auth_methods_supported", texts("none")),
                ("scopes_supported", texts("mcp:read")),
                ("authorization_response_iss_parameter_supported", TRUE),
            ],
            &[],
        ),
    ),
    (
        "OAuthResource",
        answer(
            &[
                ("resource", text("https://memory.hospital.example:8443/mcp")),
                ("authorization_servers", texts("https://memory.hospital.example:8443")),
                ("scopes_supported", texts("mcp:read")),
                ("bearer_methods_supported", texts("header")),
                ("resource_name", text("Rosemary")),
            ],
            &[],
        ),
    ),
    (
        "OAuthRegistration",
        Shape::Request(
            &[
                ("redirect_uris", Shape::Many(1, limits::REDIRECT_URIS_MAX, &text("https://client.example/callback"))),
                ("client_name", text("Claude")),
                ("token_endpoint_auth_method", word(&["none", "client_secret_post", "client_secret_basic"])),
            ],
            &["redirect_uris"],
            true,
        ),
    ),
    (
        "OAuthClient",
        answer(
            &[
                ("client_id", text("rm_0011223344556677")),
                ("client_id_issued_at", number()),
                ("client_name", text("Claude")),
                ("redirect_uris", texts("https://client.example/callback")),
                ("grant_types", texts("authorization_code")),
                ("response_types", texts("code")),
                ("token_endpoint_auth_method", word(&["none", "client_secret_post", "client_secret_basic"])),
                ("scope", text("mcp:read mcp:write")),
            ],
            &[("client_secret", text("rms_00112233445566778899aabbccddeeff")), ("client_secret_expires_at", number())],
        ),
    ),
    (
        "OAuthTokenRequest",
        Shape::Request(
            &[
                ("grant_type", word(&["authorization_code", "refresh_token"])),
                ("code", text("00112233445566778899aabbccddeeff")),
                ("code_verifier", text("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")),
                ("redirect_uri", text("https://client.example/callback")),
                ("client_id", text("rm_0011223344556677")),
                ("client_secret", text("rms_00112233445566778899aabbccddeeff")),
                ("refresh_token", text("rmr_00112233445566778899aabbccddeeff")),
                ("resource", text("https://memory.hospital.example:8443/mcp")),
            ],
            &["grant_type"],
            true,
        ),
    ),
    (
        "OAuthTokens",
        answer(
            &[
                ("access_token", text("rma_00112233445566778899aabbccddeeff")),
                ("token_type", constant("bearer")),
                ("expires_in", number()),
                ("scope", text("mcp:read mcp:write")),
                ("refresh_token", text("rmr_00112233445566778899aabbccddeeff")),
            ],
            &[],
        ),
    ),
    (
        "OAuthRevocation",
        Shape::Request(
            &[("token", text("rma_00112233445566778899aabbccddeeff")), ("client_id", text("rm_0011223344556677"))],
            &["token", "client_id"],
            true,
        ),
    ),
    (
        "OAuthDecision",
        Shape::Request(
            &[
                ("pending_id", text("00112233445566778899aabbccddeeff")),
                ("csrf", text("00")),
                ("key", text("rm_live_…")),
                ("vendor", text("oauth")),
                ("decision", word(&["allow", "deny"])),
            ],
            &["pending_id", "csrf", "decision"],
            true,
        ),
    ),
    (
        "OAuthApproval",
        Shape::Request(
            &[("pending_id", text("00112233445566778899aabbccddeeff")), ("email", text("nurse@hospital.example"))],
            &["pending_id", "email"],
            false,
        ),
    ),
    ("OAuthApproved", answer(&[("redirect_url", text("https://client.example/callback?code=00112233445566778899aabbccddeeff"))], &[])),
    (
        "OAuthStatus",
        answer(
            &[
                ("registrations_waiting", number()),
                ("decisions_waiting", number()),
                ("codes_waiting", number()),
                ("clients", number()),
                ("grants", number()),
            ],
            &[],
        ),
    ),
    ("OAuthGrants", answer(&[("grants", list_of("OAuthGrant"))], &[])),
    (
        "OAuthGrant",
        answer(
            &[
                ("id", id()),
                ("client_id", text("rm_0011223344556677")),
                ("client_name", text("Claude")),
                ("vendor", text("claude")),
                ("scope", text("mcp:read mcp:write")),
                ("created_at", time()),
                ("refreshed_at", time()),
                ("ends_at", time()),
            ],
            &[],
        ),
    ),
];
