//! Where a proxy is: `https://host[:port][/prefix]`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use http::Uri;
use http::uri::Authority;

use crate::names::{API_ROOT, ExternalKeyId, NameError, PathPrefix};
use crate::wire::route::{KeyOperation, Route, Target};

/// What runs over TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// HTTP over TLS, as KMS speaks it.
    Https,
    /// Plain HTTP: to loopback only.
    Http,
}

impl Scheme {
    /// As it stands in a URL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
        }
    }

    const fn default_port(self) -> u16 {
        match self {
            Self::Https => 443,
            Self::Http => 80,
        }
    }
}

/// One key store of a proxy (P-4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    scheme: Scheme,
    authority: Authority,
    prefix: PathPrefix,
}

/// Why a text is no endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Not `https://host[:port][/prefix]`.
    #[error("not of the form https://host[:port][/prefix]")]
    Form,
    /// A query, a fragment or a user name, which no endpoint has.
    #[error("an endpoint has neither user name nor query nor fragment")]
    Extra,
    /// Plain HTTP to another machine.
    #[error("plain http is for loopback addresses only, and `{host}` is none; use https")]
    PlainAfar {
        /// The host.
        host: String,
    },
    /// The path is no prefix.
    #[error("{0}")]
    Prefix(#[from] NameError),
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    /// The path may be the prefix alone, or the whole `XksProxyUriPath`, `/prefix/kms/xks/v1`.
    fn from_str(text: &str) -> Result<Self, EndpointError> {
        if text.contains(['?', '#', '@']) {
            return Err(EndpointError::Extra);
        }
        let uri: Uri = text.parse().map_err(|_| EndpointError::Form)?;
        let scheme = match uri.scheme_str() {
            Some("https") => Scheme::Https,
            Some("http") => Scheme::Http,
            _ => return Err(EndpointError::Form),
        };
        let authority = uri.authority().ok_or(EndpointError::Form)?.clone();
        let path = uri.path().trim_end_matches('/');
        let path = path.strip_suffix(API_ROOT).unwrap_or(path);
        let prefix = path.strip_prefix('/').unwrap_or(path).parse()?;
        let endpoint = Self { scheme, authority, prefix };
        if endpoint.host().is_empty() {
            return Err(EndpointError::Form);
        }
        if scheme == Scheme::Http && !endpoint.is_loopback() {
            return Err(EndpointError::PlainAfar { host: endpoint.host().to_owned() });
        }
        Ok(endpoint)
    }
}

impl Endpoint {
    /// What runs over TCP.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host, IPv6 addresses without brackets.
    pub fn host(&self) -> &str {
        self.authority.host().trim_start_matches('[').trim_end_matches(']')
    }

    /// The port, the scheme's own where none is written.
    pub fn port(&self) -> u16 {
        self.authority.port_u16().unwrap_or(self.scheme.default_port())
    }

    /// Which key store of the proxy.
    pub fn prefix(&self) -> &PathPrefix {
        &self.prefix
    }

    /// The value of `Host` and of `:authority`: as written, without the scheme's own port.
    pub fn authority(&self) -> &str {
        let text = self.authority.as_str();
        if self.authority.port_u16() == Some(self.scheme.default_port()) {
            return text.rsplit_once(':').map_or(text, |(host, _)| host);
        }
        text
    }

    /// The prefix as a path, without what XKS adds: of an endpoint that is no XKS proxy.
    pub fn base_path(&self) -> String {
        match self.prefix.as_str() {
            "" => String::new(),
            prefix => format!("/{prefix}"),
        }
    }

    /// Such an endpoint as it is configured: `https://host[:port][/prefix]`.
    pub fn base(&self) -> String {
        format!("{}://{}{}", self.scheme.as_str(), self.authority(), self.base_path())
    }

    /// The path of an operation on a key.
    pub fn key_path(&self, key: &ExternalKeyId, operation: KeyOperation) -> String {
        self.path(Target::Key { id: key.clone(), operation })
    }

    /// The path of GetHealthStatus.
    pub fn health_path(&self) -> String {
        self.path(Target::Health)
    }

    fn path(&self, target: Target) -> String {
        Route { prefix: self.prefix.clone(), target }.to_string()
    }

    fn is_loopback(&self) -> bool {
        match self.host().parse::<IpAddr>() {
            Ok(address) => address.is_loopback(),
            Err(_) => self.host() == "localhost",
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme.as_str(), self.authority(), self.prefix.uri_path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(text: &str) -> Endpoint {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn prefix_and_whole_path_name_the_same_endpoint_p_4() {
        let key = "k".parse().unwrap();
        for (text, path) in [
            ("https://h", "/kms/xks/v1/keys/k/encrypt"),
            ("https://h/", "/kms/xks/v1/keys/k/encrypt"),
            ("https://h/kms/xks/v1", "/kms/xks/v1/keys/k/encrypt"),
            ("https://h/a/b", "/a/b/kms/xks/v1/keys/k/encrypt"),
            ("https://h/a/b/kms/xks/v1/", "/a/b/kms/xks/v1/keys/k/encrypt"),
        ] {
            assert_eq!(endpoint(text).key_path(&key, KeyOperation::Encrypt), path, "{text}");
        }
        assert_eq!(endpoint("https://h/a").health_path(), "/a/kms/xks/v1/health");
    }

    #[test]
    fn another_servers_base_has_nothing_of_xks() {
        for text in ["http://127.0.0.1:4318", "https://collector.example.com/a/b"] {
            assert_eq!(endpoint(text).base(), text);
        }
        assert_eq!(endpoint("https://h/a/b/").base_path(), "/a/b");
        assert_eq!(endpoint("https://h/").base_path(), "");
    }

    #[test]
    fn the_schemes_own_port_is_not_in_the_host_header() {
        for (text, authority, host, port) in [
            ("https://xks.example.com", "xks.example.com", "xks.example.com", 443),
            ("https://xks.example.com:443/p", "xks.example.com", "xks.example.com", 443),
            ("https://xks.example.com:8443", "xks.example.com:8443", "xks.example.com", 8443),
            ("https://[::1]:443", "[::1]", "::1", 443),
            ("https://[::1]:8443", "[::1]:8443", "::1", 8443),
            ("http://127.0.0.1", "127.0.0.1", "127.0.0.1", 80),
        ] {
            let endpoint = endpoint(text);
            assert_eq!(endpoint.authority(), authority, "{text}");
            assert_eq!((endpoint.host(), endpoint.port()), (host, port), "{text}");
        }
    }

    #[test]
    fn plain_http_stays_on_this_machine() {
        for text in
            ["http://127.0.0.1:80", "http://127.9.9.9", "http://[::1]:1", "http://localhost"]
        {
            assert_eq!(endpoint(text).scheme(), Scheme::Http);
        }
        for text in ["http://10.0.0.1", "http://localhost.example.com", "http://[2001:db8::1]"] {
            let error = text.parse::<Endpoint>().unwrap_err();
            assert!(matches!(error, EndpointError::PlainAfar { .. }), "{text}: {error}");
        }
    }

    #[test]
    fn other_texts_are_no_endpoints() {
        for text in ["", "localhost:8443", "/a", "ftp://h", "https://", "https:///a"] {
            assert_eq!(text.parse::<Endpoint>(), Err(EndpointError::Form), "{text:?}");
        }
        for text in ["https://h?a", "https://h/a#b", "https://user@h"] {
            assert_eq!(text.parse::<Endpoint>(), Err(EndpointError::Extra), "{text:?}");
        }
        assert!(matches!("https://h/a.b".parse::<Endpoint>(), Err(EndpointError::Prefix(_))));
    }
}
