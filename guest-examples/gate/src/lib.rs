//! A bot that knows a secret and keeps it: it tells whether a token is the right one, and nothing more.
//!
//! Input: `{"token": "…"}`. Grant: the secret `token`, or the one whose name stands in the configuration as `secret`.

use ringfence::{Failure, config, secrets};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Visitor {
    token: String,
}

#[derive(Debug, PartialEq, Serialize)]
struct Answer {
    open: bool,
}

#[ringfence::bot]
fn handle(visitor: Visitor) -> Result<Answer, Failure> {
    let name = config::get("secret").unwrap_or_else(|| "token".to_owned());
    let secret = secrets::get(&name)?;
    Ok(Answer { open: equal(secret.as_bytes(), visitor.token.as_bytes()) })
}

/// Takes as long for a token that begins right as for any other of its length.
fn equal(one: &[u8], other: &[u8]) -> bool {
    let differing = one.iter().zip(other).fold(0, |differing, (one, other)| differing | (one ^ other));
    std::hint::black_box(differing) == 0 && one.len() == other.len()
}

#[cfg(test)]
mod tests {
    use ringfence::testing::Host;

    use super::*;

    #[test]
    fn only_the_right_token_opens() {
        let host = Host::new().with_secret("token", "open sesame").with_secret("other", "barley");
        for (token, open) in
            [("open sesame", true), ("open sesam", false), ("open sesame!", false), ("", false)]
        {
            assert_eq!(handle(Visitor { token: token.to_owned() }), Ok(Answer { open }), "{token}");
        }
        let host = host.with_config("secret", "other");
        assert_eq!(host.call(handle, r#"{"token": "barley"}"#).unwrap()["open"], true);
        let host = host.with_config("secret", "none");
        assert_eq!(host.call(handle, r#"{"token": ""}"#).unwrap_err().code, "secret_not_granted");
    }
}
