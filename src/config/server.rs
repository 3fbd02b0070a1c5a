//! The sections `server`, `ops`, `log`, `fleet` and `reload`.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::parse::{address, duration_within, flag, network, number_within};
use super::reader::{Section, Shape, parsed};
use super::report::Wrong;
use super::secrets::warn_if_readable;
use super::{Ops, Server, Transport};
use crate::client::{Endpoint, Scheme};
use crate::server::{control, listener};
use crate::telemetry::{self, Format};
use crate::tls::{self, ClientAuth, TlsError};

/// Bounds of the time that a peer has for one step.
const STEP: (&str, &str) = ("100ms", "60s");

const ENDPOINT: &str =
    "what KMS is given as XksProxyUriEndpoint: https://xks.example.com, without a path";

/// Reads `[server]` and what is below it.
pub(super) fn server(root: &mut Section<'_>) -> Option<Server> {
    let mut section = root.section("server");
    let listen = section.required_list("listen", address);
    let transport = transport(&mut section, listen.as_deref());
    let connections = number_within(1..=1_000_000);
    let max_connections = section.or("max_connections", "4096", Shape::Number, connections);
    let step = duration_within(STEP.0, STEP.1);
    let handshake_timeout = section.or("handshake_timeout", "5s", Shape::Text, &step);
    let head_timeout = section.or("head_timeout", "5s", Shape::Text, &step);
    let body_timeout = section.or("body_timeout", "5s", Shape::Text, &step);
    let idle_timeout = section.or("idle_timeout", "15m", Shape::Text, |text| {
        duration_within("10m", "24h")(text)
            .map_err(|wrong| wrong.hint("KMS keeps idle connections and comes back to them"))
    });
    // P-8
    let deadline = section.or("deadline", "120ms", Shape::Text, |text| {
        duration_within("1ms", "250ms")(text)
            .map_err(|wrong| wrong.hint("KMS gives up 250 ms after it began to connect"))
    });
    let proxy_protocol_from = section.list("proxy_protocol_from", network);
    let mut drain = section.section("drain");
    let drain_delay = drain.or("delay", "20s", Shape::Text, duration_within("0s", "10m"));
    let drain_timeout = drain.or("timeout", "10s", Shape::Text, duration_within("0s", "10m"));
    Some(Server {
        listen: listen?,
        transport: transport?,
        limits: listener::Limits {
            max_connections: max_connections?,
            handshake_timeout: handshake_timeout?,
            head_timeout: head_timeout?,
            body_timeout: body_timeout?,
            idle_timeout: idle_timeout?,
            proxy_protocol_from: proxy_protocol_from?,
        },
        deadline: deadline?,
        drain_delay: drain_delay?,
        drain_timeout: drain_timeout?,
    })
}

/// TLS, or plain HTTP on loopback: exactly one of them.
fn transport(section: &mut Section<'_>, listen: Option<&[SocketAddr]>) -> Option<Transport> {
    const PLAIN: &str = "insecure_plain_http_on_loopback";
    let has_tls = section.has("tls");
    let plain = section.or(PLAIN, "false", Shape::Flag, flag);
    let mut tls = section.section("tls");
    let settings = has_tls.then(|| tls_settings(&mut tls));
    let exposed = || listen?.iter().find(|address| !address.ip().is_loopback());
    match (plain?, settings) {
        (false, Some(settings)) => settings.map(Transport::Tls),
        (false, None) => {
            let wrong = Wrong::from("is missing: it takes `certificate` and `private_key`");
            let hint = format!("for a try-out on loopback without TLS: server.{PLAIN} = true");
            section.missing("tls", wrong.hint(hint));
            None
        }
        (true, Some(_)) => {
            let wrong = Wrong::from("cannot stand beside [server.tls]");
            section.fault(PLAIN, Some("true".to_owned()), wrong.hint("leave one of them out"));
            None
        }
        (true, None) => match exposed() {
            None => Some(Transport::PlainOnLoopback),
            Some(address) => {
                let wrong =
                    Wrong::from(format!("is for loopback addresses, and {address} is none"));
                let hint = "listen on 127.0.0.1 or [::1] only, or set up [server.tls]";
                section.fault(PLAIN, Some("true".to_owned()), wrong.hint(hint));
                None
            }
        },
    }
}

fn tls_settings(section: &mut Section<'_>) -> Option<tls::Settings> {
    let report = section.report;
    let path = |text: &str| {
        let path = report.path(&super::parse::filled(text)?);
        report.note_file(&path);
        Ok(path)
    };
    let certificate = section.required("certificate", Shape::Text, path);
    let private_key = section.required("private_key", Shape::Text, path);
    let ca = section.optional("client_ca", Shape::Text, path);
    let subject = section.optional("client_subject", Shape::Text, parsed::<tls::Subject>);
    // P-16: a chain without a subject would let in every customer of that CA.
    let client_auth = match (ca, subject) {
        (Some(None), Some(None)) => Some(ClientAuth::Off),
        (Some(Some(ca)), Some(Some(subject))) => Some(ClientAuth::Required { ca, subject }),
        (Some(Some(_)), Some(None)) => missing_half(section, "client_subject", "client_ca"),
        (Some(None), Some(Some(_))) => missing_half(section, "client_ca", "client_subject"),
        _ => None,
    };
    // Each file by itself, so that the fault of one does not hide that of another.
    let mut readable = true;
    let mut check =
        |key: &str, path: Option<&PathBuf>, read: &dyn Fn(&Path) -> Result<(), String>| {
            if let Some(Err(problem)) = path.map(|path| read(path)) {
                section.fault(key, None, problem);
                readable = false;
            }
        };
    let chain = |path: &Path| match tls::certificates(path, "the certificate chain") {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    };
    let key = |path: &Path| match std::fs::File::open(path) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("cannot read `{}`: {error}", path.display())),
    };
    check("certificate", certificate.as_ref(), &chain);
    check("private_key", private_key.as_ref(), &key);
    if let Some(ClientAuth::Required { ca, .. }) = &client_auth {
        check("client_ca", Some(ca), &chain);
    }
    let settings = tls::Settings {
        certificate: certificate?,
        private_key: private_key?,
        client_auth: client_auth?,
    };
    if !readable {
        return None;
    }
    warn_if_readable(report, &section.path("private_key"), &settings.private_key);
    report.secret_places.borrow_mut().files.insert(settings.private_key.clone());
    match tls::load(&settings) {
        Ok(_) => Some(settings),
        Err(error) => {
            let key = match &error {
                TlsError::ClientCa(_) | TlsError::Anchor { .. } => "client_ca",
                TlsError::Certificate { .. } | TlsError::NoCertificate { .. } => "certificate",
                _ => "private_key",
            };
            section.fault(key, None, error.to_string());
            None
        }
    }
}

fn missing_half<T>(section: &Section<'_>, missing: &str, present: &str) -> Option<T> {
    // P-16
    let wrong = Wrong::from(format!("is missing, and `{present}` is set: mTLS takes both"));
    let hint = "KMS presents CN=cks.kms.<Region>.amazonaws.com under Amazon Trust Services";
    section.fault(missing, None, wrong.hint(hint));
    None
}

/// Reads `[ops]`.
pub(super) fn ops(root: &mut Section<'_>) -> Option<Ops> {
    let mut section = root.section("ops");
    let report = section.report;
    let listen = section.required("listen", Shape::Text, address);
    let metrics_listen = section.optional("metrics_listen", Shape::Text, address);
    let control_socket = section.optional("control_socket", Shape::Text, |text| {
        let path = report.path(&super::parse::filled(text)?);
        if path.as_os_str().len() > control::PATH_MAX {
            let wrong = Wrong::from(format!("is longer than {} bytes", control::PATH_MAX));
            return Err(
                wrong.hint("a Unix socket can't have a longer path: /run/xksd/control.sock")
            );
        }
        Ok(path)
    });
    Some(Ops { listen: listen?, metrics_listen: metrics_listen?, control_socket: control_socket? })
}

/// One address can be listened on once. Port 0 is a new port each time.
pub(super) fn check_addresses(root: &Section<'_>, server: Option<&Server>, ops: Option<&Ops>) {
    let mut taken: Vec<(String, SocketAddr)> = Vec::new();
    let xks = server.map(|server| server.listen.as_slice()).unwrap_or_default();
    let health = ops.map(|ops| ("ops.listen", ops.listen));
    let metrics = ops.and_then(|ops| Some(("ops.metrics_listen", ops.metrics_listen?)));
    let all = xks.iter().map(|address| ("server.listen", *address)).chain(health).chain(metrics);
    for (key, address) in all {
        let other = taken.iter().find(|(_, other)| *other == address && address.port() != 0);
        if let Some((other, _)) = other {
            let problem = format!("is the address of {other} as well");
            root.fault(key, Some(format!("\"{address}\"")), problem);
        }
        taken.push((key.to_owned(), address));
    }
}

/// Reads `[log]`.
pub(super) fn log(root: &mut Section<'_>) -> Option<telemetry::Settings> {
    let mut section = root.section("log");
    let format = section.or("format", "json", Shape::Text, |text| match text {
        "json" => Ok(Format::Json),
        "text" => Ok(Format::Text),
        _ => Err("must be `json` or `text`".into()),
    });
    let level = section.or("level", "info", Shape::Text, |text| {
        telemetry::check_level(text)?;
        Ok(text.to_owned())
    });
    Some(telemetry::Settings { format: format?, level: level? })
}

/// Reads `[fleet]`: how many proxies there are, and where KMS finds them.
pub(super) fn fleet(root: &mut Section<'_>) -> Option<(NonZeroU32, Option<Endpoint>)> {
    let mut section = root.section("fleet");
    let most = NonZeroU32::new(10_000).expect("is not zero");
    let size = section.or("size", "1", Shape::Number, number_within(NonZeroU32::MIN..=most));
    let endpoint = section.optional("endpoint", Shape::Text, |text| {
        let endpoint: Endpoint = text.parse().map_err(|error| Wrong::from(error).hint(ENDPOINT))?;
        let is_bare = endpoint.scheme() == Scheme::Https && endpoint.base_path().is_empty();
        if is_bare {
            Ok(endpoint)
        } else {
            Err(Wrong::from("must be https and a host").hint(ENDPOINT))
        }
    });
    Some((size?, endpoint?))
}

/// Reads `[reload]`.
pub(super) fn reload(root: &mut Section<'_>) -> Option<Option<Duration>> {
    let mut section = root.section("reload");
    section.or("on_change", "never", Shape::Text, |text| match text {
        "never" => Ok(None),
        _ => duration_within("1s", "1h")(text)
            .map(Some)
            .map_err(|wrong| wrong.hint("how often it is looked, or \"never\"")),
    })
}
