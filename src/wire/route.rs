//! The only parser of request paths: which key store, which key, which operation.

use std::fmt;

use crate::names::{API_ROOT, ExternalKeyId, PathPrefix};

/// Longest path that can be one of ours, in bytes (P-4: the whole URI has 256 characters at most).
pub const MAX_PATH_LEN: usize = 256;

/// One of the four operations of the XKS protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// Describes an external key (P-30).
    GetKeyMetadata,
    /// Encrypts with an external key (P-40).
    Encrypt,
    /// Decrypts with an external key (P-50).
    Decrypt,
    /// Tells how the HSMs behind the proxy are (P-60).
    GetHealthStatus,
}

impl Operation {
    /// All four, for tables of metrics and tests.
    pub const ALL: [Self; 4] =
        [Self::GetKeyMetadata, Self::Encrypt, Self::Decrypt, Self::GetHealthStatus];

    /// The specification's name of the operation; also its metric label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::GetKeyMetadata => "GetKeyMetadata",
            Self::Encrypt => "Encrypt",
            Self::Decrypt => "Decrypt",
            Self::GetHealthStatus => "GetHealthStatus",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One of the three operations on an external key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyOperation {
    /// `.../metadata`
    Metadata,
    /// `.../encrypt`
    Encrypt,
    /// `.../decrypt`
    Decrypt,
}

impl KeyOperation {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Metadata, Self::Encrypt, Self::Decrypt];

    /// The last segment of the operation's path.
    pub const fn segment(self) -> &'static str {
        match self {
            Self::Metadata => "metadata",
            Self::Encrypt => "encrypt",
            Self::Decrypt => "decrypt",
        }
    }

    /// The same among all four operations.
    pub const fn operation(self) -> Operation {
        match self {
            Self::Metadata => Operation::GetKeyMetadata,
            Self::Encrypt => Operation::Encrypt,
            Self::Decrypt => Operation::Decrypt,
        }
    }
}

/// What the path names within its key store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The health of the key store's HSMs.
    Health,
    /// An operation on one external key.
    Key {
        /// The key.
        id: ExternalKeyId,
        /// What to do with it.
        operation: KeyOperation,
    },
}

/// A path that is one of ours. Nothing about it is authenticated yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Names the key store.
    pub prefix: PathPrefix,
    /// Names the operation in it, and the key.
    pub target: Target,
}

impl Route {
    /// The operation that the path names.
    pub fn operation(&self) -> Operation {
        match &self.target {
            Target::Health => Operation::GetHealthStatus,
            Target::Key { operation, .. } => operation.operation(),
        }
    }

    /// The external key that the path names; health has none.
    pub fn key(&self) -> Option<&ExternalKeyId> {
        match &self.target {
            Target::Health => None,
            Target::Key { id, .. } => Some(id),
        }
    }
}

/// The path, as a client has to send it.
impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.prefix.uri_path())?;
        match &self.target {
            Target::Health => f.write_str(HEALTH),
            Target::Key { id, operation } => write!(f, "{KEYS}/{id}/{}", operation.segment()),
        }
    }
}

/// Why a request line names no operation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// No operation has this path: 404 `InvalidUriPathException` (P-5).
    #[error("no operation has this path")]
    NotFound,
    /// The path is right, the method is not POST: 405 with `Allow: POST` (P-3).
    #[error("the operation is called by POST only")]
    MethodNotAllowed {
        /// What POST would have reached.
        route: Route,
    },
}

/// Finds the operation for a request line.
///
/// `path` is the path as it was sent, without query. It is compared byte for byte: nothing is
/// decoded, folded or trimmed (P-5), because the signature covers these very bytes. The path is
/// judged before the method (P-71). A key id that breaks P-6 makes the path one of nobody's.
pub fn parse(method: &str, path: &str) -> Result<Route, RouteError> {
    let route = recognise(path).ok_or(RouteError::NotFound)?;
    // P-3: GET must be refused; any other method is too. Methods are case-sensitive.
    if method == "POST" { Ok(route) } else { Err(RouteError::MethodNotAllowed { route }) }
}

/// Reads from the end, where the path has no freedom: a prefix may contain anything, even
/// `kms/xks/v1`, but neither a key id nor an operation contains a slash.
fn recognise(path: &str) -> Option<Route> {
    if path.len() > MAX_PATH_LEN {
        return None;
    }
    let (root, target) = match path.strip_suffix(HEALTH) {
        Some(root) => (root, Target::Health),
        None => {
            let (rest, segment) = path.rsplit_once('/')?;
            let operation = KeyOperation::ALL.into_iter().find(|op| op.segment() == segment)?;
            let (keys, id) = rest.rsplit_once('/')?;
            let id = id.parse().ok()?;
            (keys.strip_suffix(KEYS)?, Target::Key { id, operation })
        }
    };
    let prefix = match root.strip_suffix(API_ROOT)? {
        "" => "",
        // `//kms/xks/v1` has an empty segment; it is not the path of the empty prefix.
        path => path.strip_prefix('/').filter(|prefix| !prefix.is_empty())?,
    };
    Some(Route { prefix: prefix.parse().ok()?, target })
}

/// Follows [`API_ROOT`] in the path of GetHealthStatus.
const HEALTH: &str = "/health";

/// Follows [`API_ROOT`] in the paths of the operations on a key.
const KEYS: &str = "/keys";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prefix_of(path: &str) -> Option<String> {
        parse("POST", path).ok().map(|route| route.prefix.to_string())
    }

    #[test]
    fn the_four_paths_with_and_without_prefix_p_4() {
        for prefix in ["", "/a", "/example/uri-path_1", "/kms/xks/v1", "/a/kms/xks/v1/keys/x"] {
            for (tail, operation, key) in [
                ("/health", Operation::GetHealthStatus, None),
                ("/keys/k-1._Z/metadata", Operation::GetKeyMetadata, Some("k-1._Z")),
                ("/keys/encrypt/encrypt", Operation::Encrypt, Some("encrypt")),
                ("/keys/health/decrypt", Operation::Decrypt, Some("health")),
            ] {
                let path = format!("{prefix}/kms/xks/v1{tail}");
                let route = parse("POST", &path).expect(&path);
                assert_eq!(route.operation(), operation);
                assert_eq!(route.key().map(ExternalKeyId::as_str), key);
                assert_eq!(route.prefix.as_str(), prefix.trim_start_matches('/'));
                assert_eq!(route.to_string(), path);
            }
        }
    }

    #[test]
    fn paths_are_matched_byte_for_byte_p_5() {
        for path in [
            "",
            "/",
            "*",
            "/health",
            "kms/xks/v1/health",
            "//kms/xks/v1/health",
            "/kms/xks/v1//health",
            "/kms/xks/v1/health/",
            "/kms/xks/v1/Health",
            "/KMS/xks/v1/health",
            "/kms/xks/v1/./health",
            "/kms/xks/v1/../v1/health",
            "/kms/xks/v1/health?",
            "/kms/xks/v1/health?a=b",
            "/kms/xks/v1/heal%74h",
            "/kms/xks/v1",
            "/kms/xks/v2/health",
            "/kms/xks/v1/keys/health",
            "/kms/xks/v1/keys/k/health",
            "/a//kms/xks/v1/health",
            "//a/kms/xks/v1/health",
            "/a.b/kms/xks/v1/health",
            "/a%2fb/kms/xks/v1/health",
            "akms/xks/v1/health",
            "/akms/xks/v1/health",
            "a/kms/xks/v1/health",
            "/kms/xks/v1/keys/k",
            "/kms/xks/v1/keys/k/",
            "/kms/xks/v1/keys/k/sign",
            "/kms/xks/v1/keys/k/encrypt/",
            "/kms/xks/v1/keys/k/Encrypt",
            "/kms/xks/v1/keys//encrypt",
            "/kms/xks/v1/keys/k/x/encrypt",
            "/kms/xks/v1/key/k/encrypt",
            "/kms/xks/v1/k/encrypt",
            "https://xks.example.com/kms/xks/v1/health",
            "/kms/xks/v1/health\u{0}",
            "/kms/xks/v1/héalth",
        ] {
            assert_eq!(parse("POST", path), Err(RouteError::NotFound), "{path:?}");
            // P-71: the path is judged before the method.
            assert_eq!(parse("GET", path), Err(RouteError::NotFound), "{path:?}");
        }
    }

    #[test]
    fn key_ids_that_break_p_6_are_no_path() {
        let path = |id: &str| format!("/kms/xks/v1/keys/{id}/encrypt");
        assert!(parse("POST", &path(&"k".repeat(128))).is_ok());
        for id in [&"k".repeat(129), "a:b", "a b", "a%20b", "a*", "ключ", "xksd:probe"] {
            assert_eq!(parse("POST", &path(id)), Err(RouteError::NotFound), "{id}");
        }
        // Dots are letters of an id, and no way out of `keys`.
        assert_eq!(parse("POST", &path("..")).unwrap().key().unwrap().as_str(), "..");
    }

    #[test]
    fn lengths_keep_p_4() {
        let with_prefix = |len: usize| format!("/{}/kms/xks/v1/health", "p".repeat(len));
        assert_eq!(prefix_of(&with_prefix(116)), Some("p".repeat(116)));
        assert_eq!(prefix_of(&with_prefix(117)), None);
        // A prefix of 108 and a key id of 128 make 1 + 108 + 11 + 6 + 128 + 8 = 262: each is
        // allowed by itself, the sum is not.
        let path =
            |id: usize| format!("/{}/kms/xks/v1/keys/{}/encrypt", "p".repeat(108), "k".repeat(id));
        assert_eq!(path(122).len(), 256);
        assert!(parse("POST", &path(122)).is_ok());
        assert_eq!(parse("POST", &path(123)), Err(RouteError::NotFound));
    }

    #[test]
    fn only_post_p_3() {
        for path in ["/a/kms/xks/v1/health", "/kms/xks/v1/keys/k/decrypt"] {
            let route = parse("POST", path).unwrap();
            for method in ["GET", "PUT", "HEAD", "OPTIONS", "DELETE", "post", "POST ", ""] {
                let error = RouteError::MethodNotAllowed { route: route.clone() };
                assert_eq!(parse(method, path), Err(error), "{method}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_printed_route_is_read_back_p_4(
            prefix in "([a-zA-Z0-9_-]{1,20}(/[a-zA-Z0-9_-]{1,20}){0,3})?",
            id in "[a-zA-Z0-9._-]{1,100}",
            which in 0usize..4,
        ) {
            let prefix: PathPrefix = prefix.parse().unwrap();
            let target = match KeyOperation::ALL.get(which) {
                Some(&operation) => Target::Key { id: id.parse().unwrap(), operation },
                None => Target::Health,
            };
            let route = Route { prefix, target };
            prop_assert_eq!(parse("POST", &route.to_string()), Ok(route));
        }

        #[test]
        fn an_accepted_path_is_the_one_that_would_be_printed_p_5(
            path in "(/?(kms|xks|v1|keys|health|encrypt|a|\\.\\.|%2f|é)){0,9}/?"
        ) {
            if let Ok(route) = parse("POST", &path) {
                prop_assert_eq!(route.to_string(), path);
            }
        }

        #[test]
        fn no_text_panics(method in any::<String>(), path in any::<String>()) {
            let _ = parse(&method, &path);
        }

        #[test]
        fn one_changed_byte_is_refused_or_is_another_route_p_5(
            at in 0usize..40, byte in any::<u8>()
        ) {
            let good = "/example/prefix/kms/xks/v1/keys/k/encrypt";
            let mut bytes = good.as_bytes().to_vec();
            bytes[at] = byte;
            if let Ok(path) = std::str::from_utf8(&bytes)
                && let Ok(route) = parse("POST", path)
            {
                prop_assert_eq!(route.to_string(), path);
            }
        }
    }
}
