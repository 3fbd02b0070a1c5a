//! `xksd credentials list`

use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use serde_json::{Value, json};

use super::super::failure::print;
use super::super::status::ask;
use super::{ConfigFile, Failure, answers, configuration};
use crate::config::CredentialPlace;
use crate::names::KeystoreName;

#[derive(Debug, Args)]
pub(in crate::cli) struct List {
    #[command(flatten)]
    config: ConfigFile,
    /// Only those of this key store
    #[arg(long, value_name = "NAME")]
    keystore: Option<KeystoreName>,
    /// Print the list as JSON
    #[arg(long)]
    json: bool,
}

/// What is known of one credential.
#[derive(Debug)]
pub(super) struct Row {
    keystore: String,
    id: String,
    /// Where it is kept; `None`: the configuration does not have it any more.
    place: Option<String>,
    /// When it was made, in seconds since 1970.
    created: Option<u64>,
    /// What the running daemon says; `None`: there is none that answers.
    daemon: Option<InDaemon>,
}

/// What the running daemon says of a credential.
#[derive(Debug, Clone, Copy)]
struct InDaemon {
    in_force: bool,
    last_used: Option<u64>,
}

impl List {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let mut rows = rows(&self.config)?;
        if let Some(name) = &self.keystore {
            rows.retain(|row| row.keystore == name.as_str());
        }
        if self.json {
            let rows: Vec<Value> = rows.iter().map(Row::in_json).collect();
            return print(&format!("{:#}\n", Value::from(rows)));
        }
        let lines: Vec<String> = rows.iter().map(|row| row.line(now())).collect();
        print(&lines.concat())
    }
}

/// All credentials of the configuration, and those that a running daemon still has.
pub(super) fn rows(file: &ConfigFile) -> Result<Vec<Row>, Failure> {
    let config = configuration(file)?;
    let socket = config.ops.control_socket.filter(|socket| answers(socket));
    let status = socket.map(|socket| ask(&socket, "status")).transpose()?;
    let mut served = status.as_ref().map(served);
    let mut row = |CredentialPlace { keystore, id, place, since, .. }: CredentialPlace| {
        let daemon = served.as_mut().map(|served| {
            let known =
                served.iter().position(|(k, i, _)| k == keystore.as_str() && i == id.as_str());
            let known = known.map(|at| served.remove(at));
            InDaemon { in_force: known.is_some(), last_used: known.and_then(|(_, _, used)| used) }
        });
        Row {
            keystore: keystore.as_str().to_owned(),
            id: id.as_str().to_owned(),
            place: Some(place),
            created: since.map(seconds),
            daemon,
        }
    };
    let mut rows: Vec<Row> = config.credentials.into_iter().map(&mut row).collect();
    // They are good until the daemon is reloaded.
    let left = served.into_iter().flatten().map(|(keystore, id, last_used)| {
        let daemon = Some(InDaemon { in_force: true, last_used });
        Row { keystore, id, place: None, created: None, daemon }
    });
    rows.extend(left);
    Ok(rows)
}

/// Key store, id and last use of every credential that a daemon has.
fn served(status: &Value) -> Vec<(String, String, Option<u64>)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let of = |keystore: Value| {
        let name = text(&keystore["name"]);
        let credentials = list(&keystore["credentials"]).into_iter();
        let one = move |credential: Value| {
            (name.clone(), text(&credential["access_key_id"]), credential["last_used"].as_u64())
        };
        credentials.map(one).collect::<Vec<_>>()
    };
    list(&status["keystores"]).into_iter().flat_map(of).collect()
}

impl Row {
    /// Whether this is that credential.
    pub(super) fn is(&self, keystore: &str, id: &str) -> bool {
        self.keystore == keystore && self.id == id
    }

    /// When it was last used, in words.
    pub(super) fn last_used(&self, now: u64) -> String {
        match self.daemon {
            None => "unknown".to_owned(),
            Some(InDaemon { last_used: None, .. }) => "not since xksd was started".to_owned(),
            Some(InDaemon { last_used: Some(at), .. }) => format!("{} ago", span(now, at)),
        }
    }

    fn line(&self, now: u64) -> String {
        let Self { keystore, id, place, created, daemon } = self;
        let age = created.map_or("unknown".to_owned(), |created| span(now, created));
        let used = self.last_used(now);
        let standing = match (place, daemon) {
            (None, _) => ", REVOKED, and good until the daemon is reloaded",
            (Some(_), Some(InDaemon { in_force: false, .. })) => {
                ", NOT YET IN FORCE: the daemon has not been reloaded"
            }
            _ => "",
        };
        let place = place.as_deref().unwrap_or("nowhere");
        format!("{keystore} {id}: age {age}, last used {used}, in {place}{standing}\n")
    }

    fn in_json(&self) -> Value {
        let Self { keystore, id, place, created, daemon } = self;
        json!({
            "keystore": keystore,
            "access_key_id": id,
            "place": place,
            "created": created,
            "age_seconds": created.map(|created| now().saturating_sub(created)),
            "in_force": daemon.map(|daemon| daemon.in_force),
            "last_used": daemon.and_then(|daemon| daemon.last_used),
        })
    }
}

pub(super) fn now() -> u64 {
    seconds(SystemTime::now())
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The time between, in its largest unit.
fn span(now: u64, then: u64) -> String {
    match now.saturating_sub(then) {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ ..7200 => format!("{} min", seconds / 60),
        seconds @ ..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} d", seconds / 86_400),
    }
}
