//! Rows of the table: methods and targets (P-3, P-5, P-71) that no HTTP library sends, or that are
//! about the prefix of a test; `xksd conformance` has the others.

use crate::bad_requests::{Expect, Table};
use crate::world::{AUTHENTICATION_FAILED, INVALID_URI_PATH, VALIDATION};

const NOWHERE: Expect = Expect::Refused(404, INVALID_URI_PATH);
const STRANGER: Expect = Expect::Refused(401, AUTHENTICATION_FAILED);

pub(crate) fn fill(table: &mut Table) {
    methods(table);
    paths(table);
}

/// P-3: HEAD has an answer without a body; P-71: a path that is none is judged before the method.
fn methods(t: &mut Table) {
    t.spoiled("HEAD", Expect::HeadOnly(405), |r| r.method = "HEAD".into());
    t.spoiled("GET nowhere", NOWHERE, |r| {
        r.method = "GET".into();
        r.target = "/".into();
    });
}

/// P-5: byte for byte, in the prefix too.
fn paths(t: &mut Table) {
    for target in [
        "/example/PREFIX/kms/xks/v1/health",
        "/example//prefix/kms/xks/v1/health",
        "/other/../example/prefix/kms/xks/v1/health",
        "/example%2Fprefix/kms/xks/v1/health",
        "/ex%61mple/prefix/kms/xks/v1/health",
        "/example/prefix/other/kms/xks/v1/health",
        "/example/kms/xks/v1/health",
        "/prefix/kms/xks/v1/health",
        "//kms/xks/v1/health",
        "/example/prefix/kms/xks/v1/keys/xksd:probe/encrypt",
        "*",
    ] {
        t.spoiled(format!("path {target}"), NOWHERE, |r| r.target = target.into());
    }
    let key = format!("/example/prefix/kms/xks/v1/keys/{}/encrypt", "k".repeat(8000));
    t.spoiled("a path of 8,000", NOWHERE, |r| r.target = key);
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
