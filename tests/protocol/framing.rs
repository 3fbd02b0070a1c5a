//! Rows of the table: how a request is put on the wire (P-2, P-23, P-70).

use support::request::{Framing, Request};

use crate::bad_requests::{Expect, Table};
use crate::world::{AUTHENTICATION_FAILED, VALIDATION};

const MALFORMED: Expect = Expect::RefusedAndClosed(400, VALIDATION);
const STRANGER: Expect = Expect::Refused(401, AUTHENTICATION_FAILED);

/// P-23: the largest body that is read.
const LARGEST: usize = 128 * 1024;

pub(crate) fn fill(table: &mut Table) {
    sizes(table);
    chunks(table);
    lengths(table);
    heads(table);
    versions(table);
}

/// A good body, with white space up to this length.
fn padded(request: &mut Request, length: usize) {
    request.body.resize(length, b' ');
}

/// P-23, P-71: too large is judged before the signature, after path and method.
fn sizes(t: &mut Table) {
    t.spoiled("a body of 128 KiB", Expect::Served, |r| padded(r, LARGEST));
    t.spoiled("a body of 128 KiB in chunks", Expect::Served, |r| {
        padded(r, LARGEST);
        r.framing = Framing::Chunks(5000);
    });
    for framing in [Framing::Length, Framing::Chunks(4096), Framing::Chunks(100_000)] {
        for signed in [true, false] {
            let name = format!("a body of 128 KiB and a byte, {framing:?}, signed: {signed}");
            t.spoiled(name, MALFORMED, |r| {
                padded(r, LARGEST + 1);
                r.framing = framing;
                if !signed {
                    r.signing.credential = None;
                }
            });
        }
    }
    t.spoiled("a body of a megabyte", MALFORMED, |r| padded(r, 1 << 20));
    t.spoiled("a body of a megabyte in chunks", MALFORMED, |r| {
        padded(r, 1 << 20);
        r.framing = Framing::Chunks(10_000);
    });
    for length in ["131073", "1000000000000", "18446744073709551615"] {
        t.spoiled(format!("Content-Length: {length} and no body"), MALFORMED, |r| {
            length_header(r, length);
            r.body.clear();
        });
    }
    t.spoiled(
        "too large for a path that is none",
        Expect::Refused(404, "InvalidUriPathException"),
        |r| {
            r.target = "/nowhere".into();
            padded(r, LARGEST + 1);
        },
    );
}

fn length_header(request: &mut Request, length: &str) {
    request.headers.push(("Content-Length".into(), length.into()));
    request.framing = Framing::None;
}

fn chunks(t: &mut Table) {
    for size in [1, 7, 100_000] {
        t.spoiled(format!("chunks of {size}"), Expect::Served, |r| {
            r.framing = Framing::Chunks(size)
        });
    }
    let chunked = |t: &Table, edit: fn(&str) -> String| {
        let mut request = t.request();
        request.framing = Framing::Chunks(100_000);
        let text = String::from_utf8(request.to_bytes()).expect("all of it is ASCII");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head ends so");
        format!("{head}\r\n\r\n{}", edit(body)).into_bytes()
    };
    let with_extension = chunked(t, |body| body.replacen("\r\n", ";extension=1\r\n", 1));
    t.bytes("a chunk extension", Expect::Served, with_extension);
    let with_trailer = chunked(t, |body| body.replace("\r\n0\r\n", "\r\n0\r\nX-Trailer: 1\r\n"));
    t.bytes("a trailer", Expect::Served, with_trailer);
    for (what, edit) in [
        ("a chunk size that is no number", (|body| format!("z{body}")) as fn(&str) -> String),
        ("a negative chunk size", |body| format!("-{body}")),
        ("a chunk size of 17 digits", |body| format!("{}{body}", "f".repeat(17))),
        ("a chunk longer than it says", |body| body.replacen('{', "{ ", 1)),
        ("no line break after a chunk", |body| body.replace("\r\n0\r\n", "0\r\n")),
    ] {
        let bytes = chunked(t, edit);
        t.bytes(what, MALFORMED, bytes);
    }
    let cut = chunked(t, |body| body[..body.len() / 2].to_owned());
    t.cut("half of a chunk, and no more", MALFORMED, cut);
}

/// Bodies shorter or longer than their head says.
fn lengths(t: &mut Table) {
    let bytes = t.request().to_bytes();
    t.cut("half of a body, and no more", MALFORMED, bytes[..bytes.len() - 50].to_vec());
    t.cut("half of a head, and no more", Expect::Closed, bytes[..100].to_vec());
    t.cut("nothing", Expect::Closed, Vec::new());
    // What comes after a request is the next one, and no good one.
    let mut more = bytes.clone();
    more.extend_from_slice(b"garbage\r\n\r\n");
    t.bytes("something after a body", Expect::Served, more);
    for length in ["-1", "+5", "5a", "5, 6", "0x10", "99999999999999999999999999"] {
        t.spoiled(format!("Content-Length: {length}"), MALFORMED, |r| length_header(r, length));
    }
    t.spoiled("two lengths", MALFORMED, |r| {
        r.headers.push(("Content-Length".into(), "1".into()));
    });
    t.spoiled("no length: no body", STRANGER, |r| r.framing = Framing::None);
    t.spoiled("an unknown transfer coding", MALFORMED, |r| {
        r.headers.push(("Transfer-Encoding".into(), "gzip".into()));
        r.framing = Framing::None;
    });
    t.spoiled("chunked is not the last coding", MALFORMED, |r| {
        r.headers.push(("Transfer-Encoding".into(), "chunked, identity".into()));
        r.framing = Framing::None;
    });
    t.spoiled("Expect: 100-continue", Expect::Served, |r| {
        r.headers.push(("Expect".into(), "100-continue".into()));
    });
}

/// What is no HTTP gets JSON all the same (P-70), and the connection ends.
fn heads(t: &mut Table) {
    let good = String::from_utf8(t.request().to_bytes()).expect("all of it is ASCII");
    for (what, text) in [
        ("garbage", "garbage\r\n\r\n".to_owned()),
        ("no method", " / HTTP/1.1\r\n\r\n".into()),
        ("no version", "POST /\r\n\r\n".into()),
        ("a header without colon", good.replacen("Host: ", "Host ", 1)),
        ("a header without name", good.replacen("Host: ", ": ", 1)),
        ("a space before a colon", good.replacen("Host:", "Host :", 1)),
        ("a NUL in a header", good.replacen("localhost", "local\0host", 1)),
        ("a line break in a header", good.replacen("localhost", "local\rhost", 1)),
        ("a folded header", good.replacen("localhost", "local\r\n host", 1)),
        ("a header name that is none", good.replacen("Host", "H(st", 1)),
    ] {
        t.bytes(format!("malformed: {what}"), MALFORMED, text.into_bytes());
    }
    t.spoiled("a head of 20 KiB", MALFORMED, |r| {
        r.headers.push(("X-Long".into(), "x".repeat(20 * 1024)));
    });
    t.spoiled("100 headers", MALFORMED, |r| {
        r.headers.extend((0..100).map(|n| (format!("X-{n}"), "x".into())));
    });
    t.bytes("blank lines first", Expect::Served, format!("\r\n\r\n{good}").into_bytes());
    t.spoiled("header names in capitals", Expect::Served, |r| {
        for (name, _) in &mut r.headers {
            name.make_ascii_uppercase();
        }
    });
    t.spoiled("Connection: close", Expect::Served, |r| {
        r.headers.push(("Connection".into(), "close".into()));
    });
    t.spoiled("Upgrade: h2c", Expect::Served, |r| {
        r.headers.push(("Connection".into(), "Upgrade, HTTP2-Settings".into()));
        r.headers.push(("Upgrade".into(), "h2c".into()));
    });
    t.bytes(
        "a TLS hello within TLS",
        MALFORMED,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(),
    );
}

/// P-2: HTTP/1.1; its elder is served as well, a younger one only where ALPN chose it.
fn versions(t: &mut Table) {
    t.spoiled("HTTP/1.0", Expect::Served, |r| r.version = "HTTP/1.0");
    for version in ["HTTP/0.9", "HTTP/1.2", "HTTP/3.0", "http/1.1", "HTTP/1", "HTTPS/1.1", "ICY"] {
        t.spoiled(version, MALFORMED, |r| r.version = version);
    }
    t.bytes("HTTP/2 without ALPN", Expect::Closed, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec());
}
