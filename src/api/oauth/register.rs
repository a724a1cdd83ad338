//! `POST /register`: a client makes itself known (RFC 7591). It is kept in memory until somebody consents to it.

use serde_json::{Map, Value, json};

use super::Refused;
use crate::api::body;
use crate::api::run::Api;
use crate::authn::oauth::{self, ClientId, SECRET_PREFIX, Scope};
use crate::base::limits;
use crate::http::{Reply, Request};
use crate::store::grants::Client;

/// What a client may say of how it authenticates; the first is that it does not.
const METHODS: [&str; 3] = ["none", "client_secret_post", "client_secret_basic"];

/// A registration that was checked.
#[derive(Debug, PartialEq, Eq)]
pub struct Registration {
    /// What the client calls itself.
    pub name: String,
    /// Where people may be sent back to.
    pub redirect_uris: Vec<String>,
    /// One of three methods.
    pub method: &'static str,
    /// What it will ask for.
    pub scope: Scope,
}

fn texts(value: &Value) -> Option<Vec<&str>> {
    value.as_array()?.iter().map(Value::as_str).collect()
}

/// Checks what a client says of itself; keys that are not known here mean nothing (RFC 7591 section 2).
///
/// Errors: the error's code and text.
pub fn check(said: &Map<String, Value>) -> Result<Registration, (&'static str, &'static str)> {
    const WRONG: &str = "invalid_client_metadata";
    let given = |name: &str| said.get(name).filter(|value| !value.is_null());
    let uris = given("redirect_uris").and_then(texts).filter(|uris| (1..=limits::REDIRECT_URIS_MAX).contains(&uris.len()));
    let uris = uris.ok_or(("invalid_redirect_uri", "redirect_uris must be a list of one to ten addresses"))?;
    if !uris.iter().all(|uri| oauth::is_redirect_uri(uri)) {
        return Err((
            "invalid_redirect_uri",
            "An address must be https, http on this machine's loopback, or of a known tool's scheme or one with a dot (com.example.app:/), without fragment",
        ));
    }
    let name = given("client_name").map_or(Some(""), Value::as_str).filter(|name| name.chars().count() <= limits::CLIENT_NAME_CHARS_MAX);
    let name = name.ok_or((WRONG, "client_name must be a text of at most 100 characters"))?;
    let method = given("token_endpoint_auth_method").map_or(Some(METHODS[2]), Value::as_str);
    let method = METHODS.into_iter().find(|known| Some(*known) == method);
    let method = method.ok_or((WRONG, "token_endpoint_auth_method must be none, client_secret_post or client_secret_basic"))?;
    let grants = given("grant_types").map_or(Some(vec!["authorization_code"]), texts);
    let lawful = |grants: &Vec<&str>| {
        grants.contains(&"authorization_code") && grants.iter().all(|g| ["authorization_code", "refresh_token"].contains(g))
    };
    grants.filter(lawful).ok_or((WRONG, "grant_types must hold authorization_code, and may hold refresh_token"))?;
    let responses = given("response_types").map_or(Some(vec!["code"]), texts);
    responses.filter(|types| types == &["code"]).ok_or((WRONG, "response_types must be code alone"))?;
    let scope = given("scope").map_or(Some(None), |scope| scope.as_str().map(Some));
    let scope = scope.and_then(Scope::parse).ok_or((WRONG, "scope may hold mcp:read and mcp:write"))?;
    Ok(Registration { name: name.to_owned(), redirect_uris: uris.into_iter().map(str::to_owned).collect(), method, scope })
}

impl Api {
    /// `POST /register`
    pub(super) fn register(&self, request: &Request) -> Result<Reply, Refused> {
        if let Some(taken) = self.oauth.registrations.take(request.client, self.now_ms()).filter(|taken| !taken.allowed) {
            return Ok(self.too_many_strangers(request, &taken));
        }
        let wrong = || Refused::of("invalid_client_metadata", "The body must be a JSON object");
        let Ok(Some(Value::Object(said))) = body::read(request.header("content-type").filter(|kind| kind.contains("json")), &request.body)
        else {
            return Err(wrong());
        };
        let Registration { name, redirect_uris, method, scope } = check(&said).map_err(|(error, text)| Refused::of(error, text))?;
        let secret = (method != METHODS[0]).then(|| oauth::draw(SECRET_PREFIX));
        let id = ClientId::draw();
        let mut answer = json!({
            "client_id": id.text(),
            "client_id_issued_at": self.vault.clock().now().ms() / 1000,
            "client_name": name,
            "redirect_uris": redirect_uris,
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": method,
            "scope": scope.text(),
        });
        if let Some(secret) = &secret {
            answer["client_secret"] = json!(secret.expose());
            answer["client_secret_expires_at"] = json!(0);
        }
        let secret = secret.map(|secret| self.vault.verifier(secret.expose()).0);
        self.oauth.waiting.register(Client { id, secret, name, redirect_uris }, request.client, self.now_ms());
        Ok(Reply::json(201, &answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(value: Value) -> Result<Registration, &'static str> {
        check(value.as_object().unwrap()).map_err(|(error, _)| error)
    }

    #[test]
    fn a_registration_is_what_it_says_and_unknown_keys_mean_nothing() {
        let uri = "https://a.example/cb";
        let plain = said(json!({ "redirect_uris": [uri], "logo_uri": 7, "contacts": [{}], "client_name": null })).unwrap();
        assert_eq!((plain.method, plain.scope, plain.name.as_str()), ("client_secret_basic", Scope { write: true }, ""));
        let full = json!({ "redirect_uris": [uri], "client_name": "x", "token_endpoint_auth_method": "none", "scope": "mcp:read",
            "grant_types": ["refresh_token", "authorization_code"], "response_types": ["code"] });
        assert_eq!(said(full).unwrap().scope, Scope { write: false });
        for bad in [json!([]), json!("x"), json!([7]), json!([uri, "javascript:alert(1)"]), json!(vec![uri; 11]), Value::Null] {
            assert_eq!(said(json!({ "redirect_uris": bad })), Err("invalid_redirect_uri"));
        }
        for (key, value) in [
            ("client_name", json!("ä".repeat(101))),
            ("client_name", json!(7)),
            ("token_endpoint_auth_method", json!("private_key_jwt")),
            ("grant_types", json!(["implicit"])),
            ("grant_types", json!(["refresh_token"])),
            ("response_types", json!(["token"])),
            ("response_types", json!([])),
            ("scope", json!("admin")),
            ("scope", json!(["mcp:read"])),
        ] {
            let mut value = json!({ "redirect_uris": [uri], key: value });
            assert_eq!(said(value.take()), Err("invalid_client_metadata"), "{key}");
        }
    }
}
