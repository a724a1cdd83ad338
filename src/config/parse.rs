//! From the text of one setting to a checked value. Pure. An error says what to write instead; the caller adds name and value.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use crate::base::log::Level;
use crate::base::{hex, limits};
use crate::config::relay::{BaseUrl, Destination};
use crate::config::settings::{Row, Takes};
use crate::config::{PublicUrl, Temperature, TlsVersion};
use crate::crypto::secret::Secret;

/// Beginnings of generated credentials (DESIGN 14): a static key with one of them would be taken for something else.
const RESERVED_PREFIXES: &[&str] = &["rm_live_", "rma_", "rmr_", "rms_", "rmk_"];

/// Origins and fallback vendors that the program gives out itself: an agent with one of these names could pass for a person.
pub const RESERVED_VENDORS: &[&str] = &["api", "apikey", "dashboard", "oauth", "system", "user"];

/// A whole number in the row's range: digits alone, no sign, no blanks.
pub fn number<T: TryFrom<u32>>(row: &Row, text: &str) -> Result<T, String> {
    let digits = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    let (least, most) = match row.takes {
        Takes::Number(least, most) => (least, most),
        _ => (0, u32::MAX),
    };
    (digits.then(|| text.parse().ok()).flatten())
        .filter(|value| (least..=most).contains(value))
        .and_then(|value| T::try_from(value).ok())
        .ok_or_else(|| format!("give a {}", row.takes()))
}

/// An absolute path, taken as it stands.
pub fn path(_: &Row, text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() && path.file_name().is_some() {
        Ok(path)
    } else {
        Err("give the absolute path of a file, beginning with /".into())
    }
}

/// 64 hexadecimal digits, in either case.
pub fn sha256(row: &Row, text: &str) -> Result<[u8; 32], String> {
    let bytes = hex::decode(&text.to_ascii_lowercase()).and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| format!("give {}, as `sha256sum` prints them", row.takes()))
}

/// `[A-Za-z0-9._-]{1,64}` (DESIGN 10).
pub fn tenant_label(row: &Row, text: &str) -> Result<String, String> {
    let lawful = text.bytes().all(|c| c.is_ascii_alphanumeric() || b"._-".contains(&c));
    if lawful && (1..=limits::TENANT_LABEL_CHARS_MAX).contains(&text.len()) {
        Ok(text.into())
    } else {
        Err(format!("give {}", row.takes()))
    }
}

/// An address of the common form `local@host`, lower-cased. Quoted local parts and address literals (RFC 5321) are refused.
pub fn email(_: &Row, text: &str) -> Result<String, String> {
    email_address(text)
}

/// As [`email`], for an address that no setting holds.
pub fn email_address(text: &str) -> Result<String, String> {
    let lawful = text.split_once('@').is_some_and(|(local, domain)| {
        (1..=limits::EMAIL_LOCAL_CHARS_MAX).contains(&local.len())
            && local.bytes().all(|c| c.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~.".contains(&c))
            && !local.starts_with('.')
            && !local.ends_with('.')
            && !local.contains("..")
            && is_host_name(domain)
    });
    if lawful && text.len() <= limits::EMAIL_CHARS_MAX {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("give one e-mail address, such as owner@hospital.example".into())
    }
}

/// A comma list of addresses.
pub fn emails(_: &Row, text: &str) -> Result<Vec<String>, String> {
    list(text, email_address)
}

/// Labels of letters, digits and inner hyphens, separated by dots (RFC 1123 section 2.1).
fn is_host_name(text: &str) -> bool {
    text.len() <= limits::HOST_CHARS_MAX
        && text.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

/// A comma list, its items trimmed; empty items, repeats and more than [`limits::ADDRESS_LIST_MAX`] items are refused.
fn list<T: PartialEq>(text: &str, item: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    let mut items = Vec::new();
    for part in text.split(',') {
        let value = item(part.trim())?;
        if items.contains(&value) {
            return Err("the list repeats an item; give each once".into());
        }
        if items.len() == limits::ADDRESS_LIST_MAX {
            return Err(format!("give at most {} items", limits::ADDRESS_LIST_MAX));
        }
        items.push(value);
    }
    Ok(items)
}

/// IP literals to listen on.
pub fn addresses(_: &Row, text: &str) -> Result<Vec<IpAddr>, String> {
    list(text, |part| part.parse().map_err(|_| "give IP addresses, not names, without a port, such as 127.0.0.1,::1".into()))
}

/// Networks or single addresses. The whole Internet is refused: every client could then choose its own address.
pub fn networks(_: &Row, text: &str) -> Result<Vec<IpNet>, String> {
    list(text, |part| {
        let network: IpNet = (part.parse().or_else(|_| part.parse::<IpAddr>().map(IpNet::from)))
            .map_err(|_| "give IP addresses or networks, such as 10.20.0.5,10.20.1.0/24".to_string())?;
        match network.prefix_len() {
            0 => Err("a network of every address would let each client choose its own; name your proxies".into()),
            _ if network != network.trunc() => {
                Err(format!("{network} has bits beyond its prefix; write {} or {}", network.trunc(), network.addr()))
            }
            _ => Ok(network),
        }
    })
}

/// `https://host[:port][/]`, nothing more. The host is a name or an IP literal, kept in lower case.
pub fn public_url(_: &Row, text: &str) -> Result<PublicUrl, String> {
    let wrong = || String::from("give an https URL of host and port alone, such as https://memory.hospital.example:8443");
    let scheme = text.get(..8).filter(|scheme| scheme.eq_ignore_ascii_case("https://")).ok_or_else(wrong)?;
    let authority = &text[scheme.len()..];
    let authority = authority.strip_suffix('/').unwrap_or(authority).to_ascii_lowercase();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority.as_str(), None),
    };
    let port = port.map_or(Some(443), port_number).ok_or_else(wrong)?;
    let host = host_name(host).ok_or_else(wrong)?;
    let text = if port == 443 { format!("https://{host}") } else { format!("https://{host}:{port}") };
    Ok(PublicUrl { host, port, text })
}

/// 1.2 or 1.3.
pub fn tls_version(row: &Row, text: &str) -> Result<TlsVersion, String> {
    match text {
        "1.2" => Ok(TlsVersion::V1_2),
        "1.3" => Ok(TlsVersion::V1_3),
        _ => Err(format!("give {}", row.takes())),
    }
}

/// A log level.
pub fn level(row: &Row, text: &str) -> Result<Level, String> {
    match text {
        "error" => Ok(Level::Error),
        "warn" => Ok(Level::Warn),
        "info" => Ok(Level::Info),
        "debug" => Ok(Level::Debug),
        _ => Err(format!("give {}", row.takes())),
    }
}

/// The one word of the row.
pub fn only_word(row: &Row, text: &str) -> Result<(), String> {
    match row.takes {
        Takes::Word(&[word]) if word == text => Ok(()),
        _ => Err(format!("this version knows {} alone; give that or remove the setting", row.takes())),
    }
}

/// 1/true/yes/on or 0/false/no/off, in any case (DESIGN 9); anything else is an error.
pub fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        _ => Err("give true (1, yes, on) or false (0, no, off)".into()),
    }
}

/// On or off.
pub fn switch(_: &Row, text: &str) -> Result<bool, String> {
    boolean(text).map_err(|_| "give on (1, true, yes) or off (0, false, no)".into())
}

/// True, because there is nothing to switch on.
pub fn telemetry_off(_: &Row, text: &str) -> Result<(), String> {
    if boolean(text)? { Ok(()) } else { Err("there is no telemetry to enable; give true or remove the setting".into()) }
}

/// True or false.
pub fn truth(_: &Row, text: &str) -> Result<bool, String> {
    boolean(text)
}

/// A model's name: short, and fit to stand in a log and a header.
pub fn model_name(row: &Row, text: &str) -> Result<String, String> {
    let lawful = text.bytes().all(|c| c.is_ascii_graphic());
    if lawful && text.len() <= limits::MODEL_NAME_CHARS_MAX { Ok(text.into()) } else { Err(format!("give {}", row.takes())) }
}

/// `0` to `2` with at most two decimals.
pub fn temperature(row: &Row, text: &str) -> Result<Temperature, String> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str, most: usize| (1..=most).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_digit());
    let hundredths = (digits(whole, 1) && digits(decimals, 2)).then(|| format!("{whole}{decimals:0<2}").parse().ok()).flatten();
    hundredths.filter(|hundredths| *hundredths <= 200).map(Temperature).ok_or_else(|| format!("give a {}", row.takes()))
}

/// A text for the model.
pub fn prompt(row: &Row, text: &str) -> Result<String, String> {
    let lawful = !text.chars().any(char::is_control) && text.chars().count() <= limits::SYSTEM_PROMPT_CHARS_MAX;
    if lawful { Ok(text.into()) } else { Err(format!("give {}, at most {} characters", row.takes(), limits::SYSTEM_PROMPT_CHARS_MAX)) }
}

/// The name of a user of the system.
pub fn user_name(row: &Row, text: &str) -> Result<String, String> {
    let lawful = text.bytes().all(|c| c.is_ascii_alphanumeric() || b"_-".contains(&c)) && !text.starts_with('-');
    if lawful && text.len() <= limits::USER_NAME_BYTES_MAX && text.len() > 1 {
        Ok(text.into())
    } else {
        Err(format!("give the {}", row.takes()))
    }
}

/// A host and a port, each exactly as it may be reached: `host:port`, `[IPv6]:port`.
pub fn destinations(_: &Row, text: &str) -> Result<Vec<Destination>, String> {
    list(text, destination)
}

/// One destination.
fn destination(text: &str) -> Result<Destination, String> {
    let wrong = || String::from("give hosts with their ports, such as llm.hospital.example:443,[fd00::5]:8443");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port = port_number(port).ok_or_else(wrong)?;
    Ok(Destination { host: host_name(host).ok_or_else(wrong)?, port })
}

/// Hosts, without ports.
pub fn hosts(_: &Row, text: &str) -> Result<Vec<String>, String> {
    list(text, |part| host_name(part).ok_or_else(|| "give host names or IP addresses without ports, such as llm.hospital.example".into()))
}

/// `https://host[:port][/path]`: where an OpenAI-compatible endpoint begins. No query, no user, no dot segments.
pub fn base_url(_: &Row, text: &str) -> Result<BaseUrl, String> {
    let wrong = || String::from("give an https URL without user and query, such as https://llm.hospital.example/v1");
    let rest = text.get(..8).filter(|scheme| scheme.eq_ignore_ascii_case("https://")).map(|_| &text[8..]).ok_or_else(wrong)?;
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let named = authority.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
    let to = destination(&if named { authority.to_owned() } else { format!("{authority}:443") }).map_err(|_| wrong())?;
    let path = path.trim_end_matches('/');
    let segment = |part: &str| {
        !part.is_empty() && part != "." && part != ".." && part.bytes().all(|c| c.is_ascii_alphanumeric() || b"._~-".contains(&c))
    };
    if path.len() > limits::BASE_PATH_BYTES_MAX || !path.split('/').skip(1).all(segment) {
        return Err(wrong());
    }
    Ok(BaseUrl { to, path: path.into() })
}

fn port_number(digits: &str) -> Option<u16> {
    let lawful = (1..=5).contains(&digits.len()) && digits.bytes().all(|c| c.is_ascii_digit());
    lawful.then(|| digits.parse().ok()).flatten().filter(|port| *port != 0)
}

/// A name or IP literal in lower case; IPv6 in brackets, in its shortest form.
fn host_name(text: &str) -> Option<String> {
    let host = text.to_ascii_lowercase();
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(literal) => literal.parse::<std::net::Ipv6Addr>().ok().map(|ip| format!("[{ip}]")),
        // a name whose last label is a number is an address to every client (WHATWG URL, "ends in a number")
        None if host.rsplit('.').next().is_some_and(|label| label.bytes().all(|c| c.is_ascii_digit())) => {
            host.parse::<std::net::Ipv4Addr>().ok().map(|ip| ip.to_string())
        }
        None => is_host_name(&host).then_some(host),
    }
}

/// A static key: printable ASCII without spaces (it travels in a header field), long enough, not shaped like a generated one.
pub fn static_key(row: &Row, text: &str) -> Result<Secret<String>, String> {
    let (shortest, most) = limits::STATIC_KEY_CHARS;
    let least = if let Takes::Secret(least) = row.takes { least } else { shortest };
    if !text.bytes().all(|c| c.is_ascii_graphic()) || !(least..=most).contains(&text.len()) {
        return Err(format!("give a {}; `openssl rand -hex 32` makes one", row.takes()));
    }
    if let Some(prefix) = RESERVED_PREFIXES.iter().find(|prefix| text.starts_with(**prefix)) {
        return Err(format!("{prefix} is reserved for keys that Rosemary makes; choose another beginning"));
    }
    Ok(Secret::new(text.into()))
}

/// The vendor of `RM_AGENT_KEY_<suffix>`: `[a-z0-9_]{1,50}` in lower case, none that the program gives out itself.
pub fn vendor(suffix: &str) -> Result<String, String> {
    let vendor = suffix.to_ascii_lowercase();
    let lawful = vendor.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_');
    if !lawful || !(1..=limits::VENDOR_CHARS_MAX).contains(&vendor.len()) {
        return Err(format!("end the name with a vendor: 1 to {} of A-Z 0-9 _, such as RM_AGENT_KEY_CURSOR", limits::VENDOR_CHARS_MAX));
    }
    if RESERVED_VENDORS.contains(&vendor.as_str()) {
        return Err(format!("the vendor {vendor} is reserved: its memories could pass for those of a person; choose another name"));
    }
    Ok(vendor)
}
