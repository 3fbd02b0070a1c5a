//! Watches one connection's bytes: cuts off who is too slow or silent for too long, puts a JSON
//! body under the refusals that the HTTP library writes by itself, and sees to it that the last
//! answer of a connection arrives.
//!
//! hyper's own timer for request heads also runs while a connection is idle, so that it can't
//! both cut off a slow head and keep an idle connection for minutes. This stream knows the
//! difference: a head has begun once a byte has come and no request is being served.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::wire::error::{ErrorBody, ErrorName};

/// What the requests of a connection tell its stream.
#[derive(Debug, Default)]
pub struct Activity {
    /// Requests whose answer is not ready yet.
    serving: AtomicUsize,
    /// Requests so far.
    begun: AtomicU64,
    /// Told of each.
    begins: Notify,
}

/// A request is being served for as long as this lives.
#[derive(Debug)]
pub struct Serving(Arc<Activity>);

impl Activity {
    /// The head of a request is complete.
    pub fn begin(self: &Arc<Self>) -> Serving {
        self.begun.fetch_add(1, Ordering::AcqRel);
        self.serving.fetch_add(1, Ordering::AcqRel);
        self.begins.notify_waiters();
        Serving(self.clone())
    }

    /// Waits until a request is being served.
    pub async fn serving(&self) {
        let begins = self.begins.notified();
        if !self.is_serving() {
            begins.await;
        }
    }

    /// Whether a request is being served.
    pub fn is_serving(&self) -> bool {
        self.serving.load(Ordering::Acquire) > 0
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.serving.fetch_sub(1, Ordering::AcqRel);
    }
}

/// How long a connection may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// From the first byte of a request's head to its last. `None` on HTTP/2, where bytes also
    /// come for other reasons.
    pub head: Option<Duration>,
    /// Without any request.
    pub idle: Duration,
}

/// Why the stream ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooSlow {
    /// The head of a request did not end in time.
    #[error("the head of a request did not end in time")]
    Head,
    /// No request for as long as idle connections are kept.
    #[error("idle for too long")]
    Idle,
}

/// A stream that is watched.
pub struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
    patience: Patience,
    timer: Pin<Box<Sleep>>,
    waiting_for: TooSlow,
    /// `Activity::begun` when the timer was last set.
    begun: u64,
    /// Once we have said our last word: how many more bytes are read and thrown away.
    lingering: Option<usize>,
}

/// How long a peer may go on sending after our last word, and how much. KMS's largest request and
/// what a TCP window holds beside it fit in.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 2 * 1024 * 1024;

impl<S> Watched<S> {
    /// Watches a stream whose connection tells its requests to `activity`.
    pub fn new(stream: S, activity: Arc<Activity>, patience: Patience) -> Self {
        let timer = Box::pin(sleep_until(Instant::now() + patience.idle));
        let waiting_for = TooSlow::Idle;
        Self { stream, activity, patience, timer, waiting_for, begun: 0, lingering: None }
    }

    /// Sets the timer for the state that the connection is in.
    fn look(&mut self) {
        let begun = self.activity.begun.load(Ordering::Acquire);
        if begun != self.begun {
            // A request has begun since, and with it the head has ended.
            self.begun = begun;
            self.wait(TooSlow::Idle);
        }
    }

    fn wait(&mut self, what: TooSlow) {
        let patience = match (what, self.patience.head) {
            (TooSlow::Head, Some(head)) => head,
            _ => self.patience.idle,
        };
        self.waiting_for = what;
        self.timer.as_mut().reset(Instant::now() + patience);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.look();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(context, buffer);
        if let Poll::Ready(result) = read {
            let came = buffer.filled().len() > before;
            let begins = came && !this.activity.is_serving() && this.waiting_for == TooSlow::Idle;
            if begins && this.patience.head.is_some() {
                this.wait(TooSlow::Head);
            }
            return Poll::Ready(result);
        }
        // While a request is served, its own deadlines hold.
        if this.timer.as_mut().poll_elapsed(context).is_ready() && !this.activity.is_serving() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, this.waiting_for)));
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        this.look();
        if let Some(refusal) = with_body(bytes) {
            // Short and at the start of a connection's output buffer: it fits or the peer is gone.
            let written = ready!(Pin::new(&mut this.stream).poll_write(context, &refusal))?;
            let all = written == refusal.len();
            return Poll::Ready(if all {
                Ok(bytes.len())
            } else {
                Err(io::ErrorKind::BrokenPipe.into())
            });
        }
        Pin::new(&mut this.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    /// Says the last word, and then waits for the peer to notice. A socket that is closed while
    /// the peer is still sending answers with a reset, which may overtake the answer that tells
    /// the peer why (RFC 9112, section 9.6).
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let mut left = match this.lingering {
            Some(left) => left,
            None => {
                ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
                this.timer.as_mut().reset(Instant::now() + LINGER);
                LINGER_BYTES
            }
        };
        let mut unwanted = [0; 4096];
        loop {
            this.lingering = Some(left);
            let mut unwanted = ReadBuf::new(&mut unwanted);
            match Pin::new(&mut this.stream).poll_read(context, &mut unwanted) {
                Poll::Ready(Ok(())) if !unwanted.filled().is_empty() && left > 0 => {
                    left = left.saturating_sub(unwanted.filled().len());
                }
                Poll::Ready(_ended_or_too_much) => return Poll::Ready(Ok(())),
                Poll::Pending => return this.timer.as_mut().poll_elapsed(context).map(Ok),
            }
        }
    }

    // Vectored writes are left to the default, so that a refusal always comes through `poll_write`.
}

trait PollElapsed {
    fn poll_elapsed(self, context: &mut Context<'_>) -> Poll<()>;
}

impl PollElapsed for Pin<&mut Sleep> {
    fn poll_elapsed(self, context: &mut Context<'_>) -> Poll<()> {
        Future::poll(self, context)
    }
}

/// hyper refuses malformed HTTP with an empty body, which KMS could not interpret, and with
/// statuses that the protocol does not know (P-70). Gives the refusal in our form; `None` for
/// anything else: all our own answers name a content type.
fn with_body(bytes: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (head, "") = text.split_once("\r\n\r\n")? else { return None };
    let (status, headers) = head.split_once("\r\n")?;
    if !(status.starts_with("HTTP/1.1 4") || status.starts_with("HTTP/1.0 4"))
        || !headers.contains("content-length: 0")
        || headers.contains("content-type:")
    {
        return None;
    }
    let message = "the request is not valid HTTP/1.1, or its head has more bytes or more headers \
                   than this proxy reads";
    let body = ErrorBody::new(ErrorName::Validation, message).to_body();
    let body = body.as_ref();
    let length = format!("content-type: application/json\r\ncontent-length: {}", body.len());
    let headers = headers.replace("content-length: 0", &length);
    let mut refusal = format!("HTTP/1.1 400 Bad Request\r\n{headers}\r\n\r\n").into_bytes();
    refusal.extend_from_slice(body);
    Some(refusal)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const PATIENCE: Patience =
        Patience { head: Some(Duration::from_secs(5)), idle: Duration::from_secs(900) };

    fn watched() -> (tokio::io::DuplexStream, Watched<tokio::io::DuplexStream>, Arc<Activity>) {
        let (peer, ours) = tokio::io::duplex(4096);
        let activity = Arc::<Activity>::default();
        (peer, Watched::new(ours, activity.clone(), PATIENCE), activity)
    }

    async fn cut_off_after(stream: &mut Watched<tokio::io::DuplexStream>) -> (TooSlow, Duration) {
        let start = Instant::now();
        let error = loop {
            if let Err(error) = stream.read_u8().await {
                break error;
            }
        };
        let why = *error.get_ref().unwrap().downcast_ref::<TooSlow>().unwrap();
        (why, start.elapsed())
    }

    // Time stands still in these tests but for the timers that are waited for.
    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_kept_for_long() {
        let (_peer, mut stream, _activity) = watched();
        assert_eq!(cut_off_after(&mut stream).await, (TooSlow::Idle, PATIENCE.idle));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_head_is_cut_off_however_its_bytes_trickle() {
        let (mut peer, mut stream, _activity) = watched();
        tokio::spawn(async move {
            loop {
                if peer.write_all(b"G").await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        let (why, after) = cut_off_after(&mut stream).await;
        assert_eq!((why, after.as_secs()), (TooSlow::Head, 5));
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_request_the_connection_may_idle_again() {
        let (mut peer, mut stream, activity) = watched();
        peer.write_all(b"GET").await.unwrap();
        stream.read_exact(&mut [0; 3]).await.unwrap();
        drop(activity.begin());
        assert_eq!(cut_off_after(&mut stream).await.0, TooSlow::Idle);
    }

    #[tokio::test]
    async fn malformed_http_gets_a_body_p_70() {
        let (mut peer, mut stream, _activity) = watched();
        peer.write_all(b"garbage\r\n\r\n").await.unwrap();
        stream.read_exact(&mut [0; 11]).await.unwrap();
        let empty = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(empty).await.unwrap();
        drop(stream);
        let mut answer = String::new();
        peer.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{answer}");
        let json: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(json["errorName"], "ValidationException");
    }

    /// The second of two pipelined requests comes in one read with the first.
    #[tokio::test]
    async fn malformed_http_after_a_request_gets_a_body_p_70() {
        let (mut peer, mut stream, activity) = watched();
        peer.write_all(b"good\r\n\r\ngarbage\r\n\r\n").await.unwrap();
        stream.read_exact(&mut [0; 19]).await.unwrap();
        drop(activity.begin());
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        let too_large =
            b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(too_large).await.unwrap();
        drop(stream);
        let mut answers = String::new();
        peer.read_to_string(&mut answers).await.unwrap();
        let second = answers.strip_prefix("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
        assert!(second.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{second}");
        assert!(second.contains("ValidationException"), "{second}");
    }

    #[tokio::test]
    async fn an_answer_of_ours_is_left_alone() {
        let (mut peer, mut stream, _activity) = watched();
        let ours =
            b"HTTP/1.1 404 Not Found\r\ncontent-type: text/plain\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(ours).await.unwrap();
        drop(stream);
        let mut answer = Vec::new();
        peer.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, ours);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_is_still_sending_is_waited_for() {
        let (mut peer, mut stream, _activity) = watched();
        let sending = tokio::spawn(async move {
            peer.write_all(&[0; 100_000]).await.unwrap();
            let mut answer = Vec::new();
            peer.read_to_end(&mut answer).await.unwrap();
            answer
        });
        stream.write_all(b"answer").await.unwrap();
        stream.shutdown().await.unwrap();
        drop(stream);
        assert_eq!(sending.await.unwrap(), b"answer");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_waited_for_without_end() {
        let (peer, mut stream, _activity) = watched();
        let start = Instant::now();
        stream.shutdown().await.unwrap();
        assert_eq!(start.elapsed().as_secs(), LINGER.as_secs());
        drop(peer);
        let (mut peer, mut stream, _activity) = watched();
        let sending =
            tokio::spawn(async move { while peer.write_all(&[0; 4096]).await.is_ok() {} });
        stream.shutdown().await.unwrap();
        drop(stream);
        sending.await.unwrap();
    }
}
