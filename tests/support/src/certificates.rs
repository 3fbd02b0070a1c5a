//! Certificates for tests, made by openssl: a CA, and what it issues.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What kind of key a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA on P-256.
    Ec,
    /// RSA of 2048 bits.
    Rsa,
}

/// How a private key is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyForm {
    /// `BEGIN PRIVATE KEY`
    Pkcs8,
    /// `BEGIN RSA PRIVATE KEY` (PKCS#1) or `BEGIN EC PRIVATE KEY` (SEC1).
    Traditional,
}

/// A certificate and its private key, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// A CA of a test's own.
#[derive(Debug, Clone)]
pub struct Authority {
    directory: PathBuf,
    identity: Identity,
}

impl Authority {
    /// Makes a CA in `directory`, which must exist; `name` is its subject's CN and its files' name.
    ///
    /// # Panics
    /// Where openssl is missing or refuses.
    pub fn new(directory: &Path, name: &str) -> Self {
        let config = directory.join(format!("{name}.cnf"));
        let text = "[req]\ndistinguished_name=subject\nx509_extensions=ca\n[subject]\n[ca]\n\
                    basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n\
                    subjectKeyIdentifier=hash\n";
        fs::write(&config, text).expect("a test's directory can be written");
        let subject = format!("/CN={name}");
        let identity = request(directory, name, &config, &subject, KeyKind::Ec, &[]);
        Self { directory: directory.to_owned(), identity }
    }

    /// The CA's own certificate, which those who trust it need.
    pub fn certificate(&self) -> &Path {
        &self.identity.certificate
    }

    /// A certificate for servers and clients alike. `name` becomes its files' name; `subject` is
    /// in openssl's form, `/CN=...`; as a server it is `localhost` and 127.0.0.1.
    ///
    /// # Panics
    /// Where openssl refuses.
    pub fn issue(&self, name: &str, subject: &str, kind: KeyKind) -> Identity {
        let config = self.directory.join(format!("{name}.cnf"));
        let text = "[req]\ndistinguished_name=subject\nx509_extensions=leaf\n[subject]\n[leaf]\n\
                    basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n\
                    extendedKeyUsage=serverAuth,clientAuth\nsubjectKeyIdentifier=hash\n\
                    authorityKeyIdentifier=keyid\n\
                    subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1\n";
        fs::write(&config, text).expect("a test's directory can be written");
        let (ca, ca_key) = (text_of(&self.identity.certificate), text_of(&self.identity.key));
        let signer = ["-CA", &ca, "-CAkey", &ca_key];
        request(&self.directory, name, &config, subject, kind, &signer)
    }
}

impl Identity {
    /// The same key, written down in another form.
    ///
    /// # Panics
    /// Where openssl refuses.
    #[must_use]
    pub fn with_key_form(&self, form: KeyForm) -> Self {
        let name = format!("{}.{form:?}", self.key.display());
        let traditional: &[&str] =
            if form == KeyForm::Traditional { &["-traditional"] } else { &[] };
        let key = text_of(&self.key);
        openssl(&[&["pkey", "-in", &key, "-out", &name], traditional].concat());
        Self { certificate: self.certificate.clone(), key: name.into() }
    }
}

fn request(
    directory: &Path,
    name: &str,
    config: &Path,
    subject: &str,
    kind: KeyKind,
    signer: &[&str],
) -> Identity {
    let certificate = directory.join(format!("{name}.pem"));
    let key = directory.join(format!("{name}.key"));
    let algorithm: &[&str] = match kind {
        KeyKind::Ec => &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
        KeyKind::Rsa => &["-newkey", "rsa:2048"],
    };
    let (certificate_text, key_text, config) =
        (text_of(&certificate), text_of(&key), text_of(config));
    let fixed = ["req", "-x509", "-sha256", "-nodes", "-days", "2", "-config", &config];
    let files = ["-out", &certificate_text, "-keyout", &key_text, "-subj", subject];
    openssl(&[&fixed[..], &files, algorithm, signer].concat());
    Identity { certificate, key }
}

fn openssl(arguments: &[&str]) {
    let output = Command::new("openssl")
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("openssl cannot be started (package openssl): {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {arguments:?}: {stderr}");
}

fn text_of(path: &Path) -> String {
    path.to_str().expect("temporary directories have names in UTF-8").to_owned()
}
