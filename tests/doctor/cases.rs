//! The ways in which installations are broken, and what each is called.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use rustls::CipherSuite;
use support::daemon::{Daemon, poll};
use support::site::{Credential, Tenant, text};

use crate::balancer::{Ending, Kind};
use crate::installation::{HOST, Installation, import, issue};

/// One way to break an installation.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// What doctor calls it.
    pub(crate) check: &'static str,
    pub(crate) status: &'static str,
    /// Words of what it says.
    pub(crate) message: &'static str,
    /// Words of what is to be done.
    pub(crate) advice: &'static str,
    /// What fails as well, since one thing leads to another.
    pub(crate) also: &'static [&'static str],
    pub(crate) breaking: Breaking,
}

pub(crate) enum Breaking {
    /// Nothing runs.
    Still(fn(&mut Installation)),
    /// The daemon runs; it was started from what the first one has made, and the second one comes after.
    Served(fn(&mut Installation), fn(&mut Installation, &Daemon)),
}
pub(crate) use Breaking::{Served, Still};

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Another certificate in place of the configured one.
fn certificate(installation: &Installation, ca: &str, names: &str, days: i32) {
    issue(installation.site.path(), "front", ca, names, days);
}

fn endpoint(installation: &mut Installation, url: &str) {
    let table = BTreeMap::from([("endpoint", text(url))]);
    installation.configuration.others.insert("fleet", table);
    installation.write();
}

/// What the daemon itself serves with behind a load balancer that ends TLS: the load balancer's client
/// wants `localhost`.
fn for_balancer(installation: &mut Installation) {
    certificate(installation, "list-ca", &format!("DNS:{HOST},DNS:localhost"), 90);
}

fn ended(installation: &mut Installation, change: fn(&mut Ending)) {
    let mut ending = installation.ending();
    change(&mut ending);
    installation.front = Kind::Tls(ending);
}

fn nothing(_: &mut Installation) {}

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "a value of the configuration that means nothing",
        check: "configuration",
        status: "fail",
        message: "must be a duration",
        advice: "KMS gives up",
        also: &[],
        breaking: Still(|this| this.edit("deadline = \"250ms\"", "deadline = \"forever\"")),
    },
    Case {
        name: "an access key id that KMS would not take",
        check: "configuration",
        status: "fail",
        message: "access key id",
        advice: "",
        also: &[],
        breaking: Still(|this| this.edit(&Credential::of('A').id, "lower-case-and-short")),
    },
    Case {
        name: "a path prefix that KMS would not take",
        check: "configuration",
        status: "fail",
        message: "slash",
        advice: "what stands before /kms/xks/v1",
        also: &[],
        breaking: Still(|this| this.edit("prefix = \"demo\"", "prefix = \"/demo\"")),
    },
    Case {
        name: "an external key id that KMS would not take",
        check: "configuration",
        status: "fail",
        message: "external key id",
        advice: "",
        also: &[],
        breaking: Still(|this| this.edit("keys = [\"good\"]", "keys = [\"not good!\"]")),
    },
    Case {
        name: "a PIN that others can read",
        check: "configuration.safety",
        status: "warn",
        message: "softhsm.pin",
        advice: "only the daemon's user",
        also: &[],
        breaking: Still(|this| mode(&this.path("token.pin"), 0o644)),
    },
    Case {
        name: "a configuration that everybody may change",
        check: "files.writable",
        status: "fail",
        message: "xksd.toml",
        advice: "chmod o-w",
        also: &[],
        breaking: Still(|this| mode(&this.path("xksd.toml"), 0o666)),
    },
    Case {
        name: "a directory in which everybody may put another module",
        check: "files.writable",
        status: "fail",
        message: "module",
        advice: "chmod o-w",
        also: &[],
        breaking: Still(|this| mode(&this.path("module"), 0o777)),
    },
    Case {
        name: "a state directory that is not there",
        check: "files.directory",
        status: "fail",
        message: "state",
        advice: "xksd state init",
        also: &[],
        breaking: Still(|this| fs::rename(this.path("state"), this.path("elsewhere")).unwrap()),
    },
    Case {
        name: "too few open files",
        check: "limits.open_files",
        status: "warn",
        message: "1000 open files are allowed",
        advice: "LimitNOFILE",
        also: &[],
        breaking: Still(|this| this.shell = "ulimit -n 1000 && exec \"$@\""),
    },
    Case {
        name: "an expired certificate",
        check: "certificate.expiry",
        status: "fail",
        message: "expired on",
        advice: "renew",
        also: &[],
        breaking: Still(|this| certificate(this, "list-ca", &format!("DNS:{HOST}"), -1)),
    },
    Case {
        name: "a certificate that expires soon",
        check: "certificate.expiry",
        status: "warn",
        message: "days",
        advice: "renew",
        also: &[],
        breaking: Still(|this| certificate(this, "list-ca", &format!("DNS:{HOST}"), 20)),
    },
    Case {
        name: "a certificate without names",
        check: "certificate.names",
        status: "fail",
        message: "no subject alternative name",
        advice: "DNS name",
        also: &[],
        breaking: Still(|this| certificate(this, "list-ca", "", 90)),
    },
    Case {
        name: "a certificate for another host, which KMS sees",
        check: "certificate.host",
        status: "fail",
        message: "it is not for `xks.example.com`",
        advice: "XksProxyUriEndpoint",
        also: &[],
        breaking: Served(
            |this| certificate(this, "list-ca", "DNS:other.example.com", 90),
            |_, _| {},
        ),
    },
    Case {
        name: "a chain in the wrong order",
        check: "certificate.chain",
        status: "fail",
        message: "what follows it is",
        advice: "the server's certificate first",
        also: &[],
        breaking: Still(|this| {
            let path = this.path("front.pem");
            let other = fs::read_to_string(this.site.authority.certificate()).unwrap();
            fs::write(&path, fs::read_to_string(this.path("front.own")).unwrap() + &other).unwrap();
        }),
    },
    Case {
        name: "a CA of one's own, which KMS sees",
        check: "certificate.authority",
        status: "fail",
        message: "is not on AWS's list",
        advice: "KMS refuses the certificates of all other CAs",
        also: &[],
        breaking: Served(|this| this.arguments.clear(), |_, _| {}),
    },
    Case {
        name: "a certificate that was renewed and not read",
        check: "daemon.certificate",
        status: "warn",
        message: "another certificate than the configured one",
        advice: "xksd reload",
        also: &[],
        breaking: Served(nothing, |this, _| {
            certificate(this, "list-ca", &format!("DNS:{HOST}"), 90);
        }),
    },
    Case {
        name: "a secret that was changed and not read",
        check: "daemon.credentials",
        status: "fail",
        message: "AuthenticationFailedException",
        advice: "another configuration",
        also: &["endpoint.answer"],
        breaking: Served(nothing, |this, _| {
            let file = format!("{}.secret", Credential::of('A').id);
            fs::write(this.path(&file), Credential::of('B').secret).unwrap();
        }),
    },
    Case {
        name: "an address that another program has",
        check: "listen.address",
        status: "fail",
        message: "is in use, and not by a live xksd",
        advice: "ss -ltnp",
        also: &[],
        breaking: Still(|this| {
            let stranger = TcpListener::bind(this.address).unwrap();
            // As long as the test: it is the stranger's address.
            std::mem::forget(stranger);
        }),
    },
    Case {
        name: "an endpoint with a port that KMS does not connect to",
        check: "endpoint.form",
        status: "fail",
        message: "port 8443",
        advice: "listen on port 443",
        also: &[],
        breaking: Still(|this| endpoint(this, "https://xks.example.com:8443")),
    },
    Case {
        name: "an endpoint without a domain",
        check: "endpoint.form",
        status: "fail",
        message: "no fully qualified name",
        advice: "DNS name",
        also: &[],
        breaking: Still(|this| endpoint(this, "https://xks")),
    },
    Case {
        name: "a URI that is too long for KMS",
        check: "endpoint.uri",
        status: "fail",
        message: "a URI of 258 characters",
        advice: "shorter",
        also: &["keystore.keys"],
        breaking: Still(|this| {
            let long: &'static str = "k".repeat(128).leak();
            let prefix: &'static str = "p".repeat(80).leak();
            this.configuration.tenants = vec![Tenant::new("demo", prefix, &[long], 'A')];
            this.write();
        }),
    },
    Case {
        name: "a name that leads nowhere but here",
        check: "endpoint.dns",
        status: "fail",
        message: "is an address of this machine alone",
        advice: "/etc/hosts",
        also: &["endpoint.form"],
        breaking: Still(|this| {
            endpoint(this, "https://localhost");
            this.front_is_meant = false;
        }),
    },
    Case {
        name: "a load balancer that nobody listens behind",
        check: "endpoint.reach",
        status: "fail",
        message: "cannot connect to 127.0.0.1",
        advice: "security groups",
        also: &[],
        breaking: Served(nothing, |this, _| {
            let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            this.front_is_meant = false;
            this.arguments.extend(["--connect".to_owned(), gone.to_string()]);
        }),
    },
    Case {
        name: "a load balancer that speaks no TLS",
        check: "endpoint.tls",
        status: "fail",
        message: "the TLS handshake failed",
        advice: "TLS 1.2 or 1.3 must be spoken there",
        also: &[],
        breaking: Served(nothing, |this, _| this.front = Kind::PlainHttp),
    },
    Case {
        name: "a load balancer with none of KMS's suites",
        check: "endpoint.suites",
        status: "fail",
        message: "none of the suites",
        advice: "TLS13_AES_256_GCM_SHA384",
        also: &[],
        breaking: Served(for_balancer, |this, _| {
            ended(this, |ending| {
                ending.only = Some(CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256);
            });
        }),
    },
    Case {
        name: "a load balancer that ends TLS",
        check: "endpoint.certificate",
        status: "warn",
        message: "TLS ends before xksd",
        advice: "pass TCP through",
        also: &[],
        breaking: Served(for_balancer, |this, _| ended(this, |_| {})),
    },
    Case {
        name: "a load balancer that ends TLS where KMS's certificate is asked for",
        check: "endpoint.client_certificate",
        status: "fail",
        message: "TLS ends before xksd",
        advice: "xksd itself must end TLS",
        also: &[],
        breaking: Served(
            |this| {
                for_balancer(this);
                let tls = this.configuration.tls.as_mut().unwrap();
                tls.insert("client_ca", text(this.site.authority.certificate().display()));
                tls.insert("client_subject", text("CN=kms"));
                this.write();
            },
            |this, _| ended(this, |_| {}),
        ),
    },
    Case {
        name: "a load balancer that writes Host anew",
        check: "endpoint.host",
        status: "fail",
        message: "AuthenticationFailedException",
        advice: "leave Host as it came",
        also: &[],
        breaking: Served(for_balancer, |this, _| {
            ended(this, |ending| ending.request = |head| head.replace(HOST, "backend.internal"));
        }),
    },
    Case {
        name: "a load balancer that takes the prefix away",
        check: "endpoint.path",
        status: "fail",
        message: "InvalidUriPathException",
        advice: "leave the path as it came",
        also: &[],
        breaking: Served(for_balancer, |this, _| {
            ended(this, |ending| ending.request = |head| head.replace(" /demo/", " /"));
        }),
    },
    Case {
        name: "a load balancer that answers by itself",
        check: "endpoint.answer",
        status: "fail",
        message: "status 502 without an errorName",
        advice: "target group",
        also: &[],
        breaking: Served(for_balancer, |this, _| {
            ended(this, |ending| {
                ending.instead = Some("HTTP/1.1 502 Bad Gateway\r\ncontent-length: 5\r\n\r\nsorry");
            });
        }),
    },
    Case {
        name: "an HSM that has gone while the daemon runs",
        check: "endpoint.health",
        status: "fail",
        message: "UNAVAILABLE",
        advice: "xksd status",
        also: &["token.found"],
        breaking: Served(nothing, |this, daemon| {
            this.script(
                "C_GetTokenInfo return CKR_DEVICE_ERROR\nC_Encrypt return CKR_DEVICE_ERROR\n\
                 C_OpenSession return CKR_DEVICE_ERROR\n",
            );
            let is_down = || daemon.ask(daemon.ops, "/readyz").0 != 200;
            poll(is_down, || daemon.logged());
        }),
    },
    Case {
        name: "a proxy that is too far away",
        check: "endpoint.time",
        status: "fail",
        message: "of 250ms",
        advice: "near its AWS Region",
        also: &[],
        breaking: Served(nothing, |this, _| this.front = Kind::Far(Duration::from_millis(100))),
    },
    Case {
        name: "clocks that differ",
        check: "clock.difference",
        status: "fail",
        message: "seconds apart",
        advice: "chrony",
        also: &[],
        breaking: Served(for_balancer, |this, _| {
            ended(this, |ending| {
                ending.answer = |head| {
                    let lines = head.lines().filter(|line| !line.starts_with("date:"));
                    let rest: Vec<&str> = lines.take_while(|line| !line.is_empty()).collect();
                    format!("{}\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n", rest.join("\r\n"))
                };
            });
        }),
    },
    Case {
        name: "a module that is none",
        check: "token.module",
        status: "fail",
        message: "cannot load",
        advice: "PKCS#11",
        also: &[],
        breaking: Still(|this| fs::write(this.path("module/hsm.so"), "no library").unwrap()),
    },
    Case {
        name: "a label that no token has",
        check: "token.found",
        status: "fail",
        message: "no token with the label `other`",
        advice: "label `xksd`",
        also: &[],
        breaking: Still(|this| this.edit("label = \"xksd\"", "label = \"other\"")),
    },
    Case {
        name: "more proxies than the HSM has sessions for",
        check: "token.sessions",
        status: "fail",
        message: "3 proxies with 5 sessions each want 15, the token allows 14",
        advice: "lower sessions",
        also: &[],
        breaking: Still(|this| {
            this.script("C_GetTokenInfo say sessions 14\n");
            this.edit("[tokens.softhsm]", "[tokens.softhsm]\nsessions = 4");
            this.edit("[tokens.twin]", "[tokens.twin]\nsessions = 3");
            this.arguments.extend(["--proxies", "3"].map(String::from));
        }),
    },
    Case {
        name: "an HSM without AES-GCM",
        check: "token.mechanisms",
        status: "fail",
        message: "the token has no CKM_AES_GCM",
        advice: "firmware",
        also: &[],
        breaking: Still(|this| {
            this.script("C_GetMechanismInfo first 1 return CKR_MECHANISM_INVALID\n");
        }),
    },
    Case {
        name: "a wrong PIN",
        check: "token.login",
        status: "fail",
        message: "CKR_PIN_INCORRECT",
        advice: "tried once",
        also: &[],
        breaking: Still(|this| fs::write(this.path("token.pin"), "161803").unwrap()),
    },
    Case {
        name: "a PIN that is locked",
        check: "token.login",
        status: "fail",
        message: "the user PIN is locked",
        advice: "security officer",
        also: &[],
        breaking: Still(|this| this.script("C_GetTokenInfo say flags 0x40000\n")),
    },
    Case {
        name: "a PIN with one try left",
        check: "token.login",
        status: "warn",
        message: "the next wrong user PIN locks the token: not tried",
        advice: "--try-pin",
        also: &[],
        breaking: Still(|this| this.script("C_GetTokenInfo say flags 0x20000\n")),
    },
    Case {
        name: "a generator that stands still",
        check: "token.random",
        status: "fail",
        message: "repeats itself",
        advice: "do not use this token",
        also: &[],
        breaking: Still(|this| this.script("C_GenerateRandom same\n")),
    },
    Case {
        name: "an HSM that decrypts to something else",
        check: "token.aes_gcm",
        status: "fail",
        message: "does not decrypt to itself",
        advice: "do not use this token",
        also: &["group.keys"],
        breaking: Still(|this| this.script("C_Decrypt flip\n")),
    },
    Case {
        name: "the profile of another HSM",
        check: "token.iv",
        status: "fail",
        message: "correct its profile",
        advice: "leave profile out",
        also: &[],
        breaking: Still(|this| {
            this.edit("[tokens.softhsm]", "[tokens.softhsm]\nprofile = \"nshield\"");
        }),
    },
    Case {
        name: "an HSM that is too slow",
        check: "token.time",
        status: "fail",
        message: "of 250ms",
        advice: "near its HSM",
        also: &[],
        breaking: Still(|this| this.script("C_Encrypt delay 260ms\n")),
    },
    Case {
        name: "keys that cannot be looked for",
        check: "token.keys",
        status: "fail",
        message: "C_FindObjects",
        advice: "the right to see keys",
        also: &[],
        breaking: Still(|this| this.script("C_FindObjectsInit return CKR_FUNCTION_FAILED\n")),
    },
    Case {
        name: "a key that is named and missing",
        check: "keystore.keys",
        status: "fail",
        message: "the token has no key `bad`",
        advice: "xksd keys create bad",
        also: &[],
        breaking: Still(|this| this.edit("keys = [\"good\"]", "keys = [\"good\", \"bad\"]")),
    },
    Case {
        name: "a key that can be read in the clear",
        check: "keystore.protection",
        status: "fail",
        message: "`open` can be read in the clear",
        advice: "xksd keys create",
        also: &[],
        breaking: Still(|this| {
            for token in ["xksd", "second"] {
                let key = b"thirty-two bytes, of which, any.";
                import(&this.site, token, "open", key, &["--extractable"]);
            }
            this.edit("keys = [\"good\"]", "keys = [\"good\", \"open\"]");
        }),
    },
    Case {
        name: "another key under the same label in the other token",
        check: "group.keys",
        status: "fail",
        message: "has another key under this label",
        advice: "xksd keys replicate",
        also: &[],
        breaking: Still(|this| {
            let keys = [b"thirty-two bytes, those of one..", b"thirty-two bytes, of the other.."];
            for (token, key) in ["xksd", "second"].into_iter().zip(keys) {
                import(&this.site, token, "torn", key, &["--sensitive"]);
            }
            this.edit("keys = [\"good\"]", "keys = [\"good\", \"torn\"]");
        }),
    },
];
