//! Uploads are read as they come: what cannot be a component is refused with its first bytes, and what all uploads hold in
//! memory, from their first byte until they are stored, is bounded, with a share for each org.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::BodyDataStream;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use ringfence_control::{Caller, check_component_header};
use ringfence_model::OrgId;

use crate::body::unreadable;
use crate::{App, Problem, RETRY_AFTER};

/// How many of the largest components all uploads together may hold, and those of one org.
const LARGEST_AT_A_TIME: usize = 8;
const LARGEST_OF_AN_ORG: usize = 2;

/// How many bytes say what a body is.
const HEADER_BYTES: usize = 8;

/// Bytes of uploads that are in memory, by org.
#[derive(Clone, Default)]
pub(crate) struct Uploads(Arc<Mutex<HashMap<OrgId, usize>>>);

/// The bytes of an upload, counted for as long as this lives.
pub(crate) struct Upload {
    uploads: Uploads,
    org: OrgId,
    held: usize,
    pub(crate) bytes: Bytes,
}

impl Uploads {
    /// The body of a request, which is a component.
    pub(crate) async fn read(app: &App, caller: &Caller, request: Request) -> Result<Upload, Problem> {
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        if !kind.unwrap_or_default().eq_ignore_ascii_case("application/wasm") {
            let detail = "Send the component's bytes with `Content-Type: application/wasm`.";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail));
        }
        let largest = app.config.max_component_bytes;
        let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|bytes| bytes.to_str().ok());
        let announced = announced.and_then(|bytes| bytes.parse::<usize>().ok());
        let (uploads, org) = (app.uploads.clone(), caller.org().clone());
        let mut upload = Upload { uploads, org, held: 0, bytes: Bytes::new() };
        let mut body = request.into_body().into_data_stream();
        if announced.is_some_and(|bytes| bytes > largest) {
            return Err(Problem::too_large(largest));
        }
        upload.take(&mut body, largest).await?;
        Ok(upload)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<OrgId, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Upload {
    /// Takes in the body, as it comes.
    async fn take(&mut self, body: &mut BodyDataStream, largest: usize) -> Result<(), Problem> {
        let mut read = BytesMut::new();
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|error| unreadable(&error))?;
            if piece.len() > largest.saturating_sub(read.len()) {
                return Err(Problem::too_large(largest));
            }
            self.hold(piece.len(), largest)?;
            let looked_at = read.len() >= HEADER_BYTES;
            read.extend_from_slice(&piece);
            if !looked_at && read.len() >= HEADER_BYTES {
                check_component_header(&read)?;
            }
        }
        self.bytes = read.freeze();
        Ok(())
    }

    /// Counts more bytes, if there is room for them.
    fn hold(&mut self, bytes: usize, largest: usize) -> Result<(), Problem> {
        let mut held = self.uploads.lock();
        let all: usize = held.values().sum();
        let own = held.get(&self.org).copied().unwrap_or_default();
        let room = |held: usize, most: usize| bytes <= largest.saturating_mul(most).saturating_sub(held);
        if !room(all, LARGEST_AT_A_TIME) || !room(own, LARGEST_OF_AN_ORG) {
            let detail =
                "Too much is being uploaded at the moment. Nothing was stored; try again in a moment.";
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "uploads_busy", detail)
                .retry_after(RETRY_AFTER));
        }
        held.insert(self.org.clone(), own + bytes);
        self.held += bytes;
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let mut held = self.uploads.lock();
        if let Some(own) = held.get_mut(&self.org) {
            *own = own.saturating_sub(self.held);
            if *own == 0 {
                held.remove(&self.org);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ringfence_model::{SeededRng, SystemClock};

    use super::*;

    fn upload(uploads: &Uploads, org: &OrgId) -> Upload {
        Upload { uploads: uploads.clone(), org: org.clone(), held: 0, bytes: Bytes::new() }
    }

    #[test]
    fn an_org_has_its_share_and_gives_it_back() {
        let (uploads, rng) = (Uploads::default(), SeededRng::new(1));
        let orgs: Vec<_> = (0..5).map(|_| OrgId::new(&SystemClock, &rng)).collect();
        let [mut one, mut two, mut three] = [(); 3].map(|()| upload(&uploads, &orgs[0]));
        assert!(one.hold(100, 100).is_ok() && two.hold(100, 100).is_ok());
        assert!(three.hold(1, 100).is_err(), "its share is taken");
        let mut others: Vec<_> = orgs[1..4].iter().map(|org| upload(&uploads, org)).collect();
        assert!(others.iter_mut().all(|upload| upload.hold(200, 100).is_ok()));
        let mut last = upload(&uploads, &orgs[4]);
        assert!(last.hold(1, 100).is_err(), "all there is is taken");
        drop(one);
        assert!(last.hold(1, 100).is_ok());
        drop((two, three, others, last));
        assert!(uploads.lock().is_empty(), "nothing is kept of those who have ended");
    }
}
