//! [`http`](crate::http) over the component's imports of `wasi:http`.

use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingBody, IncomingResponse, Method, OutgoingBody, OutgoingRequest, Scheme,
    http_error_code,
};
use wasip2::io::streams::StreamError;

use crate::http::{Error, Request, Response};

/// How much is read at once.
const CHUNK_BYTES: u64 = 64 << 10;

pub(crate) fn http_send(request: &Request) -> Result<Response, Error> {
    let outgoing = outgoing(request)?;
    // The body exists before the request is sent, and is written while it is on its way.
    let body = match request.body.is_empty() {
        true => None,
        false => Some(outgoing.body().map_err(|()| invalid("its body"))?),
    };
    let response = outgoing_handler::handle(outgoing, None).map_err(failed)?;
    if let Some(body) = body {
        write(body, &request.body)?;
    }
    response.subscribe().block();
    match response.get() {
        Some(Ok(Ok(response))) => incoming(response),
        Some(Ok(Err(code))) => Err(failed(code)),
        Some(Err(())) | None => Err(Error::Failed("the host gave no response".to_owned())),
    }
}

fn outgoing(request: &Request) -> Result<OutgoingRequest, Error> {
    let headers = Fields::new();
    for (name, value) in &request.headers {
        let appended = headers.append(name, value.as_bytes());
        appended.map_err(|error| invalid(&format!("the header `{name}` ({error})")))?;
    }
    if !request.body.is_empty() {
        // What the caller has written about the length is not what counts.
        let _ = headers.delete("content-length");
        let length = request.body.len().to_string();
        headers.append("content-length", length.as_bytes()).map_err(|_| invalid("its length"))?;
    }
    let (scheme, authority, path) = split(&request.url).ok_or_else(|| invalid("its URL"))?;
    let outgoing = OutgoingRequest::new(headers);
    outgoing.set_method(&method(&request.method)).map_err(|()| invalid("its method"))?;
    outgoing.set_scheme(Some(&scheme)).map_err(|()| invalid("the URL's scheme"))?;
    outgoing.set_authority(Some(authority)).map_err(|()| invalid("the URL's host"))?;
    outgoing.set_path_with_query(Some(&path)).map_err(|()| invalid("the URL's path"))?;
    Ok(outgoing)
}

/// Scheme, host and port, and the path with the query. The host looks at them closely.
fn split(url: &str) -> Option<(Scheme, &str, String)> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = match scheme.to_ascii_lowercase().as_str() {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        _ => return None,
    };
    let rest = rest.split_once('#').map_or(rest, |(rest, _)| rest);
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let slash = if path.starts_with('/') { "" } else { "/" };
    Some((scheme, authority, format!("{slash}{path}")))
}

fn method(name: &str) -> Method {
    match name {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        "CONNECT" => Method::Connect,
        "OPTIONS" => Method::Options,
        "TRACE" => Method::Trace,
        "PATCH" => Method::Patch,
        other => Method::Other(other.to_owned()),
    }
}

/// Writes as much as the host takes, until it has everything or wants no more. What is wrong then, the response says.
fn write(body: OutgoingBody, mut bytes: &[u8]) -> Result<(), Error> {
    let stream = body.write().map_err(|()| invalid("its body"))?;
    let ready = stream.subscribe();
    while !bytes.is_empty() {
        ready.block();
        let Ok(room) = stream.check_write() else { break };
        let (chunk, rest) = bytes.split_at(bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX)));
        if stream.write(chunk).is_err() {
            break;
        }
        bytes = rest;
    }
    let _ = stream.flush();
    ready.block();
    drop((ready, stream));
    let _ = OutgoingBody::finish(body, None);
    Ok(())
}

fn incoming(response: IncomingResponse) -> Result<Response, Error> {
    let status = response.status();
    let text = |value: Vec<u8>| String::from_utf8_lossy(&value).into_owned();
    let headers = response.headers().entries().into_iter().map(|(name, value)| (name, text(value))).collect();
    let body = response.consume().map_err(|()| Error::Failed("its body is not there".to_owned()))?;
    Ok(Response { status, headers, body: read(&body)? })
}

fn read(body: &IncomingBody) -> Result<Vec<u8>, Error> {
    let stream = body.stream().map_err(|()| Error::Failed("its body is not there".to_owned()))?;
    let mut all = Vec::new();
    loop {
        match stream.blocking_read(CHUNK_BYTES) {
            Ok(bytes) => all.extend(bytes),
            Err(StreamError::Closed) => return Ok(all),
            Err(StreamError::LastOperationFailed(error)) => {
                return Err(match http_error_code(&error) {
                    Some(code) => failed(code),
                    None => Error::Failed(error.to_debug_string()),
                });
            }
        }
    }
}

fn invalid(what: &str) -> Error {
    Error::InvalidRequest(format!("{what} is not valid"))
}

fn failed(code: ErrorCode) -> Error {
    match code {
        ErrorCode::HttpRequestDenied => Error::Denied(
            "the bot's grant `http` does not have this host (see the invocation's log)".to_owned(),
        ),
        ErrorCode::DestinationIpProhibited => Error::Denied(
            "the host is at an address that must not be reached (see the invocation's log)".to_owned(),
        ),
        ErrorCode::DnsTimeout
        | ErrorCode::ConnectionTimeout
        | ErrorCode::ConnectionReadTimeout
        | ErrorCode::ConnectionWriteTimeout
        | ErrorCode::HttpResponseTimeout => Error::TimedOut(code.to_string()),
        ErrorCode::HttpRequestUriInvalid | ErrorCode::HttpRequestMethodInvalid => {
            Error::InvalidRequest(code.to_string())
        }
        code => Error::Failed(code.to_string()),
    }
}
