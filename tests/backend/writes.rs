//! `verify_writes`: an HSM that spoils some of what it encrypts, and the whole path of a request.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use support::gate::PATIENCE;
use support::memory::{Act, MemoryBackend, MemoryKey};
use support::request::{Request, base64, decrypt_body, encrypt_body};
use support::site::{Credential, REGION};
use xksd::clock::Clock;
use xksd::hsm::codes;
use xksd::hsm::key::Usage;
use xksd::hsm::token::{Settings, Token};
use xksd::keystore::{self, Keystore, Keystores, VerifyWrites};
use xksd::metrics::Metrics;
use xksd::names::TokenName;
use xksd::secret::Secret;
use xksd::server::pipeline::{Head, Pipeline, Snapshot};
use xksd::server::rescue::Failure;
use xksd::sigv4::{Credentials, SecretAccessKey, Verifier};
use xksd::wire::limits::Limits;

const TEXT: &[u8] = b"a secret of somebody's";

/// One key store over a token in memory.
struct Proxy {
    hsm: MemoryBackend,
    pipeline: Pipeline,
    metrics: Arc<Metrics>,
    credential: Credential,
}

impl Proxy {
    async fn new(verify_writes: VerifyWrites) -> Self {
        let hsm = MemoryBackend::new();
        hsm.add(MemoryKey::aes_256("key"));
        let usage = Usage { encrypt: true, ..Usage::default() };
        hsm.add(MemoryKey { usage, ..MemoryKey::aes_256("encrypt-only") });
        let credential = Credential::of('A');
        let secret = SecretAccessKey::new(Secret::new(credential.secret.clone()));
        let id = credential.id.parse().expect("it is an access key id");
        let credentials = [(id, secret.expect("it is long enough"))];
        let token: TokenName = "memory".parse().expect("it is a token name");
        let keystore = keystore::Settings {
            name: "writes".parse().expect("it is a key store's name"),
            prefix: "writes".parse().expect("it is a prefix"),
            enabled: true,
            regions: vec![REGION.parse().expect("it is a Region")],
            credentials: Credentials::new(credentials).expect("there is one"),
            keys: vec!["*".parse().expect("it is a rule")],
            token: token.clone(),
            verify_writes,
        };
        let metrics = Arc::new(Metrics::new());
        let never = Duration::from_secs(3600);
        let settings =
            Settings { sessions: 1, catalogue_interval: never, probe_interval: never, queue: 8 };
        let backend = Arc::new(hsm.clone());
        let up = Token::start(token.clone(), settings, backend, metrics.token(&token));
        let mut states = up.watch_state();
        let serves = states.wait_for(|state| state.serves());
        tokio::time::timeout(PATIENCE, serves).await.expect("it comes up").expect("it is there");
        let snapshot = Snapshot {
            keystores: Keystores::new(vec![Keystore::new(keystore)]).expect("there is one"),
            tokens: HashMap::from([(token, Arc::new(up))]),
            fleet_size: NonZeroU32::MIN,
            limits: Limits::default(),
            deadline: PATIENCE,
        };
        let verifier = Verifier::new(Clock::System);
        let pipeline = Pipeline::new(Arc::new(snapshot), verifier, metrics.clone());
        Self { hsm, pipeline, metrics, credential }
    }

    /// The answer, or the status of an error.
    async fn call(&self, key: &str, operation: &str, body: &Value) -> Result<Value, u16> {
        let path = format!("/writes/kms/xks/v1/keys/{key}/{operation}");
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
            arrived: Instant::now(),
        };
        let body = async { Ok::<_, Failure>(request.body) };
        match self.pipeline.serve(head, body).await.result {
            Ok(body) => Ok(serde_json::from_slice(body.as_ref()).expect("it is JSON")),
            Err(rescued) => Err(rescued.status),
        }
    }

    async fn encrypt(&self, key: &str, body: &Value) -> Result<Value, u16> {
        self.call(key, "encrypt", body).await
    }

    /// Whether the HSM, whole again, gives the plaintext back.
    async fn opens(&self, sealed: &Value) -> bool {
        let opened = self.call("key", "decrypt", &decrypt_body(sealed, None)).await;
        opened.is_ok_and(|opened| opened["plaintext"] == base64(TEXT))
    }

    fn metric(&self, name: &str) -> u64 {
        let text = self.metrics.render();
        let line = text.lines().find(|line| line.starts_with(&format!("{name}{{")));
        let value = line.expect("it is counted").rsplit(' ').next().expect("it has a value");
        value.parse().expect("it is a number")
    }
}

fn plain() -> Value {
    encrypt_body(TEXT, None)
}

fn with_cdiv() -> Value {
    let mut body = plain();
    body["ciphertextDataIntegrityValueAlgorithm"] = "SHA_256".into();
    body
}

/// One in a hundred encryptions has a wrong bit, in the ciphertext or in the tag. Gives how many of
/// the answers can't be decrypted.
async fn spoiled(proxy: &Proxy, body: &Value) -> usize {
    let mut answers = Vec::new();
    for number in 0..1000 {
        if number % 100 == 50 {
            let act = if number % 200 == 50 { Act::FlipBit } else { Act::FlipTagBit };
            proxy.hsm.next("C_Encrypt", act);
        }
        // The second attempt succeeds: nobody is refused.
        answers.push(proxy.encrypt("key", body).await.expect("it is answered"));
    }
    let mut spoiled = 0;
    for answer in &answers {
        spoiled += usize::from(!proxy.opens(answer).await);
    }
    spoiled
}

#[tokio::test]
async fn always_means_that_nothing_undecryptable_is_answered() {
    let proxy = Proxy::new(VerifyWrites::Always).await;
    assert_eq!(spoiled(&proxy, &plain()).await, 0);
    assert_eq!(proxy.metric("xksd_write_checks_failed_total"), 10);
    assert_eq!(spoiled(&proxy, &with_cdiv()).await, 0);
    assert_eq!(proxy.metric("xksd_write_checks_failed_total"), 20);
    assert!(
        proxy
            .encrypt("key", &plain())
            .await
            .expect("it is answered")
            .get("ciphertextDataIntegrityValue")
            .is_none()
    );
}

#[tokio::test]
async fn when_asked_proves_what_has_a_cdiv_p_43() {
    let proxy = Proxy::new(VerifyWrites::WhenAsked).await;
    assert_eq!(spoiled(&proxy, &with_cdiv()).await, 0);
    assert_eq!(proxy.metric("xksd_write_checks_failed_total"), 10);
    // What the default leaves to KMS, and the other tests show to be noticed: these ten are lost.
    assert_eq!(spoiled(&proxy, &plain()).await, 10);
}

#[tokio::test]
async fn an_hsm_that_spoils_everything_gets_nothing_answered() {
    let proxy = Proxy::new(VerifyWrites::Always).await;
    for act in [Act::FlipBit, Act::FlipTagBit] {
        proxy.hsm.always("C_Encrypt", Some(act));
        assert_eq!(proxy.encrypt("key", &plain()).await, Err(500));
        assert_eq!(proxy.encrypt("key", &with_cdiv()).await, Err(500));
    }
    proxy.hsm.always("C_Encrypt", None);
    // Nor is an answer given whose check did not come to an end.
    proxy.hsm.always("C_Decrypt", Some(Act::Return(codes::HOST_MEMORY)));
    assert!(proxy.encrypt("key", &plain()).await.is_err());
}

#[tokio::test]
async fn a_key_that_does_not_decrypt_is_skipped_and_counted() {
    let proxy = Proxy::new(VerifyWrites::Always).await;
    for skipped in 1..=2 {
        let sealed = proxy.encrypt("encrypt-only", &plain()).await;
        assert!(sealed.is_ok(), "{sealed:?}");
        assert_eq!(proxy.metric("xksd_write_checks_skipped_total"), skipped);
    }
    // P-46: with a CDIV it is refused, before any call to the HSM.
    let before = proxy.hsm.calls("C_EncryptInit");
    assert_eq!(proxy.encrypt("encrypt-only", &with_cdiv()).await, Err(400));
    assert_eq!(proxy.hsm.calls("C_EncryptInit"), before);
    assert_eq!(proxy.metric("xksd_write_checks_skipped_total"), 2);
    let default = Proxy::new(VerifyWrites::default()).await;
    assert!(default.encrypt("encrypt-only", &plain()).await.is_ok());
    assert_eq!(default.metric("xksd_write_checks_skipped_total"), 0);
}

#[tokio::test]
async fn each_check_is_one_decryption() {
    for (verify_writes, checks) in
        [(VerifyWrites::WhenAsked, [0, 1]), (VerifyWrites::Always, [1, 1])]
    {
        let proxy = Proxy::new(verify_writes).await;
        for (body, checks) in [plain(), with_cdiv()].iter().zip(checks) {
            let count = |name| proxy.hsm.calls(name);
            let before = (count("C_Encrypt"), count("C_Decrypt"));
            proxy.encrypt("key", body).await.expect("it is answered");
            assert_eq!((count("C_Encrypt"), count("C_Decrypt")), (before.0 + 1, before.1 + checks));
        }
    }
}
