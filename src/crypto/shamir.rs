//! Splitting a 256-bit secret into shares, any `need` of which give it back, and fewer of which say nothing about it (Shamir, 1979).
//!
//! Each byte of the secret is the constant term of a random polynomial of degree `need - 1` over GF(2^8) with the polynomial of AES (FIPS 197
//! section 4.2); share x holds the polynomials' values at x, for x from 1. Multiplication and inversion take the same steps whatever they
//! multiply: no table is looked up.
//!
//! A share as text, to be printed and typed again: 80 characters of Crockford's base 32 in groups of five, of these 50 bytes:
//! `version 1 | instance 4 | set 4 | need 1 | of 1 | number 1 | values 32 | first 6 bytes of SHA-256 over all before`.
//!
//! Invariants
//! - A share says of which instance and set it is, so that shares of two sets are never joined.
//! - A mistyped character is seen; case, spaces and dashes do not matter, nor O for 0 and I or L for 1.

use zeroize::Zeroizing;

use crate::base::id::InstanceId;
use crate::base::rng;
use crate::crypto::hash::sha256;
use crate::crypto::secret::{Key, Secret};

const VERSION: u8 = 1;
const BYTES: usize = 50;
const SUM_AT: usize = BYTES - 6;
const VALUES_AT: usize = SUM_AT - 32;
const GROUP: usize = 5;
const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Fewest shares that may be needed, and most that may be made.
pub const SHARES: (u8, u8) = (2, 16);

/// Why shares do not give the secret.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ShareError {
    /// Not a share, or mistyped.
    #[error("not a share, or mistyped: its check does not fit; compare it with the paper, character by character")]
    Mistyped,
    /// Of another set.
    #[error("this share is of another set than the first one; shares of one printing go together")]
    OtherSet,
    /// Of another instance.
    #[error("this share is of another instance than the data file")]
    OtherInstance,
    /// The same one again.
    #[error("share {0} was given already; bring another one")]
    Twice(u8),
    /// Too few.
    #[error("{given} shares are here and {needed} are needed; bring more")]
    TooFew {
        /// How many there are.
        given: usize,
        /// How many are needed.
        needed: usize,
    },
    /// More are needed than are made, or too many.
    #[error("shares: at least {} must be needed, and no more than are made, {} at most", SHARES.0, SHARES.1)]
    Bounds,
}

/// One share.
#[derive(Clone)]
pub struct Share {
    instance: [u8; 4],
    set: [u8; 4],
    need: u8,
    of: u8,
    number: u8,
    values: Zeroizing<[u8; 32]>,
}

/// Product in GF(2^8).
fn multiply(a: u8, b: u8) -> u8 {
    let (mut a, mut product) = (a, 0);
    for bit in 0..8 {
        product ^= a & 0_u8.wrapping_sub(b >> bit & 1);
        a = (a << 1) ^ (0x1b & 0_u8.wrapping_sub(a >> 7));
    }
    product
}

/// The inverse: the 254th power; 0 for 0.
fn inverse(a: u8) -> u8 {
    // 254 = 2 + 4 + 8 + 16 + 32 + 64 + 128
    let (mut square, mut product) = (a, 1);
    for _ in 0..7 {
        square = multiply(square, square);
        product = multiply(product, square);
    }
    product
}

/// The value at `x` of the polynomial with these coefficients, the constant one first.
fn value_at(coefficients: &[u8], x: u8) -> u8 {
    coefficients.iter().rev().fold(0, |sum, coefficient| multiply(sum, x) ^ coefficient)
}

/// Whether `of` shares can be made of which `need` are needed.
///
/// Errors: `Bounds`.
pub fn check(need: u8, of: u8) -> Result<(), ShareError> {
    if need < SHARES.0 || need > of || of > SHARES.1 { Err(ShareError::Bounds) } else { Ok(()) }
}

/// Draws a secret for `instance`, and splits it into `of` shares of which `need` give it back.
///
/// Errors: `Bounds`.
pub fn draw(instance: InstanceId, need: u8, of: u8) -> Result<(Key, Vec<Share>), ShareError> {
    check(need, of)?;
    let secret = Key::random();
    let random: Vec<Zeroizing<[u8; 32]>> = (1..need).map(|_| Zeroizing::new(rng::array())).collect();
    let (short, set) = (short(instance), rng::array());
    let shares = (1..=of).map(|number| {
        let mut values = Zeroizing::new([0; 32]);
        for (at, value) in values.iter_mut().enumerate() {
            let polynomial: Zeroizing<Vec<u8>> =
                Zeroizing::new(std::iter::once(secret.expose()[at]).chain(random.iter().map(|row| row[at])).collect());
            *value = value_at(&polynomial, number);
        }
        Share { instance: short, set, need, of, number, values }
    });
    let shares = shares.collect();
    Ok((secret, shares))
}

fn short(instance: InstanceId) -> [u8; 4] {
    *instance.bytes().first_chunk().expect("16 bytes hold 4")
}

/// The secret that these shares give.
///
/// Errors: `TooFew`; the caller added each with [`add`], so they fit one another.
pub fn join(shares: &[Share]) -> Result<Key, ShareError> {
    let needed = shares.first().map_or(usize::from(SHARES.0), |share| usize::from(share.need));
    if shares.len() < needed {
        return Err(ShareError::TooFew { given: shares.len(), needed });
    }
    let used = &shares[..needed];
    let mut secret = Zeroizing::new([0; 32]);
    for share in used {
        // Lagrange's weight of this share at 0; in this field minus is plus.
        let others = used.iter().filter(|other| other.number != share.number);
        let weight = others.fold(1, |weight, other| multiply(weight, multiply(other.number, inverse(other.number ^ share.number))));
        for (byte, value) in secret.iter_mut().zip(share.values.iter()) {
            *byte ^= multiply(weight, *value);
        }
    }
    Ok(Secret::new(*secret))
}

/// Adds a share to those that are here; whether they are enough.
///
/// Errors: `OtherInstance`, `OtherSet`, `Twice`.
pub fn add(shares: &mut Vec<Share>, new: Share, instance: Option<InstanceId>) -> Result<bool, ShareError> {
    if instance.is_some_and(|instance| short(instance) != new.instance) {
        return Err(ShareError::OtherInstance);
    }
    if let Some(first) = shares.first() {
        if (first.instance, first.set, first.need) != (new.instance, new.set, new.need) {
            return Err(ShareError::OtherSet);
        }
        if shares.iter().any(|share| share.number == new.number) {
            return Err(ShareError::Twice(new.number));
        }
    }
    shares.push(new);
    Ok(shares.len() >= usize::from(shares[0].need))
}

impl Share {
    /// Which it is, counted from 1; how many are needed; how many there are.
    pub fn place(&self) -> (u8, u8, u8) {
        (self.number, self.need, self.of)
    }

    /// The share as text.
    pub fn text(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new([0; BYTES]);
        bytes[0] = VERSION;
        bytes[1..5].copy_from_slice(&self.instance);
        bytes[5..9].copy_from_slice(&self.set);
        (bytes[9], bytes[10], bytes[11]) = (self.need, self.of, self.number);
        bytes[VALUES_AT..SUM_AT].copy_from_slice(&*self.values);
        let sum = sha256(&[&bytes[..SUM_AT]]);
        bytes[SUM_AT..].copy_from_slice(&sum[..BYTES - SUM_AT]);
        let mut text = Zeroizing::new(String::with_capacity(BYTES * 2));
        for at in 0..BYTES * 8 / 5 {
            if at > 0 && at % GROUP == 0 {
                text.push('-');
            }
            let digit = (0..5).fold(0, |digit, bit| digit << 1 | bytes[(5 * at + bit) / 8] >> (7 - (5 * at + bit) % 8) & 1);
            text.push(char::from(DIGITS[usize::from(digit)]));
        }
        text
    }

    /// Reads what [`Share::text`] wrote, as people type it.
    ///
    /// Errors: `Mistyped`.
    pub fn parse(text: &str) -> Result<Self, ShareError> {
        let (mut bytes, mut digits) = (Zeroizing::new([0; BYTES]), 0);
        for c in text.bytes().filter(|c| !matches!(c, b'-' | b' ' | b'\t' | b'\r')) {
            let c = match c.to_ascii_uppercase() {
                b'O' => b'0',
                b'I' | b'L' => b'1',
                c => c,
            };
            let digit =
                DIGITS.iter().position(|digit| *digit == c).and_then(|digit| u8::try_from(digit).ok()).ok_or(ShareError::Mistyped)?;
            if digits == BYTES * 8 / 5 {
                return Err(ShareError::Mistyped);
            }
            for bit in 0..5 {
                let at = 5 * digits + bit;
                bytes[at / 8] |= (digit >> (4 - bit) & 1) << (7 - at % 8);
            }
            digits += 1;
        }
        let sum = sha256(&[&bytes[..SUM_AT]]);
        let (need, of, number) = (bytes[9], bytes[10], bytes[11]);
        let sound = digits == BYTES * 8 / 5 && bytes[SUM_AT..] == sum[..BYTES - SUM_AT] && bytes[0] == VERSION;
        if !sound || need < SHARES.0 || need > of || of > SHARES.1 || number == 0 || number > of {
            return Err(ShareError::Mistyped);
        }
        let part = |at: usize| <[u8; 4]>::try_from(&bytes[at..at + 4]).expect("4 bytes");
        let mut values = Zeroizing::new([0; 32]);
        values.copy_from_slice(&bytes[VALUES_AT..SUM_AT]);
        Ok(Self { instance: part(1), set: part(5), need, of, number, values })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the definition: polynomials over GF(2), reduced by x^8 + x^4 + x^3 + x + 1.
    fn by_definition(a: u8, b: u8) -> u8 {
        let mut product = (0..8).filter(|bit| b >> bit & 1 == 1).fold(0_u16, |sum, bit| sum ^ u16::from(a) << bit);
        for bit in (8..16).rev() {
            if product >> bit & 1 == 1 {
                product ^= 0x11b << (bit - 8);
            }
        }
        u8::try_from(product).unwrap()
    }

    #[test]
    fn the_field_is_that_of_aes() {
        // FIPS 197 section 4.2 and 4.2.1
        assert_eq!((multiply(0x57, 0x83), multiply(0x57, 0x13), multiply(0x57, 0x02)), (0xc1, 0xfe, 0xae));
        for a in 0..=255 {
            for b in 0..=255 {
                assert_eq!(multiply(a, b), by_definition(a, b));
            }
            assert_eq!(multiply(a, inverse(a)), u8::from(a != 0));
        }
    }

    #[test]
    fn a_known_polynomial_has_the_known_values() {
        // 0x53 + 0xca x + 0x01 x^2, by hand: x=1: 53^ca^01 = 98; x=2: 53^(ca*2=8f)^04 = d8; x=3: 53^(ca*3=45)^05 = 13
        assert_eq!([1, 2, 3].map(|x| value_at(&[0x53, 0xca, 0x01], x)), [0x98, 0xd8, 0x13]);
    }

    #[test]
    fn any_that_are_enough_give_the_secret_and_one_less_gives_nothing() {
        for (need, of) in [(2, 3), (3, 5), (2, 2), (5, 5), (2, 16), (16, 16)] {
            let instance = InstanceId::draw();
            let (secret, shares) = draw(instance, need, of).unwrap();
            for first in 0..usize::from(of) {
                let mut here = Vec::new();
                for step in 0..usize::from(need) {
                    assert!(join(&here).is_err());
                    let share = Share::parse(&shares[(first + step * 5) % usize::from(of)].text());
                    let enough = add(&mut here, share.unwrap(), Some(instance));
                    match enough {
                        Ok(enough) => assert_eq!(enough, step + 1 == usize::from(need)),
                        Err(ShareError::Twice(_)) => break,
                        Err(other) => panic!("{other}"),
                    }
                }
                if here.len() == usize::from(need) {
                    assert!(join(&here).unwrap().matches(secret.expose()), "{need} of {of} from {first}");
                }
            }
        }
        assert!(
            draw(InstanceId::draw(), 1, 3).is_err() && draw(InstanceId::draw(), 4, 3).is_err() && draw(InstanceId::draw(), 2, 17).is_err()
        );
    }

    #[test]
    fn every_value_is_as_likely_in_a_lone_share() {
        // With one share less than needed every secret is possible: the missing value runs through all bytes as the secret does.
        let share = |number, value| Share { instance: [0; 4], set: [0; 4], need: 2, of: 3, number, values: Zeroizing::new([value; 32]) };
        let secrets: std::collections::BTreeSet<u8> =
            (0..=255).map(|value| join(&[share(1, 0x42), share(2, value)]).unwrap().expose()[0]).collect();
        assert_eq!(secrets.len(), 256);
    }

    #[test]
    fn mixed_double_foreign_and_mistyped_shares_are_named() {
        let (instance, other) = (InstanceId::from_bytes([1; 16]), InstanceId::from_bytes([2; 16]));
        let (_, shares) = draw(instance, 2, 3).unwrap();
        let (_, second) = draw(instance, 2, 3).unwrap();
        let mut here = Vec::new();
        assert_eq!(add(&mut here, shares[0].clone(), Some(other)), Err(ShareError::OtherInstance));
        assert_eq!(add(&mut here, shares[0].clone(), Some(instance)), Ok(false));
        assert_eq!(join(&here).err(), Some(ShareError::TooFew { given: 1, needed: 2 }));
        assert_eq!(add(&mut here, second[1].clone(), None), Err(ShareError::OtherSet));
        assert_eq!(add(&mut here, shares[0].clone(), None), Err(ShareError::Twice(1)));
        assert_eq!(add(&mut here, shares[2].clone(), None), Ok(true));
        let text = shares[1].text().to_string();
        assert_eq!(text.len(), 80 + 15);
        assert_eq!(Share::parse(&text.to_lowercase().replace('-', "  ")).unwrap().place(), (2, 2, 3));
        assert_eq!(Share::parse(&text.replace('0', "o").replace('1', "l")).unwrap().place(), (2, 2, 3));
        for at in (0..text.len()).filter(|at| text.as_bytes()[*at] != b'-') {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'7' { b'8' } else { b'7' };
            assert!(Share::parse(&String::from_utf8(changed).unwrap()).is_err(), "character {at}");
            assert!(Share::parse(&text[..at]).is_err());
        }
        assert!(Share::parse(&format!("{text}7")).is_err() && Share::parse("").is_err() && Share::parse("ünfug").is_err());
    }
}
