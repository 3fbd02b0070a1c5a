//! How long a decision takes, by the number of policies.
//!
//! `made` is a request of which nothing is remembered; `remembered` is one that was decided before. Each
//! is timed by itself, since it is the slow ones that matter.

use std::collections::HashMap;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use hdrhistogram::Histogram;
use serde_json::json;
use xksd::names::{AccessKeyId, ExternalKeyId, KeystoreName, Region};
use xksd::policy::{Authorization, Authorizer, Decision, Facts, Settings, Source};
use xksd::wire::metadata::RequestMetadata;
use xksd::wire::route::KeyOperation;

use crate::timing::{compare, is_measured};

/// Different requests of one run, and how often each is decided.
const CALLERS: usize = 200;
const ROUNDS: usize = 50;

pub(crate) fn measure() {
    with_floors();
    println!("microseconds a decision, p50 and p99    made            remembered");
    for count in [10, 100, 500] {
        percentiles(&format!("{count} policies, each of a team"), &by_team(count), "team-3-key");
        percentiles(
            &format!("{count} policies with conditions only"),
            &by_name(count),
            "team-3-key",
        );
    }
    percentiles("the cookbook, all at once", &cookbook(), "payments-1");
}

/// Of a decision that is made, the floor is one with the only policy that it hangs on; of one that is
/// remembered, looking the caller up in a table of the standard library.
fn with_floors() {
    let (many, one) = (by_team(500), by_team(1));
    let [many, one] = [&many, &one].map(|policies| policies.authorizer().expect("there are some"));
    let asked = Asked::about("team-0-key");
    let caller = metadata(0, "team-0");
    let facts = asked.facts(0, &caller);
    let name = "policy: made, 500 policies";
    compare(name, || many.decide_anew(black_box(&facts)), || one.decide_anew(black_box(&facts)));
    let arns: HashMap<String, usize> = (0..CALLERS)
        .map(|number| {
            (metadata(number, "team-0").aws_principal_arn().unwrap_or_default().to_owned(), number)
        })
        .collect();
    let arn = caller.aws_principal_arn().unwrap_or_default();
    compare(
        "policy: remembered, 500 policies",
        || many.decide(black_box(&facts)),
        || arns.get(black_box(arn)),
    );
}

/// Policies as organisations with many teams have them: scopes name a role.
fn by_team(count: usize) -> Authorization {
    let policy = |number: usize| {
        format!(
            "@id(\"team-{number}\") permit (
                principal in xks::Role::\"arn:aws:iam::111122223333:role/team-{number}\",
                action in [xks::Action::\"encrypt\", xks::Action::\"decrypt\"],
                resource
            ) when {{
                resource.id like \"team-{number}-*\" &&
                context has kmsKey && context.kmsKey.account == xks::Account::\"111122223333\"
            }};\n"
        )
    };
    authorization((0..count).map(policy).collect())
}

/// The worst case: nothing is known of a policy until its condition was evaluated.
fn by_name(count: usize) -> Authorization {
    let policy = |number: usize| {
        format!(
            "@id(\"name-{number}\") permit (principal, action, resource) when {{
                resource.id like \"team-{number}-*\" && context has kmsKey &&
                context.kmsKey.account == xks::Account::\"111122223333\" &&
                principal has account && principal.account == context.kmsKey.account
            }};\n"
        )
    };
    authorization((0..count).map(policy).collect())
}

/// All recipes of docs/policies, each id with the recipe's name before it.
fn cookbook() -> Authorization {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/policies");
    let mut text = String::new();
    for entry in std::fs::read_dir(&folder).expect("the cookbook is there") {
        let path = entry.expect("it can be read").path();
        if path.extension().is_some_and(|extension| extension == "cedar") {
            let name = path.file_stem().expect("it has a name").to_string_lossy().into_owned();
            let recipe = std::fs::read_to_string(&path).expect("it can be read");
            text += &recipe.replace("@id(\"", &format!("@id(\"{name}."));
        }
    }
    let groups = ["payments", "people", "break-glass"].map(|group| {
        let uid = json!({"type": "xks::Group", "id": group});
        json!({"uid": {"type": "xks::User", "id": format!("arn:aws:iam::111122223333:user/{group}")}, "parents": [uid]})
    });
    let entities = source("entities.json", json!(groups).to_string());
    let policies = vec![source("cookbook.cedar", text)];
    made(Settings { policies, entities: Some(entities), ..Settings::default() })
}

fn authorization(text: String) -> Authorization {
    made(Settings { policies: vec![source("bench.cedar", text)], ..Settings::default() })
}

fn source(name: &str, text: String) -> Source {
    Source { path: PathBuf::from(name), text }
}

fn made(settings: Settings) -> Authorization {
    let (authorization, _) = Authorization::new(settings).expect("the policies are valid");
    authorization
}

/// What all requests have in common.
struct Asked {
    keystore: KeystoreName,
    key: ExternalKeyId,
    access_key_id: AccessKeyId,
    region: Region,
}

impl Asked {
    fn about(key: &str) -> Self {
        Self {
            keystore: "bench".parse().expect("it is a name"),
            key: key.parse().expect("it is a name"),
            access_key_id: "ABCDEFGHIJKLMNOPQRST".parse().expect("it is a name"),
            region: "us-east-1".parse().expect("it is a name"),
        }
    }

    /// Encryptions and decryptions in turns.
    fn facts<'a>(&'a self, number: usize, metadata: &'a RequestMetadata) -> Facts<'a> {
        Facts {
            operation: [KeyOperation::Encrypt, KeyOperation::Decrypt][number % 2],
            keystore: &self.keystore,
            key: &self.key,
            metadata,
            access_key_id: &self.access_key_id,
            region: &self.region,
            client_subject: None,
            // 2026-03-02, a Monday, 10:30 in UTC.
            time: SystemTime::UNIX_EPOCH + Duration::from_secs(1_772_447_400),
        }
    }
}

/// Encryptions and decryptions with one key by sessions of the role team-3, in turns.
fn percentiles(name: &str, authorization: &Authorization, key: &str) {
    let authorizer = authorization.authorizer().expect("there are policies");
    let callers: Vec<RequestMetadata> =
        (0..CALLERS).map(|number| metadata(number, "team-3")).collect();
    let time = |decide: fn(&Authorizer, &Facts<'_>) -> Decision| {
        let mut times = Histogram::<u64>::new(3).expect("three digits are few enough");
        let asked = Asked::about(key);
        for round in 0..=rounds() {
            for (number, metadata) in callers.iter().enumerate() {
                let facts = asked.facts(number, metadata);
                let start = Instant::now();
                let _ = black_box(decide(authorizer, black_box(&facts)));
                let nanoseconds = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
                // The first round is for the processor's caches, and for the memory.
                if round > 0 {
                    times.record(nanoseconds).expect("it grows as it must");
                }
            }
        }
        let at = |quantile| times.value_at_quantile(quantile) as f64 / 1e3;
        format!("{:7.1} {:7.1}", at(0.5), at(0.99))
    };
    let (made, remembered) = (time(Authorizer::decide_anew), time(Authorizer::decide));
    println!("{name:36} {made} {remembered}");
}

fn rounds() -> usize {
    if is_measured() { ROUNDS } else { 1 }
}

fn metadata(number: usize, role: &str) -> RequestMetadata {
    let operation = [KeyOperation::Encrypt, KeyOperation::Decrypt][number % 2];
    let kms_operation = ["GenerateDataKey", "Decrypt"][number % 2];
    let json = json!({
        "awsPrincipalArn": format!("arn:aws:sts::111122223333:assumed-role/{role}/session-{number}"),
        "kmsKeyArn": "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        "kmsOperation": kms_operation,
        "kmsRequestId": format!("4112f4d6-db54-4af4-ae30-{number:012}"),
        "kmsViaService": "s3.us-east-1.amazonaws.com",
    });
    let raw = serde_json::value::to_raw_value(&json).expect("it is JSON");
    RequestMetadata::parse(&raw, operation.operation()).expect("it is a request's")
}
