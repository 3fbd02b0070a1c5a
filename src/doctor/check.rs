//! The names of all checks. They stay as they are from release to release: whoever watches doctor by a
//! program watches for these.

use std::fmt;

use serde::{Serialize, Serializer};

macro_rules! checks {
    ($($variant:ident = $name:literal,)+) => {
        /// What was looked at.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "docs/doctor.md says what each looks at, and a test that it does")]
        pub enum Check {
            $($variant,)+
        }

        impl Check {
            /// Every check.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Its name.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

checks! {
    Configuration = "configuration",
    Safety = "configuration.safety",
    FilesWritable = "files.writable",
    FilesDirectory = "files.directory",
    ListenAddress = "listen.address",
    OpenFiles = "limits.open_files",
    Memory = "limits.memory",
    ClockSynchronised = "clock.synchronised",
    ClockDifference = "clock.difference",
    CertificateLoads = "certificate.loads",
    CertificateExpiry = "certificate.expiry",
    CertificateNames = "certificate.names",
    CertificateHost = "certificate.host",
    CertificateChain = "certificate.chain",
    CertificateAuthority = "certificate.authority",
    EndpointForm = "endpoint.form",
    EndpointUri = "endpoint.uri",
    EndpointDns = "endpoint.dns",
    EndpointReach = "endpoint.reach",
    EndpointTls = "endpoint.tls",
    EndpointSuites = "endpoint.suites",
    EndpointCertificate = "endpoint.certificate",
    EndpointClients = "endpoint.client_certificate",
    EndpointHost = "endpoint.host",
    EndpointPath = "endpoint.path",
    EndpointAnswer = "endpoint.answer",
    EndpointHealth = "endpoint.health",
    EndpointTime = "endpoint.time",
    DaemonCertificate = "daemon.certificate",
    DaemonCredentials = "daemon.credentials",
    TokenModule = "token.module",
    TokenFound = "token.found",
    TokenSessions = "token.sessions",
    TokenMechanisms = "token.mechanisms",
    TokenLogin = "token.login",
    TokenRandom = "token.random",
    TokenIv = "token.iv",
    TokenAesGcm = "token.aes_gcm",
    TokenTime = "token.time",
    TokenKeys = "token.keys",
    TokenAnswers = "token.answers",
    KeystoreKeys = "keystore.keys",
    KeystoreProtection = "keystore.protection",
    GroupKeys = "group.keys",
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for Check {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}
