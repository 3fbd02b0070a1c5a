//! The daemon that most tests share, its key stores and its keys.

use std::sync::OnceLock;

use support::caller::Caller;
use support::daemon::Daemon;
use support::request::unhex;
use support::site::{Configuration, Credential, Site, Tenant};

use crate::vectors::Vector;

pub(crate) const XKSD: &str = env!("CARGO_BIN_EXE_xksd");

pub(crate) const VALIDATION: &str = "ValidationException";
pub(crate) const INVALID_STATE: &str = "InvalidStateException";
pub(crate) const INVALID_CIPHERTEXT: &str = "InvalidCiphertextException";
pub(crate) const INVALID_KEY_USAGE: &str = "InvalidKeyUsageException";
pub(crate) const AUTHENTICATION_FAILED: &str = "AuthenticationFailedException";
pub(crate) const KEY_NOT_FOUND: &str = "KeyNotFoundException";
pub(crate) const INVALID_URI_PATH: &str = "InvalidUriPathException";
pub(crate) const UNSUPPORTED: &str = "UnsupportedOperationException";

/// Key material that stands for itself in the tests of foreign keys.
pub(crate) const FOREIGN_KEY: [u8; 32] = [7; 32];

/// A key store with the keys `demo-*` and `exact`, and two credentials.
pub(crate) fn demo() -> Tenant {
    let mut tenant = Tenant::new("demo", "example/prefix", &["demo-*", "exact"], 'A');
    tenant.credentials.push(Credential::of('B'));
    tenant
}

/// Another tenant, with keys of its own.
pub(crate) fn other() -> Tenant {
    Tenant::new("other", "other", &["other-key"], 'C')
}

/// A key store without prefix, which may reach all keys.
pub(crate) fn root() -> Tenant {
    Tenant::new("root", "", &["*"], 'D')
}

/// A disabled key store.
pub(crate) fn closed() -> Tenant {
    Tenant { enabled: false, ..Tenant::new("closed", "closed", &["*"], 'E') }
}

/// A site with one tenant, [`demo`], and one key, `demo-key`; configured as given.
pub(crate) fn small_site(configuration: &Configuration) -> Site {
    let site = Site::new(XKSD);
    site.configure(configuration);
    site.create_key("demo-key", "encrypt,decrypt");
    site
}

/// The daemon that is shared. Nobody changes what it serves, but for adding keys.
pub(crate) fn daemon() -> &'static Daemon {
    static DAEMON: OnceLock<Daemon> = OnceLock::new();
    DAEMON.get_or_init(|| {
        let mut configuration = Configuration::new(vec![demo(), other(), root(), closed()]);
        // A key that a test makes must be found without waiting for the next reading.
        configuration.token.insert("catalogue_interval", "\"10m\"".to_owned());
        // What announces a body and sends none is waited for as long as this.
        configuration.server.insert("body_timeout", "\"2s\"".to_owned());
        let site = Site::new(XKSD);
        site.configure(&configuration);
        fill(&site);
        Daemon::start(site)
    })
}

fn fill(site: &Site) {
    for (id, usage) in [
        ("demo-key", "encrypt,decrypt"),
        ("demo-second", "encrypt,decrypt"),
        ("demo-encrypt-only", "encrypt"),
        ("demo-decrypt-only", "decrypt"),
        ("demo-no-use", "none"),
        ("exact", "encrypt,decrypt"),
        ("exactly-not", "encrypt,decrypt"),
        ("other-key", "encrypt,decrypt"),
    ] {
        site.create_key(id, usage);
    }
    site.import_aes("demo-foreign", b"\x01", &FOREIGN_KEY);
    site.import_aes("demo-twice", b"\x02", &[1; 32]);
    site.import_aes("demo-twice", b"\x03", &[2; 32]);
    site.import_aes("demo-disabled", b"xksd1:00000000000000d1:1:disabled:2:20260101:-:-", &[3; 32]);
    site.import_aes("demo-pending", b"xksd1:00000000000000e1:1:pending:1:20260101:-:-", &[4; 32]);
    site.import_aes("demo-aes-128", b"\x04", &[5; 16]);
    // Vectors of one object id and version share a key.
    let mut vectors = crate::vectors::all();
    vectors.sort_by_key(Vector::key_id);
    vectors.dedup_by_key(|vector| vector.key_id());
    for vector in vectors {
        site.import_aes(&vector.key_id(), vector.cka_id().as_bytes(), &unhex(vector.key()));
    }
}

/// A caller of the shared daemon.
pub(crate) fn caller(tenant: &Tenant) -> Caller {
    Caller::new(daemon(), tenant)
}
