use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::{redact, redact_secrets};

const KEY: &str = "rf_live_4fGh7JkLmN0pQrStUvWxYz1234567890AbCdEf";
const JWT: &str = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZ2VudCJ9.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U";
const HEX: &str = "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318";

/// `K`, `J` and `H` in braces stand for the three above.
fn filled(text: &str) -> String {
    text.replace("{K}", KEY).replace("{J}", JWT).replace("{H}", HEX)
}

#[track_caller]
fn check(cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        let (text, expected) = (filled(text), filled(expected));
        let redacted = redact(&text);
        assert_eq!(redacted, expected, "of {text}");
        assert_eq!(redact(&redacted), expected, "what is redacted stays as it is");
    }
}

#[test]
fn keys_and_tokens_are_hidden() {
    check(&[
        ("{K}", "rf_live_[redacted]"),
        ("key={K}.", "key=rf_live_[redacted]."),
        ("the key rf_live_4fGh… is unknown", "the key rf_live_[redacted]… is unknown"),
        ("schlüssel→{K}←ende", "schlüssel→rf_live_[redacted]←ende"),
        ("/agents/{K}/x", "/agents/rf_live_[redacted]/x"),
        ("rf%5Flive%5F4fGh7JkL%41bc&x=1", "rf%5Flive%5F[redacted]&x=1"),
        ("rf%255Flive%255F4fGh7JkL", "rf%255Flive%255F[redacted]"),
        ("RF_LIVE_4FGH7JKLMN", "RF_LIVE_[redacted]"),
        (r#""rf_live_4fGh\u0037JkLmN""#, r#""rf_live_[redacted]""#),
        (r#""rf\u005flive\u005f4fGh7JkLmN""#, r#""rf\u005flive\u005f[redacted]""#),
        ("expected `rf_live_…` with its checksum", "expected `rf_live_…` with its checksum"),
        ("{J}", "[redacted]"),
        ("cut: eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOi", "cut: [redacted]"),
        ("eyJhbGciOiJIUzI1NiJ9%2EeyJzdWIiOi%2Eabc", "[redacted]"),
        ("Authorization: Bearer {J}", "Authorization: [redacted]"),
        ("authorization=bearer%20opaque1", "authorization=[redacted]"),
        (r#"{"authorization": "Basic dXNlcjpwYXNz"}"#, r#"{"authorization": "[redacted]"}"#),
        (r#"b"Bearer opaque+/=" next"#, r#"b"Bearer [redacted]" next"#),
        ("sent BEARER  opaque-1.2, then", "sent BEARER  [redacted], then"),
        ("with Basic dXNlcjpwYXNz", "with Basic [redacted]"),
        ("a basic idea", "a basic idea"),
        ("sk_live_abcdefgh12345678 ghp_abcdefghij0123456789", "[redacted] [redacted]"),
    ]);
}

#[test]
fn named_secrets_are_hidden() {
    check(&[
        ("password=hunter2 user=ada", "password=[redacted] user=ada"),
        ("PASSWORD = hunter2", "PASSWORD = [redacted]"),
        (r#"password="correct horse" x=1"#, r#"password="[redacted]" x=1"#),
        (r#"password="a\"b c" x=1"#, r#"password="[redacted]" x=1"#),
        (r#"password="a\\" x=1"#, r#"password="[redacted]" x=1"#),
        (r#"{"password":"hunter2","n":1}"#, r#"{"password":"[redacted]","n":1}"#),
        (r#"{"m":"{\"password\":\"a b\",\"n\":1}"}"#, r#"{"m":"{\"password\":\"[redacted]\",\"n\":1}"}"#),
        (r#"{"m":"{\"password\":\"a\\\"b\"}"}"#, r#"{"m":"{\"password\":\"[redacted]\"}"}"#),
        (
            r#"{"m":"{\"b\":\"{\\\"token\\\":\\\"a b\\\"}\"}"}"#,
            r#"{"m":"{\"b\":\"{\\\"token\\\":\\\"[redacted]\\\"}\"}"}"#,
        ),
        (r#"{"token":12,"n":1}"#, r#"{"token":"[redacted]","n":1}"#),
        (r#"{"m":"{\"token\":12,\"n\":1}"}"#, r#"{"m":"{\"token\":\"[redacted]\",\"n\":1}"}"#),
        (r#"{"secrets":["a]","b"],"n":1}"#, r#"{"secrets":"[redacted]","n":1}"#),
        (r#"{"token":null,"secret":true}"#, r#"{"token":null,"secret":true}"#),
        (r#"{"m":"password=hunter2"}"#, r#"{"m":"password=[redacted]"}"#),
        (r#"{"m":"said \"password=hunter2\" twice"}"#, r#"{"m":"said \"password=[redacted]\" twice"}"#),
        (r#"{"m":"password: \"cut of"}"#, r#"{"m":"password: \"[redacted]"}"#),
        (r#"Config { password: "a b", n: 1 }"#, "Config { password: \"[redacted]\", n: 1 }"),
        (r#"Config { api_key: Some("a b"), n: 1 }"#, "Config { api_key: [redacted], n: 1 }"),
        (r#"{"x-api-key": HeaderValue("a b")}"#, r#"{"x-api-key": "[redacted]"}"#),
        (r#"secret: b"ab" n"#, r#"secret: b"[redacted]" n"#),
        ("Pair { token: T { x: 1 }, n: 2 }", "Pair { token: [redacted], n: 2 }"),
        (r#"[("password", "a b"), ("n", "1")]"#, r#"[("password", "[redacted]"), ("n", "1")]"#),
        ("GET /x?password=hunter2&n=1", "GET /x?password=[redacted]&n=1"),
        ("/x?access_token=a,b;c&n=1", "/x?access_token=[redacted]&n=1"),
        ("q=api%5Fkey%3Dx&masterKey=abc", "q=api%5Fkey%3Dx&masterKey=[redacted]"),
        ("/x/%22password%22%3A%22hunter2%22%7D", "/x/%22password%22%3A%22[redacted]%22"),
        ("master_key=abc private-key: def", "master_key=[redacted] private-key: [redacted]"),
        ("client_secret=abc,n=1 x", "client_secret=[redacted] x"),
        ("(passwd=abc), {pwd=def}", "(passwd=[redacted]), {pwd=[redacted]}"),
        ("{'secret': 'a b', 'n': 1}", "{'secret': '[redacted]', 'n': 1}"),
        ("Cookie: a=b; c=d\nHost: x", "Cookie: [redacted]\nHost: x"),
        ("mnemonic: legal winner thank year", "mnemonic: [redacted]"),
        (
            "\u{1b}[3mpassword\u{1b}[0m\u{1b}[2m=\u{1b}[0mhunter2 x",
            "\u{1b}[3mpassword\u{1b}[0m\u{1b}[2m=\u{1b}[0m[redacted] x",
        ),
        ("passwort=ü password=süß‑geheim ü", "passwort=ü password=[redacted] ü"),
        ("the password is wrong", "the password is wrong"),
        ("ringfence::token::verify: x", "ringfence::token::verify: x"),
        (r#"unknown field `password`, expected `name`"#, "unknown field `password`, expected `name`"),
        ("password=", "password="),
        (r#"password="""#, r#"password="""#),
    ]);
}

#[test]
fn credentials_hashes_and_private_keys_are_hidden() {
    check(&[
        ("postgres://ada:hunter2@db.example/x", "postgres://[redacted]@db.example/x"),
        ("postgres://ada:p@ss@10.0.0.7:5432/x", "postgres://[redacted]@[address]:5432/x"),
        ("postgres://ada:hun/ter2@db/x", "postgres://[redacted]@db/x"),
        ("u=postgres%3A%2F%2Fada%3Ahunter2%40db", "u=postgres%3A%2F%2F[redacted]%40db"),
        ("https://example.org:8080/@ada", "https://example.org:8080/@ada"),
        ("https://example.org/a?m=a@b.c", "https://example.org/a?m=a@b.c"),
        ("$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA== x", "[redacted] x"),
        ("$2b$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW", "[redacted]"),
        ("VALUES ($1,$2,$3)", "VALUES ($1,$2,$3)"),
        ("-----BEGIN PRIVATE KEY-----\nMIIE\nvQ==\n-----END PRIVATE KEY-----\nx", "[redacted]\nx"),
        (r#""-----BEGIN RSA PRIVATE KEY-----\nMIIEvQ" x"#, r#""[redacted]" x"#),
        (r#"{"m":"k \"-----BEGIN EC PRIVATE KEY-----\\nMI\" x"}"#, r#"{"m":"k \"[redacted]\" x"}"#),
        ("-----BEGIN CERTIFICATE-----", "-----BEGIN CERTIFICATE-----"),
        ("0x{H}", "[redacted]"),
        ("wallet {H}, x", "wallet [redacted], x"),
        ("0X{H}{H}", "[redacted]"),
        ("digest=sha256:{H} x", "digest=sha256:{H} x"),
        ("sha256:{H}{H}", "sha256:{H}[redacted]"),
        ("sha256 {H}", "sha256 [redacted]"),
        ("0x52908400098527886E0F7030069857D2E4169EE7", "0x52908400098527886E0F7030069857D2E4169EE7"),
    ]);
}

#[test]
fn addresses_are_hidden() {
    check(&[
        ("from 203.0.113.77:4711", "from [address]:4711"),
        ("x127.0.0.1y", "x[address]y"),
        ("1.203.0.113.77", "[address]"),
        ("203%2E0%2E113%2E77", "[address]"),
        ("peer=2001:db8::1234: refused", "peer=[address]: refused"),
        ("[::1]:8080", "[address]:8080"),
        ("[::]:80 ::1 fe80::1%eth0/x", "[address]:80 [address] [address]/x"),
        ("::ffff:127.0.0.1", "[address]"),
        ("::ffff:7f00:1", "[address]"),
        ("0:0:0:0:0:ffff:10.0.0.1", "[address]"),
        ("2001:0DB8:0000:0000:0000:0000:0000:1234", "[address]"),
        ("x2001:db8::1y", "x[address]y"),
        ("addr:2001:db8::1", "addr:[address]"),
        ("2001%3Adb8%3A%3A1", "[address]"),
        ("[fe80::abcd%25eth0]:1", "[address]:1"),
        ("dead:beef::cafe", "[address]"),
        ("::1:bearer opaque", "[address]rer [redacted]"),
        ("::1:{J}", "[address]"),
        ("{H}::1", "[redacted]"),
        ("fe80::1%20password=hunter2", "[address]=[redacted]"),
    ]);
}

#[test]
fn what_only_looks_like_an_address_stays() {
    for text in [
        "2026-11-21T11:30:00.123456Z INFO",
        "11:30:00",
        "11:30:00.5 2026-11-21 11:30",
        "wasmtime 48.0.8, 1.2.3-rc.4",
        "ringfence_api::serve: std::io::Error",
        "h2::codec::framed_read, sha256::add, core::f64, b::c::d",
        "use h2::{client, server}; Vec::<u8>::new()",
        "dead::beef a::b <T as Foo>::add",
        "agent_01JZ0000000000000000000000",
        "00:1a:2b:3c:4d:5e",
        "host/src/serve.rs:12:5",
        "12.5 ms, 1.2, 99.9%",
        "request{id=\"5022472139c5655764d66e906798aeec\" method=POST path=\"/api/v1/agents\"}",
        "",
        "ünïcödé ✓ ⚠️",
    ] {
        assert_eq!(redact(text), text);
        assert!(matches!(redact(text), std::borrow::Cow::Borrowed(_)), "{text}: nothing is copied");
    }
}

#[test]
fn addresses_stay_for_the_person_at_the_terminal() {
    for (text, expected) in [
        ("127.0.0.1:8080 cannot be listened on", "127.0.0.1:8080 cannot be listened on"),
        ("[::1]:8080 cannot", "[::1]:8080 cannot"),
        ("postgres://ada:hunter2@10.0.0.7/x", "postgres://[redacted]@10.0.0.7/x"),
        ("10.0.0.7 password=a ::1:bearer opaque", "10.0.0.7 password=[redacted] ::1:bearer [redacted]"),
    ] {
        assert_eq!(redact_secrets(text), expected);
    }
}

#[test]
fn what_was_json_still_is() {
    for value in ["hunter2", "a\"b", "a\\", "a\\\"b\\\\", "ü\n\t}", "[1]", "{\"x\":\"y\"}", "null", "'"] {
        let inner = serde_json::json!({ "password": value, "n": 1 }).to_string();
        let middle = serde_json::json!({ "body": inner, "token": value }).to_string();
        let record = serde_json::json!({ "message": middle, "secret": 5, "api_key": ["a", 1], "last": "x" });
        let redacted = redact(&record.to_string()).into_owned();
        let read: serde_json::Value = serde_json::from_str(&redacted).expect(&redacted);
        assert_eq!(read["last"], "x");
        let read: serde_json::Value =
            serde_json::from_str(read["message"].as_str().unwrap()).expect(&redacted);
        assert_eq!(read["token"], "[redacted]", "{redacted}");
        let read: serde_json::Value = serde_json::from_str(read["body"].as_str().unwrap()).expect(&redacted);
        assert_eq!(read, serde_json::json!({ "password": "[redacted]", "n": 1 }));
    }
}

#[test]
fn long_records_take_bounded_time() {
    let long = 1 << 20;
    for unit in [
        "a",
        "1",
        ":",
        "::",
        "1:",
        "1.",
        "a::",
        "eyJ",
        "eyJaaaaaa.",
        "rf_live_",
        "\\",
        "password",
        "password=",
        "password='",
        "password=\"x ",
        "://",
        "://a:b",
        "%3A%2F%2F",
        "-----BEGIN PRIVATE KEY",
        "://1.1.1.1",
        "bearer ",
        "token:[",
        "token: Some(",
        "\u{1b}[0m",
        "ü",
        "$2b$12$",
        "0",
        "f::1 ",
        "(\"token\",",
    ] {
        let text = unit.repeat(long / unit.len());
        let begun = Instant::now();
        let redacted = redact(&text);
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(20), "{unit:?}: {took:?}");
        assert!(redacted.len() <= 12 * long);
    }
    let text = format!("{}{KEY}{}", "x ".repeat(long / 4), " y".repeat(long / 4));
    assert!(!redact(&text).contains(KEY));
}

/// What may stand around a secret. Nothing by which a secret would become something else.
fn around() -> impl Strategy<Value = String> {
    prop_oneof!["[ -~]{0,24}", "\\PC{0,24}", r#"[\\"'\[\]{}(),;:=. ]{0,12}"#]
}

fn key() -> impl Strategy<Value = String> {
    "rf_live_[0-9A-Za-z]{8,38}"
}

fn jwt() -> impl Strategy<Value = String> {
    "eyJ[0-9A-Za-z_-]{8,40}\\.[0-9A-Za-z_-]{8,40}(\\.[0-9A-Za-z_-]{8,40})?"
}

/// One that cannot be read as a path in a program: it has a colon besides `::`.
fn v6() -> impl Strategy<Value = String> {
    (any::<[u16; 8]>(), 0_usize..6, 0_usize..6).prop_filter_map("a path", |(mut groups, from, length)| {
        groups.iter_mut().skip(from).take(length).for_each(|group| *group = 0);
        let text = Ipv6Addr::from(groups).to_string();
        text.replacen("::", "", 1).contains(':').then_some(text)
    })
}

proptest! {
    #[test]
    fn no_key_survives(before in around(), secret in key(), after in around()) {
        let redacted = redact(&format!("{before}{secret}{after}")).into_owned();
        prop_assert!(!redacted.contains(&secret), "{redacted}");
    }

    #[test]
    fn no_jwt_survives(before in around(), secret in jwt(), after in around()) {
        let redacted = redact(&format!("{before}{secret}{after}")).into_owned();
        let signature = secret.rsplit('.').next().unwrap();
        prop_assert!(!redacted.contains(signature), "{redacted}");
    }

    #[test]
    fn no_v4_address_survives(before in around(), address in any::<Ipv4Addr>(), after in around()) {
        let redacted = redact(&format!("{before}{address}{after}")).into_owned();
        prop_assert!(!redacted.contains(&address.to_string()), "{redacted}");
    }

    #[test]
    fn no_v6_address_survives(before in around(), address in v6(), after in around()) {
        let redacted = redact(&format!("{before}{address}{after}")).into_owned();
        prop_assert!(!redacted.contains(&address), "{redacted}");
    }

    #[test]
    fn any_text_can_be_looked_through(text in "\\PC{0,200}") {
        let _ = (redact(&text), redact_secrets(&text));
    }
}
