//! `POST /token` and `POST /revoke`: codes and refresh tokens become tokens, once; what is shown again ends the grant.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

use super::waiting::{Code, Shown};
use super::{Params, Refused};
use crate::api::reply::{Failure, Words};
use crate::api::run::Api;
use crate::audit::Reason;
use crate::authn::oauth::{ClientId, Scope, fits};
use crate::authn::{GrantRef, Principal};
use crate::base::id::CredentialId;
use crate::base::limits;
use crate::crypto::secret::Secret;
use crate::http::{Reply, Request, percent_decode};
use crate::policy::action::{EndReplayed, IssueTokens, Person, RefreshTokens, RevokeGrant};
use crate::store::gate::{self, Receipt};
use crate::store::grants::{self, Client, Held, Tokens, What};
use crate::store::writer::Unavailable;

impl Api {
    /// Which client asks: its id, and its secret where it has one (RFC 6749 section 2.3.1).
    fn client(&self, request: &Request, params: &Params) -> Result<Arc<Client>, Refused> {
        let basic = request
            .header("authorization")
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"));
        let pair = match basic {
            None => None,
            Some((_, encoded)) => {
                let text =
                    STANDARD.decode(encoded.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(Refused::client)?;
                let text = Secret::new(text);
                let (id, secret) = text.expose().split_once(':').ok_or_else(Refused::client)?;
                let part = |part| percent_decode(part, true).map(|part| part.into_owned()).ok_or_else(Refused::client);
                Some((part(id)?, Secret::new(part(secret)?)))
            }
        };
        let (id, secret) = match (&pair, params.get("client_id"), params.get("client_secret")) {
            (Some(_), _, Some(_)) => return Err(Refused::request("A client shows its secret once")),
            (Some((id, _)), Some(other), None) if id != other => return Err(Refused::client()),
            (Some((id, secret)), _, None) => (id.as_str(), Some(secret.expose().as_str()).filter(|secret| !secret.is_empty())),
            (None, Some(id), secret) => (id, secret),
            (None, None, _) => return Err(Refused::request("client_id is required")),
        };
        let client = ClientId::parse(id)
            .map(|id| self.oauth_client(id))
            .transpose()
            .map_err(Refused::unavailable)?
            .flatten()
            .ok_or_else(Refused::client)?;
        // Verifiers are compared, and those tell nothing of a secret, however long it takes.
        if client.secret != secret.map(|secret| self.vault.verifier(secret).0) {
            return Err(Refused::client());
        }
        Ok(client)
    }

    /// `POST /token`
    pub(super) fn token(&self, request: &Request) -> Result<Reply, Refused> {
        let params = Params::of_form(request)?;
        let client = self.client(request, &params)?;
        self.check_resource(&params, &self.issuer(request))?;
        match params.required("grant_type")? {
            "authorization_code" => self.exchange(request, &params, &client),
            "refresh_token" => self.refresh(request, &params, &client),
            _ => Err(Refused::of("unsupported_grant_type", "grant_type must be authorization_code or refresh_token")),
        }
    }

    /// The first tokens of a code.
    fn exchange(&self, request: &Request, params: &Params, client: &Client) -> Result<Reply, Refused> {
        let verifier = self.vault.verifier(params.required("code")?);
        let proof = params.required("code_verifier")?;
        let redirect = params.get("redirect_uri");
        let shown = self.oauth.waiting.show(
            &verifier,
            |asked| asked.client.id == client.id && redirect.is_none_or(|uri| uri == asked.redirect_uri) && fits(&asked.challenge, proof),
            self.now_ms(),
        );
        let code = match shown {
            Shown::Good(code) => code,
            Shown::Bad | Shown::Again(None) => return Err(Refused::grant()),
            Shown::Again(Some((grant, code))) => return self.replayed(request, &code, grant),
        };
        let (tokens, drawn) = grants::draw(&self.vault);
        let (who, scope, id) = (Principal::of_consent(&code.by, code.vendor.clone()), code.asked.scope, client.id);
        let call = self.call(request, 200, None);
        let done =
            self.vault.write::<IssueTokens, _, _>(&who, Person(who.user()), &call, move |access| grants::issue(access, id, scope, drawn));
        match done {
            Ok(done) => {
                let ((grant, lasts), receipt) = done.into_parts();
                if self.oauth.waiting.settle(&verifier, Some(grant)) {
                    return self.replayed(request, &code, grant);
                }
                Ok(given(&tokens, scope, lasts, &receipt))
            }
            Err(refused) => {
                // What surely did not happen may be asked again.
                if matches!(&refused, gate::Refused::Unavailable(why) if !matches!(why, Unavailable::Unknown(_))) {
                    self.oauth.waiting.settle(&verifier, None);
                }
                Ok(self.not_given(&refused))
            }
        }
    }

    /// New tokens for a refresh token.
    fn refresh(&self, request: &Request, params: &Params, client: &Client) -> Result<Reply, Refused> {
        let presented = params.required("refresh_token")?;
        let held =
            self.vault.held(presented).map_err(Refused::unavailable)?.filter(|held| held.client == client.id).ok_or_else(Refused::grant)?;
        match held.what {
            What::Access => return Err(Refused::grant()),
            What::Spent => return self.ended(request, &held.who, held.grant),
            What::Refresh => {}
        }
        let wider =
            params.get("scope").is_some_and(|scope| Scope::parse(Some(scope)).is_none_or(|asked| asked.write && held.who.is_read_only()));
        if wider {
            return Err(Refused::of("invalid_scope", "scope may not grow"));
        }
        if self.over_limit(&held.who) {
            return Ok(Reply::json(429, &json!({ "error": "slow_down", "error_description": "Too many requests with this grant" }))
                .header("retry-after", "60"));
        }
        let (tokens, drawn) = grants::draw(&self.vault);
        let (who, verifier) = (held.who.clone(), self.vault.verifier(presented));
        let call = self.call(request, 200, None);
        let done = self
            .vault
            .write::<RefreshTokens, _, _>(&who, Person(who.user()), &call, move |access| grants::refresh(access, verifier, drawn));
        match done {
            Ok(done) => match done.into_parts() {
                (Some((scope, lasts)), receipt) => Ok(given(&tokens, scope, lasts, &receipt)),
                (None, receipt) => Ok(refusal(&Refused::grant()).header("x-audit-index", receipt.index().to_string())),
            },
            // Somebody else used it a moment ago: two hold it.
            Err(gate::Refused::Work(grants::Refusal::Gone, _)) if self.is_spent(presented) => self.ended(request, &held.who, held.grant),
            Err(refused) => Ok(self.not_given(&refused)),
        }
    }

    fn is_spent(&self, presented: &str) -> bool {
        self.vault.held(presented).is_ok_and(|held| held.is_some_and(|held| held.what == What::Spent))
    }

    /// A code that gave `grant` was shown again.
    fn replayed(&self, request: &Request, code: &Code, grant: CredentialId) -> Result<Reply, Refused> {
        let end = self.vault.clock().now().plus(limits::OAUTH_CODE_LIFE);
        let reference = GrantRef { id: grant, vendor: code.vendor.clone(), write: false };
        self.ended(request, &Principal::of_grant(code.by.tenant(), code.by.user(), &reference, end), grant)
    }

    /// Ends a grant of which something used up was shown again, on record.
    fn ended(&self, request: &Request, who: &Principal, grant: CredentialId) -> Result<Reply, Refused> {
        let call = self.call(request, 400, None);
        let done = self.vault.write::<EndReplayed, _, _>(who, grant, &call, grants::end);
        match done {
            Ok(done) => Ok(refusal(&Refused::grant()).header("x-audit-index", done.into_parts().1.index().to_string())),
            Err(refused) => Ok(self.not_given(&refused)),
        }
    }

    /// Why the gate gave nothing, in the shape of a token's refusal. It is recorded already.
    fn not_given(&self, refused: &gate::Refused<grants::Refusal>) -> Reply {
        let failure = Failure::refused(refused, &Words::ADMIN);
        let said = match refused {
            gate::Refused::Work(grants::Refusal::GrantsFull | grants::Refusal::ClientsFull, _) => {
                Refused { status: 400, error: "access_denied", description: failure.text.to_string(), reason: Reason::Quota }
            }
            gate::Refused::Unavailable(why) => Refused::unavailable(*why),
            gate::Refused::Fault(_) | gate::Refused::Work(grants::Refusal::Store(_), _) => {
                Refused { status: 500, error: "server_error", description: failure.text.to_string(), reason: Reason::WorkFailed }
            }
            _ => Refused::grant(),
        };
        let reply = refusal(&said);
        match failure.index {
            Some(index) => reply.header("x-audit-index", index.to_string()),
            None => reply,
        }
    }

    /// `POST /revoke`
    pub(super) fn revoke(&self, request: &Request) -> Result<Reply, Refused> {
        let params = Params::of_form(request)?;
        let client = self.client(request, &params)?;
        let presented = params.required("token")?;
        // Of a token that is none, nothing is said but that it does not work (RFC 7009 section 2.2).
        let Some(Held { who, grant, client: owner, .. }) = self.vault.held(presented).map_err(Refused::unavailable)? else {
            return Ok(Reply::empty(200));
        };
        if owner != client.id {
            return Err(Refused::grant());
        }
        let call = self.call(request, 200, None);
        match self.vault.write::<RevokeGrant, _, _>(&who, grant, &call, grants::end) {
            Ok(done) => Ok(Reply::empty(200).header("x-audit-index", done.into_parts().1.index().to_string())),
            Err(gate::Refused::Work(grants::Refusal::NotFound, _) | gate::Refused::Denied(..) | gate::Refused::Revoked(_)) => {
                Ok(Reply::empty(200))
            }
            Err(refused) => Ok(self.not_given(&refused)),
        }
    }
}

fn refusal(refused: &Refused) -> Reply {
    let reply = Reply::json(refused.status, &json!({ "error": refused.error, "error_description": refused.description }));
    if refused.status == 503 { reply.header("retry-after", "1") } else { reply }
}

/// The answer with tokens: the only one that holds them.
fn given(tokens: &Tokens, scope: Scope, lasts: Duration, receipt: &Receipt) -> Reply {
    let answer = json!({
        "access_token": tokens.access.expose(),
        "token_type": "bearer",
        "expires_in": lasts.as_secs(),
        "scope": scope.text(),
        "refresh_token": tokens.refresh.expose(),
    });
    Reply::json(200, &answer).header("x-audit-index", receipt.index().to_string())
}
