//! From `GET /authorize` to a code: what is asked, the page, the person's answer; and the word of a dashboard instead of the page.
//!
//! Invariants
//! - The form is good in the browser alone that it was shown in: a cookie of ours, a keyed hash of it in the form, and no foreign `Origin` (`http`).
//! - A decision is made once. Agents' keys decide nothing.

use serde_json::json;

use super::waiting::{Pending, PendingId, Waits};
use super::{Params, Refused, page, with_query};
use crate::api::reply::{Failure, Shape, Words};
use crate::api::run::{Api, bucket};
use crate::api::schema::{Field, Kind, Part, Schema};
use crate::audit::Reason;
use crate::authn::jwt::JwtError;
use crate::authn::oauth::{self, ClientId, Scope, VENDOR};
use crate::authn::{CredentialRef, Principal, Role, Vendor};
use crate::base::{hex, limits, rng};
use crate::config::parse::email_address;
use crate::crypto::hash::hmac_sha256;
use crate::crypto::secret::Secret;
use crate::http::{Reply, Request};
use crate::policy::action::{ConsentToClient, Person};
use crate::store::gate::Admission;
use crate::store::grants;
use crate::store::phi::Phi;
use crate::store::sign_in::SignedIn;

/// `POST /oauth/approve-s2s`
static APPROVAL: Schema = Schema {
    fields: &[
        Field::required("pending_id", Kind::Text { min: 1, max: 100, pattern: None }, "What is approved."),
        Field::required("email", Kind::Text { min: 1, max: limits::EMAIL_CHARS_MAX, pattern: None }, "Who approves it."),
    ],
};

const OVER: &str = "The time for this decision is over; start again in your AI tool";
const UNKNOWN: &str = "There is nothing to decide under this id, or it was decided already";

/// Sends the browser to `url`.
fn sent(status: u16, url: String) -> Reply {
    Reply::empty(status).header("location", url)
}

/// The cookie that ties a form to a browser. `__Host-`: of this host alone, over TLS alone.
fn cookie_name(id: &str) -> String {
    format!("__Host-rm_consent_{}", id.get(..16).unwrap_or_default())
}

fn cookie<'r>(request: &'r Request, id: &str) -> Option<&'r str> {
    let name = cookie_name(id);
    let mut pairs = request.headers.all("cookie").flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let value = pairs.find(|(known, _)| *known == name)?.1;
    (value.len() == 32 && value.bytes().all(|digit| hex::value(digit).is_some())).then_some(value)
}

impl Api {
    fn csrf(&self, cookie: &str, id: &str) -> String {
        hex::encode(&hmac_sha256(&self.oauth.csrf, &[b"consent", cookie.as_bytes(), id.as_bytes()]))
    }

    /// `GET /authorize`
    pub(super) fn authorize(&self, request: &Request) -> Reply {
        let refusal = |status, text: &str| {
            self.vault.refuse_address(request.client, Reason::Schema, status);
            page::refusal(status, text)
        };
        let params = match Params::read(request.query.as_deref().unwrap_or_default()) {
            Ok(params) => params,
            Err(refused) => return refusal(400, &refused.description),
        };
        let client = match params.get("client_id").and_then(ClientId::parse).map(|id| self.oauth_client(id)) {
            Some(Ok(Some(client))) => client,
            Some(Err(_)) => return page::refusal(503, "The service cannot answer now").header("retry-after", "1"),
            None | Some(Ok(None)) => return refusal(400, "The program that sent you here is not registered; start again in it"),
        };
        let redirect_uri = match (params.get("redirect_uri"), client.redirect_uris.as_slice()) {
            (Some(uri), known) if known.iter().any(|one| one == uri) => uri.to_owned(),
            (None, [only]) => only.clone(),
            _ => return refusal(400, "The program that sent you here wants you sent to an address that it did not register"),
        };
        // From here on the client is told, at its own address.
        let issuer = self.issuer(request);
        let state = params.get("state");
        let asked = (|| {
            if state.is_some_and(|state| state.len() > limits::OAUTH_STATE_BYTES_MAX) {
                return Err(Refused::request("state is too long"));
            }
            if params.get("response_type") != Some("code") {
                return Err(Refused::of("unsupported_response_type", "response_type must be code"));
            }
            if params.get("code_challenge_method") != Some("S256") {
                return Err(Refused::request("code_challenge_method must be S256"));
            }
            let challenge = params.get("code_challenge").and_then(oauth::challenge);
            let challenge = challenge.ok_or_else(|| Refused::request("code_challenge must be the base64url of a SHA-256"))?;
            let scope =
                Scope::parse(params.get("scope")).ok_or_else(|| Refused::of("invalid_scope", "scope may hold mcp:read and mcp:write"))?;
            self.check_resource(&params, &issuer)?;
            Ok((challenge, scope))
        })();
        match asked {
            // Anybody may register: nobody is sent away unasked to a program that no person has consented to (RFC 9700 section 4.11.2).
            Err(refused) if !matches!(self.vault.client(client.id), Ok(Some(_))) => refusal(400, &refused.description),
            Err(refused) => {
                self.vault.refuse_address(request.client, refused.reason, 302);
                let state = state.filter(|state| state.len() <= limits::OAUTH_STATE_BYTES_MAX);
                let answer = [
                    ("error", Some(refused.error)),
                    ("error_description", Some(&refused.description)),
                    ("state", state),
                    ("iss", Some(&issuer)),
                ];
                sent(302, with_query(&redirect_uri, &answer))
            }
            Ok((challenge, scope)) => {
                let id = hex::encode(&rng::array::<16>());
                let pending = Pending { client, redirect_uri, state: state.map(str::to_owned), challenge, scope, issuer };
                self.oauth.waiting.ask(id.clone(), pending, request.client, self.now_ms());
                sent(302, format!("/oauth/consent?pending_id={id}"))
            }
        }
    }

    /// The resource that a token is asked for (RFC 8707) can only be ours.
    pub(super) fn check_resource(&self, params: &Params, issuer: &str) -> Result<(), Refused> {
        let ours = |resource: &str| {
            resource.strip_suffix('/').unwrap_or(resource).strip_prefix(issuer).is_some_and(|path| path.is_empty() || path == "/mcp")
        };
        match params.get("resource") {
            Some(resource) if !ours(resource) => Err(Refused::of("invalid_target", "resource is not this server's")),
            _ => Ok(()),
        }
    }

    /// What is to be decided under `id`, or the status and text that say why nothing is.
    fn pending(&self, id: &str) -> Result<Pending, (u16, &'static str)> {
        match self.oauth.waiting.pending(&id.to_owned(), self.now_ms()) {
            Waits::There(pending) => Ok(pending),
            Waits::Over => Err((410, OVER)),
            Waits::Unknown => Err((404, UNKNOWN)),
        }
    }

    /// `GET /oauth/consent`
    pub(super) fn consent_page(&self, request: &Request) -> Reply {
        let params = Params::read(request.query.as_deref().unwrap_or_default());
        let id: PendingId = params.ok().and_then(|params| params.get("pending_id").map(str::to_owned)).unwrap_or_default();
        match self.pending(&id) {
            Err((status, text)) => page::refusal(status, text),
            Ok(pending) => {
                let known = cookie(request, &id).map(str::to_owned);
                let value = known.unwrap_or_else(|| hex::encode(&rng::array::<16>()));
                let set = format!(
                    "{}={value}; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age={}",
                    cookie_name(&id),
                    limits::OAUTH_WAIT.as_secs()
                );
                page::consent(200, &pending, &id, &self.csrf(&value, &id), &self.vendors, None).header("set-cookie", set)
            }
        }
    }

    /// `POST /oauth/consent`: the page's answer.
    pub(super) fn consent(&self, request: &Request) -> Reply {
        let refusal = |status, reason, text: &str| {
            self.vault.refuse_address(request.client, reason, status);
            page::refusal(status, text)
        };
        let params = match Params::of_form(request) {
            Ok(params) => params,
            Err(refused) => return refusal(400, Reason::Schema, &refused.description),
        };
        let id: PendingId = params.get("pending_id").unwrap_or_default().to_owned();
        let csrf = cookie(request, &id).map(|cookie| self.csrf(cookie, &id));
        if !csrf.as_ref().is_some_and(|csrf| Secret::new(csrf.clone()).matches(params.get("csrf").unwrap_or_default().as_bytes())) {
            return refusal(
                403,
                Reason::Origin,
                "This answer did not come from the page that was shown in this browser; start again in your AI tool",
            );
        }
        let pending = match self.pending(&id) {
            Ok(pending) => pending,
            Err((status, text)) => return refusal(status, Reason::NotFound, text),
        };
        match params.get("decision") {
            Some("deny") if self.oauth.waiting.decided(&id) => {
                let answer = [("error", Some("access_denied")), ("state", pending.state.as_deref()), ("iss", Some(&*pending.issuer))];
                return sent(303, with_query(&pending.redirect_uri, &answer));
            }
            Some("allow") => {}
            _ => return refusal(400, Reason::Schema, "Allow it, or do not"),
        }
        let again =
            |status, wrong: &str| page::consent(status, &pending, &id, csrf.as_deref().unwrap_or_default(), &self.vendors, Some(wrong));
        let offered = |vendor: &Vendor| {
            let suggested = oauth::suggested_vendor(&pending.client.name);
            vendor.name() == VENDOR || self.vendors.iter().any(|known| known == vendor.name()) || suggested.as_ref() == Some(vendor)
        };
        let Some(vendor) = params.get("vendor").and_then(oauth::vendor).filter(offered) else {
            return again(400, "Choose one of the AI tools");
        };
        let key = params.get("key").map(str::trim).filter(|key| key.len() <= limits::CREDENTIAL_BYTES_MAX).unwrap_or_default();
        let (who, generation) = match self.vault.admit(key) {
            Ok(Admission::Principal(who, generation)) if *who.role() == Role::User => (who, generation),
            Ok(Admission::Principal(who, _)) => {
                self.vault.refuse_credential(who.credential(), Reason::AgentRoute, 403);
                return again(403, "This is an AI tool's key. Only a person's own key can allow anything");
            }
            Ok(known) => {
                // Also where a credential of another brought the request here: whoever guesses keys is a stranger.
                if self.addresses.take(request.client, self.now_ms()).is_some_and(|taken| !taken.allowed) {
                    self.vault.refuse_address(request.client, Reason::AddressRate, 429);
                    return again(429, "Too many keys that are not valid; wait a minute");
                }
                match known {
                    Admission::Revoked(id) => self.vault.refuse_credential(&CredentialRef::Stored(id), Reason::RevokedCredential, 401),
                    _ => self.vault.refuse_address(request.client, Reason::BadCredential, 401),
                }
                return again(401, "This key is not valid");
            }
            Err(_) => return page::refusal(503, "The service cannot answer now").header("retry-after", "1"),
        };
        if self.over_limit(&who) {
            return again(429, "Too many requests with this key; wait a minute");
        }
        match self.approved(request, &id, pending.clone(), &who, Some(generation), vendor) {
            Ok(url) => sent(303, url),
            Err(failure) => {
                let reply = page::refusal(failure.status, &failure.text);
                failure.index.map_or(reply.clone(), |index| reply.header("x-audit-index", index.to_string()))
            }
        }
    }

    /// Whether a credential has used up its minute; counted.
    pub(super) fn over_limit(&self, who: &Principal) -> bool {
        let over = self.credentials.take(bucket(who), self.now_ms()).is_some_and(|taken| !taken.allowed);
        if over {
            self.vault.refuse_credential(who.credential(), Reason::CredentialRate, 429);
        }
        over
    }

    /// Has the consent recorded and gives the address with the code, to which the person is sent.
    fn approved(
        &self,
        request: &Request,
        id: &PendingId,
        pending: Pending,
        who: &Principal,
        admitted: Option<u64>,
        vendor: Vendor,
    ) -> Result<String, Failure> {
        let (client, name) = (std::sync::Arc::clone(&pending.client), vendor.name().to_owned());
        let call = self.call(request, 303, admitted);
        let done = self
            .vault
            .write::<ConsentToClient, _, _>(who, Person(who.user()), &call, move |access| grants::consent(access, &client, &name));
        done.map_err(|refused| Failure::refused(&refused, &Words::ADMIN))?;
        if !self.oauth.waiting.decided(id) {
            return Err(Failure::new(404, UNKNOWN));
        }
        let code = oauth::draw("");
        let answer = [("code", Some(code.expose().as_str())), ("state", pending.state.as_deref()), ("iss", Some(&*pending.issuer))];
        let url = with_query(&pending.redirect_uri, &answer);
        self.oauth.waiting.give(self.vault.verifier(code.expose()), pending, who.clone(), vendor, self.now_ms());
        Ok(url)
    }

    /// `GET /oauth/approve`: the dashboard at which the person signed in says that they approve.
    pub(super) fn approve(&self, request: &Request) -> Reply {
        let refusal = |status, reason, text: &'static str| {
            self.vault.refuse_address(request.client, reason, status);
            Shape::Contract.error(status, text)
        };
        let params = Params::read(request.query.as_deref().unwrap_or_default()).ok();
        let token = params.as_ref().and_then(|params| params.get("token")).unwrap_or_default();
        for _ in 0..2 {
            match self.vault.admit_dashboard(token) {
                Err(why) => return Failure::unavailable(why).reply(Shape::Contract),
                Ok(SignedIn::Refused(JwtError::Expired)) => return refusal(403, Reason::ExpiredCredential, "Approval token expired"),
                Ok(SignedIn::Refused(JwtError::Invalid) | SignedIn::Principal(.., None) | SignedIn::New(_, None)) => {
                    return refusal(403, Reason::BadCredential, "Invalid approval token");
                }
                Ok(SignedIn::Principal(who, generation, Some(id))) => {
                    return match self.pending(&id) {
                        Err((status, text)) => refusal(status, Reason::NotFound, text),
                        Ok(pending) => self
                            .approved_by_dashboard(request, &id, pending, &who, generation)
                            .map_or_else(|reply| reply, |url| sent(302, url)),
                    };
                }
                Ok(SignedIn::New(email, Some(_))) => {
                    if let Err(reply) = self.seated(email, request) {
                        return reply;
                    }
                }
            }
        }
        Failure::new(503, "The service cannot answer now; nothing was done").reply(Shape::Contract)
    }

    /// `POST /oauth/approve-s2s`: the same, by the dashboard's own key.
    pub(super) fn approve_by_service(&self, request: &Request) -> Reply {
        let refusal = |status, reason, text: &str| {
            self.vault.refuse_address(request.client, reason, status);
            Shape::Contract.error(status, text.to_owned())
        };
        if !self.is_service(request) {
            return refusal(403, Reason::BadCredential, "Only the dashboard's service key may approve");
        }
        let body = crate::api::body::read(request.header("content-type"), &request.body).map_err(|error| error.to_string());
        let mut fields = match body.and_then(|body| APPROVAL.check(Part::Body, body, false).map_err(|error| error.to_string())) {
            Ok(fields) => fields,
            Err(text) => return refusal(400, Reason::Schema, &text),
        };
        let [id, email] = ["pending_id", "email"].map(|name| fields.text(name).unwrap_or_default());
        let Ok(email) = email_address(email.trim()) else { return refusal(400, Reason::Schema, "body/email must be an e-mail address") };
        let pending = match self.pending(&id) {
            Ok(pending) => pending,
            Err((status, text)) => return refusal(status, Reason::NotFound, text),
        };
        for _ in 0..2 {
            match self.vault.dashboard_speaks_for(&Phi::new(email.clone()), limits::OAUTH_CODE_LIFE) {
                Err(why) => return Failure::unavailable(why).reply(Shape::Contract),
                Ok(SignedIn::Principal(who, generation, _)) => {
                    let done = self.approved_by_dashboard(request, &id, pending, &who, generation);
                    return done.map_or_else(|reply| reply, |url| Reply::json(200, &json!({ "redirect_url": url })));
                }
                Ok(SignedIn::New(email, _)) => {
                    if let Err(reply) = self.seated(email, request) {
                        return reply;
                    }
                }
                Ok(SignedIn::Refused(_)) => return refusal(403, Reason::RevokedCredential, "This person may not approve"),
            }
        }
        Failure::new(503, "The service cannot answer now; nothing was done").reply(Shape::Contract)
    }

    /// A consent by way of the dashboard names no vendor: nobody was asked.
    fn approved_by_dashboard(
        &self,
        request: &Request,
        id: &PendingId,
        pending: Pending,
        who: &Principal,
        admitted: u64,
    ) -> Result<String, Reply> {
        let vendor = Vendor::parse(VENDOR).expect("our own word is a vendor's name");
        self.approved(request, id, pending, who, Some(admitted), vendor).map_err(|failure| failure.reply(Shape::Contract))
    }
}
