//! A bot that asks the web: it makes the request that it is given and returns what came back.
//!
//! Input: `{"url": "https://api.example.com/rates"}`, and if wanted `method` (`GET`), `headers` (an object) and `body` (a
//! text). It needs the grant `http` with the host of the URL.

use std::collections::BTreeMap;

use ringfence::{Failure, http};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Ask {
    url: String,
    method: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: String,
}

#[derive(Debug, PartialEq, Serialize)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    text: String,
}

#[ringfence::bot]
fn handle(ask: Ask) -> Result<Answer, Failure> {
    let mut request = http::Request::new(ask.method.as_deref().unwrap_or("GET"), ask.url).body(ask.body);
    request.headers = ask.headers.into_iter().collect();
    let response = request.send()?;
    ringfence::log::info!("fetched"; url = request.url, status = response.status);
    Ok(Answer { status: response.status, text: response.text(), headers: response.headers })
}

#[cfg(test)]
mod tests {
    use ringfence::testing::Host;

    use super::*;

    #[test]
    fn it_asks_what_it_is_told_to() {
        let host = Host::new().with_http(|request| {
            assert_eq!((request.method.as_str(), request.url.as_str()), ("PUT", "https://a.test/b"));
            assert_eq!(request.headers, [("accept".to_owned(), "text/plain".to_owned())]);
            Ok(http::Response::new(404, [b"no ", request.body.as_slice()].concat()))
        });
        let input = r#"{"url": "https://a.test/b", "method": "PUT", "headers": {"accept": "text/plain"}, "body": "luck"}"#;
        let answer = host.call(handle, input).unwrap();
        assert_eq!((&answer["status"], &answer["text"]), (&404.into(), &"no luck".into()));
    }

    #[test]
    fn what_is_not_granted_is_a_failure() {
        let host = Host::new();
        assert_eq!(host.call(handle, r#"{"url": "https://a.test"}"#).unwrap_err().code, "http_denied");
    }
}
