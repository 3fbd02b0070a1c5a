//! Another configuration while the daemon serves: what takes effect, what is refused, and that no
//! connection is lost by it.

mod credentials;
mod faults;
mod policies;
mod restart;
mod sources;
mod threads;
mod tls;
mod tokens;
mod volumes;

use std::process::Output;
use std::sync::Arc;

use serde_json::Value;
use support::caller::Caller;
use support::daemon::Daemon;
use support::site::{Configuration, Site, Tenant, text};

use crate::world::{XKSD, demo, other};

/// A daemon with a control socket, and the configuration that its site has now.
pub(crate) struct World {
    pub(crate) daemon: Daemon,
    pub(crate) site: Arc<Site>,
    pub(crate) configuration: Configuration,
}

impl World {
    /// One that serves [`demo`].
    pub(crate) fn new() -> Self {
        Self::with(|_site, _configuration| {})
    }

    /// The same, with what else its site and its configuration are to have. It has the keys
    /// `demo-key`, `demo-second` and `other-key`.
    pub(crate) fn with(change: impl FnOnce(&Site, &mut Configuration)) -> Self {
        let mut configuration = Configuration::new(vec![demo()]);
        configuration.ops.insert("control_socket", text("control.sock"));
        let site = Site::new(XKSD);
        change(&site, &mut configuration);
        site.configure(&configuration);
        for key in ["demo-key", "demo-second", "other-key"] {
            site.create_key(key, "encrypt,decrypt");
        }
        let site = Arc::new(site);
        let daemon = Daemon::start(site.clone());
        Self { daemon, site, configuration }
    }

    pub(crate) fn kms(&self, tenant: &Tenant) -> Caller {
        Caller::new(&self.daemon, tenant)
    }

    /// Writes another configuration, which nobody has read yet.
    pub(crate) fn write(&mut self, change: impl FnOnce(&mut Configuration)) {
        change(&mut self.configuration);
        self.site.configure(&self.configuration);
    }

    /// Writes another configuration and has it reloaded.
    pub(crate) fn reload(&mut self, change: impl FnOnce(&mut Configuration)) -> Output {
        self.write(change);
        self.reload_as_written()
    }

    pub(crate) fn reload_as_written(&self) -> Output {
        self.site.command(&["reload"]).output().expect("xksd can be started")
    }

    /// The same, which must be applied; gives what has changed.
    pub(crate) fn applied(&mut self, change: impl FnOnce(&mut Configuration)) -> String {
        let output = self.reload(change);
        assert!(output.status.success(), "{}\n{}", stderr(&output), self.daemon.logged());
        String::from_utf8(output.stdout).expect("xksd writes UTF-8")
    }

    /// The same, which must be refused with this exit code and in words like these; what was served
    /// before is served on.
    pub(crate) fn refused(
        &mut self,
        change: impl FnOnce(&mut Configuration),
        code: i32,
        words: &str,
    ) {
        let before = self.metric("xksd_reloads_total{outcome=\"refused\"}");
        self.write(change);
        let socket = self.site.path().join("control.sock").display().to_string();
        // The configuration may be one in which no socket can be looked up.
        let output = self.site.command(&["reload", "--socket", &socket]).output();
        let output = output.expect("xksd can be started");
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(words), "`{words}` is not in:\n{said}");
        assert!(said.contains("nothing was reloaded"), "{said}");
        self.daemon.wait_for_line("the configuration is refused");
        assert_eq!(self.metric("xksd_reloads_total{outcome=\"refused\"}"), before + 1.0);
        assert_eq!(self.metric("xksd_reload_refused"), 1.0);
        assert_eq!(self.status(&socket)["reload"]["last"]["outcome"], "refused");
    }

    pub(crate) fn status(&self, socket: &str) -> Value {
        let status = self.site.run(&["status", "--json", "--socket", socket]);
        serde_json::from_str(&status).expect("it is JSON")
    }

    /// A sample of `/metrics`; zero where there is none.
    pub(crate) fn metric(&self, sample: &str) -> f64 {
        let metrics = self.daemon.metrics();
        let value = metrics.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().expect("it is a number"))
    }
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A key store that is not there at the start.
pub(crate) fn second() -> Tenant {
    Tenant { name: "second", prefix: "second", ..other() }
}
