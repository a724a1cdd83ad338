//! Dashboard tokens: a header and, after the first line's end, claims; signed by the target, so that what stands behind the MAC is reached.

use rosemary::authn::jwt;

/// Words of headers and claims.
pub const WORDS: &[&str] = &[
    "\"alg\":\"HS256\"",
    "\"alg\":\"none\"",
    "\"crit\":[]",
    "\"iss\":\"reflect-dashboard\"",
    "\"aud\":\"reflect-memory\"",
    "\"aud\":[\"reflect-memory\"]",
    "\"email\":\"a@b.c\"",
    "\"exp\":1800000300",
    "\"exp\":18446744073709551615",
    "\"nbf\":1800000000",
    "\"iat\":1800000061",
    "\"pending_id\":\"x\"",
    "null",
    "\n",
    "{",
    "}",
    ",",
    "[",
    "]",
    "\\u0000",
    "1e3",
    "-1",
];

/// The target.
pub fn run(bytes: &[u8]) {
    let at = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    jwt::fuzz_entry(&bytes[..at], bytes.get(at + 1..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files;

    #[test]
    fn the_seeds_are_good_tokens() {
        let seeds = files(std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/seeds/jwt")));
        assert!(seeds.len() >= 2);
        for seed in seeds {
            let at = seed.iter().position(|byte| *byte == b'\n').unwrap();
            assert!(jwt::fuzz_entry(&seed[..at], &seed[at + 1..]));
        }
    }
}
