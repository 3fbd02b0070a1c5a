//! A healthy installation with everything: TLS by a CA that is on the list, a load balancer that passes
//! TCP through, two tokens with the same key, a state directory. Tests break it.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use support::daemon::Daemon;
use support::shim;
use support::site::{Configuration, Site, Tenant, text};
use support::token::{PIN, SoftHsmToken};

use crate::balancer::{self, Ending, Kind};
use crate::diagnosis::Diagnosis;

/// The host of the endpoint. Nothing resolves it: doctor is told where to connect to.
pub(crate) const HOST: &str = "xks.example.com";

/// The key of the healthy installation.
pub(crate) const KEY: &[u8; 32] = b"the same key in both its tokens.";

pub(crate) struct Installation {
    pub(crate) site: Arc<Site>,
    pub(crate) configuration: Configuration,
    /// Where the daemon listens.
    pub(crate) address: SocketAddr,
    /// More arguments for doctor.
    pub(crate) arguments: Vec<String>,
    /// What stands before the daemon.
    pub(crate) front: Kind,
    /// Whether doctor is told to connect to that.
    pub(crate) front_is_meant: bool,
    /// What runs doctor: a shell line that ends with it.
    pub(crate) shell: &'static str,
}

impl Installation {
    pub(crate) fn new() -> Self {
        let site = Site::new(env!("CARGO_BIN_EXE_xksd"));
        let directory = site.path();
        authority(directory, "list-ca");
        issue(directory, "front", "list-ca", &format!("DNS:{HOST}"), 90);
        SoftHsmToken::create(directory, "second");
        for label in ["xksd", "second"] {
            import(&site, label, "good", KEY, &["--sensitive"]);
        }
        // An address of its own: as many daemons as like may listen at this port.
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let (pid, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let [_, _, high, low] = pid.to_be_bytes();
        let ip = Ipv4Addr::new(127, high.max(1), low, u8::try_from(count).unwrap());
        let mut configuration =
            Configuration::new(vec![Tenant::new("demo", "demo", &["good"], 'A')]);
        configuration.server.insert("listen", text(format!("{ip}:8443")));
        configuration.ops.insert("listen", text(format!("{ip}:9443")));
        let tls = configuration.tls.as_mut().unwrap();
        tls.insert("certificate", text(directory.join("front.pem").display()));
        tls.insert("private_key", text(directory.join("front.key").display()));
        configuration.twin = Some(BTreeMap::from([("label", text("second"))]));
        let table = |key, value: String| BTreeMap::from([(key, value)]);
        let state = directory.join("state");
        configuration.others.insert("state", table("directory", text(state.display())));
        configuration.others.insert("fleet", table("endpoint", text(format!("https://{HOST}"))));
        let module = site.for_module("hsm.so");
        let settings = format!(
            "PKCS11_SHIM_MODULE={}\nPKCS11_SHIM_SCRIPT={}\nPKCS11_SHIM_COUNTS={}\n",
            site.token.module.display(),
            site.for_module("script").display(),
            site.for_module("counts").display(),
        );
        configuration.module = Some(shim::copy(module.parent().unwrap(), "hsm.so", &settings));
        site.configure(&configuration);
        site.run(&["state", "init"]);
        let arguments = vec!["--trusted-cas".to_owned(), list(directory, "list-ca")];
        let address = SocketAddr::new(ip.into(), 8443);
        let shell = "exec \"$@\"";
        let (site, front) = (Arc::new(site), Kind::Tcp);
        Self { site, configuration, address, arguments, front, front_is_meant: true, shell }
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.site.path().join(file)
    }

    pub(crate) fn start(&self) -> Daemon {
        Daemon::start(self.site.clone())
    }

    /// Writes the configuration once more, as it is now.
    pub(crate) fn write(&self) {
        self.site.configure(&self.configuration);
    }

    /// Replaces words of the file; they must be there.
    pub(crate) fn edit(&self, from: &str, to: &str) {
        let path = self.path("xksd.toml");
        let file = fs::read_to_string(&path).unwrap();
        assert!(file.contains(from), "no `{from}` in {file}");
        fs::write(path, file.replace(from, to)).unwrap();
    }

    /// Has the tokens' module misbehave.
    pub(crate) fn script(&self, lines: &str) {
        shim::set_script(&self.site.for_module("script"), lines);
    }

    /// A load balancer that ends TLS, with a certificate of its own for the right host.
    pub(crate) fn ending(&self) -> Ending {
        issue(self.site.path(), "balancer", "list-ca", &format!("DNS:{HOST}"), 90);
        // The daemon's, as the balancer sees it, is for `localhost`.
        Ending {
            chain: self.path("balancer.pem"),
            key: self.path("balancer.key"),
            backend_ca: self.path("list-ca.pem"),
            only: None,
            request: |head| head,
            answer: |head| head,
            instead: None,
        }
    }

    pub(crate) fn examine(&self) -> Diagnosis {
        let front = balancer::start(self.front.clone(), self.address);
        let mut arguments = vec!["doctor".to_owned(), "--json".to_owned()];
        if self.front_is_meant {
            arguments.extend(["--connect".to_owned(), front.to_string()]);
        }
        arguments.extend(self.arguments.iter().cloned());
        let (name, value) = self.site.token.env();
        let output = Command::new("sh")
            .args(["-c", self.shell, "sh"])
            .arg(&self.site.xksd)
            .args(&arguments)
            .arg("--config")
            .arg(self.path("xksd.toml"))
            .env(name, value)
            .env_remove("RUST_LOG")
            .output()
            .unwrap();
        Diagnosis::read(&output)
    }
}

/// Puts an AES key into a token.
pub(crate) fn import(site: &Site, token: &str, label: &str, key: &[u8; 32], more: &[&str]) {
    let file = site.path().join("key.bin");
    fs::write(&file, key).unwrap();
    let (name, value) = site.token.env();
    let output = Command::new("pkcs11-tool")
        .arg("--module")
        .arg(&site.token.module)
        .args(["--token-label", token, "--login", "--pin", PIN, "--private"])
        .args(["--label", label, "--id", "01", "--type", "secrkey", "--key-type", "AES:32"])
        .args(["--usage-decrypt", "--write-object"])
        .arg(&file)
        .args(more)
        .env(name, value)
        .output()
        .expect("pkcs11-tool (package opensc)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::remove_file(file).unwrap();
}

pub(crate) fn openssl(directory: &Path, arguments: &str) -> String {
    let output = Command::new("openssl")
        .args(arguments.split(' '))
        .current_dir(directory)
        .output()
        .expect("openssl is installed: package openssl");
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

const NEW_KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";

/// A CA: `NAME.pem` and `NAME.key`.
pub(crate) fn authority(directory: &Path, name: &str) {
    let files = format!("-keyout {name}.key -out {name}.pem");
    let usage = "-addext keyUsage=critical,keyCertSign";
    openssl(directory, &format!("req -x509 {NEW_KEY} {files} -days 365 -subj /CN={name} {usage}"));
}

/// A list in AWS's form with this CA; gives the file.
fn list(directory: &Path, name: &str) -> String {
    let print = openssl(directory, &format!("x509 -in {name}.pem -noout -fingerprint -sha256"));
    let print = print.trim().rsplit('=').next().unwrap();
    let file = directory.join("list");
    fs::write(&file, format!("Owner: CN={name}\n\t SHA256: {print}\n")).unwrap();
    file.to_str().unwrap().to_owned()
}

/// A server's certificate by this CA, followed by the CA's own: `NAME.pem` and `NAME.key`.
pub(crate) fn issue(directory: &Path, name: &str, ca: &str, names: &str, days: i32) {
    openssl(
        directory,
        &format!("req -new {NEW_KEY} -keyout {name}.key -out {name}.csr -subj /CN=x"),
    );
    let names = if names.is_empty() { String::new() } else { format!("subjectAltName={names}\n") };
    let extensions = format!("basicConstraints=CA:FALSE\n{names}");
    fs::write(directory.join(format!("{name}.ext")), extensions).unwrap();
    let by = format!("-CA {ca}.pem -CAkey {ca}.key -CAserial {name}.srl -CAcreateserial");
    let files = format!("-in {name}.csr -extfile {name}.ext -out {name}.own");
    openssl(directory, &format!("x509 -req {by} {files} -days {days}"));
    let chain = [format!("{name}.own"), format!("{ca}.pem")]
        .map(|file| fs::read_to_string(directory.join(file)).unwrap());
    fs::write(directory.join(format!("{name}.pem")), chain.concat()).unwrap();
}
