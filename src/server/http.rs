//! From HTTP to the pipeline and back: bounded bodies, JSON answers, nothing else.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, EXPECT};
use http::{HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use zeroize::Zeroizing;

use super::listener::{Connection, Serve};
use super::pipeline::{Answer, Head, Pipeline};
use super::rescue::{Failure, Rescued};
use crate::metrics::Metrics;
use crate::wire::limits::MAX_BODY_LEN;
use crate::wire::response::ResponseBody;

/// Up to where a body that is too large is read on.
const MAX_DISCARDED: usize = 1024 * 1024;

/// The XKS service of a listener.
#[derive(Debug, Clone)]
pub struct Xks {
    /// Serves the requests.
    pub pipeline: Arc<Pipeline>,
    /// Counts panics.
    pub metrics: Arc<Metrics>,
}

impl Serve for Xks {
    async fn serve(
        &self,
        connection: Arc<Connection>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Infallible> {
        let arrived = Instant::now();
        let _serving = connection.activity.begin();
        let version = request.version();
        let (parts, body) = request.into_parts();
        let head = Head {
            method: parts.method.as_str().to_owned(),
            path: path(&parts.uri, version),
            query: parts.uri.query().map(str::to_owned),
            authority: parts.uri.authority().map(|authority| authority.to_string()),
            headers: parts.headers,
            peer: connection.peer,
            client_subject: connection.client_subject.get().cloned(),
            arrived,
        };
        let waits_to_be_asked = head.headers.contains_key(EXPECT);
        let body = read(body, waits_to_be_asked, connection.clone());
        let pipeline = self.pipeline.clone();
        // A task of its own: what the HSM has begun is recorded even if the client goes away, and
        // a panic ends this request only.
        let served = tokio::spawn(async move { pipeline.serve(head, body).await }).await;
        let answer = served.unwrap_or_else(|_panic| {
            self.metrics.panicked();
            tracing::error!(
                "a request ended in a panic: this is a defect of xksd, please report it"
            );
            Answer { result: Err(Failure::Panicked.into()), authenticated: false }
        });
        if answer.authenticated {
            connection.authenticated();
        }
        Ok(respond(answer.result, version, &connection))
    }
}

/// The path as it was sent (P-5). An HTTP/1.1 request target in absolute form is none of our
/// paths; HTTP/2 sends scheme and authority with each request, always beside the path.
fn path(uri: &http::Uri, version: Version) -> String {
    let absolute = version < Version::HTTP_2 && uri.scheme().is_some();
    if absolute { uri.to_string() } else { uri.path().to_owned() }
}

/// Reads a body of at most [`MAX_BODY_LEN`] bytes (P-23), within its time. That includes the wait
/// for its turn, which is short unless this connection's own bodies are slow.
///
/// Then it is looked at whether TLS would still let the client in that has sent it.
///
/// A larger one is read on for a while and thrown away: clients that are still sending when the
/// answer comes tend to miss it. One that waits to be asked for its body is not asked.
async fn read(
    mut body: Incoming,
    waits_to_be_asked: bool,
    connection: Arc<Connection>,
) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if waits_to_be_asked && announced > MAX_BODY_LEN {
        return Err(Failure::BodyTooLarge);
    }
    // P-45: there may be a plaintext in it. Of a body that announces its length there is one copy.
    let mut kept = Zeroizing::new(Vec::new());
    let read = async {
        let _turn = connection.bodies.acquire().await;
        kept.reserve_exact(announced.min(MAX_BODY_LEN));
        let mut length: usize = 0;
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_broken| Failure::BodyBroken)?.into_data() else {
                continue;
            };
            length = length.saturating_add(data.len());
            if length <= MAX_BODY_LEN {
                kept.extend_from_slice(&data);
            } else if length > MAX_DISCARDED {
                break;
            }
        }
        if length <= MAX_BODY_LEN { Ok(()) } else { Err(Failure::BodyTooLarge) }
    };
    match tokio::time::timeout(connection.limits.body_timeout, read).await {
        Err(_elapsed) => Err(Failure::BodyLate),
        // P-16
        Ok(_) if !connection.is_admitted() => Err(Failure::Barred),
        Ok(read) => read.map(|()| kept),
    }
}

fn respond(
    result: Result<ResponseBody, Rescued>,
    version: Version,
    connection: &Connection,
) -> Response<Body> {
    let (status, body, allow, close) = match result {
        Ok(body) => (200, body, false, false),
        Err(error) => (error.status, error.body.to_body(), error.status == 405, error.close),
    };
    // P-45: an answer that carries a plaintext is zeroized once it was written.
    let mut response = Response::new(Body::from(Bytes::from_owner(body)));
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    // P-1, P-22: whatever the request said of itself.
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if allow {
        headers.insert(ALLOW, HeaderValue::from_static("POST"));
    }
    if close {
        if version < Version::HTTP_2 {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        connection.close();
    }
    response
}
