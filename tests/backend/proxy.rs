//! The whole path of a request over tokens in memory: one key store, `*` its only key rule.

use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use support::gate::PATIENCE;
use support::memory::MemoryBackend;
use support::request::{Request, base64, decrypt_body, encrypt_body};
use support::site::{Credential, REGION};
use tokio::task::JoinHandle;
use xksd::clock::Clock;
use xksd::counts::Counts;
use xksd::counts::ledger::TokenSet;
use xksd::counts::limit::{EncryptionLimit, Share};
use xksd::hsm::fleet::{Group, Keeper};
use xksd::hsm::token::{Settings, Token, TokenState};
use xksd::keystore::{self, Keystore, Keystores, Rotation, VerifyWrites};
use xksd::limits;
use xksd::metrics::Metrics;
use xksd::names::TokenName;
use xksd::policy::Authorization;
use xksd::secret::Secret;
use xksd::server::pipeline::{Head, Pipeline, Snapshot};
use xksd::server::rescue::Failure;
use xksd::server::serving::Serving;
use xksd::sigv4::{Credentials, SecretAccessKey, Verifier};
use xksd::wire::ciphertext_format::Formats;
use xksd::wire::limits::Limits;

/// What is encrypted.
pub(crate) const TEXT: &[u8] = b"a secret of somebody's";

/// See the module.
pub(crate) struct Proxy {
    pub(crate) tokens: Vec<Arc<Token>>,
    pub(crate) metrics: Arc<Metrics>,
    pipeline: Pipeline,
    credential: Credential,
    keeper: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// A session, and nothing done that no test asks for.
pub(crate) fn settings() -> Settings {
    let never = Duration::from_secs(3600);
    Settings {
        sessions: 1,
        queue: 8,
        catalogue_interval: never,
        probe_interval: never,
        // As long as tests wait: an attempt ends when the test says so.
        attempt_limit: PATIENCE,
    }
}

impl Proxy {
    /// Tokens named `hsm-0`, `hsm-1` and so on; all are up.
    pub(crate) async fn new(hsms: &[MemoryBackend], verify_writes: VerifyWrites) -> Self {
        let proxy = Self::start(hsms, verify_writes, settings(), PATIENCE);
        for token in 0..hsms.len() {
            proxy.wait_for(token, |state| state == TokenState::Up).await;
        }
        proxy
    }

    /// The same with one token, whose encryptions are counted in this state directory.
    pub(crate) async fn counting(
        hsm: &MemoryBackend,
        directory: &Path,
        limit: EncryptionLimit,
    ) -> (Self, Arc<Counts>) {
        let tokens = TokenSet::new(&["hsm-0".parse().expect("it is a token name")]);
        let share = Share::of(NonZeroU32::MIN);
        let counts = Counts::open(directory, share, &BTreeSet::from([tokens]), Arc::default());
        let counts = counts.expect("nobody else has the directory");
        let counting = Some((counts.clone(), limit));
        let hsms = std::slice::from_ref(hsm);
        let proxy = Self::start_with(hsms, VerifyWrites::default(), settings(), PATIENCE, counting);
        proxy.wait_for(0, |state| state == TokenState::Up).await;
        (proxy, counts)
    }

    /// The same, on their way up.
    pub(crate) fn start(
        hsms: &[MemoryBackend],
        verify_writes: VerifyWrites,
        settings: Settings,
        deadline: Duration,
    ) -> Self {
        Self::start_with(hsms, verify_writes, settings, deadline, None)
    }

    fn start_with(
        hsms: &[MemoryBackend],
        verify_writes: VerifyWrites,
        settings: Settings,
        deadline: Duration,
        counting: Option<(Arc<Counts>, EncryptionLimit)>,
    ) -> Self {
        let (counts, encryption_limit) = counting.unzip();
        let credential = Credential::of('A');
        let secret = SecretAccessKey::new(Secret::new(credential.secret.clone()));
        let id = credential.id.parse().expect("it is an access key id");
        let credentials = [(id, secret.expect("it is long enough"))];
        let metrics = Arc::new(Metrics::new());
        let start = |(number, hsm): (usize, &MemoryBackend)| {
            let name: TokenName = format!("hsm-{number}").parse().expect("it is a token name");
            let metrics = metrics.token(&name);
            Arc::new(Token::start(name, settings.clone(), Arc::new(hsm.clone()), metrics))
        };
        let tokens: Vec<_> = hsms.iter().enumerate().map(start).collect();
        let keystore = keystore::Settings {
            name: "memory".parse().expect("it is a key store's name"),
            prefix: "memory".parse().expect("it is a prefix"),
            enabled: true,
            frozen: false,
            regions: vec![REGION.parse().expect("it is a Region")],
            credentials: Credentials::new(credentials).expect("there is one"),
            keys: vec!["*".parse().expect("it is a rule")],
            tokens: tokens.iter().map(|token| token.name().clone()).collect(),
            verify_writes,
            formats: Formats::Own,
            quota: limits::Settings::default(),
            key_quota: limits::Settings::default(),
            authorization: Authorization::Open,
            encryption_limit: encryption_limit.unwrap_or_default(),
            rotation: Rotation::default(),
        };
        let group = Arc::new(Group::new(tokens.clone()));
        let keeper = tokio::spawn(Keeper::new(group.clone(), keystore.keys.clone()).run());
        let snapshot = Snapshot {
            groups: HashMap::from([(keystore.name.clone(), group)]),
            keystores: Keystores::new(vec![Keystore::new(keystore)]).expect("there is one"),
            fleet_size: NonZeroU32::MIN,
            counts,
            limits: Limits::default(),
            deadline,
        };
        let verifier = Verifier::new(Clock::System);
        let pipeline = Pipeline::new(Arc::new(Serving::new(snapshot)), verifier, metrics.clone());
        Self { tokens, metrics, pipeline, credential, keeper }
    }

    /// Waits for a token's state.
    pub(crate) async fn wait_for(&self, token: usize, is: impl Fn(TokenState) -> bool) {
        let mut states = self.tokens[token].watch_state();
        let state = states.wait_for(|state| is(*state));
        let state = tokio::time::timeout(PATIENCE, state).await;
        state.expect("it gets there").expect("the token is there");
    }

    /// Waits until a sample of the metrics, name and labels as they are written, has this value.
    pub(crate) async fn wait_for_metric(&self, sample: &str, value: u64) {
        let start = Instant::now();
        let wanted = format!("{sample} {value}");
        while !self.metrics.render().lines().any(|line| line == wanted) {
            assert!(start.elapsed() < PATIENCE, "no `{wanted}` in {}", self.metrics.render());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// The answer to a request, or the status and name of an error.
    pub(crate) async fn ask(&self, target: &str, body: &Value) -> Result<Value, (u16, String)> {
        let path = format!("/memory/kms/xks/v1/{target}");
        let request = Request::post(&path, body, &self.credential);
        let mut headers = HeaderMap::new();
        for (name, value) in request.signed_headers() {
            let name: HeaderName = name.parse().expect("it is a header's name");
            headers.insert(name, HeaderValue::from_str(&value).expect("it is a header's value"));
        }
        let head = Head {
            method: request.method,
            path,
            query: None,
            authority: None,
            headers,
            peer: "192.0.2.1:1".parse().expect("it is an address"),
            client_subject: None,
            arrived: Instant::now(),
        };
        let body = async { Ok::<_, Failure>(request.body) };
        match self.pipeline.serve(head, body).await.result {
            Ok(body) => Ok(serde_json::from_slice(body.as_ref()).expect("it is JSON")),
            Err(rescued) => Err((rescued.status, rescued.body.name().as_str().to_owned())),
        }
    }

    /// The answer, or the status of an error.
    pub(crate) async fn encrypt(&self, key: &str, body: &Value) -> Result<Value, u16> {
        let answer = self.ask(&format!("keys/{key}/encrypt"), body).await;
        answer.map_err(|(status, _name)| status)
    }

    /// Encrypts [`TEXT`] under the key `key`.
    pub(crate) async fn seal(&self) -> Result<Value, u16> {
        self.encrypt("key", &encrypt_body(TEXT, None)).await
    }

    /// Decrypts what [`Proxy::seal`] gave; the name of the error if that fails.
    pub(crate) async fn open(&self, sealed: &Value) -> Result<(), String> {
        let opened = self.ask("keys/key/decrypt", &decrypt_body(sealed, None)).await;
        let opened = opened.map_err(|(_status, name)| name)?;
        assert_eq!(opened["plaintext"], base64(TEXT));
        Ok(())
    }

    /// The first sample of a metric.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let text = self.metrics.render();
        let line = text.lines().find(|line| line.starts_with(&format!("{name}{{")));
        let value = line.expect("it is counted").rsplit(' ').next().expect("it has a value");
        value.parse().expect("it is a number")
    }
}
