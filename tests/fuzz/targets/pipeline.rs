//! The whole path of a request over an HSM in memory. The harness signs its own input, so that
//! what lies behind the signature is reached; the first byte chooses what to spoil before that.
#![no_main]

use std::cell::RefCell;
use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::header::HOST;
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use support::memory::{MemoryBackend, MemoryKey};
use tokio::runtime::Runtime;
use xksd::clock::Clock;
use xksd::counts::limit::EncryptionLimit;
use xksd::hsm::fleet::{Group, Keeper};
use xksd::hsm::token::{self, Token};
use xksd::keystore::{Keystore, Keystores, Rotation, Settings, VerifyWrites};
use xksd::limits;
use xksd::metrics::Metrics;
use xksd::names::{AccessKeyId, Region};
use xksd::policy::Authorization;
use xksd::secret::Secret;
use xksd::server::pipeline::{Head, Pipeline, Snapshot};
use xksd::server::serving::Serving;
use xksd::server::rescue::Failure;
use xksd::sigv4::sign::Outgoing;
use xksd::sigv4::{Credentials, SecretAccessKey, Verifier, sign};
use xksd::wire::ciphertext_format::{Formats, SampleConstants, SampleMetadata};
use xksd::wire::limits::Limits;

const HOST_NAME: &str = "xks.example.com";

struct Site {
    runtime: Runtime,
    pipeline: Pipeline,
    access_key_id: AccessKeyId,
    region: Region,
    time: SystemTime,
}

thread_local! {
    static SITE: RefCell<Site> = RefCell::new(Site::new());
}

fn secret() -> SecretAccessKey {
    SecretAccessKey::new(Secret::new("s".repeat(43))).unwrap()
}

impl Site {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let access_key_id: AccessKeyId = "ABCDEFGHIJKLMNOPQRST".parse().unwrap();
        let region: Region = "us-east-1".parse().unwrap();
        let metrics = Arc::new(Metrics::new());
        let keystore = Keystore::new(Settings {
            name: "fuzz".parse().unwrap(),
            prefix: "fuzz".parse().unwrap(),
            enabled: true,
            frozen: false,
            regions: vec![region.clone()],
            credentials: Credentials::new([(access_key_id.clone(), secret())]).unwrap(),
            keys: vec!["*".parse().unwrap()],
            tokens: vec!["memory".parse().unwrap()],
            verify_writes: VerifyWrites::default(),
            formats: Formats::ReadAwsSample(SampleConstants {
                now: SampleMetadata::ABSENT,
                before: vec![SampleMetadata::new(b"v0.0.1").unwrap()],
            }),
            quota: limits::Settings::default(),
            key_quota: limits::Settings::default(),
            authorization: Authorization::Open,
            encryption_limit: EncryptionLimit::default(),
            rotation: Rotation::default(),
        });
        let group = Arc::new(Group::new(vec![Arc::new(memory(&runtime, &metrics))]));
        // It reads the keys while the runtime serves a request, which waits for it.
        runtime.spawn(Keeper::new(group.clone(), keystore.key_rules().to_vec()).run());
        let snapshot = Snapshot {
            groups: HashMap::from([(keystore.name().clone(), group)]),
            keystores: Keystores::new(vec![keystore]).unwrap(),
            fleet_size: NonZeroU32::MIN,
            counts: None,
            limits: Limits::default(),
            deadline: Duration::from_secs(5),
        };
        let pipeline =
            Pipeline::new(Arc::new(Serving::new(snapshot)), Verifier::new(Clock::Fixed(time)), metrics);
        Self { runtime, pipeline, access_key_id, region, time }
    }

    fn serve(&self, input: &[u8]) {
        let Some((&choice, rest)) = input.split_first() else { return };
        let path = match choice & 3 {
            0 => "/fuzz/kms/xks/v1/keys/key/encrypt",
            1 => "/fuzz/kms/xks/v1/keys/key/decrypt",
            2 => "/fuzz/kms/xks/v1/keys/key/metadata",
            _ => "/fuzz/kms/xks/v1/health",
        };
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static(HOST_NAME));
        let outgoing = Outgoing {
            method: "POST",
            path,
            host: HOST_NAME,
            headers: &HeaderMap::new(),
            body: rest,
        };
        let secret = secret();
        let signature =
            sign::sign(outgoing, (&self.access_key_id, &secret), &self.region, self.time);
        signature.unwrap().insert_into(&mut headers);
        // Half of the inputs put some of their own bytes where the signature stood.
        let spoiled = choice & 4 != 0;
        if spoiled && let Ok(value) = HeaderValue::from_bytes(&rest[..rest.len().min(300)]) {
            headers.insert(http::header::AUTHORIZATION, value);
        }
        let head = Head {
            method: "POST".to_owned(),
            path: path.to_owned(),
            query: None,
            authority: None,
            headers,
            peer: "192.0.2.1:1".parse().unwrap(),
            client_subject: None,
            arrived: Instant::now(),
        };
        let body = async { Ok::<_, Failure>(rest) };
        let answer = self.runtime.block_on(self.pipeline.serve(head, body));
        match answer.result {
            Ok(_) => assert!(answer.authenticated),
            Err(rescued) => {
                assert!(matches!(rescued.status, 400 | 401 | 404 | 501), "{rescued:?}");
                assert_eq!(rescued.status == 401, !answer.authenticated);
            }
        }
    }
}

fn memory(runtime: &Runtime, metrics: &Metrics) -> Token {
    let backend = MemoryBackend::new();
    backend.add(MemoryKey::aes_256("key"));
    let name: xksd::names::TokenName = "memory".parse().unwrap();
    let settings = token::Settings { sessions: 1, ..token::Settings::default() };
    let token = Token::start(name.clone(), settings, Arc::new(backend), metrics.token(&name));
    let mut states = token.watch_state();
    runtime.block_on(states.wait_for(|state| state.serves())).unwrap();
    token
}

fuzz_target!(|input: &[u8]| {
    SITE.with_borrow(|site| site.serve(input));
});
