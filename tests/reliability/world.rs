//! The daemon of a scenario, and what must hold at the end of each.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use support::caller::Caller;
use support::daemon::{Daemon, PATIENCE, poll};
use support::load::{Load, MIX, Report, Vault};
use support::process::Process;
use support::shim::{self, set_script};
use support::site::{Configuration, Site, Tenant, text};

use crate::figures::Row;

pub(crate) const XKSD: &str = env!("CARGO_BIN_EXE_xksd");

/// How much of a scenario is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    /// What shows that the properties hold, on a machine that has other tests to run.
    Short,
    /// What gives figures.
    Long,
}

impl Scale {
    /// One or the other.
    pub(crate) fn pick<T>(self, short: T, long: T) -> T {
        match self {
            Self::Short => short,
            Self::Long => long,
        }
    }

    /// Requests per second.
    pub(crate) fn rate(self) -> f64 {
        self.pick(50.0, 200.0)
    }

    /// The deadline of a request: the default where figures are made, and what KMS allows where the
    /// machine is busy with other tests.
    pub(crate) fn deadline(self) -> &'static str {
        self.pick("250ms", "120ms")
    }
}

/// Where the module runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isolation {
    Process,
    Thread,
}

impl Isolation {
    pub(crate) const BOTH: [Self; 2] = [Self::Process, Self::Thread];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Thread => "thread",
        }
    }
}

/// The key store that is asked.
pub(crate) fn demo() -> Tenant {
    // What fails is then what was asked for.
    let lines = vec!["verify_writes = \"when_asked\""];
    Tenant { lines, ..Tenant::new("demo", "demo", &["demo-*"], 'A') }
}

/// A token behind the shim, with the keys `demo-key` and `demo-second`, not yet served.
pub(crate) fn site(scale: Scale, isolation: Isolation, settings: &[(&'static str, &str)]) -> Site {
    site_of(vec![demo()], scale, isolation, settings)
}

/// The same, for these key stores.
pub(crate) fn site_of(
    tenants: Vec<Tenant>,
    scale: Scale,
    isolation: Isolation,
    settings: &[(&'static str, &str)],
) -> Site {
    let mut configuration = Configuration::new(tenants);
    configuration.server.insert("deadline", text(scale.deadline()));
    // One line for each request that fails is enough.
    configuration.log.insert("level", text("warn,xksd::daemon=info"));
    configuration.module = Some(shim::library());
    configuration.token.insert("isolation", text(isolation.name()));
    for (key, value) in settings {
        configuration.token.insert(key, text(value));
    }
    let site = Site::new(XKSD);
    let at = |name: &str| site.for_module(name).display().to_string();
    let environment = format!(
        "{{ PKCS11_SHIM_SCRIPT = \"{}\", PKCS11_SHIM_COUNTS = \"{}\", PKCS11_SHIM_SEED = \"1\" }}",
        at("script"),
        at("counts")
    );
    configuration.token.insert("environment", environment);
    site.configure(&configuration);
    site.create_key("demo-key", "encrypt,decrypt");
    site.create_key("demo-second", "encrypt,decrypt");
    site
}

/// A daemon, who asks it, and every ciphertext that it gave.
pub(crate) struct World {
    pub(crate) daemon: Daemon,
    pub(crate) kms: Caller,
    pub(crate) vault: Arc<Vault>,
    pub(crate) scale: Scale,
}

impl World {
    /// A daemon whose module is the shim, in front of SoftHSM2.
    pub(crate) fn new(
        scale: Scale,
        isolation: Isolation,
        settings: &[(&'static str, &str)],
    ) -> Self {
        Self::with(scale, isolation, settings, &[])
    }

    /// The same, with environment variables of the daemon's.
    pub(crate) fn with(
        scale: Scale,
        isolation: Isolation,
        settings: &[(&'static str, &str)],
        environment: &[(&str, &str)],
    ) -> Self {
        Self::of(scale, Daemon::start_with(site(scale, isolation, settings), environment))
    }

    pub(crate) fn of(scale: Scale, daemon: Daemon) -> Self {
        let kms = Caller::new(&daemon, &demo());
        Self::with_caller(scale, daemon, kms)
    }

    pub(crate) fn with_caller(scale: Scale, daemon: Daemon, kms: Caller) -> Self {
        Self { daemon, kms, vault: Vault::new(), scale }
    }

    /// The usual load.
    pub(crate) fn load(&self) -> Load {
        let keys = vec!["demo-key".to_owned(), "demo-second".to_owned()];
        Load { keys, ..Load::new(&self.kms, self.scale.rate()) }
    }

    /// Has the shim obey.
    pub(crate) fn script(&self, text: &str) {
        set_script(&self.script_path(), text);
    }

    pub(crate) fn script_path(&self) -> PathBuf {
        self.daemon.site.for_module("script")
    }

    /// The process with the module, where it is not the daemon's own.
    pub(crate) fn child(&self) -> Process {
        let child = || Process(self.daemon.pid()).children().first().copied();
        poll(|| child().is_some(), || self.daemon.logged());
        child().expect("there was one a moment ago")
    }

    /// Waits until everything that is asked is answered with 200, without a restart.
    pub(crate) fn wait_recovered(&self) {
        let start = Instant::now();
        loop {
            // A turn of the mix; with each key, where there is time.
            let load = Load { connections: 2, rate: 200.0, ..self.load() };
            let report = load.send(&self.vault, self.scale.pick(1, 2) * MIX.len());
            let failed = report.failed();
            if failed.is_empty() {
                return;
            }
            assert!(start.elapsed() < 2 * PATIENCE, "{failed:?}:\n{}", self.said());
        }
    }

    /// The last that the daemon said, but for the requests that failed.
    pub(crate) fn said(&self) -> String {
        let log = self.daemon.logged();
        let lines: Vec<&str> =
            log.lines().filter(|line| !line.contains("\"request failed\"")).collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// What must hold in the end: no answer was wrong, the process is still the same, it serves, and
    /// it decrypts whatever it has ever encrypted.
    pub(crate) fn finish(&mut self, what: &str, report: &Report) -> Row {
        assert_eq!(report.wrong(), [""; 0], "{what}");
        self.wait_recovered();
        assert!(self.daemon.is_running(), "{what}:\n{}", self.said());
        let log = self.daemon.logged();
        assert!(!log.contains("panicked"), "{what}:\n{log}");
        let proof = self.vault.prove(&self.kms);
        assert_eq!(proof.lost, [""; 0], "{what}");
        Row::new(what, report, &proof)
    }
}
