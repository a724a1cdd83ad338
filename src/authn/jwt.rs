//! Dashboard tokens: a compact JWS (RFC 7515) under HS256 (RFC 7518 section 3.2) with the claims of RFC 7519. Pure: the time comes in.
//!
//! Invariants
//! - There is one algorithm. A header that names another, or that asks for what is not known here (`crit`), is refused.
//! - Nothing of a token is interpreted before its MAC was compared, in constant time, over the bytes as they came.
//! - One text has one reading: base64url without padding or stray bits, no repeated claim, nothing behind the object; the size is bounded first.
//! - Errors carry nothing of the token.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::base::limits;
use crate::base::time::Timestamp;
use crate::config::parse::email_address;
use crate::crypto::hash::is_hmac_sha256;
use crate::crypto::secret::Secret;

/// Who makes the tokens.
pub const ISSUER: &str = "reflect-dashboard";
/// For whom they are made.
pub const AUDIENCE: &str = "reflect-memory";

/// What a good token says.
#[derive(Debug, PartialEq, Eq)]
pub struct Claims {
    /// The person, in lower case.
    pub email: String,
    /// What the token approves, if it was made for that.
    pub pending_id: Option<String>,
    /// Its end.
    pub expires_at: Timestamp,
}

/// Why a token is not good.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum JwtError {
    /// Not a token of the dashboard for us.
    #[error("not a token that the dashboard made for this server")]
    Invalid,
    /// It was, until its time was over.
    #[error("the token's time is over")]
    Expired,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    crit: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Raw {
    iss: String,
    aud: Audience,
    email: String,
    exp: u64,
    nbf: Option<u64>,
    iat: Option<u64>,
    pending_id: Option<String>,
}

/// One audience or several (RFC 7519 section 4.1.3).
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Audience {
    fn holds(&self, name: &str) -> bool {
        match self {
            Self::One(one) => one == name,
            Self::Several(all) => all.iter().any(|one| one == name),
        }
    }
}

/// Checks a token at `now`: its MAC under `secret`, algorithm, issuer, audience, address and times.
///
/// `exp` is required and has no leeway; `nbf` and `iat` may lie [`limits::CLOCK_SKEW`] ahead, as two machines' clocks do.
pub fn verify(secret: &Secret<String>, token: &str, now: Timestamp) -> Result<Claims, JwtError> {
    if token.len() > limits::JWT_BYTES_MAX {
        return Err(JwtError::Invalid);
    }
    let (signed, mac) = token.rsplit_once('.').ok_or(JwtError::Invalid)?;
    let (header, claims) = signed.split_once('.').ok_or(JwtError::Invalid)?;
    if claims.contains('.') || !is_hmac_sha256(secret, signed.as_bytes(), &decoded(mac)?) {
        return Err(JwtError::Invalid);
    }
    let header: Header = object(&decoded(header)?)?;
    if header.alg != "HS256" || header.crit.is_some() {
        return Err(JwtError::Invalid);
    }
    let raw: Raw = object(&decoded(claims)?)?;
    if raw.iss != ISSUER || !raw.aud.holds(AUDIENCE) {
        return Err(JwtError::Invalid);
    }
    let soon = now.plus(limits::CLOCK_SKEW);
    if [raw.nbf, raw.iat].into_iter().flatten().any(|from| moment(from) > soon) {
        return Err(JwtError::Invalid);
    }
    let expires_at = moment(raw.exp);
    if expires_at <= now {
        return Err(JwtError::Expired);
    }
    let email = email_address(raw.email.trim()).map_err(|_| JwtError::Invalid)?;
    Ok(Claims { email, pending_id: raw.pending_id, expires_at })
}

fn decoded(part: &str) -> Result<Vec<u8>, JwtError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| JwtError::Invalid)
}

/// A JSON object, not the list of its values that serde would also take.
fn object<T: DeserializeOwned>(json: &[u8]) -> Result<T, JwtError> {
    if json.trim_ascii_start().first() != Some(&b'{') {
        return Err(JwtError::Invalid);
    }
    serde_json::from_slice(json).map_err(|_| JwtError::Invalid)
}

/// A NumericDate (RFC 7519 section 2): seconds since 1970.
fn moment(seconds: u64) -> Timestamp {
    Timestamp::from_ms(seconds.saturating_mul(1000))
}

/// Entry point of fuzz target `jwt`: a token of these two parts, signed, and the same with another MAC; whether the signed one is good.
#[cfg(any(fuzzing, feature = "bench-internals"))]
pub fn fuzz_entry(header: &[u8], claims: &[u8]) -> bool {
    let (secret, now) = (Secret::new("the key that this target signs with".to_owned()), Timestamp::from_ms(1_800_000_000_000));
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let mut mac = crate::crypto::hash::plain_hmac_sha256(&secret, signed.as_bytes());
    let good = verify(&secret, &format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac)), now);
    if let Ok(claims) = &good {
        assert!(claims.expires_at > now && claims.email == claims.email.to_lowercase() && claims.email.contains('@'));
    }
    mac[0] ^= 1;
    assert_eq!(verify(&secret, &format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac)), now), Err(JwtError::Invalid));
    // As they come: whatever the bytes, no panic, and nobody signed them.
    if let Ok(text) = std::str::from_utf8(claims) {
        assert_eq!(verify(&secret, text, now), Err(JwtError::Invalid));
    }
    good.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::hash::plain_hmac_sha256;

    fn now() -> Timestamp {
        Timestamp::from_ms(1_800_000_000_000)
    }

    fn secret() -> Secret<String> {
        Secret::new("0123456789abcdef0123456789abcdef".to_owned())
    }

    fn signed(header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(plain_hmac_sha256(&secret(), signed.as_bytes())))
    }

    const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;
    const GOOD: &str =
        r#"{"iss":"reflect-dashboard","aud":"reflect-memory","email":" Jane@Clinic.example","exp":1800000060,"iat":1800000000,"sub":"x"}"#;

    fn check(token: &str) -> Result<Claims, JwtError> {
        verify(&secret(), token, now())
    }

    #[test]
    fn the_example_of_rfc_7515_is_under_its_own_key_and_not_for_us() {
        // Appendix A.1: the MAC is right, issuer and audience are another's.
        let token = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        assert_eq!(check(token), Err(JwtError::Invalid));
    }

    #[test]
    fn a_good_token_gives_the_person_and_the_end() {
        let claims = check(&signed(HEADER, GOOD)).unwrap();
        assert_eq!(
            claims,
            Claims { email: "jane@clinic.example".into(), pending_id: None, expires_at: Timestamp::from_ms(1_800_000_060_000) }
        );
        assert!(check(&signed(HEADER, &GOOD.replace(r#""reflect-memory""#, r#"["x","reflect-memory"]"#))).is_ok());
        let approving = check(&signed(HEADER, &GOOD.replace(r#""sub":"x""#, r#""pending_id":"p""#))).unwrap();
        assert_eq!(approving.pending_id.as_deref(), Some("p"));
    }

    #[test]
    fn another_algorithm_type_or_demand_is_refused_even_under_the_right_mac() {
        for header in [
            r#"{"alg":"none"}"#,
            r#"{"alg":"RS256"}"#,
            r#"{"alg":"HS512"}"#,
            r#"{"alg":"hs256"}"#,
            r#"{"typ":"JWT"}"#,
            r#"{"alg":"HS256","alg":"HS256"}"#,
            r#"{"alg":"HS256","crit":["exp"]}"#,
            r#"["HS256",null]"#,
            "",
        ] {
            assert_eq!(check(&signed(header, GOOD)), Err(JwtError::Invalid), "{header}");
        }
        let none = format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), URL_SAFE_NO_PAD.encode(GOOD));
        assert_eq!(check(&none), Err(JwtError::Invalid));
    }

    #[test]
    fn a_missing_repeated_or_wrong_claim_is_refused() {
        for (from, to) in [
            ("reflect-dashboard", "reflect-dashboards"),
            ("\"reflect-memory\"", "\"other\""),
            ("\"reflect-memory\"", "[]"),
            ("\"reflect-memory\"", "7"),
            ("Jane@", "Jane"),
            ("1800000060,", "\"1800000060\","),
            ("1800000060,", "-1,"),
            ("1800000060,", "1800000060.5,"),
            ("\"iat\":1800000000", "\"iat\":1800000061"),
            ("\"iat\":1800000000", "\"nbf\":1800000061"),
            ("\"sub\":\"x\"", "\"email\":\"other@clinic.example\""),
            ("\"exp\":1800000060,", ""),
            ("\"email\":", "\"mail\":"),
        ] {
            assert!(GOOD.contains(from), "{from}");
            assert_eq!(check(&signed(HEADER, &GOOD.replacen(from, to, 1))), Err(JwtError::Invalid), "{from} -> {to}");
        }
        assert_eq!(check(&signed(HEADER, &format!("{GOOD}x"))), Err(JwtError::Invalid));
        assert_eq!(check(&signed(HEADER, &GOOD.replace("1800000060", "1800000000"))), Err(JwtError::Expired));
        assert!(check(&signed(HEADER, &GOOD.replace("\"iat\":1800000000", "\"iat\":1800000060"))).is_ok(), "clocks differ a little");
    }

    #[test]
    fn no_changed_byte_is_accepted() {
        let token = signed(HEADER, GOOD);
        for at in 0..token.len() {
            for other in ["A", "_", ".", "=", "+", "é", ""] {
                let mut changed = token.clone();
                changed.replace_range(at..=at, other);
                assert!(changed == token || check(&changed).is_err(), "{at} {other}");
            }
        }
        let long = format!(r#"{{"x":"{}",{}"#, "x".repeat(limits::JWT_BYTES_MAX), &GOOD[1..]);
        for bad in ["", ".", "..", "a.b", "a.b.c.d", &format!("{token}."), &format!(" {token}"), &signed(HEADER, &long)] {
            assert_eq!(check(bad), Err(JwtError::Invalid));
        }
        assert_eq!(verify(&Secret::new("0123456789abcdef0123456789abcdeg".to_owned()), &token, now()), Err(JwtError::Invalid));
    }
}
