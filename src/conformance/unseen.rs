//! Rules that nobody can examine from outside.

/// Rule and reason. `docs/conformance.md` says what holds them in xksd.
pub const UNSEEN: [(u32, &str); 7] = [
    (
        7,
        "whether KMS trusts the certificate's CA is for `xksd doctor`; host name and chain are checked against --cacert",
    ),
    (8, "a limit on time: `xksd bench` measures; the slowest answer is named at the end"),
    (44, "a worked example: the CDIVs here are computed by code that is tested with it"),
    (45, "what is logged is not seen from outside"),
    (61, "how a proxy finds out about its HSMs is not seen from outside"),
    (80, "who may be denied is the operator's policy"),
    (81, "what is logged is not seen from outside"),
];
