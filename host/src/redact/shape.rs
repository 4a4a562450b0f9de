//! What is to be hidden looks like this.

use std::sync::LazyLock;

use regex::Regex;

/// What kind of thing was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `sha256:` and a digest: stays.
    Digest,
    /// An API key of this platform; the tail is what comes after the prefix.
    ApiKey,
    /// Hidden as a whole: JWTs, password hashes, keys of other platforms.
    Whole,
    /// At least as many hexadecimal digits as a private key has.
    Hexadecimal,
    /// The beginning of a private key in PEM.
    Pem,
    /// The name of a secret and what stands between it and its value; the tail is the quote that ends the name.
    Field,
    /// `Bearer`, before its token.
    Bearer,
    /// `Basic`, before its credentials.
    Basic,
    /// `://`, maybe before `user:password@`.
    Url,
    /// The same, percent-encoded.
    EncodedUrl,
    /// An IPv4 address.
    V4,
    /// What may be an IPv6 address.
    V6,
}

const KINDS: &[(&str, Kind)] = &[
    ("digest", Kind::Digest),
    ("key", Kind::ApiKey),
    ("whole", Kind::Whole),
    ("hex", Kind::Hexadecimal),
    ("pem", Kind::Pem),
    ("field", Kind::Field),
    ("pair", Kind::Field),
    ("bearer", Kind::Bearer),
    ("basic", Kind::Basic),
    ("url", Kind::Url),
    ("encoded", Kind::EncodedUrl),
    ("v6", Kind::V6),
    ("v4", Kind::V4),
];

/// Something that may have to be hidden.
pub(super) struct Found<'a> {
    pub(super) kind: Kind,
    pub(super) start: usize,
    pub(super) end: usize,
    /// See [`Kind`].
    pub(super) tail: &'a str,
    text: &'a str,
}

impl Found<'_> {
    /// Where the last group of an address begins: its digits may be the first letters of something else.
    pub(super) fn last_group(&self) -> usize {
        let encoded = self.text.rfind('%').map(|at| at + 3);
        let plain = self.text.rfind([':', '.']).map(|at| at + 1);
        self.start + plain.max(encoded).unwrap_or_default().min(self.text.len())
    }
}

/// What finds things that may have to be hidden.
#[derive(Clone, Copy)]
pub(super) struct Shapes(&'static Regex);

impl Shapes {
    /// `None` only if the expression is wrong, which tests would show.
    pub(super) fn get() -> Option<Self> {
        SHAPES.as_ref().map(Self)
    }

    /// The next thing.
    pub(super) fn find(self, text: &str, at: usize) -> Option<Found<'_>> {
        let whole = self.0.find_at(text, at)?;
        let found =
            |kind, tail| Found { kind, start: whole.start(), end: whole.end(), tail, text: whole.as_str() };
        if let Some(kind) = plain_kind(whole.as_str()) {
            return Some(found(kind, ""));
        }
        let captures = self.0.captures_at(text, whole.start())?;
        let (_, kind) = KINDS.iter().find(|(name, _)| captures.name(name).is_some())?;
        let tail = ["tail", "quote", "pair_quote"].iter().find_map(|name| captures.name(name));
        Some(found(*kind, tail.map_or("", |tail| tail.as_str())))
    }
}

/// The kind of what has no letters but hexadecimal digits. To ask the expression takes much longer, and a text can be
/// full of these.
fn plain_kind(text: &str) -> Option<Kind> {
    if text == "://" {
        return Some(Kind::Url);
    }
    let plain = |byte: u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
    if !text.bytes().all(plain) {
        return None;
    }
    Some(match (text.contains(':'), text.contains('.')) {
        (true, _) => Kind::V6,
        (false, true) => Kind::V4,
        (false, false) => Kind::Hexadecimal,
    })
}

/// Whether what could be an IPv6 address is a part of a path in a program, such as `h2::codec`.
///
/// Only what has no colon but one `::` can be one. In a path, what follows `::` does not begin with a decimal digit, and
/// a name stops only where a word does.
pub(super) fn is_program_path(text: &str, found: &Found<'_>) -> bool {
    let address = found.text.replace("%3A", ":").replace("%3a", ":");
    let Some((head, tail)) = address.split_once("::") else { return false };
    if head.contains(':') || tail.contains([':', '.']) || tail.starts_with(|c: char| c.is_ascii_digit()) {
        return false;
    }
    if !address.contains(|c: char| c.is_ascii_digit()) && address != "::" {
        return true;
    }
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let before = text.get(..found.start).and_then(|before| before.chars().next_back());
    let after = text.get(found.end..).and_then(|after| after.chars().next());
    before.is_some_and(|c| word(c) || matches!(c, ':' | '>'))
        || after.is_some_and(|c| word(c) || matches!(c, ':' | '<' | '{' | '*'))
}

/// All shapes as one expression. It is compiled once, and takes time in proportion to the text: nothing in it looks
/// ahead without a bound, except for what it then takes.
static SHAPES: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(&expression()).ok());

fn expression() -> String {
    let colon = "(?::|%3[Aa])";
    let dot = r"(?:\.|%2[Ee])";
    let group = "[0-9A-Fa-f]{1,4}";
    let octet = "(?:25[0-5]|2[0-4][0-9]|[01]?[0-9]?[0-9])";
    let v4 = format!("{octet}(?:{dot}{octet}){{3,}}");
    let full = format!("(?:{group}{colon}){{6}}{v4}|(?:{group}{colon}){{7,15}}{group}");
    let head = format!("(?:{group}(?:{colon}{group}){{0,6}})?");
    let tail = format!("(?:(?:{group}{colon}){{0,6}}{v4}|{group}(?:{colon}{group}){{0,6}})?");
    let zone = "(?:%(?:25)?[0-9A-Za-z][0-9A-Za-z._~-]{0,31})?";
    let v6 = format!("(?:{full}|{head}{colon}{colon}{tail}){zone}");
    let underscore = r"(?:_|%(?:25){0,3}5f|\\{1,8}(?:u00|x)5f)";
    let escaped = r"[0-9A-Za-z_~-]|%[0-9A-Fa-f]{2}|\\{1,8}[ux]\{?[0-9A-Fa-f]{2,6}\}?";
    let key = format!("(?i-u:rf{underscore}live{underscore})(?P<tail>(?:{escaped})+)");
    let space = r"(?:[ \t\r\n+]|%20|\x1b\[[0-9;]{0,8}m){0,12}";
    let quote = r#"\\{0,16}["'`]"#;
    let name = format!("(?i-u:{NAMES})[0-9A-Za-z_-]{{0,24}}");
    let field = format!("{name}(?P<quote>{quote}|%2[27])?{space}(?:=>|[=:]|%3[AaDd]){space}");
    let pair = format!(r"\({quote}[0-9A-Za-z_-]{{0,24}}{name}(?P<pair_quote>{quote}),{space}");
    let gap = r"(?:[ \t\r\n+]|%20|\\[tn]){1,8}";
    [
        "(?P<digest>sha256(?::|%3[Aa])[0-9A-Fa-f]{64})".to_owned(),
        format!("(?P<key>{key})"),
        format!("(?P<whole>{}|{HASHES}|{OTHERS})", jwt(dot)),
        "(?P<hex>(?:0[xX])?[0-9A-Fa-f]{64,})".to_owned(),
        "(?P<pem>-----BEGIN [0-9A-Z ]{0,40}PRIVATE KEY)".to_owned(),
        format!("(?P<pair>{pair})"),
        format!("(?P<field>{field})"),
        format!("(?P<bearer>(?i-u:bearer){gap})"),
        format!("(?P<basic>(?i-u:basic){gap})"),
        "(?P<url>://)".to_owned(),
        "(?P<encoded>(?i-u:%3a%2f%2f))".to_owned(),
        format!("(?P<v6>{v6})"),
        format!("(?P<v4>{v4})"),
    ]
    .join("|")
}

/// Three parts, or five if it is encrypted, or what is left of it.
fn jwt(dot: &str) -> String {
    format!("eyJ[0-9A-Za-z_-]{{6,}}(?:{dot}[0-9A-Za-z_=-]*){{0,4}}")
}

/// What secrets are called. More letters may follow, as in `password_hash`.
const NAMES: &str = concat!(
    "pass(?:word|wd|phrase|code)|pwd|secret|token|bearer|credential|authori[sz]ation|cookie|mnemonic",
    "|(?:seed|recovery)[_ .-]?phrase",
    "|(?:api|master|private|priv|signing|access|encryption|secret|wallet|hmac|auth|session|ssh)[_ .-]?key",
);

/// Hashes of passwords in the form of `crypt`.
const HASHES: &str =
    r"\$(?:argon2[a-z]{0,2}|2[abxy]?|5|6|7|y|scrypt|pbkdf2[0-9a-z-]{0,10})\$[0-9A-Za-z$+/=,._-]{8,}";

/// Keys of other platforms, known by their prefix: what bots may be configured with.
const OTHERS: &str = concat!(
    "[spr]k_(?:live|test)_[0-9A-Za-z]{8,}|gh[pousr]_[0-9A-Za-z]{16,}|github_pat_[0-9A-Za-z_]{16,}",
    "|xox[abeprs]-[0-9A-Za-z-]{8,}|AKIA[0-9A-Z]{12,}|sk-(?:proj|ant)-[0-9A-Za-z_-]{8,}",
);
