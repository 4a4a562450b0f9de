//! `echo` once more, for any server of `wasi:http`: it returns the JSON of its request. The yardstick of the throughput
//! benchmark, in which `wasmtime serve` runs it.

#[cfg(target_family = "wasm")]
mod handler {
    use serde_json::value::RawValue;
    use wasip2::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};
    use wasip2::io::streams::StreamError;

    struct Echo;

    impl wasip2::exports::http::incoming_handler::Guest for Echo {
        fn handle(request: IncomingRequest, answer: ResponseOutparam) {
            let body = read(&request);
            let (status, body) = match serde_json::from_slice::<Box<RawValue>>(&body) {
                Ok(json) => (200, json.get().to_owned()),
                Err(error) => (400, error.to_string()),
            };
            let headers = Fields::new();
            let _ = headers.append("content-type", b"application/json");
            let response = OutgoingResponse::new(headers);
            let _ = response.set_status_code(status);
            let sent = response.body();
            ResponseOutparam::set(answer, Ok(response));
            let Ok(sent) = sent else { return };
            if let Ok(stream) = sent.write() {
                let _ = stream.blocking_write_and_flush(body.as_bytes());
            }
            let _ = OutgoingBody::finish(sent, None);
        }
    }

    fn read(request: &IncomingRequest) -> Vec<u8> {
        let mut all = Vec::new();
        let Ok(body) = request.consume() else { return all };
        let Ok(stream) = body.stream() else { return all };
        loop {
            match stream.blocking_read(64 << 10) {
                Ok(bytes) => all.extend(bytes),
                Err(StreamError::Closed | StreamError::LastOperationFailed(_)) => return all,
            }
        }
    }

    wasip2::http::proxy::export!(Echo);
}
