//! Rows of the table: methods, paths and queries (P-3 to P-6, P-15, P-71).

use support::request::bare_body;

use crate::bad_requests::{Expect, Table};
use crate::world::{
    AUTHENTICATION_FAILED, INVALID_URI_PATH, KEY_NOT_FOUND, UNSUPPORTED, VALIDATION,
};

const NOWHERE: Expect = Expect::Refused(404, INVALID_URI_PATH);
const NOT_ALLOWED: Expect = Expect::Refused(405, UNSUPPORTED);
const STRANGER: Expect = Expect::Refused(401, AUTHENTICATION_FAILED);

pub(crate) fn fill(table: &mut Table) {
    methods(table);
    paths(table);
    queries(table);
}

/// P-3: POST only, and the answer tells so; signed or not (P-71).
fn methods(t: &mut Table) {
    for method in ["GET", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "post", "Post", "PROPFIND"]
    {
        t.spoiled(format!("{method}, signed"), NOT_ALLOWED, |r| r.method = method.into());
        t.spoiled(format!("{method}, not signed"), NOT_ALLOWED, |r| {
            r.method = method.into();
            r.signing.credential = None;
        });
    }
    t.spoiled("HEAD", Expect::HeadOnly(405), |r| r.method = "HEAD".into());
    for rest in ["health", "keys/demo-key/metadata", "keys/demo-key/decrypt", "keys/none/metadata"]
    {
        let mut request = t.kms.request(rest, &bare_body("KmsHealthCheck"));
        request.method = "GET".into();
        t.bytes(format!("GET {rest}"), NOT_ALLOWED, request.to_bytes());
    }
    // A path that is none is judged before the method (P-71).
    t.spoiled("GET nowhere", NOWHERE, |r| {
        r.method = "GET".into();
        r.target = "/".into();
    });
}

/// P-5: byte for byte.
fn paths(t: &mut Table) {
    for target in [
        "/",
        "/kms",
        "/favicon.ico",
        "/example/prefix/kms/xks/v1",
        "/example/prefix/kms/xks/v1/",
        "/example/prefix/kms/xks/v1/keys",
        "/example/prefix/kms/xks/v1/keys/demo-key",
        "/example/prefix/kms/xks/v1/keys/demo-key/",
        "/example/prefix/kms/xks/v1/keys/demo-key/encrypt/",
        "/example/prefix/kms/xks/v1/keys/demo-key/rotate",
        "/example/prefix/kms/xks/v1/keys/demo-key/Encrypt",
        "/example/prefix/kms/xks/v1/keys//encrypt",
        "/example/prefix/kms/xks/v1/keys/demo/key/encrypt",
        "/example/prefix/kms/xks/v1/keys/xksd:probe/encrypt",
        "/example/prefix/kms/xks/v1/keys/demo~key/encrypt",
        "/example/prefix/kms/xks/v1/keys/demo%2Dkey/encrypt",
        "/example/prefix/kms/xks/v1/keys/demo-key%00/encrypt",
        "/example/prefix/kms/xks/v1/keys/../keys/demo-key/encrypt",
        "/example/prefix/kms/xks/v1/health/",
        "/example/prefix/kms/xks/v1/Health",
        "/example/prefix/kms/xks/v1//health",
        "/example/prefix/kms/xks/v1/./health",
        "/example/prefix/kms/xks/v1/keys/../health",
        "/example/prefix/kms/xks/v1/health;v=1",
        "/example/prefix/kms/xks/v1/health%20",
        "/example/prefix/kms/xks/v1/%68ealth",
        "/example/prefix/kms/xks/v2/health",
        "/example/prefix/kms/xks/health",
        "/example/prefix/KMS/xks/v1/health",
        "/example/PREFIX/kms/xks/v1/health",
        "/example//prefix/kms/xks/v1/health",
        "//example/prefix/kms/xks/v1/health",
        "/./example/prefix/kms/xks/v1/health",
        "/other/../example/prefix/kms/xks/v1/health",
        "/example%2Fprefix/kms/xks/v1/health",
        "/ex%61mple/prefix/kms/xks/v1/health",
        "/example/prefix/other/kms/xks/v1/health",
        "/example/kms/xks/v1/health",
        "/prefix/kms/xks/v1/health",
        "/nobody/kms/xks/v1/health",
        "//kms/xks/v1/health",
        "*",
    ] {
        t.spoiled(format!("path {target}"), NOWHERE, |r| r.target = target.into());
    }
    let key = |id: &str| format!("/example/prefix/kms/xks/v1/keys/{id}/encrypt");
    // P-6: 128 characters at most, of this alphabet, slashes and colons not among them.
    let longest = "demo-".to_owned() + &"k".repeat(123);
    t.spoiled("a key id of 128", Expect::Refused(404, KEY_NOT_FOUND), |r| r.target = key(&longest));
    t.spoiled("a key id of 129", NOWHERE, |r| r.target = key(&format!("{longest}k")));
    t.spoiled("a path of 8,000", NOWHERE, |r| r.target = key(&"k".repeat(8000)));
    t.spoiled("a key of all allowed characters", Expect::Refused(404, KEY_NOT_FOUND), |r| {
        r.target = key("demo-._AZaz09");
    });
    // HTTP has no fragments in targets, and the HTTP library drops them before anybody looks. That
    // changes nothing: the path that is served is the path that was signed.
    t.spoiled("a fragment", Expect::Served, |r| {
        r.signing.path = Some(r.target.clone());
        r.target.push_str("#fragment");
    });
    t.spoiled("a fragment, signed", STRANGER, |r| r.target.push_str("#fragment"));
    // The target of a proxy's request is not the path as KMS sends it.
    for scheme in ["http", "https"] {
        t.spoiled(format!("absolute form, {scheme}"), NOWHERE, |r| {
            r.signing.path = Some(r.target.clone());
            r.target = format!("{scheme}://localhost{}", r.target);
        });
    }
    let malformed = Expect::RefusedAndClosed(400, VALIDATION);
    for target in ["/example/pre fix/kms/xks/v1/health", "example/prefix/kms/xks/v1/health", ""] {
        t.spoiled(format!("target `{target}`"), malformed, |r| r.target = target.into());
    }
}

/// P-15: no query, not even an empty one, and no presigned URL.
fn queries(t: &mut Table) {
    for query in ["", "a=b", "a", "&", "x=/kms/xks/v1/health", "Action=Encrypt"] {
        t.spoiled(format!("query ?{query}, not signed"), STRANGER, |r| {
            r.target = format!("{}?{query}", r.target);
        });
        t.spoiled(format!("query ?{query}, signed"), STRANGER, |r| {
            r.target = format!("{}?{query}", r.target);
            r.signing.query = if query == "a" { "a=".into() } else { query.into() };
        });
    }
    t.spoiled("presigned form", STRANGER, |r| {
        let headers = r.signed_headers();
        let authorization = &headers.last().expect("it is signed").1;
        let signature = authorization.rsplit('=').next().expect("it ends with the signature");
        r.target = format!(
            "{}?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Expires=300&X-Amz-Signature={signature}",
            r.target
        );
        r.signing.credential = None;
    });
    // P-71: the path is judged first, whatever follows it.
    t.spoiled("query on no path of ours", NOWHERE, |r| r.target = "/nowhere?a=b".into());
}
