//! One table of requests, bad ones and a few that are only unusual, each with its exact answer: what
//! `xksd conformance` does not ask of every proxy, byte by byte where no HTTP library would send it.
//!
//! The rows stand in [`bodies`](crate::bodies), [`targets`](crate::targets),
//! [`signatures`](crate::signatures) and [`framing`](crate::framing). After each row the same
//! process has to serve a good request.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use support::caller::{Caller, assert_refused};
use support::http::{Answer, Connection};
use support::request::{Request, bare_body, decrypt_body, encrypt_body};

use crate::world::{AUTHENTICATION_FAILED, caller, daemon, demo};

/// What has to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    /// 200.
    Served,
    /// This status with this `errorName`.
    Refused(u16, &'static str),
    /// The same, and then the end of the connection.
    RefusedAndClosed(u16, &'static str),
    /// The head of such a refusal without its body: the method was HEAD.
    HeadOnly(u16),
    /// The end of the connection and nothing else, since nothing sensible can be said.
    Closed,
}

/// One row.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    /// Whether the client says that nothing more will come.
    pub(crate) finish: bool,
    pub(crate) expect: Expect,
}

/// The table, while it is being filled.
pub(crate) struct Table {
    pub(crate) kms: Caller,
    /// A good body of Encrypt.
    pub(crate) encrypt: Value,
    /// A good body of Decrypt.
    pub(crate) decrypt: Value,
    pub(crate) rows: Vec<Row>,
}

/// AAD of the good bodies.
pub(crate) const AAD: &[u8] = b"context";

impl Table {
    fn new() -> Self {
        let kms = caller(&demo());
        let encrypt = encrypt_body(b"plaintext of good bodies", Some(AAD));
        let sealed = served(&kms, "keys/demo-key/encrypt", &encrypt);
        let decrypt = decrypt_body(&sealed, Some(AAD));
        Self { kms, encrypt, decrypt, rows: Vec::new() }
    }

    /// A good request of Encrypt, to be spoiled.
    pub(crate) fn request(&self) -> Request {
        self.kms.request("keys/demo-key/encrypt", &self.encrypt)
    }

    /// A good request of Encrypt, spoiled before it is signed.
    pub(crate) fn spoiled(
        &mut self,
        name: impl Into<String>,
        expect: Expect,
        spoil: impl FnOnce(&mut Request),
    ) {
        let mut request = self.request();
        spoil(&mut request);
        self.bytes(name, expect, request.to_bytes());
    }

    /// A good request of Encrypt, its headers spoiled after it was signed.
    pub(crate) fn tampered(
        &mut self,
        name: impl Into<String>,
        expect: Expect,
        tamper: impl FnOnce(&mut Vec<(String, String)>),
    ) {
        let request = self.request();
        let mut headers = request.signed_headers();
        tamper(&mut headers);
        self.bytes(name, expect, request.with_headers(&headers));
    }

    /// A signed request with this JSON body.
    pub(crate) fn body(
        &mut self,
        name: impl Into<String>,
        expect: Expect,
        rest: &str,
        body: &Value,
    ) {
        let bytes = self.kms.request(rest, body).to_bytes();
        self.bytes(name, expect, bytes);
    }

    /// A signed request of Encrypt with this body, whatever it is.
    pub(crate) fn raw_body(
        &mut self,
        name: impl Into<String>,
        expect: Expect,
        body: impl AsRef<[u8]>,
    ) {
        self.spoiled(name, expect, |request| request.body = body.as_ref().to_vec());
    }

    /// These bytes.
    pub(crate) fn bytes(&mut self, name: impl Into<String>, expect: Expect, bytes: Vec<u8>) {
        self.rows.push(Row { name: name.into(), bytes, finish: false, expect });
    }

    /// These bytes, and then no more.
    pub(crate) fn cut(&mut self, name: impl Into<String>, expect: Expect, bytes: Vec<u8>) {
        self.rows.push(Row { name: name.into(), bytes, finish: true, expect });
    }
}

/// All rows, made afresh: their signatures are of now.
fn table() -> Table {
    let mut table = Table::new();
    crate::bodies::fill(&mut table);
    crate::targets::fill(&mut table);
    crate::signatures::fill(&mut table);
    crate::framing::fill(&mut table);
    table
}

/// P-1 to P-23, P-51, P-70, P-71: each row gets its exact answer, and the daemon lives on.
#[test]
fn each_bad_request_gets_its_answer() {
    let Table { kms, rows, .. } = table();
    let bad = rows.iter().filter(|row| row.expect != Expect::Served).count();
    assert!(bad >= 80, "{bad} bad requests");
    let pid = daemon().pid();
    // One at a time, so that a failure names its row.
    let faults: Vec<String> = rows.iter().filter_map(|row| fault_of(&kms, row)).collect();
    assert!(faults.is_empty(), "{} of {} rows:\n{}", faults.len(), rows.len(), faults.join("\n"));
    assert!(std::path::Path::new(&format!("/proc/{pid}/stat")).exists(), "another process");
    assert!(daemon().metrics().contains("\nxksd_panics_total 0\n"));
}

/// Why a row is not answered as it should be, if it is not.
fn fault_of(kms: &Caller, row: &Row) -> Option<String> {
    let checked = std::panic::catch_unwind(AssertUnwindSafe(|| {
        check(kms, row);
        served(kms, "health", &bare_body("KmsHealthCheck"));
    }));
    let panic = checked.err()?;
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("panicked");
    Some(format!("- {}: {text}", row.name))
}

/// The answer that came in time, with what else `ask` gives. No row is about an HSM that is late: on a
/// machine that is too busy for the deadline it is asked again.
fn in_time<T>(ask: impl FnMut() -> (T, Answer)) -> (T, Answer) {
    let mut answers = std::iter::repeat_with(ask).take(100);
    let in_time = answers.find(|(_, answer)| answer.status != 503);
    in_time.expect("one of a hundred requests is answered in time")
}

/// The answer to a request that has to succeed.
fn served(kms: &Caller, rest: &str, body: &Value) -> Value {
    let ((), answer) = in_time(|| ((), kms.call(rest, body)));
    assert_eq!(answer.status, 200, "{rest}: {}", answer.text());
    answer.json()
}

/// A connection over which the row was sent.
fn send(kms: &Caller, row: &Row) -> Connection {
    let mut connection = kms.connect();
    // A server that has read enough need not take the rest; its answer counts.
    let sent = connection.try_send(&row.bytes);
    if row.finish && sent.is_ok() {
        connection.finish();
    }
    connection
}

fn check(kms: &Caller, row: &Row) {
    if row.expect == Expect::Closed {
        let rest = send(kms, row).read_to_end().expect("it ends");
        assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
        return;
    }
    let (mut connection, answer) = in_time(|| {
        let mut connection = send(kms, row);
        let answer = connection.receive();
        (connection, answer)
    });
    match row.expect {
        Expect::Served => assert_eq!(answer.status, 200, "{}", answer.text()),
        Expect::Refused(status, name) => assert_refused(&answer, status, name),
        Expect::RefusedAndClosed(status, name) => {
            assert_refused(&answer, status, name);
            let rest = connection.read_to_end().expect("it ends");
            assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
        }
        Expect::HeadOnly(status) => {
            assert_eq!(answer.status, status);
            assert_eq!(answer.header("content-type"), Some("application/json"));
            assert_eq!(answer.header("allow"), Some("POST"));
        }
        Expect::Closed => unreachable!("returned above"),
    }
}

/// P-10, P-15: every bit of the signature counts; on one connection, which stays good.
#[test]
fn every_bit_of_a_signature_counts() {
    let table = Table::new();
    let request = table.request();
    let headers = request.signed_headers();
    let mut connection = table.kms.connect();
    for bit in 0..256 {
        let mut headers = headers.clone();
        flip(&mut headers.last_mut().expect("Authorization is the last").1, bit);
        connection.send(&request.with_headers(&headers));
        assert_refused(&connection.receive(), 401, AUTHENTICATION_FAILED);
    }
    let ((), answer) = in_time(|| {
        connection.send(&request.with_headers(&headers));
        ((), connection.receive())
    });
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// Flips one of the 256 bits that the last 64 hex digits stand for.
fn flip(authorization: &mut String, bit: usize) {
    let at = authorization.len() - 64 + bit / 4;
    let digit = u8::from_str_radix(&authorization[at..=at], 16).expect("a hex digit");
    authorization.replace_range(at..=at, &format!("{:x}", digit ^ (1 << (bit % 4))));
}

/// P-12: exactly five minutes away is recent, a second more is not, either side.
#[test]
fn five_minutes_and_no_second_more() {
    let kms = caller(&demo());
    for (seconds, status) in [(300, 200), (-300, 200), (301, 401), (-301, 401)] {
        // The daemon's clock is this one; the answer is the clock's if both looked at it within
        // the same second. On a busy machine that takes more than one attempt.
        let answer = (0..100).find_map(|_| {
            let now = unix_seconds();
            let mut request = kms.request("health", &bare_body("KmsHealthCheck"));
            request.signing.time =
                UNIX_EPOCH + Duration::from_secs(now.saturating_add_signed(seconds));
            let answer = kms.send(&request);
            (unix_seconds() == now).then_some(answer)
        });
        let answer = answer.expect("one of a hundred requests takes less than a second");
        assert_eq!(answer.status, status, "{seconds}: {}", answer.text());
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}
