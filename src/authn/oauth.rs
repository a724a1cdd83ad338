//! OAuth 2.1 for the connectors of AI tools: the shapes of ids and tokens, PKCE (RFC 7636), scopes and redirect addresses. Pure.
//!
//! Invariants
//! - Tokens, client secrets and codes are 128 random bits behind a prefix; what is stored of them is a keyed hash ([`super::credential::Verifier`]).
//! - There is one challenge method, S256; a challenge is exactly what SHA-256 gives.
//! - A redirect address is one text: it is compared byte for byte, never rewritten.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::authn::principal::Vendor;
use crate::base::{hex, limits, rng};
use crate::config::parse::RESERVED_VENDORS;
use crate::crypto::hash::sha256;
use crate::crypto::secret::Secret;

/// What an access token begins with.
pub const ACCESS_PREFIX: &str = "rma_";
/// What a refresh token begins with.
pub const REFRESH_PREFIX: &str = "rmr_";
/// What a client's secret begins with.
pub const SECRET_PREFIX: &str = "rms_";
/// What a client's id begins with.
const CLIENT_PREFIX: &str = "rm_";
/// The vendor of a client that its person gave no other.
pub const VENDOR: &str = "oauth";
/// What a client may ask for.
pub const SCOPES: [&str; 2] = ["mcp:read", "mcp:write"];

/// A registered client: `rm_` and 16 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClientId(pub [u8; 8]);

impl ClientId {
    /// A new one.
    pub fn draw() -> Self {
        Self(rng::array())
    }

    /// Reads the text form.
    pub fn parse(text: &str) -> Option<Self> {
        hex::decode(text.strip_prefix(CLIENT_PREFIX)?)?.try_into().ok().map(Self)
    }

    /// The text form.
    pub fn text(&self) -> String {
        format!("{CLIENT_PREFIX}{}", hex::encode(&self.0))
    }
}

/// Draws a token, a secret or a code: `prefix` and 32 hex digits.
pub fn draw(prefix: &str) -> Secret<String> {
    Secret::new(format!("{prefix}{}", &*zeroize::Zeroizing::new(hex::encode(&*zeroize::Zeroizing::new(rng::array::<16>())))))
}

/// The SHA-256 that a code challenge of S256 holds; `None` if it is none (RFC 7636 section 4.2).
pub fn challenge(text: &str) -> Option<[u8; 32]> {
    URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}

/// Whether `verifier` is what `challenge` was made of: 43..128 unreserved characters (RFC 7636 section 4.1) with that hash.
pub fn fits(challenge: &[u8; 32], verifier: &str) -> bool {
    let lawful = (43..=128).contains(&verifier.len()) && verifier.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b));
    lawful && Secret::new(*challenge).matches(&sha256(&[verifier.as_bytes()]))
}

/// What a grant allows: reading always, writing perhaps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scope {
    /// Whether it writes.
    pub write: bool,
}

impl Scope {
    /// Reads a `scope` parameter (RFC 6749 section 3.3); absent or empty asks for everything. `None` if it names what is not known here.
    pub fn parse(text: Option<&str>) -> Option<Self> {
        let mut asked = text.unwrap_or_default().split(' ').filter(|scope| !scope.is_empty()).peekable();
        if asked.peek().is_none() {
            return Some(Self { write: true });
        }
        let mut write = false;
        for scope in asked {
            write |= scope == SCOPES[1];
            if !SCOPES.contains(&scope) {
                return None;
            }
        }
        Some(Self { write })
    }

    /// As a token's answer says it.
    pub fn text(self) -> &'static str {
        if self.write { "mcp:read mcp:write" } else { "mcp:read" }
    }
}

/// Schemes without a dot that AI tools have for themselves (Cursor, VS Code and what is made of it, Claude and others).
const TOOL_SCHEMES: [&str; 20] = [
    "antigravity",
    "cherrystudio",
    "claude",
    "code-oss",
    "cursor",
    "goose",
    "jetbrains",
    "kiro",
    "lmstudio",
    "positron",
    "raycast",
    "trae",
    "void",
    "vscode",
    "vscode-insiders",
    "vscodium",
    "warp",
    "windsurf",
    "windsurf-next",
    "zed",
];

/// Names with a dot that a system has for programs of its own.
const SYSTEM_SCHEMES: [&str; 3] = ["microsoft", "ms", "windows"];

/// Whether a scheme is an application's own: one that tools are known by, or the name of a domain backwards (RFC 8252 section 7.1), which begins
/// with what may be a top-level domain. Every other one may have a meaning to the system that no client should send people to (`smb`, `ms-msdt`).
fn is_applications(scheme: &str) -> bool {
    let lawful =
        |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-".contains(&b));
    let domain = scheme.split_once('.').is_some_and(|(top, rest)| {
        top.len() > 1 && !SYSTEM_SCHEMES.contains(&top) && top.bytes().all(|b| b.is_ascii_lowercase()) && rest.split('.').all(lawful)
    });
    domain || TOOL_SCHEMES.contains(&scheme)
}

/// Whether people may be sent back to `text`: https; http on this machine alone (RFC 8252 section 7.3); or an application's own scheme (7.1).
/// No fragment, no user information, nothing that a header or a page could misread.
pub fn is_redirect_uri(text: &str) -> bool {
    let plain = text.bytes().all(|b| b.is_ascii_graphic() && !b"\"'<>\\^`{|}#".contains(&b));
    let Some((scheme, rest)) = text.split_once(':').filter(|_| plain && text.len() <= limits::REDIRECT_URI_BYTES_MAX) else { return false };
    let host = || {
        let authority = rest.strip_prefix("//")?.split(['/', '?']).next().filter(|authority| !authority.contains('@'))?;
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (authority, None),
        };
        let named = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(literal) => literal.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-".contains(&b)),
        };
        (named && port.is_none_or(|port| port.parse::<u16>().is_ok())).then_some(host)
    };
    match scheme {
        "https" => host().is_some(),
        "http" => matches!(host(), Some("localhost" | "127.0.0.1" | "[::1]")),
        own => is_applications(own) && rest.starts_with('/'),
    }
}

/// Where a redirect address leads, as a person should read it: scheme and host, or the application's scheme.
pub fn origin(redirect_uri: &str) -> &str {
    // The first colon ends the scheme, as in the check of an address.
    let (scheme, rest) = redirect_uri.split_once(':').unwrap_or((redirect_uri, ""));
    let Some(rest) = rest.strip_prefix("//").filter(|_| matches!(scheme, "https" | "http")) else { return scheme };
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    &redirect_uri[..scheme.len() + 3 + host.len()]
}

/// A vendor that a person may confirm for a client: a lawful name that the program does not give out itself, or [`VENDOR`].
pub fn vendor(name: &str) -> Option<Vendor> {
    Vendor::parse(name).filter(|_| name == VENDOR || !RESERVED_VENDORS.contains(&name))
}

/// The vendor that a client's own name suggests: its letters and digits in lower case.
pub fn suggested_vendor(client_name: &str) -> Option<Vendor> {
    let name: String = client_name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    vendor(&name).filter(|vendor| vendor.name() != VENDOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pkce_matches_the_example_of_rfc_7636() {
        // Appendix B.
        let challenge = challenge("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM").unwrap();
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        assert!(fits(&challenge, verifier));
        for bad in [
            "",
            &verifier[1..],
            &verifier.to_uppercase(),
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
            &"a".repeat(129),
            &format!("{verifier} "),
        ] {
            assert!(!fits(&challenge, bad));
        }
        for bad in [
            "",
            "abc",
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM=",
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cMA",
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw+cM",
        ] {
            assert_eq!(super::challenge(bad), None, "{bad}");
        }
    }

    #[test]
    fn ids_and_tokens_have_the_contracts_shapes() {
        let id = ClientId::draw();
        assert_eq!((ClientId::parse(&id.text()), id.text().len()), (Some(id), 19));
        for bad in ["", "rm_", "rm_0", "RM_0123456789abcdef", "rm_0123456789ABCDEF", "rm_0123456789abcdef0"] {
            assert_eq!(ClientId::parse(bad), None);
        }
        for prefix in [ACCESS_PREFIX, REFRESH_PREFIX, SECRET_PREFIX] {
            let token = draw(prefix);
            assert!(token.expose().len() == 36 && token.expose().starts_with(prefix) && draw(prefix).expose() != token.expose());
        }
    }

    #[test]
    fn scopes_are_the_two_that_are_known() {
        assert_eq!(Scope::parse(None), Some(Scope { write: true }));
        assert_eq!(Scope::parse(Some("mcp:read")), Some(Scope { write: false }));
        assert_eq!(Scope::parse(Some("mcp:write  mcp:read")).map(Scope::text), Some("mcp:read mcp:write"));
        for bad in ["mcp:admin", "mcp:read,mcp:write", "MCP:READ", "openid mcp:read"] {
            assert_eq!(Scope::parse(Some(bad)), None);
        }
    }

    #[test]
    fn people_are_sent_back_to_https_to_this_machine_or_to_an_application() {
        for good in [
            "https://claude.ai/api/mcp/auth_callback",
            "https://example.com",
            "https://example.com:8443/cb?x=1",
            "http://localhost:33418/callback",
            "http://127.0.0.1/",
            "http://[::1]:1/cb",
            "cursor://anysphere.cursor-mcp/oauth/callback",
            "vscode://saoudrizwan.claude-dev/callback",
            "vscode-insiders://x/cb",
            "com.example.app:/oauth",
            "com.example-2.app+x://oauth",
        ] {
            assert!(is_redirect_uri(good), "{good}");
        }
        for bad in [
            "",
            "x",
            "https:",
            "https://",
            "https:///x",
            "http://example.com/",
            "http://localhost.evil.example/",
            "http://127.0.0.1.evil.example/",
            "http://localhost@evil.example/",
            "https://a@b/",
            "https://a/#b",
            "javascript:alert(1)",
            "javascript://x/%0aalert(1)",
            "data:text/html,x",
            "file:///etc/passwd",
            "JAVASCRIPT:/x",
            "blob:/x",
            "a:/x",
            "https://a b/",
            "https://a/\r\nX: y",
            "https://a/\"><script>",
            "https://ü/",
            "//evil.example",
            "/relative",
            "https://a:99999/",
            "https://a:b/",
            "https://[::1/",
            "com.example.app:oauth",
            "https:\\\\evil.example",
            "https://a;b/",
            &format!("https://a/{}", "x".repeat(3000)),
        ] {
            assert!(!is_redirect_uri(bad), "{bad}");
        }
        assert_eq!(origin("https://example.com:8443/cb?x=1"), "https://example.com:8443");
        assert_eq!(origin("cursor://anysphere/oauth"), "cursor");
        assert_eq!(origin("evil:/;sandbox;x://"), "evil");
        assert_eq!(origin("com.example.app:/cb?next=https://example.com"), "com.example.app");
        assert_eq!(origin("com.example.app:/oauth"), "com.example.app");
    }

    /// What was not known to be dangerous was allowed: a person's browser was sent to whatever of the system answers to such a scheme.
    #[test]
    fn nobody_is_sent_to_a_program_of_the_system() {
        for scheme in [
            "smb",
            "ldap",
            "ldaps",
            "ssh",
            "telnet",
            "sftp",
            "ms-msdt",
            "search-ms",
            "ms-settings",
            "ms-word",
            "jar",
            "tel",
            "sms",
            "facetime",
            "mailto",
            "vnc",
            "rdp",
            "nfs",
            "afp",
            "itms-apps",
            "steam",
            "shell",
            "myapp",
            "x-apple.systempreferences",
            "Com.example",
            "com.",
            ".example",
            "com..example",
            "-a.b",
            "1a.b",
        ] {
            for rest in [":/x", "://host/x"] {
                assert!(!is_redirect_uri(&format!("{scheme}{rest}")), "{scheme}{rest}");
            }
        }
    }

    #[test]
    fn a_clients_name_suggests_a_vendor_and_never_one_of_ours() {
        let name = |client: &str| suggested_vendor(client).map(|vendor| vendor.name().to_owned());
        assert_eq!(name("Claude Code (ward 3)").as_deref(), Some("claudecodeward3"));
        for ours in ["API", "User", "dash-board", "o auth", "", "ü", &"x".repeat(51)] {
            assert_eq!(name(ours), None, "{ours}");
        }
        assert!(vendor("oauth").is_some() && vendor("api").is_none() && vendor("Claude").is_none());
    }
}
