//! The pages of consent: plain HTML that needs no script, for any browser and any reader.
//!
//! Invariants
//! - Whatever a client said of itself is escaped; nothing of it reaches an attribute unquoted, a style or an address of ours.
//! - A page is not framed, loads nothing, runs nothing, and its form goes to this server and to the address that is being consented to, nowhere else.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::authn::oauth::{VENDOR, origin, suggested_vendor};
use crate::crypto::hash::sha256;
use crate::http::Reply;

use super::waiting::Pending;

const STYLE: &str = "body{font:1.1rem/1.5 system-ui,sans-serif;max-width:38rem;margin:2rem auto;padding:0 1rem;color:#111;background:#fff}\
    h1{font-size:1.5rem}label,legend{font-weight:600}input[type=password]{display:block;width:100%;font:inherit;padding:.5rem;margin:.25rem 0 1rem;box-sizing:border-box}\
    fieldset{margin:0 0 1rem;border:1px solid #767676}button{font:inherit;padding:.5rem 1.5rem;margin:0 .5rem 0 0}.error{border-left:.3rem solid #b00020;padding:.25rem 1rem}\
    code{overflow-wrap:anywhere}";

/// Text between tags or within a quoted attribute.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // What reorders what a person reads, or cannot be seen.
            c if c.is_control()
                || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}') =>
            {
                out.push('\u{fffd}')
            }
            c => out.push(c),
        }
    }
    out
}

/// A page, with the header fields that keep it alone. `goes_to`: where its form may lead beside this server.
fn page(status: u16, title: &str, body: &str, goes_to: Option<&str>) -> Reply {
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <meta name=\"robots\" content=\"noindex\"><title>{title}</title><style>{STYLE}</style></head><body><main>{body}</main></body></html>"
    );
    let style = STANDARD.encode(sha256(&[STYLE.as_bytes()]));
    let goes_to = goes_to.map_or(String::new(), |origin| format!(" {origin}"));
    let policy =
        format!("default-src 'none'; style-src 'sha256-{style}'; form-action 'self'{goes_to}; frame-ancestors 'none'; base-uri 'none'");
    Reply::bytes(status, "text/html; charset=utf-8", html.into_bytes()).header("content-security-policy", policy)
}

/// A page that says why nothing can be decided.
pub fn refusal(status: u16, why: &str) -> Reply {
    page(status, "Rosemary: not possible", &format!("<h1>This is not possible</h1><p>{}</p>", escaped(why)), None)
}

/// Where a form's answer may send the browser, as a source of a content security policy.
fn source(redirect_uri: &str) -> String {
    let origin = origin(redirect_uri);
    match origin.split_once("://") {
        // A policy knows no IPv6 literal: the scheme has to do.
        Some((scheme, host)) if host.starts_with('[') => format!("{scheme}:"),
        Some(_) => origin.to_owned(),
        None => format!("{origin}:"),
    }
}

/// The question. `wrong` says what was wrong with the last answer.
pub fn consent(status: u16, pending: &Pending, id: &str, csrf: &str, vendors: &[String], wrong: Option<&str>) -> Reply {
    let name = match pending.client.name.trim() {
        "" => "A client without a name".to_owned(),
        name => escaped(name),
    };
    let mut choices =
        vec![(VENDOR.to_owned(), "none of these: it sees what is open to every AI tool, and its memories say “oauth”".to_owned())];
    let suggested = suggested_vendor(&pending.client.name).map(|vendor| vendor.name().to_owned());
    choices.extend(
        suggested
            .iter()
            .cloned()
            .chain(vendors.iter().filter(|vendor| Some(*vendor) != suggested.as_ref()).cloned())
            .map(|vendor| (vendor.clone(), vendor)),
    );
    let choices: String = choices
        .iter()
        .enumerate()
        .map(|(i, (vendor, text))| {
            let checked = if i == 0 { " checked" } else { "" };
            let (vendor, text) = (escaped(vendor), escaped(text));
            format!("<div><input type=\"radio\" name=\"vendor\" id=\"v{i}\" value=\"{vendor}\"{checked}> <label for=\"v{i}\">{text}</label></div>")
        })
        .collect();
    let may = if pending.scope.write {
        "read the memories that are open to it, write new ones, and change those that a program of the same name below wrote"
    } else {
        "read the memories that are open to it"
    };
    let error = wrong.map_or(String::new(), |wrong| format!("<p class=\"error\" role=\"alert\">{}</p>", escaped(wrong)));
    let described = if wrong.is_some() { " aria-invalid=\"true\"" } else { "" };
    let body = format!(
        "<h1>May “{name}” use your memories?</h1>{error}\
         <p>A program that calls itself <strong>{name}</strong> asks to {may}. Nobody has checked that name. \
         Your answer goes to <code>{to}</code>. Allow it only if you started this yourself, just now.</p>\
         <form method=\"post\" action=\"/oauth/consent\"><input type=\"hidden\" name=\"pending_id\" value=\"{id}\">\
         <input type=\"hidden\" name=\"csrf\" value=\"{csrf}\">\
         <label for=\"key\">Your key (begins with rm_live_)</label>\
         <input type=\"password\" id=\"key\" name=\"key\" required autocomplete=\"off\" spellcheck=\"false\"{described}>\
         <fieldset><legend>Which AI tool is it?</legend>{choices}</fieldset>\
         <button name=\"decision\" value=\"allow\">Allow</button>\
         <button name=\"decision\" value=\"deny\" formnovalidate>Do not allow</button></form>",
        to = escaped(origin(&pending.redirect_uri)),
        id = escaped(id),
        csrf = escaped(csrf),
    );
    page(status, "Rosemary: allow a program to use your memories", &body, Some(&source(&pending.redirect_uri)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authn::oauth::{ClientId, Scope};
    use crate::store::grants::Client;
    use std::sync::Arc;

    fn shown(name: &str, redirect_uri: &str) -> (String, String) {
        let client = Client { id: ClientId([1; 8]), secret: None, name: name.into(), redirect_uris: vec![redirect_uri.into()] };
        let scope = Scope { write: false };
        let pending = Pending {
            client: Arc::new(client),
            redirect_uri: redirect_uri.into(),
            state: None,
            challenge: [0; 32],
            scope,
            issuer: String::new(),
        };
        let reply = consent(200, &pending, "0", "c", &["claude".into(), "cursor".into()], None);
        let policy = reply.headers.iter().find(|(name, _)| *name == "content-security-policy").unwrap().1.clone();
        (String::from_utf8(reply.body.clone()).unwrap(), policy)
    }

    #[test]
    fn what_a_client_says_of_itself_is_text_and_nothing_else() {
        let (html, _) = shown("\"><script>alert(1)</script><img src=x onerror='y'>\u{202e}", "https://a.example/cb");
        assert!(!html.contains("<script") && !html.contains("<img") && !html.contains('\u{202e}'));
        assert!(html.contains("&lt;script&gt;") && html.matches("<form").count() == 1);
        assert!(!html.contains("alert(1)</script>"));
    }

    #[test]
    fn a_page_loads_nothing_is_not_framed_and_its_form_goes_where_it_says() {
        let (html, policy) = shown("Claude", "https://claude.ai/cb");
        assert!(policy.starts_with("default-src 'none'; style-src 'sha256-") && policy.contains("frame-ancestors 'none'"));
        assert!(policy.contains("form-action 'self' https://claude.ai;"));
        assert!(html.contains("value=\"oauth\" checked") && html.matches("value=\"claude\"").count() == 1 && !html.contains("src="));
        assert!(html.contains("<html lang=\"en\">") && html.contains("<label for=\"key\">"));
        assert!(shown("", "http://[::1]:9/cb").1.contains("form-action 'self' http:;"));
        assert!(shown("", "cursor://x/cb").1.contains("form-action 'self' cursor:;"));
    }
}
