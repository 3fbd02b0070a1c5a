//! What a good configuration becomes.

use std::num::{NonZeroU32, NonZeroU64};
use std::path::Path;
use std::time::Duration;

use super::super::{Isolation, Transport};
use super::{Dir, GOOD, and, with};
use crate::client::Scheme;
use crate::counts::limit::{AtLimit, EncryptionLimit};
use crate::hsm::pkcs11::TokenSelector;
use crate::hsm::profile::{self, Initialization};
use crate::hsm::token;
use crate::keystore::Rotation;
use crate::limits;
use crate::telemetry::{self, Format};
use crate::tls::ClientAuth;
use crate::traces::sampler::Ratio;
use crate::wire::ciphertext_format::{Formats, SampleConstants, SampleMetadata};

#[test]
fn what_is_left_out_has_its_default() {
    let dir = Dir::new();
    let config = dir.load(GOOD, &[]).unwrap();
    assert_eq!(config.warnings, [""; 0]);
    let server = &config.server;
    assert_eq!(server.listen, ["127.0.0.1:8443".parse().unwrap()]);
    assert_eq!(server.limits.max_connections, 4096);
    assert_eq!(server.limits.idle_timeout, Duration::from_secs(900));
    assert_eq!(server.deadline, Duration::from_millis(120));
    assert_eq!(server.drain_delay, Duration::from_secs(20));
    assert_eq!(server.drain_timeout, Duration::from_secs(10));
    assert!(server.limits.proxy_protocol_from.is_empty());
    let Transport::Tls(tls) = &server.transport else { panic!("{:?}", server.transport) };
    assert_eq!(tls.certificate, dir.path("server.pem"));
    assert!(matches!(tls.client_auth, ClientAuth::Off));
    assert_eq!(config.ops.metrics_listen, None);
    assert_eq!(config.fleet_size.get(), 1);
    assert!(config.traces.is_none());
    let (_, token) = config.tokens.first_key_value().unwrap();
    assert!(token.environment.is_empty());
    assert_eq!(token.isolation, Isolation::Process);
    assert_eq!(token.call_limit, Duration::from_secs(5));
    assert_eq!(token.module, dir.path("module.so"));
    assert!(matches!(&token.selector, TokenSelector::Label(label) if label == "xksd"));
    assert_eq!(token.pin.expose(), "1234", "one line end does not count");
    let keystore = &config.keystores[0];
    assert!(keystore.enabled);
    assert_eq!(keystore.keys.len(), 2);
    assert_eq!(keystore.credentials.access_key_ids().count(), 1);
    assert_eq!(keystore.formats, Formats::Own);
}

#[test]
fn a_burst_is_a_second_of_requests_unless_it_is_said() {
    let dir = Dir::new();
    let quotas = |lines: &str| {
        let config = dir.load(&and("[keystores.demo]", lines), &[]).unwrap();
        let limits = |settings: &limits::Settings| {
            let rate = settings.rate.map(|rate| (rate.per_second.get(), rate.burst.get()));
            (rate, settings.concurrent.map(NonZeroU32::get))
        };
        (limits(&config.keystores[0].quota), limits(&config.keystores[0].key_quota))
    };
    assert_eq!(quotas(""), ((None, None), (None, None)));
    let lines = "quota = { requests_per_second = 7 }\nkey_quota.concurrent = 3";
    assert_eq!(quotas(lines), ((Some((7, 7)), None), (None, Some(3))));
    let lines = "key_quota = { requests_per_second = 7, burst = 1, concurrent = 9 }";
    assert_eq!(quotas(lines), ((None, None), (Some((7, 1)), Some(9))));
}

#[test]
fn ciphertexts_of_the_sample_proxy_are_read_and_written_where_asked() {
    let dir = Dir::new();
    let formats = |lines: &str| {
        let lines = format!("accept_ciphertexts_of = \"aws-sample\"\n{lines}");
        dir.load(&and("[keystores.demo]", &lines), &[]).unwrap().keystores.remove(0).formats
    };
    let constants = |now: &[u8], before: &[&[u8]]| {
        let constant = |bytes: &[u8]| SampleMetadata::new(bytes).unwrap();
        SampleConstants { now: constant(now), before: before.iter().map(|b| constant(b)).collect() }
    };
    assert_eq!(formats(""), Formats::ReadAwsSample(constants(b"", &[])));
    assert_eq!(formats("aws_sample_metadata = []"), Formats::ReadAwsSample(constants(b"", &[])));
    let read = formats("aws_sample_metadata = \"djAuMC4x\"\nencrypt_as = \"xksd\"");
    assert_eq!(read, Formats::ReadAwsSample(constants(b"v0.0.1", &[])));
    let write = formats("aws_sample_metadata = [\"djE=\", \"\"]\nencrypt_as = \"aws-sample\"");
    assert_eq!(write, Formats::WriteAwsSample(constants(b"v1", &[b""])));
}

/// Components have defaults of their own, for tests; nobody should have to know which are used.
#[test]
fn defaults_are_those_of_the_components() {
    let config = Dir::new().load(GOOD, &[]).unwrap();
    let (_, token) = config.tokens.first_key_value().unwrap();
    let (ours, theirs) = (&token.settings, token::Settings::default());
    assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
    assert_eq!(format!("{:?}", config.log), format!("{:?}", telemetry::Settings::default()));
}

#[test]
fn variables_override_the_file() {
    let dir = Dir::new();
    dir.write("other.pin", "5678");
    let variables = [
        ("XKSD_SERVER__LISTEN", "127.0.0.2:1, [::1]:2"),
        ("XKSD_SERVER__MAX_CONNECTIONS", "7"),
        ("XKSD_SERVER__DRAIN__DELAY", "0s"),
        ("XKSD_SERVER__PROXY_PROTOCOL_FROM", "10.0.0.0/8,192.168.1.1"),
        ("XKSD_LOG__FORMAT", "text"),
        ("XKSD_FLEET__SIZE", "3"),
        ("XKSD_TOKENS__HSM__LABEL", "42"),
        ("XKSD_TOKENS__HSM__PIN__FILE", "other.pin"),
        ("XKSD_TOKENS__HSM__ENVIRONMENT__Vendor__Conf", "/etc/vendor"),
        ("XKSD_KEYSTORES__DEMO__ENABLED", "false"),
        ("XKSD_KEYSTORES__DEMO__PREFIX", ""),
        ("XKSD_KEYSTORES__DEMO__KEYS", "a,b,c-*"),
        // No settings: one because of its case, the others because they name no key.
        ("xksd_server__listen", "x"),
        ("XKSD_CONFIG", "/etc/xksd/xksd.toml"),
        ("XKSD_LOG", "x"),
    ];
    let config = dir.load(GOOD, &variables).unwrap();
    assert_eq!(config.server.listen.len(), 2);
    assert_eq!(config.server.limits.max_connections, 7);
    assert_eq!(config.server.limits.proxy_protocol_from.len(), 2);
    assert_eq!(config.server.drain_delay, Duration::ZERO);
    assert_eq!(config.log.format, Format::Text);
    assert_eq!(config.fleet_size.get(), 3);
    let (_, token) = config.tokens.first_key_value().unwrap();
    assert!(matches!(&token.selector, TokenSelector::Label(label) if label == "42"));
    assert_eq!(token.pin.expose(), "5678");
    assert_eq!(token.environment["Vendor__Conf"], "/etc/vendor");
    let keystore = &config.keystores[0];
    assert!(!keystore.enabled);
    assert_eq!(keystore.prefix.as_str(), "");
    assert_eq!(keystore.keys.len(), 3);
}

#[test]
fn encryptions_are_counted_and_keys_rotated_as_configured() {
    let dir = Dir::new();
    let config = dir.load(GOOD, &[]).unwrap();
    assert_eq!(config.state_directory, None);
    assert_eq!(config.keystores[0].rotation, Rotation::default());
    let inline = "encryption_limit = { warn_percent = 50, at_limit = \"refuse\" }\n\
                  rotation = { every = \"365d\", before = 2147483648 }";
    let toml = and("[keystores.demo]", inline);
    let systemd = ("STATE_DIRECTORY", "/var/lib/xksd:/var/lib/other");
    let config = dir.load(&toml, &[systemd]).unwrap();
    assert_eq!(config.state_directory.as_deref(), Some(Path::new("/var/lib/xksd")));
    let keystore = &config.keystores[0];
    let limit = EncryptionLimit { warn_percent: 50, at_limit: AtLimit::Refuse };
    assert_eq!(keystore.encryption_limit, limit);
    let every = Some(Duration::from_secs(365 * 24 * 3600));
    assert_eq!(keystore.rotation, Rotation { every, before: NonZeroU64::new(1 << 31) });
    // What the file says comes before what systemd says; relative paths begin at the file.
    let config = dir.load(&toml, &[systemd, ("XKSD_STATE__DIRECTORY", "state")]).unwrap();
    assert_eq!(config.state_directory, Some(dir.path("state")));
}

#[test]
fn plain_http_is_for_loopback_alone() {
    let dir = Dir::new();
    let tls = "[server.tls]\ncertificate = \"server.pem\"\nprivate_key = \"server.key\"\n";
    let plain = with(tls, "").replace("[ops]", "[ops]\n").replace(
        "listen = \"127.0.0.1:8443\"",
        "listen = [\"127.0.0.1:8443\", \"[::1]:8443\"]\ninsecure_plain_http_on_loopback = true",
    );
    let config = dir.load(&plain, &[]).unwrap();
    assert!(matches!(config.server.transport, Transport::PlainOnLoopback));
    let faults = dir.faults_with(&plain, &[("XKSD_SERVER__LISTEN", "127.0.0.1:1,0.0.0.0:2")]);
    assert_eq!(faults.len(), 1);
    assert_eq!(faults[0].key, "server.insecure_plain_http_on_loopback");
    assert!(faults[0].problem.contains("0.0.0.0:2"));
}

#[test]
fn mutual_tls_takes_ca_and_subject() {
    let dir = Dir::new();
    let lines = "client_ca = \"server.pem\"\nclient_subject = \"CN=kms\"";
    let config = dir.load(&and("[server.tls]", lines), &[]).unwrap();
    let Transport::Tls(tls) = &config.server.transport else { panic!() };
    assert!(matches!(tls.client_auth, ClientAuth::Required { .. }));
}

#[test]
fn a_token_may_be_chosen_by_serial() {
    let config = Dir::new().load(&with("label = \"xksd\"", "serial = \"0a\""), &[]).unwrap();
    let (_, token) = config.tokens.first_key_value().unwrap();
    assert!(matches!(&token.selector, TokenSelector::Serial(serial) if serial == "0a"));
}

#[test]
fn a_profile_gives_what_is_not_said() {
    let dir = Dir::new();
    let token = |lines: &str| {
        let mut config = dir.load(&and("[tokens.hsm]", lines), &[]).unwrap();
        config.tokens.pop_first().unwrap().1
    };
    assert_eq!(token("").profile, None);
    for profile in profile::ALL.into_iter().filter(|p| p.initialization == Initialization::Nothing)
    {
        let named = token(&format!("profile = \"{profile}\""));
        assert_eq!(named.profile, Some(profile));
        assert_eq!(named.settings.sessions, profile.sessions, "{profile}");
    }
    assert_eq!(token("profile = \"softhsm2\"\nsessions = 7").settings.sessions, 7);
    let nss = token("profile = \"nss\"\ninitialization = \"configdir='sql:/x'\"");
    assert_eq!(nss.initialization.unwrap().to_str(), Ok("configdir='sql:/x'"));
}

#[test]
fn a_profile_says_what_c_initialize_takes() {
    let dir = Dir::new();
    let fault = |lines: &str| dir.faults_with(&and("[tokens.hsm]", lines), &[]).remove(0);
    assert_eq!(fault("profile = \"nss\"").key, "tokens.hsm.initialization");
    let text = "profile = \"luna\"\ninitialization = \"x\"";
    assert_eq!(fault(text).key, "tokens.hsm.initialization");
    let unknown = fault("profile = \"lunatic\"");
    assert_eq!(unknown.key, "tokens.hsm.profile");
    assert!(unknown.problem.contains("`luna-fips`"), "{}", unknown.problem);
}

#[test]
fn traces_go_to_one_collector() {
    let dir = Dir::new();
    let traces = |lines: &str| {
        let section = format!("\n[traces]\n{lines}");
        let config = dir.load(&and("listen = \"127.0.0.1:9443\"", &section), &[]).unwrap();
        config.traces
    };
    assert!(traces("sample_ratio = 0.5").is_none(), "without an endpoint there are none");
    let plain = traces("otlp_endpoint = \"http://127.0.0.1:4318/base\"").unwrap();
    assert_eq!(plain.collector.endpoint().base(), "http://127.0.0.1:4318/base");
    assert_eq!(plain.ratio, Ratio::ALL);
    let https = "otlp_endpoint = \"https://collector.example.com\"\notlp_ca = \"server.pem\"";
    let https = traces(&format!("{https}\nsample_ratio = 0")).unwrap();
    assert_eq!(https.collector.endpoint().scheme(), Scheme::Https);
    assert_eq!(https.ratio, "0".parse().unwrap());
}
