//! The closed lists of an entry: each value has one name, written here once, with its meaning for the reader of the log.

use crate::audit::json::Text;

macro_rules! names {
    ($($(#[$about:meta])* $name:ident { $($variant:ident = $text:literal: $meaning:literal;)+ })+) => {$(
        $(#[$about])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum $name { $(#[doc = $meaning] $variant,)+ }

        impl $name {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name in the log.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// What it means.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)+ }
            }

            /// The value of this name.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)+ _ => None }
            }
        }

        impl Text for $name {
            fn put_text(&self, out: &mut String) {
                out.push_str(self.text());
            }

            fn from_text(text: &str) -> Option<Self> {
                Self::parse(text)
            }
        }
    )+};
}

names! {
    /// What sort of actor acted.
    ActorKind {
        User = "user": "a person";
        Agent = "agent": "an AI tool with a vendor's key";
        Service = "service": "a program of the site";
        System = "system": "Rosemary itself";
        None = "none": "nobody was recognised";
    }

    /// What the policy said.
    Decision {
        Allow = "allow": "the action was permitted";
        Deny = "deny": "it was not";
    }

    /// How the operation ended.
    Outcome {
        Ok = "ok": "it was done";
        Refused = "refused": "it was not done; `reason` says why";
        Error = "error": "it failed inside; nothing of it was done";
        Unknown = "unknown": "whether it was done had to be found out; a later recovery entry says";
    }

    /// Why an operation was refused or failed, or what happened to the service.
    Reason {
        Unauthenticated = "unauthenticated": "no credential was presented";
        BadCredential = "bad_credential": "the credential is not known";
        RevokedCredential = "revoked_credential": "the credential was revoked";
        ExpiredCredential = "expired_credential": "the credential's time is over";
        Framing = "framing": "the bytes were not an HTTP request that is accepted here";
        BadHandshake = "bad_handshake": "the TLS handshake failed";
        AddressRate = "address_rate": "too many requests without a valid credential from one address";
        CredentialRate = "credential_rate": "too many requests with one credential";
        AdminRate = "admin_rate": "too many administrative requests";
        Host = "host": "the Host header names another server";
        Origin = "origin": "the request came from a web page of another origin";
        UnknownRoute = "unknown_route": "no such path";
        Method = "method": "the path does not take this method";
        AgentRoute = "agent_route": "agents may not use this path";
        AdminOnly = "admin_only": "only administrators may do this";
        NotPermitted = "not_permitted": "no rule of the policy allows it";
        Schema = "schema": "the input does not fit the operation's schema";
        TooLarge = "too_large": "the input is longer than is accepted";
        VendorHidden = "vendor_hidden": "the record is not open to this vendor";
        VendorMismatch = "vendor_mismatch": "an agent may change only what its own vendor wrote";
        InvalidVendor = "invalid_vendor": "allowed_vendors names a vendor that is not configured";
        NotOwner = "not_owner": "the record belongs to somebody else";
        NotFound = "not_found": "there is no such record";
        ForeignTenant = "foreign_tenant": "the record belongs to another tenant";
        Trashed = "trashed": "the record is in the trash";
        NotTrashed = "not_trashed": "the record is not in the trash";
        Quota = "quota": "a quota is used up";
        Conflict = "conflict": "another change came first";
        ReadOnly = "read_only": "the service takes no writes now";
        NoSpace = "no_space": "the disk is nearly full";
        QueueFull = "queue_full": "too many writes are waiting";
        Locked = "locked": "the data file is not unlocked";
        Latched = "latched": "the store has shut itself after a fault";
        NotReady = "not_ready": "what is needed is still being built";
        NotOffered = "not_offered": "the service does not do this at all";
        EgressOff = "egress_off": "it would need an outbound connection, and none is allowed";
        RelayAbsent = "relay_absent": "the relay, which alone may connect to other machines, is not there";
        ModelFailed = "model_failed": "the language model gave no usable answer";
        WorkFailed = "work_failed": "the work failed inside";
        Unreadable = "unreadable": "what the policy decides on could not be read";
        Panic = "panic": "the program met a fault of its own";
        Recovered = "recovered": "the store was reopened; unknown outcomes were settled";
        ClockStep = "clock_step": "the wall clock was set to another time";
        Override = "override": "an operator overrode a safeguard";
    }

    /// The program that sent the request, as far as its User-Agent says.
    Device {
        Aiohttp = "aiohttp": "aiohttp";
        Axios = "axios": "axios";
        Bun = "bun": "Bun";
        Chatgpt = "chatgpt": "ChatGPT";
        Chrome = "chrome": "Chrome or Chromium";
        Claude = "claude": "Claude";
        ClaudeCode = "claude_code": "Claude Code";
        Curl = "curl": "curl";
        Cursor = "cursor": "Cursor";
        Deno = "deno": "Deno";
        Edge = "edge": "Microsoft Edge";
        Firefox = "firefox": "Firefox";
        Go = "go": "Go's HTTP client";
        Httpx = "httpx": "HTTPX";
        Insomnia = "insomnia": "Insomnia";
        Java = "java": "Java's HTTP client";
        Mem0 = "mem0": "a Mem0 client";
        N8n = "n8n": "n8n";
        Node = "node": "Node.js";
        Okhttp = "okhttp": "OkHttp";
        Openai = "openai": "an OpenAI client";
        Postman = "postman": "Postman";
        PythonRequests = "python_requests": "Python requests";
        PythonUrllib = "python_urllib": "Python urllib";
        ReflectMemory = "reflect_memory": "a Reflect Memory client";
        Reqwest = "reqwest": "reqwest";
        Rosemary = "rosemary": "a Rosemary tool";
        Safari = "safari": "Safari";
        Wget = "wget": "Wget";
        Other = "other": "anything else";
    }

    /// Why the data was wanted: codes of HL7 v3 PurposeOfUse (urn:oid:2.16.840.1.113883.1.11.20448).
    Purpose {
        Treat = "TREAT": "treatment";
        Clintrl = "CLINTRL": "clinical trial";
        Coc = "COC": "coordination of care";
        Etreat = "ETREAT": "emergency treatment";
        Btg = "BTG": "break the glass";
        Ertreat = "ERTREAT": "emergency room treatment";
        Pophlth = "POPHLTH": "population health";
        Hpaymt = "HPAYMT": "healthcare payment";
        Clmattch = "CLMATTCH": "claim attachment";
        Covauth = "COVAUTH": "coverage authorization";
        Coverage = "COVERAGE": "coverage under policy or program";
        Eligdtrm = "ELIGDTRM": "eligibility determination";
        Eligver = "ELIGVER": "eligibility verification";
        Enrollm = "ENROLLM": "enrollment";
        Remitadv = "REMITADV": "remittance advice";
        Hoperat = "HOPERAT": "healthcare operations";
        Caremgt = "CAREMGT": "care management";
        Donat = "DONAT": "donation";
        Fraud = "FRAUD": "fraud";
        Gov = "GOV": "government";
        Haccred = "HACCRED": "health accreditation";
        Hcompl = "HCOMPL": "health compliance";
        Hdecd = "HDECD": "decedent";
        Hdirect = "HDIRECT": "directory";
        Hdm = "HDM": "healthcare delivery management";
        Hlegal = "HLEGAL": "legal";
        Houtcoms = "HOUTCOMS": "health outcome measure";
        Hprgrp = "HPRGRP": "health program reporting";
        Hqualimp = "HQUALIMP": "health quality improvement";
        Hsysadmin = "HSYSADMIN": "health system administration";
        Labeling = "LABELING": "labeling";
        Metamgt = "METAMGT": "metadata management";
        Memadmin = "MEMADMIN": "member administration";
        Milcdm = "MILCDM": "military command";
        Patadmin = "PATADMIN": "patient administration";
        Patsfty = "PATSFTY": "patient safety";
        Perfmsr = "PERFMSR": "performance measure";
        Recordmgt = "RECORDMGT": "records management";
        Sysdev = "SYSDEV": "system development";
        Htest = "HTEST": "test health data";
        Train = "TRAIN": "training";
        Hmarkt = "HMARKT": "healthcare marketing";
        Hresch = "HRESCH": "healthcare research";
        Biorch = "BIORCH": "biomedical research";
        Clintrch = "CLINTRCH": "clinical trial research";
        Dsrch = "DSRCH": "disease specific healthcare research";
        Poarch = "POARCH": "population origins or ancestry healthcare research";
        Transrch = "TRANSRCH": "translational healthcare research";
        Patrqt = "PATRQT": "patient requested";
        Famrqt = "FAMRQT": "family requested";
        Pwatrny = "PWATRNY": "power of attorney";
        Supnwk = "SUPNWK": "support network";
        Pubhlth = "PUBHLTH": "public health";
        Disaster = "DISASTER": "disaster";
        Threat = "THREAT": "threat";
    }
}

/// Product tokens of a User-Agent (RFC 9110 section 10.1.5), lower case, and the device that they mean; the first that matches counts.
const PRODUCTS: &[(&str, Device)] = &[
    ("aiohttp", Device::Aiohttp),
    ("axios", Device::Axios),
    ("bun", Device::Bun),
    ("chatgpt", Device::Chatgpt),
    ("chatgpt-user", Device::Chatgpt),
    ("claude", Device::Claude),
    ("claude-user", Device::Claude),
    ("claude-code", Device::ClaudeCode),
    ("claude-cli", Device::ClaudeCode),
    ("curl", Device::Curl),
    ("cursor", Device::Cursor),
    ("deno", Device::Deno),
    ("go-http-client", Device::Go),
    ("python-httpx", Device::Httpx),
    ("httpx", Device::Httpx),
    ("insomnia", Device::Insomnia),
    ("java", Device::Java),
    ("java-http-client", Device::Java),
    ("mem0", Device::Mem0),
    ("mem0ai", Device::Mem0),
    ("n8n", Device::N8n),
    ("node", Device::Node),
    ("node-fetch", Device::Node),
    ("undici", Device::Node),
    ("okhttp", Device::Okhttp),
    ("openai", Device::Openai),
    ("postmanruntime", Device::Postman),
    ("python-requests", Device::PythonRequests),
    ("python-urllib", Device::PythonUrllib),
    ("reflect-memory", Device::ReflectMemory),
    ("reflect-memory-sdk", Device::ReflectMemory),
    ("reqwest", Device::Reqwest),
    ("rosemary", Device::Rosemary),
    ("wget", Device::Wget),
    ("edg", Device::Edge),
    ("firefox", Device::Firefox),
    ("chrome", Device::Chrome),
    ("safari", Device::Safari),
];

impl Device {
    /// The device that a User-Agent header's first product names; behind browsers' `Mozilla`, the first browser in the order above.
    pub fn of_user_agent(header: &[u8]) -> Self {
        let head = &header[..header.len().min(512)];
        let names = || head.split(|byte| *byte == b' ').map(|product| product.split(|byte| *byte == b'/').next().unwrap_or_default());
        let find = |mut known: std::slice::Iter<'_, (&str, Device)>, name: &[u8]| {
            known.find(|(product, _)| product.as_bytes().eq_ignore_ascii_case(name)).map(|(_, device)| *device)
        };
        let first = names().next().unwrap_or_default();
        if !first.eq_ignore_ascii_case(b"mozilla") {
            return find(PRODUCTS.iter(), first).unwrap_or(Device::Other);
        }
        let named = names().filter_map(|name| find(PRODUCTS.iter(), name));
        named.min_by_key(|device| PRODUCTS.iter().position(|(_, known)| known == device)).unwrap_or(Device::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_back_and_fits_its_character_set() {
        fn check<T: Copy + PartialEq + std::fmt::Debug>(all: &[T], text: fn(T) -> &'static str, parse: fn(&str) -> Option<T>) {
            for value in all {
                assert_eq!(parse(text(*value)), Some(*value));
                assert!(text(*value).bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_'));
            }
            assert_eq!(parse(""), None);
        }
        check(ActorKind::ALL, ActorKind::text, ActorKind::parse);
        check(Decision::ALL, Decision::text, Decision::parse);
        check(Outcome::ALL, Outcome::text, Outcome::parse);
        check(Reason::ALL, Reason::text, Reason::parse);
        check(Device::ALL, Device::text, Device::parse);
        check(Purpose::ALL, Purpose::text, Purpose::parse);
    }

    #[test]
    fn a_device_is_a_known_product_or_other() {
        for (header, device) in [
            ("curl/8.5.0", Device::Curl),
            ("python-requests/2.32.3", Device::PythonRequests),
            ("Python-urllib/3.13", Device::PythonUrllib),
            ("node", Device::Node),
            ("claude-code/2.0 (cli)", Device::ClaudeCode),
            ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", Device::Firefox),
            ("Mozilla/5.0 (X11) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36", Device::Chrome),
            ("Mozilla/5.0 (X11) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36 Edg/140.0", Device::Edge),
            ("Mozilla/5.0 (Macintosh) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Safari/605.1.15", Device::Safari),
            ("Mozilla/5.0", Device::Other),
            ("Patient Jane Doe", Device::Other),
            ("", Device::Other),
            ("/", Device::Other),
        ] {
            assert_eq!(Device::of_user_agent(header.as_bytes()), device, "{header}");
        }
        assert_eq!(Device::of_user_agent(&[0xff; 100_000]), Device::Other);
    }
}
