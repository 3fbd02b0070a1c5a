//! `xksd keys create` and `xksd keys rotate`

use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use rustix::process::{Signal, set_parent_process_death_signal};
use serde_json::json;

use super::super::failure::{print, say};
use super::change::Object;
use super::scope::{Scope, Unnamed, conclude};
use super::{Exit, Failure, words};
use crate::hsm::backend::{Leaves, NewKeyUsage};
use crate::hsm::key::{KeyKind, Usage};
use crate::lifecycle::{
    Birth, Error, Follow, Kind, Office, Order, Refusal, Source, bear, begin, begun, wish,
};
use crate::names::{ExternalKeyId, KeyVersion, ObjectId};

/// How long the other tokens may take to show a new object.
const REPLICATION_PATIENCE: &str = "30";

#[derive(Debug, Args)]
pub(in crate::cli) struct Create {
    /// External key id: 1 to 128 characters of A-Z a-z 0-9 - . _
    id: ExternalKeyId,
    #[command(flatten)]
    pub(super) scope: Scope,
    /// What it is for: encrypt,decrypt or one of them or none
    #[arg(long, default_value = "encrypt,decrypt")]
    usage: KeyUsage,
    /// Make it on all tokens of the key store, which do not copy keys by themselves: the first wraps it
    /// for each, under that token's own RSA key
    #[arg(long)]
    replicable: bool,
    /// Let it be brought to further tokens later, by `replicate`, wrapped under keys that the security
    /// officer trusts (`trust`) and no others
    #[arg(long, requires = "replicable")]
    under_trusted: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Print the new key as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Rotate {
    /// External key id
    id: ExternalKeyId,
    #[command(flatten)]
    pub(super) scope: Scope,
    /// How many seconds the other tokens of the key store may take to show the new object
    #[arg(long, value_name = "SECONDS", default_value = REPLICATION_PATIENCE)]
    wait: u16,
    /// Make it on all tokens of the key store as `create --replicable` does; a key made so does without
    #[arg(long)]
    replicable: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Print the new version as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    unattended: Unattended,
}

/// How a daemon has a key rotated, in two commands; people do not.
#[derive(Debug, Args)]
struct Unattended {
    /// Number and object id of the newest version: if it is another, there is nothing to do
    #[arg(long, hide = true, value_name = "VERSION:OBJECT-ID")]
    follow: Option<Newest>,
    /// Only make the next version, as pending
    #[arg(long, hide = true, requires = "follow")]
    begin: bool,
    /// Object id of what was made so
    #[arg(long, hide = true, value_name = "OBJECT-ID", requires = "follow")]
    #[arg(conflicts_with = "begin")]
    own: Option<Object>,
}

/// `--follow`
#[derive(Debug, Clone, Copy)]
struct Newest(KeyVersion, ObjectId);

impl FromStr for Newest {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (version, object_id) = text.split_once(':')?;
            let version = KeyVersion::new(version.parse().ok()?);
            Some(Self(version, ObjectId::from_hex(object_id)?))
        };
        parse().ok_or("must be a version's number and its object id, with a colon between")
    }
}

impl Unattended {
    fn kind(&self) -> Kind {
        match self.follow {
            None => Kind::Rotate,
            Some(Newest(version, object_id)) => {
                let own = self.own.map(|Object(object_id)| object_id);
                Kind::Follow(Follow { newest: (version, object_id), own })
            }
        }
    }
}

/// `--usage`
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyUsage(pub(super) NewKeyUsage);

impl FromStr for KeyUsage {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let usage = match text {
            "encrypt,decrypt" | "decrypt,encrypt" => NewKeyUsage { encrypt: true, decrypt: true },
            "encrypt" => NewKeyUsage { encrypt: true, decrypt: false },
            "decrypt" => NewKeyUsage { encrypt: false, decrypt: true },
            "none" => NewKeyUsage { encrypt: false, decrypt: false },
            _ => return Err("must be `encrypt,decrypt`, `encrypt`, `decrypt` or `none`"),
        };
        Ok(Self(usage))
    }
}

impl Create {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let unnamed = if self.replicable { Unnamed::Group } else { Unnamed::One };
        let mut office = self.scope.open(unnamed)?;
        let order = order(Kind::Create(self.usage.0), self.replicable, Duration::ZERO);
        let order = match self.under_trusted {
            true => Order { leaves: Leaves::UnderTrusted, ..order },
            false => order,
        };
        if self.dry_run {
            return would_bear(&mut office, &self.id, &order, self.json);
        }
        let birth = match bear(&mut office, &self.id, &order) {
            Ok(birth) => birth,
            Err(error) => return refused(&office, &self.id, error),
        };
        let usage = usage(birth.usage);
        if self.json {
            return tell(&office, &self.id, &birth);
        }
        let (usage, place) = (words::usage_words(usage), words::place(&office));
        say(&format!("made the AES-256 key `{}` in {place} (usage {usage})", self.id));
        Ok(())
    }
}

impl Rotate {
    pub(super) fn run(&self) -> Result<(), Failure> {
        if let Some(keystore) = self.scope.knows_no_versions(&self.id)? {
            let failure = format!(
                "key store `{keystore}` writes the ciphertexts of AWS's sample proxy, which know no \
                 versions: with a second one nothing could be encrypted under `{}`",
                self.id
            );
            let hint = format!("first take `encrypt_as` out of [keystores.{keystore}], for good");
            return Err(Failure::new(Exit::CannotCreate, failure).hint(hint));
        }
        let kind = self.unattended.kind();
        if matches!(kind, Kind::Follow(_)) {
            // What is left of it then is in order, and another daemon goes on.
            let bound = set_parent_process_death_signal(Some(Signal::KILL));
            bound.map_err(|error| Failure::new(Exit::OsError, error))?;
        }
        let mut office = self.scope.open(Unnamed::Group)?;
        let patience = Duration::from_secs(self.wait.into());
        let order = order(kind, self.replicable, patience);
        if self.dry_run {
            return would_bear(&mut office, &self.id, &order, self.json);
        }
        if self.unattended.begin {
            return self.begin(&mut office, &order);
        }
        let birth = match bear(&mut office, &self.id, &order) {
            Ok(birth) => birth,
            Err(error) => return self.refused(&office, kind, error),
        };
        if self.json {
            tell(&office, &self.id, &birth)?;
        } else {
            let how = if birth.was_begun { ", which another run had begun," } else { "" };
            let (version, status) = (birth.state.version, birth.state.status.as_str());
            say(&format!("version {version} of `{}`{how} is {status}", self.id));
        }
        conclude(&office, &self.id, Ok(()))
    }

    /// Prints the object id of what was made; `null` if somebody else had begun.
    fn begin(&self, office: &mut Office, order: &Order) -> Result<(), Failure> {
        match begin(office, &self.id, order) {
            Ok(own) => {
                let own = own.map(|object_id| object_id.to_string());
                print(&format!("{}\n", json!({ "own": own })))
            }
            Err(error) => self.refused(office, order.kind, error),
        }
    }

    fn refused(&self, office: &Office, kind: Kind, error: Error) -> Result<(), Failure> {
        match (kind, error) {
            (Kind::Follow(_), Error::Refused(Refusal::Overtaken)) => {
                say(&format!("nothing to do: `{}` was rotated by somebody else", self.id));
                conclude(office, &self.id, Ok(()))
            }
            (_, error) => refused(office, &self.id, error),
        }
    }
}

fn order(kind: Kind, replicable: bool, patience: Duration) -> Order {
    let order = Order::generated(kind, patience);
    if replicable { Order { source: Source::Shared, ..order } } else { order }
}

/// Says what would be made.
pub(super) fn would_bear(
    office: &mut Office,
    id: &ExternalKeyId,
    order: &Order,
    as_json: bool,
) -> Result<(), Failure> {
    let wished = office.survey(id).and_then(|survey| {
        let wished = wish(&survey, order)?;
        let (is_begun, _) = begun(&survey, &wished, office.len());
        Ok((wished, is_begun.is_some()))
    });
    let (wished, is_begun) = match wished {
        Ok(wished) => wished,
        Err(error) => return refused(office, id, error),
    };
    if as_json {
        let key = json!({
            "id": id.as_str(),
            "token": office.name(0).as_str(),
            "tokens": words::tokens(office),
            "version": wished.version.number(),
            "origin": wished.origin.as_str(),
            "usage": words::usages(usage(wished.usage)),
            "was_begun": is_begun,
            "dry_run": true,
        });
        return print(&format!("{key:#}\n"));
    }
    let verb = if is_begun { "complete" } else { "make" };
    let (version, place) = (wished.version, words::place(office));
    say(&format!("would {verb} version {version} of `{id}` in {place}"));
    conclude(office, id, Ok(()))
}

pub(super) fn tell(office: &Office, id: &ExternalKeyId, birth: &Birth) -> Result<(), Failure> {
    let Birth { state, was_begun, .. } = birth;
    let key = json!({
        "id": id.as_str(),
        "token": office.name(0).as_str(),
        "tokens": words::tokens(office),
        "version": state.version.number(),
        "object_id": state.object_id.to_string(),
        "status": state.status.as_str(),
        "epoch": state.epoch,
        "created": state.created.iso(),
        "origin": state.origin.as_str(),
        "key_spec": words::spec(&KeyKind::Aes { bits: 256 }),
        "usage": words::usages(usage(birth.usage)),
        "was_begun": was_begun,
        "dry_run": false,
    });
    print(&format!("{key:#}\n"))
}

pub(super) fn refused(office: &Office, id: &ExternalKeyId, error: Error) -> Result<(), Failure> {
    let exists = matches!(error, Error::Refused(Refusal::Exists));
    let not_replicated = matches!(error, Error::Refused(Refusal::NotReplicated(_)));
    let failure = conclude(office, id, Err(error)).err();
    failure.map_or(Ok(()), |failure| {
        Err(if exists {
            failure.hint("`xksd keys list` shows it; a second one would make the key id ambiguous")
        } else if not_replicated {
            failure
                .hint("nothing was changed: the key is in use as before")
                .hint("--replicable has the first token wrap the new version for the others")
        } else {
            failure
        })
    })
}

pub(super) fn usage(NewKeyUsage { encrypt, decrypt }: NewKeyUsage) -> Usage {
    Usage { encrypt, decrypt, ..Usage::default() }
}
