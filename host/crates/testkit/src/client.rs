use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::Value;

/// Speaks HTTP with a host.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
}

/// What a host answered.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body; `null` if it is not JSON.
    pub body: Value,
    /// The body as it came.
    pub text: String,
}

impl Client {
    /// A client of the host at `base`, such as `http://127.0.0.1:8080`.
    #[must_use]
    pub fn new(base: &str) -> Self {
        Self { http: reqwest::Client::new(), base: base.to_owned() }
    }

    /// A request to a path under `/api/v1`, to be filled in.
    pub fn request(&self, method: Method, path: &str, key: &str) -> reqwest::RequestBuilder {
        let url = if path.starts_with("//") {
            format!("{}{}", self.base, &path[1..])
        } else {
            format!("{}/api/v1{path}", self.base)
        };
        let request = self.http.request(method, url);
        if key.is_empty() { request } else { request.bearer_auth(key) }
    }

    /// GET. A path that begins with `//` is not under `/api/v1`.
    pub async fn get(&self, path: &str, key: &str) -> Answer {
        send(self.request(Method::GET, path, key)).await
    }

    /// POST of JSON.
    pub async fn post(&self, path: &str, key: &str, body: &Value) -> Answer {
        send(self.request(Method::POST, path, key).json(body)).await
    }

    /// POST without a body.
    pub async fn post_empty(&self, path: &str, key: &str) -> Answer {
        send(self.request(Method::POST, path, key)).await
    }

    /// POST of JSON under an `Idempotency-Key`.
    pub async fn post_once(&self, path: &str, key: &str, once: &str, body: &Value) -> Answer {
        send(self.request(Method::POST, path, key).header("idempotency-key", once).json(body)).await
    }

    /// PATCH of JSON.
    pub async fn patch(&self, path: &str, key: &str, body: &Value) -> Answer {
        send(self.request(Method::PATCH, path, key).json(body)).await
    }

    /// PUT of JSON.
    pub async fn put(&self, path: &str, key: &str, body: &Value) -> Answer {
        send(self.request(Method::PUT, path, key).json(body)).await
    }

    /// DELETE.
    pub async fn delete(&self, path: &str, key: &str) -> Answer {
        send(self.request(Method::DELETE, path, key)).await
    }

    /// Uploads a component.
    pub async fn upload(&self, key: &str, wasm: Vec<u8>) -> Answer {
        let request = self.request(Method::POST, "/components", key);
        send(request.header("content-type", "application/wasm").body(wasm)).await
    }
}

/// Sends a request and reads the answer.
///
/// # Panics
/// If the host does not answer.
pub async fn send(request: reqwest::RequestBuilder) -> Answer {
    let answer = request.send().await.expect("the host answers");
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let text = answer.text().await.expect("the answer has an end");
    Answer { status, headers, body: serde_json::from_str(&text).unwrap_or(Value::Null), text }
}

impl Answer {
    /// The body, if the status is this one.
    ///
    /// # Panics
    /// If it is another one.
    #[track_caller]
    #[must_use]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        self.body
    }

    /// A text of the body.
    ///
    /// # Panics
    /// If there is no such text.
    #[track_caller]
    #[must_use]
    pub fn text_at(&self, pointer: &str) -> &str {
        self.body
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_else(|| panic!("no {pointer} in {}", self.text))
    }
}

/// Tests that an answer is a problem of this status and code, in the form that all problems have.
///
/// # Panics
/// If it is not.
#[track_caller]
pub fn expect_problem(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, answer.body["code"].as_str()), (status, Some(code)), "{}", answer.text);
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    assert_eq!(answer.body["status"], status);
    let id = answer.headers["x-request-id"].to_str().unwrap();
    assert_eq!(answer.body["request_id"].as_str(), Some(id), "{}", answer.text);
    let detail = answer.body["detail"].as_str().unwrap();
    assert!(detail.len() > 20 && detail.ends_with('.'), "a sentence that helps: {detail}");
    assert!(!answer.body["title"].as_str().unwrap().is_empty());
}
